# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which clusters are trusted pools, and which of their VMs need trust. Pure.

A cluster is a pool when its scheduling policy contains our filter unit. It stays one until two
complete listings in a row show another policy: an error, an empty list or a disabled unit never
removes a wall.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Optional

from ovirt_tcp_plugin.placement import decision, filter_unit
from ovirt_tcp_plugin.placement.decision import Scope, VmTrust
from ovirt_tcp_plugin.placement.inventory import Cluster, Listing, Notice, Vm, shortened

# So many complete listings in a row have to show that a cluster is no pool any more.
LISTINGS_TO_END = 2


@dataclasses.dataclass(frozen=True)
class Pool:
    """A trusted pool: a cluster, and who in it needs trust."""

    cluster_id: str
    name: str
    scope: Scope
    missed: int = 0


@dataclasses.dataclass(frozen=True)
class PoolChanges:
    """What a listing changed: pools that ended, and what the administrator has to know."""

    ended: tuple[Pool, ...] = ()
    notices: tuple[Notice, ...] = ()


def exempt_vms(configured: Iterable[str], vms: Iterable[Vm]) -> frozenset[str]:
    """Return the ids of the VMs that may run anywhere.

    Args:
        configured: the option `exempt_vms`. The VM that carries the engine is exempt, too: without
            it nobody could repair what keeps VMs from starting.
    """
    engine_vms = {vm.id for vm in vms if vm.hosted_engine}
    return frozenset(configured) | engine_vms


def needs_trust(vm: Vm, pool: Optional[Pool], exempt: Collection[str]) -> bool:
    """Return whether a VM must run on a trusted host.

    Args:
        pool: that of the VM's cluster; None if that is no pool, where nothing keeps VMs anywhere.
        exempt: as `exempt_vms` returns them.
    """
    if pool is None:
        return False
    return decision.needs_trust(VmTrust(vm.marked, vm.id in exempt), pool.scope)


class Pools:
    """The trusted pools by cluster id. Not thread-safe."""

    def __init__(self) -> None:
        self.by_cluster: dict[str, Pool] = {}
        # Listings in a row that showed a wall in a cluster which is no pool.
        self._left_walls: dict[str, int] = {}

    def update(self, listing: Listing) -> PoolChanges:
        """Take a complete listing into account."""
        if not listing.clusters:
            return PoolChanges()
        unit_ids = {unit.id for unit in listing.units if unit.name == filter_unit.NAME}
        notices = self._take_pools(listing, unit_ids)
        ended = self._left(listing, unit_ids)
        ended += self._missed(listing, unit_ids)
        notices += [_ended(pool, listing) for pool in ended]
        return PoolChanges(tuple(ended), tuple(notices))

    def _take_pools(self, listing: Listing, unit_ids: Collection[str]) -> list[Notice]:
        """Take over the pools that a listing shows; return warnings about their clusters."""
        notices: list[Notice] = []
        for cluster in listing.clusters:
            scope = _scope(cluster, listing, unit_ids)
            if scope is not None:
                self.by_cluster[cluster.id] = Pool(cluster.id, cluster.name, scope)
                notices += _warnings(cluster)
        return notices

    def _left(self, listing: Listing, unit_ids: Collection[str]) -> list[Pool]:
        """Return the pools that ended while the broker was down: only their walls show that."""
        left: list[Pool] = []
        listings: dict[str, int] = {}
        for cluster in listing.clusters:
            if cluster.id not in listing.walls or cluster.id in self.by_cluster:
                continue
            if not _is_no_pool(cluster, listing, unit_ids):
                continue
            listings[cluster.id] = self._left_walls.get(cluster.id, 0) + 1
            if listings[cluster.id] >= LISTINGS_TO_END:
                left.append(Pool(cluster.id, cluster.name, Scope.ALL_VMS))
        self._left_walls = listings
        return left

    def _missed(self, listing: Listing, unit_ids: Collection[str]) -> list[Pool]:
        """Return the known pools that end with this listing, and forget them."""
        clusters = {cluster.id: cluster for cluster in listing.clusters}
        ended: list[Pool] = []
        for pool in list(self.by_cluster.values()):
            cluster = clusters.get(pool.cluster_id)
            if cluster is not None and not _is_no_pool(cluster, listing, unit_ids):
                continue
            missed = dataclasses.replace(pool, missed=pool.missed + 1)
            if missed.missed < LISTINGS_TO_END:
                self.by_cluster[pool.cluster_id] = missed
            else:
                del self.by_cluster[pool.cluster_id]
                ended.append(pool)
        return ended


def _is_no_pool(cluster: Cluster, listing: Listing, unit_ids: Collection[str]) -> bool:
    """Return whether a listing shows clearly that a cluster's policy lacks our unit."""
    if not unit_ids or listing.policy(cluster) is None:
        return False
    return _scope(cluster, listing, unit_ids) is None


def _scope(cluster: Cluster, listing: Listing, unit_ids: Collection[str]) -> Optional[Scope]:
    """Return who needs trust in a cluster, None if its policy does not have our unit.

    A value that is not understood is strict.
    """
    policy = listing.policy(cluster)
    if policy is None or policy.filter_ids.isdisjoint(unit_ids):
        return None
    name = filter_unit.SCOPE_PROPERTY
    value = cluster.properties.get(name) or policy.properties.get(name)
    return Scope.MARKED_VMS if value == Scope.MARKED_VMS.value else Scope.ALL_VMS


def _warnings(cluster: Cluster) -> Iterable[Notice]:
    if cluster.trusted_service:
        text = (
            f"Cluster {cluster.name} has trusted_service set. On oVirt 4.4 and later this takes "
            "its hosts out of service at their next activation: edit the cluster and switch it "
            "off; the trusted pool works without it."
        )
        key = f"trusted_service {cluster.id}"
        yield Notice(key, "warning", text, cluster_id=cluster.id)


def _ended(pool: Pool, listing: Listing) -> Notice:
    vms = [vm.name for vm in listing.vms if vm.cluster_id == pool.cluster_id]
    text = (
        f"Cluster {pool.name} is no trusted pool any more: its policy has no {filter_unit.NAME}. "
        f"VMs: {shortened(vms)}."
    )
    key = f"pool_ended {pool.cluster_id}"
    return Notice(key, "warning", text, cluster_id=pool.cluster_id)
