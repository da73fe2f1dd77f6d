# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is reported of the pools' scheduling policies: upgrades, and policies of others. Pure.

A pool under another policy is still protected, except by the filter: the engine does not ask it
then. An administrator who did not mean that has to learn of it, and so does one who meant to end
the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.placement.inventory import Notice
from ovirt_tcp_plugin.placement.pools import AFFINITY_FILTER, PolicyState, Pool

# Another policy is reported at once, and again after this as long as it stays.
REPORTED_EVERY_MS = 86_400_000


class PolicyWatch:
    """What was reported of each pool, by cluster id. Not thread-safe."""

    def __init__(self) -> None:
        self._reported: dict[str, PolicyState] = {}
        # When another policy is reported again, CLOCK_BOOTTIME. A restart reports it at once.
        self._due_ms: dict[str, int] = {}

    def observe(self, pools: Iterable[Pool], now_ms: int) -> list[Notice]:
        """Return what is to be reported of these pools, which are all there are."""
        notices: list[Notice] = []
        pool_ids: set[str] = set()
        for pool in pools:
            pool_ids.add(pool.cluster_id)
            notice = self._observe(pool, now_ms)
            if notice is not None:
                notices.append(notice)
        for cluster_id in self._reported.keys() - pool_ids:
            del self._reported[cluster_id]
            self._due_ms.pop(cluster_id, None)
        return notices

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs."""
        return {cluster_id: state.value for cluster_id, state in self._reported.items()}

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave.

        Raises:
            ValueError, AttributeError: it is not what `encode` gives.
        """
        items = encoded.items()
        self._reported = {str(cluster_id): PolicyState(state) for cluster_id, state in items}

    def _observe(self, pool: Pool, now_ms: int) -> Optional[Notice]:
        if pool.policy_state is PolicyState.UNKNOWN:
            return None
        before = self._reported.get(pool.cluster_id, PolicyState.TRUSTED)
        self._reported[pool.cluster_id] = pool.policy_state
        if pool.policy_state is before and not self._is_due(pool, now_ms):
            return None
        self._due_ms[pool.cluster_id] = now_ms + REPORTED_EVERY_MS
        return _news(pool, before)

    def _is_due(self, pool: Pool, now_ms: int) -> bool:
        """Return whether a policy is to be reported again that is as it was."""
        if pool.policy_state is not PolicyState.OTHER:
            return False
        return now_ms >= self._due_ms.get(pool.cluster_id, now_ms)


def adopted(pool: Pool) -> Notice:
    """Return what to report of a pool that only its wall showed."""
    text = (
        f"Cluster {pool.name} counts as a trusted pool because of its wall: nothing is remembered "
        f"of it, and its scheduling policy does not show {filter_unit.NAME}. All of its VMs need "
        "trusted hosts until a policy says otherwise."
    )
    return Notice(f"pool_adopted {pool.cluster_id}", "warning", text, cluster_id=pool.cluster_id)


def _news(pool: Pool, before: PolicyState) -> Notice:
    """Return what to report of a pool. `before`: what its policy was when it was reported last."""
    if pool.policy_state is PolicyState.OTHER:
        return _other(pool)
    if pool.policy_state is PolicyState.UPGRADE:
        return _upgrade_begun(pool)
    return _upgrade_ended(pool) if before is PolicyState.UPGRADE else _back(pool)


def _other(pool: Pool) -> Notice:
    text = (
        f"Cluster {pool.name} has the scheduling policy {pool.policy}, which has no "
        f"{filter_unit.NAME}. It is still a trusted pool: {_held_by(pool)} Give it back its "
        f"policy, or end the pool: ovirt-tcp pool end {pool.name}"
    )
    return Notice(f"pool_policy {pool.cluster_id}", "error", text, cluster_id=pool.cluster_id)


def _held_by(pool: Pool) -> str:
    if pool.keeps_wall:
        return "its wall, attestation and quarantine go on, but the engine does not ask the filter."
    return (
        f"attestation and quarantine go on, but this policy has no {AFFINITY_FILTER}, so its wall "
        "stops nobody, and the engine does not ask the filter."
    )


def _back(pool: Pool) -> Notice:
    text = f"Cluster {pool.name} has a scheduling policy with {filter_unit.NAME} again."
    key = f"pool_policy_back {pool.cluster_id}"
    return Notice(key, "normal", text, cluster_id=pool.cluster_id)


def _upgrade_begun(pool: Pool) -> Notice:
    text = (
        f"Cluster {pool.name} is being upgraded (scheduling policy {pool.policy}). It stays a "
        "trusted pool: its wall, attestation and quarantine go on; the engine does not ask the "
        "filter meanwhile."
    )
    key = f"pool_upgrade {pool.cluster_id}"
    return Notice(key, "normal", text, cluster_id=pool.cluster_id)


def _upgrade_ended(pool: Pool) -> Notice:
    text = (
        f"The upgrade of cluster {pool.name} has ended: its scheduling policy {pool.policy} has "
        f"{filter_unit.NAME} again."
    )
    key = f"pool_upgrade_ended {pool.cluster_id}"
    return Notice(key, "normal", text, cluster_id=pool.cluster_id)
