# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Clusters, their scheduling policy and their additional features."""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine import audit_log, request_documents
from ovirt_tcp_plugin.lab.engine.documents import affinity_groups, inventory
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, SimulatedCluster
from ovirt_tcp_plugin.lab.engine.rest import properties
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes, follows
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_NO_ATTESTATION_SERVER = "[Attestation server should be configured correctly.]"
_UNSUPPORTED_FEATURE = (
    "Cannot edit Cluster. The feature is not supported by an Up Host of the cluster."
)


class ClusterPaths:
    """`clusters`.

    Args:
        attestation_server: the value of AttestationServer, which only `trusted_service` needs.
    """

    def __init__(self, tables: Model, attestation_server: str) -> None:
        self._model = tables
        self._attestation_server = attestation_server
        self.routes: Routes = {
            "GET clusters": self._list,
            "GET clusters/{}": self._get,
            "PUT clusters/{}": self._update,
            "GET clusters/{}/enabledfeatures": self._features,
            "POST clusters/{}/enabledfeatures": self._enable_feature,
        }

    def _list(self, query: Query, _: Element) -> Element:
        clusters = self._model.clusters.values()
        if not follows(query, "affinity_groups"):
            return listing("clusters", map(inventory.cluster, clusters))
        groups = self._groups_by_cluster()
        rows = [inventory.cluster(cluster, groups[cluster.id]) for cluster in clusters]
        return listing("clusters", rows)

    def _groups_by_cluster(self) -> dict[str, list[Element]]:
        groups: dict[str, list[Element]] = {uid: [] for uid in self._model.clusters}
        for group in self._model.groups.values():
            groups[group.cluster].append(affinity_groups.group(group, self._model))
        return groups

    def _get(self, query: Query, _: Element, uid: str) -> Element:
        return inventory.cluster(self._model.clusters.find(uid))

    def _update(self, query: Query, document: Element, uid: str) -> Element:
        cluster = self._model.clusters.find(uid)
        trusted_service = document.findtext("trusted_service")
        if trusted_service == "true" and not self._attestation_server:
            raise Fault(400, "Operation Failed", _NO_ATTESTATION_SERVER)
        self._update_policy(cluster, document)
        if trusted_service is not None:
            cluster.trusted_service = trusted_service == "true"
        text = f"Host cluster {cluster.name} was updated by {self._model.acting_name()}"
        self._model.log(audit_log.CLUSTER_UPDATED, text, cluster=uid)
        return inventory.cluster(cluster, edited=True)

    def _update_policy(self, cluster: SimulatedCluster, document: Element) -> None:
        policy_id = request_documents.identifier(document, "scheduling_policy")
        if policy_id not in self._model.policies:
            # It is looked for by its name then, which is the present one's.
            policy_id = cluster.policy
        path = "custom_scheduling_policy_properties"
        changes = request_documents.properties(document, path) or {}
        values = self._model.saved_properties(policy_id, {**cluster.properties, **changes})
        known = self._model.understood(self._model.policies[policy_id])
        properties.validate("edit Cluster", known, values)
        cluster.policy = policy_id
        cluster.properties = values

    def _features(self, query: Query, _: Element, uid: str) -> Element:
        cluster = self._model.clusters.find(uid)
        return listing("cluster_features", map(inventory.feature, cluster.features))

    def _enable_feature(self, query: Query, document: Element, uid: str) -> Element:
        cluster = self._model.clusters.find(uid)
        name = document.get("id", "")
        hosts = self._model.up_hosts(cluster.id)
        if any(name not in host.features for host in hosts):
            raise refusal(_UNSUPPORTED_FEATURE)
        cluster.features.append(name)
        return inventory.feature(name)
