# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What affinity of VMs to hosts means: the filter, and which VMs the enforcer may move.

Sources: `VmToHostAffinityFilterPolicyUnit`, `AffinityRulesEnforcer`, `AffinityRulesUtils`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovirt_tcp_plugin.lab.engine.model import (
    UP,
    AffinityGroup,
    Model,
    SimulatedCluster,
    SimulatedHost,
    SimulatedVm,
)


def allowed(tables: Model, vm: SimulatedVm, hosts: Iterable[SimulatedHost]) -> list[SimulatedHost]:
    """Return the hosts that the enforcing groups of a VM leave.

    An empty list of a positive rule rejects every host.
    """
    left = list(hosts)
    for group in _enforcing_groups(tables, vm.cluster):
        host_ids, vm_ids = tables.members(group)
        if vm.id in vm_ids:
            left = [host for host in left if (host.id in host_ids) is group.hosts_rule.positive]
    return left


def _enforcing_groups(tables: Model, cluster_id: str) -> list[AffinityGroup]:
    groups = [group for group in tables.groups.values() if group.cluster == cluster_id]
    return [group for group in groups if _enforces(group)]


def _enforces(group: AffinityGroup) -> bool:
    return group.hosts_rule.enabled and group.hosts_rule.enforcing


def violators(tables: Model, cluster: SimulatedCluster) -> list[SimulatedVm]:
    """Return the VMs that run where an enforcing group of their cluster forbids it, and may move.

    A group without hosts moves nobody, and nobody is moved while any VM of the cluster migrates.
    """
    if any(vm.migrating_to for vm in tables.vms.of(cluster.id)):
        return []
    violations: Counter[str] = Counter()
    for group in _enforcing_groups(tables, cluster.id):
        violations.update(_violators_of(tables, group))

    def rank(vm: SimulatedVm) -> tuple[int, str]:
        return violations[vm.id], vm.name

    vms = [tables.vms[uid] for uid in violations]
    return sorted(filter(_may_move, vms), key=rank)


def _violators_of(tables: Model, group: AffinityGroup) -> list[str]:
    host_ids, vm_ids = tables.members(group)
    violators: list[str] = []
    if not host_ids:
        return violators
    for vm_id in vm_ids:
        vm = tables.vms.get(vm_id)
        if vm is None or not vm.host:
            continue
        if (vm.host in host_ids) is not group.hosts_rule.positive:
            violators.append(vm_id)
    return violators


def _may_move(vm: SimulatedVm) -> bool:
    return vm.status == UP and vm.affinity == "migratable" and not vm.hosted_engine


@dataclasses.dataclass(frozen=True)
class _Conflicts:
    """Groups that contradict each other, and the hosts and VMs about which they do.

    Attributes:
        groups: names.
        hosts, vms: ids.
    """

    groups: set[str] = dataclasses.field(default_factory=set)
    hosts: set[str] = dataclasses.field(default_factory=set)
    vms: set[str] = dataclasses.field(default_factory=set)


def collision(tables: Model, edited: AffinityGroup) -> str:
    """Return why the engine does not save a group, empty if it does.

    It looks at the hosts' enforcing rules of all groups of the cluster, in whatever group they
    contradict each other (`checkForAffinityGroupHostsConflict`; of its kinds this and the one
    between VMs alone cannot be saved).
    """
    groups = _enforcing_groups(tables, edited.cluster)
    groups = [group for group in groups if group.id != edited.id]
    if _enforces(edited):
        groups.append(edited)
    conflicts = _conflicts(tables, groups)
    if not conflicts.groups:
        return ""
    group_names = ",".join(sorted(conflicts.groups))
    host_names = _names(conflicts.hosts, tables.hosts)
    vm_names = _names(conflicts.vms, tables.vms)
    # Four messages of one refusal, which REST joins.
    return (
        "The following affinity groups, containing the indicated hosts and VMs, have VM to host "
        "conflicts between positive and negative enforcing affinity groups., "
        f"Affinity Groups: {group_names}, Hosts: {host_names}, VMs: {vm_names}"
    )


def _conflicts(tables: Model, groups: Sequence[AffinityGroup]) -> _Conflicts:
    conflicts = _Conflicts()
    positive_groups = [group for group in groups if group.hosts_rule.positive]
    negative_groups = [group for group in groups if not group.hosts_rule.positive]
    for negative in negative_groups:
        for positive in positive_groups:
            hosts, vms = _common_members(tables, negative, positive)
            if hosts and vms:
                conflicts.groups.update({negative.name, positive.name})
                conflicts.hosts.update(hosts)
                conflicts.vms.update(vms)
    return conflicts


def _common_members(
    tables: Model, first: AffinityGroup, second: AffinityGroup
) -> tuple[set[str], set[str]]:
    first_hosts, first_vms = tables.members(first)
    second_hosts, second_vms = tables.members(second)
    return first_hosts & second_hosts, first_vms & second_vms


def _names(uids: Iterable[str], rows: Mapping[str, Any]) -> str:
    names = [rows[uid].name for uid in uids if uid in rows]
    return ",".join(sorted(names))
