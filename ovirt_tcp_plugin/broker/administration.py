# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator asks of the engine and the broker never does, by the oVirt SDK: `setup` and `doctor` use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovirt_tcp_plugin.broker.conflicts import AffinityGroup, Rule
from ovirt_tcp_plugin.broker.sdk import Access, Sdk


class Administration:
    """The engine's REST API for an administrator. Every method raises what `Sdk.call` does."""

    def __init__(self, access: Access) -> None:
        self._call = Sdk(access).call

    def forbidding_groups(self, cluster_ids: Iterable[str]) -> tuple[AffinityGroup, ...]:
        """Return the affinity groups of these clusters with a rule that keeps members apart, for `conflicts`."""

        def groups(system: Any) -> tuple[AffinityGroup, ...]:
            return tuple(one for uid in cluster_ids for one in _forbidding(system, uid))

        return self._call("list affinity groups", groups)


def _forbidding(system: Any, cluster_id: str) -> Iterable[AffinityGroup]:
    service = system.clusters_service().cluster_service(cluster_id).affinity_groups_service()
    for group in service.list():
        rules = _rule(group.hosts_rule), _rule(group.vms_rule)
        if any(rule.forbids for rule in rules):
            members = service.group_service(group.id)
            yield AffinityGroup(group.id, group.name, cluster_id, *rules, *_members(system, members))


def _rule(rule: Any) -> Rule:
    return Rule(bool(rule.enabled), bool(rule.enforcing), bool(rule.positive)) if rule else Rule()


def _members(system: Any, group: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of a group's hosts and VMs, those that bear its labels among them."""
    hosts = {host.id for host in group.hosts_service().list()}
    vms = {vm.id for vm in group.vms_service().list()}
    labels = system.affinity_labels_service()
    for label in group.host_labels_service().list():
        hosts |= {host.id for host in labels.label_service(label.id).hosts_service().list()}
    for label in group.vm_labels_service().list():
        vms |= {vm.id for vm in labels.label_service(label.id).vms_service().list()}
    return frozenset(hosts), frozenset(vms)
