# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Takes the pools of the engine's listings into account, and reports what changed. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ovirt_tcp_plugin.broker.state import policy_watch, pool_ends, rule_watch, unlisted
from ovirt_tcp_plugin.broker.state.policy_watch import PolicyWatch
from ovirt_tcp_plugin.broker.state.pool_ends import EndedPool, PoolEnds
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.placement.inventory import Listing, Notice
from ovirt_tcp_plugin.placement.pools import Pool, Pools


@dataclasses.dataclass(frozen=True)
class SavedPools:
    """What a state file held of pools, read as a whole."""

    pools: Pools
    policies: PolicyWatch
    ended: Mapping[str, EndedPool]


class PoolWatch:
    """Not thread-safe: the caller holds the lock of the broker's state."""

    def __init__(self, shared: SharedState, ends: PoolEnds) -> None:
        self._shared = shared
        self._inventory = shared.inventory
        self._reporter = shared.reporter
        self._ends = ends
        self._policies = PolicyWatch()
        # Keys of the notices that the last listing gave rise to: each is told once while it lasts.
        self._standing: frozenset[str] = frozenset()

    def observe_frame(self, listing: Listing) -> None:
        """Know the pools by a first listing, which has no VMs yet."""
        changes = self._inventory.pools.update(listing, self._ends.cluster_ids())
        self._tell_adopted(changes.adopted)

    def observe_listing(self, listing: Listing) -> tuple[Pool, ...]:
        """Take a complete listing into account; return the pools whose clusters are gone."""
        changes = self._inventory.pools.update(listing, self._ends.cluster_ids())
        self._ends.observe_listing(listing)
        conflicts = rule_watch.notices(listing, self._inventory)
        self._tell_once((*changes.notices, *unlisted.notices(listing), *conflicts))
        self._tell_adopted(changes.adopted)
        now_ms = self._shared.clock.now_ms()
        pools = self._inventory.pools.by_cluster.values()
        for notice in self._policies.observe(pools, now_ms):
            self._reporter.tell(notice)
        for pool in changes.gone:
            self._reporter.note("pool_gone", f"Pool {pool.name} ended: its cluster is gone.")
        return changes.gone

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {
            "pools": self._inventory.pools.encode(),
            "policies_reported": self._policies.encode(),
            "ended_pools": self._ends.encode(),
        }

    def restore(self, saved: SavedPools) -> None:
        """Take over what was saved."""
        self._inventory.pools = saved.pools
        self._policies = saved.policies
        self._ends.restore(saved.ended)

    def _tell_once(self, notices: Iterable[Notice]) -> None:
        """Report what the last listing did not give rise to."""
        keys: set[str] = set()
        for notice in notices:
            keys.add(notice.key)
            if notice.key not in self._standing:
                self._reporter.tell(notice)
        self._standing = frozenset(keys)

    def _tell_adopted(self, pools: Iterable[Pool]) -> None:
        for pool in pools:
            self._reporter.tell(policy_watch.adopted(pool))


def decode(encoded: Mapping[str, Any]) -> SavedPools:
    """Return what `encode` gave. Files of older releases have none of it.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
    """
    pools = Pools()
    pools.restore(encoded.get("pools", {}))
    policies = PolicyWatch()
    policies.restore(encoded.get("policies_reported", {}))
    return SavedPools(pools, policies, pool_ends.decode(encoded.get("ended_pools", {})))
