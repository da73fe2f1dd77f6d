# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What changed in the state and is not carried out yet: plans for walls, and snapshots. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Optional

from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.lock import Lock


class PendingChanges:
    """Thread-safe, under the lock of the broker's state.

    A pool's snapshot is *old* when it does not show the latest change, and *too trusting* when it
    shows a host as trusted that is not. It is *too free* when it shows a VM as needing no trust
    that needs it.
    """

    def __init__(self, lock: Lock, inventory: InventoryView) -> None:
        self._lock = lock
        self._inventory = inventory
        self._revision = 0
        # The revision with which a host last lost trust.
        self._trust_lost_revision = 0
        self._plans_due = False
        # The pools of hosts that lost trust since plans were begun.
        self._trust_lost_in: set[str] = set()
        self._old: set[str] = set()
        self._too_trusting: set[str] = set()
        self._too_free: set[str] = set()

    def touch(
        self,
        walls: bool = True,
        worse: bool = False,
        pools: Optional[Iterable[str]] = None,
        too_free: bool = False,
    ) -> None:
        """Something changed that snapshots have to show.

        Args:
            walls: perhaps walls have to show it, too.
            worse: a host lost trust, so walls have to.
            pools: ids of the pools whose snapshots have to; None for all.
            too_free: a VM needs trust that needed none.
        """
        with self._lock:
            self._revision += 1
            touched = list(self._inventory.pools.by_cluster if pools is None else pools)
            self._old.update(touched)
            if walls or worse:
                self._plans_due = True
            if too_free:
                self._too_free.update(touched)
            if worse:
                self._too_trusting.update(touched)
                self._trust_lost_in.update(touched)
                self._trust_lost_revision = self._revision

    def revision(self) -> int:
        """Return a number that grows with each change."""
        with self._lock:
            return self._revision

    def trust_lost_revision(self) -> int:
        """Return the number of the last change by which a host lost trust."""
        with self._lock:
            return self._trust_lost_revision

    # Walls

    def request_plans(self) -> None:
        """Have the walls looked at again soon."""
        with self._lock:
            self._plans_due = True

    def are_plans_due(self) -> bool:
        """Return whether walls may have to show something new."""
        with self._lock:
            return self._plans_due

    def is_trust_lost(self) -> bool:
        """Return whether a host lost trust since plans were begun.

        A plan under way that lets others in can wait, then: a host has to be put out first.
        """
        with self._lock:
            return bool(self._trust_lost_in)

    def begin_plans(self) -> frozenset[str]:
        """Plans are about to be made, of all that happened so far.

        Returns:
            the ids of the pools in which hosts lost trust since the last time.
        """
        with self._lock:
            trust_lost_in = frozenset(self._trust_lost_in)
            self._plans_due = False
            self._trust_lost_in.clear()
            return trust_lost_in

    # Snapshots

    def old_snapshots(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the pools whose snapshot is old, and those of them whose is too trusting."""
        with self._lock:
            return frozenset(self._old), frozenset(self._too_trusting)

    def urgent_snapshots(self) -> frozenset[str]:
        """Return the pools whose snapshot is too trusting or too free."""
        with self._lock:
            return frozenset(self._too_trusting | self._too_free)

    def written(self, pools: Collection[str]) -> frozenset[str]:
        """The snapshots of these pools are about to be written.

        Returns:
            those of the pools whose snapshot is too trusting or too free.
        """
        with self._lock:
            urgent = (self._too_trusting | self._too_free).intersection(pools)
            self._old.difference_update(pools)
            self._too_trusting.difference_update(pools)
            self._too_free.difference_update(pools)
            return frozenset(urgent)

    def not_written(self, pool_id: str, urgent: bool) -> None:
        """A snapshot could not be written after all, or not with all that it has to show.

        Args:
            urgent: it is still too trusting, or too free.
        """
        with self._lock:
            self._old.add(pool_id)
            if urgent:
                self._too_trusting.add(pool_id)
