# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What affinity of VMs to hosts means: the filter, and whom the enforcer may move.

Sources: `VmToHostAffinityFilterPolicyUnit`, `AffinityRulesEnforcer`, `AffinityRulesUtils`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovirt_tcp_plugin.lab.engine.model import UP, AffinityGroup, Cluster, Host, Model, Vm


def allowed(tables: Model, vm: Vm, hosts: Iterable[Host]) -> list[Host]:
    """Return the hosts that the enforcing groups of a VM leave. An empty list of a positive rule
    rejects every host."""
    left = list(hosts)
    for group in tables.groups.values():
        rule = group.hosts_rule
        if group.cluster != vm.cluster or not (rule.enabled and rule.enforcing):
            continue
        host_ids, vm_ids = tables.members(group)
        if vm.id in vm_ids:
            left = [host for host in left if (host.id in host_ids) is rule.positive]
    return left


def violators(tables: Model, cluster: Cluster) -> list[Vm]:
    """Return the VMs of a cluster that run where an enforcing group forbids it and that may be
    moved.

    A group without hosts moves nobody, and nobody is moved while any VM of the cluster migrates.
    """
    if any(vm.migrating_to for vm in tables.vms.of(cluster.id)):
        return []
    violations: dict[str, int] = {}
    for group in tables.groups.values():
        rule = group.hosts_rule
        if group.cluster != cluster.id or not (rule.enabled and rule.enforcing):
            continue
        host_ids, vm_ids = tables.members(group)
        if not host_ids:
            continue
        for vm in (tables.vms[one] for one in vm_ids if one in tables.vms):
            if vm.host and (vm.host in host_ids) is not rule.positive:
                violations[vm.id] = violations.get(vm.id, 0) + 1
    found = [
        tables.vms[one]
        for one in sorted(violations, key=lambda one: (violations[one], tables.vms[one].name))
    ]
    return [
        vm
        for vm in found
        if vm.status == UP and vm.affinity == "migratable" and not vm.hosted_engine
    ]


def collision(tables: Model, edited: AffinityGroup) -> str:
    """Return why the engine does not save a group, empty if it does.

    It looks at the hosts' enforcing rules of all groups of the cluster, in whatever group they
    contradict each other (`checkForAffinityGroupHostsConflict`; of its kinds this and the one
    between VMs alone cannot be saved).
    """
    groups = [
        group
        for group in tables.groups.values()
        if group.cluster == edited.cluster and group.id != edited.id
    ]
    groups.append(edited)
    enforcing = [
        group for group in groups if group.hosts_rule.enabled and group.hosts_rule.enforcing
    ]
    names: set[str] = set()
    common_hosts: set[str] = set()
    common_vms: set[str] = set()
    for negative in enforcing:
        for positive in enforcing:
            if negative.hosts_rule.positive or not positive.hosts_rule.positive:
                continue
            negative_hosts, negative_vms = tables.members(negative)
            positive_hosts, positive_vms = tables.members(positive)
            hosts = negative_hosts & positive_hosts
            vms = negative_vms & positive_vms
            if hosts and vms:
                names |= {negative.name, positive.name}
                common_hosts |= hosts
                common_vms |= vms
    if not names:
        return ""
    host_names = ",".join(
        sorted(tables.hosts[uid].name for uid in common_hosts if uid in tables.hosts)
    )
    vm_names = ",".join(sorted(tables.vms[uid].name for uid in common_vms if uid in tables.vms))
    # Four messages of one refusal, which REST joins.
    return (
        "The following affinity groups, containing the indicated hosts and VMs, have VM to host "
        "conflicts between "
        "positive and negative enforcing affinity groups., "
        f"Affinity Groups: {','.join(sorted(names))}, Hosts: {host_names}, VMs: {vm_names}"
    )
