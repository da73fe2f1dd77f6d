# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What affinity of VMs to hosts means: the filter, and whom the enforcer may move.

Sources: `VmToHostAffinityFilterPolicyUnit`, `AffinityRulesEnforcer`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovirt_tcp_plugin.lab.engine.model import UP, Cluster, Host, Model, Vm


def allowed(tables: Model, vm: Vm, hosts: Iterable[Host]) -> list[Host]:
    """Return the hosts that the enforcing groups of a VM leave. An empty list of a positive rule rejects every host."""
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
    """Return the VMs of a cluster that run where an enforcing group forbids it and that may be moved.

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
    found = [tables.vms[one] for one in sorted(violations, key=lambda one: (violations[one], tables.vms[one].name))]
    return [vm for vm in found if vm.status == UP and vm.affinity == "migratable" and not vm.hosted_engine]
