# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The guard of a pool: when many hosts turn untrusted at once, an administrator decides. Pure.

It delays quarantine, never the refusal of placement: a wrong reference value must not take a whole
pool out of service, and no VM goes to a host that is untrusted meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class GuardRule:
    """What trips the guard: more than max(hosts, share of the pool) that turn within window_ms."""

    hosts: int = 2
    share: float = 0.2
    window_ms: int = 600_000


class Guard:
    """One pool's guard. Not thread-safe.

    A host *turns* when it was trusted before; one that never was is no surprise.

    Attributes:
        tripped: it waits for an administrator.
        held: ids of the hosts whose quarantine it delays.
    """

    def __init__(self, rule: GuardRule) -> None:
        self._rule = rule
        # When each host turned, CLOCK_BOOTTIME, by its id.
        self._turned: dict[str, int] = {}
        self.tripped = False
        self.held: set[str] = set()

    def turned(self, host_id: str, pool_size: int, now_ms: int) -> bool:
        """Take note that a host turned untrusted; return whether this trips the guard."""
        self._turned[host_id] = now_ms
        self._forget_old(now_ms)
        limit = max(self._rule.hosts, self._rule.share * pool_size)
        trips = not self.tripped and len(self._turned) > limit
        if trips:
            self.tripped = True
        if self.tripped:
            self.held.update(self._turned)
        return trips

    def recovered(self, host_id: str) -> None:
        """A host attests well again. Once all that were held do, nothing is left to decide."""
        self.held.discard(host_id)
        self._turned.pop(host_id, None)
        if not self.held:
            self.tripped = False

    def release(self) -> set[str]:
        """End the delay; return the hosts that were held."""
        held = self.held
        self.held = set()
        self.tripped = False
        self._turned.clear()
        return held

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs: it must not release any host."""
        return {
            "turned": dict(self._turned),
            "tripped": self.tripped,
            "held": sorted(self.held),
        }

    def restore(self, encoded: Mapping[str, Any], same_boot: bool) -> None:
        """Take over what `encode` gave.

        Args:
            same_boot: it was written in this boot of this machine; else its moments do not count.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        if same_boot:
            turned = encoded["turned"].items()
            self._turned = {str(host_id): int(at_ms) for host_id, at_ms in turned}
        self.tripped = bool(encoded["tripped"])
        self.held = {str(host_id) for host_id in encoded["held"]}

    def _forget_old(self, now_ms: int) -> None:
        since_ms = now_ms - self._rule.window_ms
        self._turned = {
            host_id: at_ms for host_id, at_ms in self._turned.items() if at_ms > since_ms
        }


class Guards:
    """The guards of all pools. Not thread-safe.

    Attributes:
        by_cluster: by the pool's cluster id; a pool in which no host ever turned has none.
    """

    def __init__(self, rule: GuardRule) -> None:
        self._rule = rule
        self.by_cluster: dict[str, Guard] = {}

    def of(self, cluster_id: str) -> Guard:
        """Return a pool's guard, a new one if it has none."""
        if cluster_id not in self.by_cluster:
            self.by_cluster[cluster_id] = Guard(self._rule)
        return self.by_cluster[cluster_id]

    def held(self) -> set[str]:
        """Return the ids of the hosts that any guard holds."""
        held: set[str] = set()
        for guard in self.by_cluster.values():
            held |= guard.held
        return held

    def recovered(self, host_id: str) -> None:
        """A host attests well again."""
        for guard in self.by_cluster.values():
            guard.recovered(host_id)

    def release(self, cluster_ids: Iterable[str]) -> set[str]:
        """End the delay in these pools; return the hosts that were held."""
        held: set[str] = set()
        for cluster_id in cluster_ids:
            guard = self.by_cluster.get(cluster_id)
            if guard is not None:
                held |= guard.release()
        return held

    def keep(self, present: Mapping[str, Iterable[str]]) -> None:
        """Forget the held hosts that are gone, or in another pool now.

        There is nothing to decide about them, and a guard would wait for them for ever.

        Args:
            present: the ids of the hosts that are there, by cluster id.
        """
        for cluster_id, guard in self.by_cluster.items():
            for host_id in guard.held.difference(present.get(cluster_id, ())):
                guard.recovered(host_id)

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs."""
        return {cluster_id: guard.encode() for cluster_id, guard in self.by_cluster.items()}

    def restore(self, encoded: Mapping[str, Any], same_boot: bool) -> None:
        """Take over what `encode` gave. Arguments and errors are those of `Guard.restore`."""
        for cluster_id, members in encoded.items():
            self.of(str(cluster_id)).restore(members, same_boot)
