# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which affinity groups of administrators contradict a wall, as events say. Pure.

Each is reported when it is seen first: of a cluster that becomes a pool, before its wall is filled.
"""

from __future__ import annotations

from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.engine.affinity_conflicts import conflicts
from ovirt_tcp_plugin.placement.inventory import Listing, Notice, Vm


def notices(listing: Listing, inventory: InventoryView) -> list[Notice]:
    """Return what is to be reported of the groups in a listing that `inventory` has taken over."""
    pools = inventory.pools.by_cluster
    groups = [group for group in listing.groups if group.cluster_id in pools]
    members: dict[str, Vm] = {}
    for group in groups:
        for vm_id in group.vm_ids:
            vm = inventory.vms.by_id.get(vm_id)
            if vm is not None:
                members[vm_id] = vm
    reports: list[Notice] = []
    for conflict in conflicts(pools, members.values(), groups, inventory.exempt):
        text = f"{conflict.text} {conflict.next_step[0].upper()}{conflict.next_step[1:]}."
        key = f"rule_conflict {conflict.group_id} {conflict.of_hosts} {conflict.forbids}"
        severity = "error" if conflict.of_hosts else "warning"
        reports.append(Notice(key, severity, text, cluster_id=conflict.cluster_id))
    return reports
