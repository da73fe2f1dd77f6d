# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Clusters, their scheduling policy and their additional features."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import audit_log, documents
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import Cluster, Model
from ovirt_tcp_plugin.lab.engine.rest import properties

_NO_ATTESTATION_SERVER = "[Attestation server should be configured correctly.]"


class ClusterPaths:
    """`clusters`. `attestation_server` is the value of AttestationServer, which only
    `trusted_service` needs."""

    def __init__(self, tables: Model, attestation_server: str) -> None:
        self._model, self._attestation_server = tables, attestation_server
        self.routes: dict[str, Callable[..., Element]] = {
            "GET clusters": self._list,
            "GET clusters/{}": self._get,
            "PUT clusters/{}": self._update,
            "GET clusters/{}/enabledfeatures": self._features,
            "POST clusters/{}/enabledfeatures": self._enable_feature,
        }

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            follows = "affinity_groups" in query.get("follow", "").split(",")
            groups: dict[str, list[Element]] = {uid: [] for uid in self._model.clusters}
            for group in self._model.groups.values() if follows else ():
                groups[group.cluster].append(documents.group(group, self._model))
            shown = [
                documents.cluster(one, groups[uid] if follows else None)
                for uid, one in self._model.clusters.items()
            ]
            return documents.listing("clusters", shown)

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        return documents.cluster(self._model.find("clusters", uid))

    def _update(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        with self._model.lock:
            cluster: Cluster = self._model.find("clusters", uid)
            trusted = documents.text(given, "trusted_service")
            if trusted == "true" and not self._attestation_server:
                raise Fault(400, "Operation Failed", _NO_ATTESTATION_SERVER)
            policy = documents.identifier(given, "scheduling_policy")
            if policy not in self._model.policies:
                policy = (
                    cluster.policy
                )  # it is looked for by its name then, which is the present one's
            given_values = documents.properties(given, "custom_scheduling_policy_properties") or {}
            values = self._model.saved_properties(policy, {**cluster.properties, **given_values})
            known = self._model.understood(self._model.policies[policy])
            properties.validate("edit Cluster", known, values)
            cluster.trusted_service = (
                cluster.trusted_service if trusted is None else trusted == "true"
            )
            cluster.policy, cluster.properties = policy, values
            text = f"Host cluster {cluster.name} was updated by {self._model.acting_name()}"
            self._model.log(audit_log.CLUSTER_UPDATED, text, cluster=uid)
            return documents.cluster(cluster, edited=True)

    def _features(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return documents.listing(
                "cluster_features",
                map(documents.feature, self._model.find("clusters", uid).features),
            )

    def _enable_feature(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        with self._model.lock:
            cluster: Cluster = self._model.find("clusters", uid)
            name = given.get("id", "")
            if any(name not in host.features for host in self._model.up_hosts(cluster.id)):
                raise refusal(
                    "Cannot edit Cluster. The feature is not supported by an Up Host of the "
                    "cluster."
                )
            cluster.features.append(name)
            return documents.feature(name)
