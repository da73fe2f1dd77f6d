# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The guards: when many hosts would leave service at once, an administrator decides. Pure.

They delay quarantine, never the refusal of placement: a wrong reference value must not take a whole
pool out of service, and no VM goes to a host that is untrusted meanwhile.

Every host that would leave service counts, whether it was trusted before or not. When one would,
the checks are, in this order:

1. Observation: a pool holds all its hosts until half of them attested well, or an administrator
   releases it. A new pool begins so, and every pool whose state was lost.
2. Site: more hosts of several pools than the site's limit, within the window, trip the guards of
   all pools that they are of, and of each pool that a host would leave later. One cause that
   spreads over many small pools may take out no more than it could in one pool.
3. Decision: where a guard has tripped already, it holds this host, too.
4. Pool: more hosts of the pool than its limit, within the window, trip its guard.
5. Series: a host that stayed Up since it attested well waits. Its boot is what it was, so the
   reference values may have changed instead, and then other hosts follow it within the life of a
   verdict: once they are too many, checks 2 and 4 hold it with them. A host that started again is
   what a tampered boot looks like, and leaves at once.

A guard is over when all hosts that it holds attest well, or an administrator decides.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any, Optional

# A pool of so few hosts may lose no more than this without a decision.
SMALL_POOL_SIZE = 5
SMALL_POOL_LIMIT = 1


@dataclasses.dataclass(frozen=True)
class GuardRule:
    """How many hosts may leave service within window_ms: max(hosts, share of the pool).

    A host that stayed Up since it attested well waits for series_ms, which is no longer than that.
    """

    hosts: int = 2
    share: float = 0.2
    window_ms: int = 600_000
    series_ms: int = 600_000

    def pool_limit(self, pool_size: int) -> float:
        """Return how many hosts of a pool may leave."""
        hosts = self.hosts
        if pool_size <= SMALL_POOL_SIZE:
            hosts = min(hosts, SMALL_POOL_LIMIT)
        return max(hosts, self.share * pool_size)

    def site_limit(self, largest_pool: int) -> float:
        """Return how many hosts of all pools may leave: as many as of the largest one."""
        return max(self.hosts, self.pool_limit(largest_pool))


class Trip(enum.Enum):
    """What began to hold hosts, by the number of its check."""

    OBSERVATION = 1
    SITE = 2
    POOL = 4


class Guard:
    """One pool's guard. Not thread-safe.

    Attributes:
        tripped: it waits for an administrator.
        held: ids of the hosts whose quarantine it delays.
        waiting: until when a host stays in service in case others follow, by its id.
    """

    def __init__(self) -> None:
        # When each host was to leave, CLOCK_BOOTTIME, by its id.
        self._leaving: dict[str, int] = {}
        self.tripped = False
        self.held: set[str] = set()
        self.waiting: dict[str, int] = {}

    def note_leaving(self, host_id: str, now_ms: int) -> None:
        """Take note that a host would leave service."""
        self._leaving[host_id] = now_ms
        if self.tripped:
            self.held.add(host_id)

    def count_leaving(self, since_ms: int) -> int:
        """Return how many hosts would leave, or left, after that moment; forget earlier ones."""
        self._leaving = {
            host_id: at_ms for host_id, at_ms in self._leaving.items() if at_ms > since_ms
        }
        return len(self._leaving)

    def trip(self) -> None:
        """Hold the hosts that would leave, if any, and those that follow."""
        self.held.update(self._leaving)
        self.tripped = bool(self.held)
        self.waiting.clear()

    def recovered(self, host_id: str) -> None:
        """A host attests well again. Once all that were held do, nothing is left to decide."""
        self.held.discard(host_id)
        self.waiting.pop(host_id, None)
        self._leaving.pop(host_id, None)
        if not self.held:
            self.tripped = False

    def release(self) -> set[str]:
        """End the delay; return the hosts that were held, or waited."""
        held = self.held.union(self.waiting)
        self.held = set()
        self.waiting.clear()
        self.tripped = False
        self._leaving.clear()
        return held

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs: it must not release any host.

        The names of the members are those of the state file's first version.
        """
        return {
            "turned": dict(self._leaving),
            "tripped": self.tripped,
            "held": sorted(self.held),
        }

    def restore(self, encoded: Mapping[str, Any], same_boot: bool, now_ms: int) -> None:
        """Take over what `encode` gave.

        Args:
            same_boot: it was written in this boot of this machine; else its moments are unknown,
                and count as now.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        for host_id, at_ms in encoded["turned"].items():
            self._leaving[str(host_id)] = int(at_ms) if same_boot else now_ms
        self.tripped = bool(encoded["tripped"])
        self.held = {str(host_id) for host_id in encoded["held"]}


class Guards:
    """The guards of all pools. Not thread-safe.

    Attributes:
        by_cluster: by the pool's cluster id; a pool in which no host was to leave has none.
        established: ids of the clusters whose pools are not in observation any more.
    """

    def __init__(self, rule: GuardRule) -> None:
        self._rule = rule
        self._site_tripped = False
        self.by_cluster: dict[str, Guard] = {}
        self.established: set[str] = set()

    def of(self, cluster_id: str) -> Guard:
        """Return a pool's guard, a new one if it has none."""
        if cluster_id not in self.by_cluster:
            self.by_cluster[cluster_id] = Guard()
        return self.by_cluster[cluster_id]

    def held(self) -> set[str]:
        """Return the ids of the hosts that any guard holds."""
        held: set[str] = set()
        for guard in self.by_cluster.values():
            held |= guard.held
        return held

    def waiting(self, now_ms: int) -> set[str]:
        """Return the ids of the hosts that wait whether others follow; forget who waited enough."""
        waiting: set[str] = set()
        for guard in self.by_cluster.values():
            guard.waiting = {
                uid: end_ms for uid, end_ms in guard.waiting.items() if end_ms > now_ms
            }
            waiting.update(guard.waiting)
        return waiting

    def check_leaving(
        self,
        host_id: str,
        cluster_id: str,
        sizes: Mapping[str, int],
        now_ms: int,
        stayed_up: bool = False,
    ) -> Optional[Trip]:
        """A host would leave service; return what that trips, None for nothing new.

        Args:
            sizes: the number of hosts of every pool, by cluster id.
            stayed_up: it attested well, and did not start again since.
        """
        guard = self.of(cluster_id)
        guard.note_leaving(host_id, now_ms)
        if cluster_id not in self.established:  # 1
            is_first = not guard.held
            guard.held.add(host_id)
            return Trip.OBSERVATION if is_first else None
        since_ms = now_ms - self._rule.window_ms
        number = guard.count_leaving(since_ms)
        total = self._count_leaving(since_ms)
        is_many = total > self._rule.site_limit(max(sizes.values()))
        is_of_several = total > number
        if is_many and is_of_several and not self._site_tripped:  # 2
            self._trip_site()
            return Trip.SITE
        if guard.tripped:  # 3
            return None
        if self._site_tripped:  # 3
            guard.trip()
            return None
        if number > self._rule.pool_limit(sizes[cluster_id]):  # 4
            guard.trip()
            return Trip.POOL
        if stayed_up and self._rule.series_ms:  # 5
            guard.waiting[host_id] = now_ms + self._rule.series_ms
        return None

    def establish(self, cluster_id: str, sizes: Mapping[str, int], now_ms: int) -> Optional[Trip]:
        """End a pool's observation: half of its hosts attested well.

        What it held is judged by the other checks now. Returns what that trips.
        """
        self.established.add(cluster_id)
        guard = self.by_cluster.get(cluster_id)
        held = sorted(guard.release()) if guard else []
        trips = [self.check_leaving(host_id, cluster_id, sizes, now_ms) for host_id in held]
        return next((trip for trip in trips if trip is not None), None)

    def recovered(self, host_id: str) -> None:
        """A host attests well again."""
        for guard in self.by_cluster.values():
            guard.recovered(host_id)
        self._end_site()

    def release(self, cluster_ids: Iterable[str]) -> set[str]:
        """End the delay in these pools; return the hosts that were held."""
        held: set[str] = set()
        for cluster_id in cluster_ids:
            guard = self.by_cluster.get(cluster_id)
            if guard is not None:
                held |= guard.release()
        self._end_site()
        return held

    def keep(self, present: Mapping[str, Iterable[str]]) -> set[str]:
        """Forget the held hosts that are gone, or in another pool now; return them.

        There is nothing to decide about them, and a guard would wait for them for ever.

        Args:
            present: the ids of the hosts that are there, by the cluster id of each guard.
        """
        gone: set[str] = set()
        for cluster_id, guard in self.by_cluster.items():
            delayed = guard.held.union(guard.waiting)
            gone |= delayed.difference(present.get(cluster_id, ()))
        for host_id in gone:
            self.recovered(host_id)
        return gone

    def forget(self, cluster_id: str) -> None:
        """A pool ended. Should its cluster be a pool again, that is a new one."""
        self.by_cluster.pop(cluster_id, None)
        self.established.discard(cluster_id)
        self._end_site()

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs."""
        return {
            "guards": {cluster_id: guard.encode() for cluster_id, guard in self.by_cluster.items()},
            "guard_of_site": self._site_tripped,
            "established_pools": sorted(self.established),
        }

    def restore(self, encoded: Mapping[str, Any], same_boot: bool, now_ms: int) -> None:
        """Take over what `encode` gave. Arguments and errors are those of `Guard.restore`.

        Files of older releases have neither the site's guard nor established pools: every pool
        begins in observation then.
        """
        for cluster_id, members in encoded["guards"].items():
            self.of(str(cluster_id)).restore(members, same_boot, now_ms)
        self._site_tripped = bool(encoded.get("guard_of_site", False))
        self.established = {str(pool_id) for pool_id in encoded.get("established_pools", ())}

    def _count_leaving(self, since_ms: int) -> int:
        """Return how many hosts of all pools would leave, or left, after that moment."""
        return sum(guard.count_leaving(since_ms) for guard in self._established())

    def _trip_site(self) -> None:
        self._site_tripped = True
        for guard in self._established():
            guard.trip()

    def _established(self) -> list[Guard]:
        """Return the guards of pools of which hosts leave: a pool in observation keeps its own."""
        guards = self.by_cluster.items()
        return [guard for cluster_id, guard in guards if cluster_id in self.established]

    def _end_site(self) -> None:
        """The site's guard is over when no pool's has tripped any more."""
        if self._site_tripped:
            self._site_tripped = any(guard.tripped for guard in self.by_cluster.values())
