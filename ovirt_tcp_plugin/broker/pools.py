# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which clusters are trusted pools, and by which names their hosts are known. Pure.

A cluster is a pool when its scheduling policy contains our filter unit. It stays one until two complete listings in a
row show another policy: an error, an empty list or a disabled unit never removes a wall.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Optional

from ovirt_tcp_plugin.broker.decision import Scope
from ovirt_tcp_plugin.broker.inventory import UNIT_NAME, Cluster, Host, Listing, Notice, shortened

SCOPE_PROPERTY = "trust_scope"
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
class Change:
    """What a listing changed: pools that ended, and what the administrator has to know."""

    ended: tuple[Pool, ...] = ()
    notices: tuple[Notice, ...] = ()


class Pools:
    """The trusted pools by cluster id. Not thread-safe."""

    def __init__(self) -> None:
        self.by_cluster: dict[str, Pool] = {}
        # Listings in a row that showed a wall in a cluster which is no pool.
        self._left_walls: dict[str, int] = {}

    def update(self, listing: Listing) -> Change:
        """Take a complete listing into account."""
        if not listing.clusters:
            return Change()
        ended: list[Pool] = []
        notices: list[Notice] = []
        shown = {cluster.id: cluster for cluster in listing.clusters}
        units = {unit.id for unit in listing.units if unit.name == UNIT_NAME}
        for cluster in listing.clusters:
            scope = _scope(cluster, listing, units)
            if scope is not None:
                self.by_cluster[cluster.id] = Pool(cluster.id, cluster.name, scope)
                notices += _warnings(cluster, listing)
        for pool in self._left(listing, units):
            ended.append(pool)
            notices.append(_ended(pool, listing))
        for pool in list(self.by_cluster.values()):
            known = shown.get(pool.cluster_id)
            if known is not None and (_scope(known, listing, units) or listing.policy(known) is None or not units):
                continue
            missed = dataclasses.replace(pool, missed=pool.missed + 1)
            self.by_cluster[pool.cluster_id] = missed
            if missed.missed >= LISTINGS_TO_END:
                del self.by_cluster[pool.cluster_id]
                ended.append(pool)
                notices.append(_ended(pool, listing))
        return Change(tuple(ended), tuple(notices))

    def _left(self, listing: Listing, units: Collection[str]) -> list[Pool]:
        """Return the pools that ended while the broker was down: only their walls tell of them."""
        suspects = [
            Pool(cluster.id, cluster.name, Scope.ALL_VMS)
            for cluster in listing.clusters
            if cluster.id in listing.walls and cluster.id not in self.by_cluster
            if units and listing.policy(cluster) is not None
        ]
        self._left_walls = {pool.cluster_id: self._left_walls.get(pool.cluster_id, 0) + 1 for pool in suspects}
        return [pool for pool in suspects if self._left_walls[pool.cluster_id] >= LISTINGS_TO_END]


def names(hosts: Iterable[Host], configured: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the name to ask for by host id, and the ids of hosts that share a name and so have none.

    Args:
        configured: the option `host_names`, engine host name -> name at the attestation server.
    """
    wanted = {host.id: configured.get(host.name, host.address).lower() for host in hosts}
    owners: dict[str, list[str]] = {}
    for host_id, name in wanted.items():
        owners.setdefault(name, []).append(host_id)
    shared = frozenset(host_id for ids in owners.values() if len(ids) > 1 for host_id in ids)
    return {host_id: name for host_id, name in wanted.items() if host_id not in shared}, shared


def _scope(cluster: Cluster, listing: Listing, units: Iterable[str]) -> Optional[Scope]:
    """Return who needs trust in a cluster, None if its policy has not our unit. What is not understood is strict."""
    policy = listing.policy(cluster)
    if policy is None or not policy.filter_ids & set(units):
        return None
    value = cluster.properties.get(SCOPE_PROPERTY) or policy.properties.get(SCOPE_PROPERTY)
    return Scope.MARKED_VMS if value == Scope.MARKED_VMS.value else Scope.ALL_VMS


def _warnings(cluster: Cluster, listing: Listing) -> Iterable[Notice]:
    if cluster.trusted_service:
        text = (
            f"Cluster {cluster.name} has trusted_service set. On oVirt 4.4 and later this takes its hosts out of service at "
            "their next activation: edit the cluster and switch it off; the trusted pool works without it."
        )
        yield Notice(f"trusted_service {cluster.id}", "warning", text, cluster_id=cluster.id)


def _ended(pool: Pool, listing: Listing) -> Notice:
    members = [vm.name for vm in listing.vms if vm.cluster_id == pool.cluster_id]
    text = f"Cluster {pool.name} is no trusted pool any more: its policy has no {UNIT_NAME}. VMs: {shortened(members)}."
    return Notice(f"pool_ended {pool.cluster_id}", "warning", text, cluster_id=pool.cluster_id)
