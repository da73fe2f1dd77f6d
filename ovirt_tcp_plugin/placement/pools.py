# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which clusters are trusted pools, and which of their VMs need trust. Pure.

A cluster becomes a pool when its scheduling policy contains our filter unit. It stays one until a
person ends it: another policy, oVirt's own upgrade of the cluster, an error, an empty list or a
disabled unit never removes a wall. Where nothing is remembered, a wall of ours shows that a cluster
is a pool.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.placement import decision, filter_unit
from ovirt_tcp_plugin.placement.decision import Scope, VmTrust
from ovirt_tcp_plugin.placement.inventory import Cluster, Listing, Notice, Policy, Vm

# cluster_maintenance: what oVirt's cluster upgrade gives a cluster for as long as it takes; only
# highly available VMs start. It keeps the filter of affinity groups, and so the wall
# (`InternalClusterPolicies`).
CLUSTER_MAINTENANCE = "7677771e-5eab-422e-83fa-dc04080d21b7"
# The engine's filter of VM-to-host affinity groups: in a policy without it no wall stops anybody.
AFFINITY_FILTER = "VmToHostsAffinityGroups"
# So many complete listings in a row have to show that a pool's cluster is gone.
LISTINGS_TO_FORGET = 2


class PolicyState(enum.Enum):
    """What the scheduling policy of a pool's cluster is.

    TRUSTED contains our unit; UPGRADE is `cluster_maintenance`; OTHER has neither; UNKNOWN: the
    listing lacks the policy, or our unit.
    """

    TRUSTED = "trusted"
    UPGRADE = "upgrade"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Pool:
    """A trusted pool: a cluster, and who in it needs trust.

    Attributes:
        scope: what our unit said last.
        policy: name of the cluster's scheduling policy, empty if it is not known.
        keeps_wall: whether that policy has the filter that the wall needs.
    """

    cluster_id: str
    name: str
    scope: Scope
    policy_state: PolicyState = PolicyState.TRUSTED
    policy: str = ""
    keeps_wall: bool = True


@dataclasses.dataclass(frozen=True)
class PoolChanges:
    """What a listing changed.

    Attributes:
        gone: pools whose clusters the engine does not have any more.
        adopted: pools that only their walls showed.
    """

    gone: tuple[Pool, ...] = ()
    adopted: tuple[Pool, ...] = ()
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
        # Listings in a row that did not show a pool's cluster.
        self._missed: dict[str, int] = {}

    def update(self, listing: Listing, ended: Collection[str] = ()) -> PoolChanges:
        """Take a complete listing into account.

        Args:
            ended: ids of clusters whose pools a person ended: the walls there show nothing.
        """
        if not listing.clusters:
            return PoolChanges()
        adopted: list[Pool] = []
        for pool in self._listed(listing, ended):
            is_known = pool.cluster_id in self.by_cluster
            if not is_known and pool.policy_state is not PolicyState.TRUSTED:
                adopted.append(pool)
            self.by_cluster[pool.cluster_id] = pool
        notices: list[Notice] = []
        for cluster in listing.clusters:
            if cluster.id in self.by_cluster:
                notices += _warnings(cluster)
        return PoolChanges(tuple(self._gone(listing)), tuple(adopted), tuple(notices))

    def is_missed(self, cluster_id: str) -> bool:
        """Return whether the last listing did not show a pool's cluster."""
        return cluster_id in self._missed

    def end(self, cluster_id: str) -> None:
        """A person ended a pool."""
        del self.by_cluster[cluster_id]

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs."""
        return {pool.cluster_id: _encode(pool) for pool in self.by_cluster.values()}

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        pools = [_decode(cluster_id, members) for cluster_id, members in encoded.items()]
        self.by_cluster = {pool.cluster_id: pool for pool in pools}

    def _listed(self, listing: Listing, ended: Collection[str]) -> Iterator[Pool]:
        """Yield the pools as a listing shows them."""
        unit_ids = {unit.id for unit in listing.units if unit.name == filter_unit.NAME}
        for cluster in listing.clusters:
            state = _policy_state(cluster, listing, unit_ids)
            is_known = cluster.id in self.by_cluster
            is_walled = cluster.id in listing.walls and cluster.id not in ended
            if is_known or is_walled or state is PolicyState.TRUSTED:
                yield self._pool(cluster, listing, state)

    def _pool(self, cluster: Cluster, listing: Listing, state: PolicyState) -> Pool:
        """Return the pool of a cluster.

        Only our unit says who needs trust. Under another policy that is as before, and where
        nothing is remembered, all VMs do.
        """
        policy = listing.policy(cluster)
        known = self.by_cluster.get(cluster.id)
        scope = Scope.ALL_VMS if known is None else known.scope
        if policy is None:
            return Pool(cluster.id, cluster.name, scope, state)
        if state is PolicyState.TRUSTED:
            scope = _scope(cluster, policy)
        keeps_wall = _keeps_wall(policy, listing)
        return Pool(cluster.id, cluster.name, scope, state, policy.name, keeps_wall)

    def _gone(self, listing: Listing) -> list[Pool]:
        """Return the pools whose clusters are gone with this listing, and forget them."""
        cluster_ids = {cluster.id for cluster in listing.clusters}
        gone: list[Pool] = []
        missed: dict[str, int] = {}
        for pool in list(self.by_cluster.values()):
            if pool.cluster_id in cluster_ids:
                continue
            missed[pool.cluster_id] = self._missed.get(pool.cluster_id, 0) + 1
            if missed[pool.cluster_id] >= LISTINGS_TO_FORGET:
                del self.by_cluster[pool.cluster_id]
                gone.append(pool)
        self._missed = missed
        return gone


def _policy_state(cluster: Cluster, listing: Listing, unit_ids: Collection[str]) -> PolicyState:
    """Return what a cluster's scheduling policy is, as far as a listing shows it."""
    policy = listing.policy(cluster)
    if policy is None or not unit_ids:
        return PolicyState.UNKNOWN
    if not policy.filter_ids.isdisjoint(unit_ids):
        return PolicyState.TRUSTED
    return PolicyState.UPGRADE if policy.id == CLUSTER_MAINTENANCE else PolicyState.OTHER


def _keeps_wall(policy: Policy, listing: Listing) -> bool:
    """Return whether a policy has the filter that the wall needs, as far as a listing shows it."""
    affinity_ids = {unit.id for unit in listing.units if unit.name == AFFINITY_FILTER}
    return not affinity_ids or not policy.filter_ids.isdisjoint(affinity_ids)


def _scope(cluster: Cluster, policy: Policy) -> Scope:
    """Return who needs trust in a cluster whose policy has our unit.

    A value that is not understood is strict.
    """
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


def _encode(pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "scope": pool.scope.value,
        "policy_state": pool.policy_state.value,
        "policy": pool.policy,
        "keeps_wall": pool.keeps_wall,
    }


def _decode(cluster_id: str, members: Mapping[str, Any]) -> Pool:
    return Pool(
        cluster_id,
        str(members["name"]),
        Scope(members["scope"]),
        PolicyState(members["policy_state"]),
        str(members["policy"]),
        bool(members["keeps_wall"]),
    )
