# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The guards with the engine's inventory, and what is reported of them. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.broker.state.guard import GuardRule, Guards, Trip
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.placement.inventory import Host, Notice, shortened
from ovirt_tcp_plugin.placement.pools import Pool


@dataclasses.dataclass(frozen=True)
class SavedGuards:
    """What a state file held of the guards, read as a whole."""

    guards: Guards
    known_good: set[str]


class GuardWatch:
    """Not thread-safe: the caller holds the lock of the broker's state.

    Attributes:
        guards: those of all pools.
    """

    def __init__(self, shared: SharedState, rule: GuardRule) -> None:
        self._rule = rule
        self._shared = shared
        self._clock = shared.clock
        self._inventory = shared.inventory
        self._reporter = shared.reporter
        # Ids of the hosts that attested well when they last did.
        self._known_good: set[str] = set()
        self.guards = Guards(rule)

    def in_observation(self, cluster_id: str) -> bool:
        """Return whether a pool keeps all its hosts for now, as a new one does."""
        return cluster_id not in self.guards.established

    def keep_present(self) -> set[str]:
        """The engine's hosts were listed; return the held hosts that left their pools."""
        present: dict[str, list[str]] = {}
        for cluster_id in self.guards.by_cluster:
            hosts = self._inventory.hosts_of.get(cluster_id, ())
            present[cluster_id] = [host.id for host in hosts]
        self._known_good &= self._inventory.hosts.keys()
        return self.guards.keep(present)

    def pool_ended(self, cluster_id: str) -> None:
        """A cluster is no pool any more: if it becomes one again, it is a new one."""
        self.guards.forget(cluster_id)
        hosts = self._inventory.hosts_of.get(cluster_id, ())
        self._known_good.difference_update(host.id for host in hosts)

    def trusted(self, host_id: str) -> None:
        """A host attested well; `observe_trust` follows."""
        self._known_good.add(host_id)
        self.guards.recovered(host_id)

    def observe_trust(self, host_ids: Iterable[str], now_ms: int) -> None:
        """Hosts answered: the observation of their pools may be over.

        Not while the startup attestation is under way there: what it shows is judged as a whole. Of
        a pool with two kinds of hardware, one of which no reference value knows, hosts would leave
        singly else, as soon as the other kind is half of it.
        """
        cluster_ids = set(self._inventory.pools_of(host_ids)) - self.guards.established
        for cluster_id in sorted(cluster_ids):
            if self._shared.is_starting(cluster_id):
                continue
            hosts = self._inventory.hosts_of[cluster_id]
            well = sum(host.id in self._known_good for host in hosts)
            if 2 * well < len(hosts):
                continue
            pool = self._inventory.pools.by_cluster[cluster_id]
            self._note_end(pool, f"{well} of its {len(hosts)} hosts attested well")
            trip = self.guards.establish(cluster_id, self._pool_sizes(), now_ms)
            self._tell(trip, pool, now_ms)

    def untrusted(self, host_id: str) -> None:
        """A host was found untrusted."""
        self._known_good.discard(host_id)

    def check_leaving(self, host_id: str, pool: Pool, now_ms: int) -> None:
        """An untrusted host would leave service: report it if a guard holds it for that."""
        stayed_up = self._turned_while_up(host_id)
        trip = self.guards.check_leaving(
            host_id, pool.cluster_id, self._pool_sizes(), now_ms, stayed_up
        )
        self._tell(trip, pool, now_ms)
        if host_id in self.guards.of(pool.cluster_id).waiting:
            self._note_waiting(host_id)

    def delayed(self, now_ms: int) -> set[str]:
        """Return the ids of the hosts that stay in service for now.

        A host that waited whether others follow, and starts again meanwhile, waits no longer.
        """
        waiting = filter(self._turned_while_up, self.guards.waiting(now_ms))
        return self.guards.held().union(waiting)

    def is_waiting(self, host: Host) -> bool:
        """Return whether a host stays in service in case others turn untrusted, too."""
        guard = self.guards.by_cluster.get(host.cluster_id)
        is_noted = guard is not None and host.id in guard.waiting
        return is_noted and self._turned_while_up(host.id)

    def release(self, cluster_ids: Iterable[str], who: str) -> set[str]:
        """An administrator decided that hosts of these pools leave; return those that were held."""
        for cluster_id in cluster_ids:
            if self.in_observation(cluster_id):
                self._note_end(self._inventory.pools.by_cluster[cluster_id], f"{who} decided so")
                self.guards.established.add(cluster_id)
        return self.guards.release(cluster_ids)

    # The state file

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {"known_good": sorted(self._known_good), **self.guards.encode()}

    def decode(self, encoded: Mapping[str, Any], same_boot: bool) -> SavedGuards:
        """Return what `encode` gave, for `restore`. Arguments and errors are those of `Guards`."""
        known_good = {str(host_id) for host_id in encoded["known_good"]}
        guards = Guards(self._rule)
        guards.restore(encoded, same_boot, self._clock.now_ms())
        return SavedGuards(guards, known_good)

    def restore(self, saved: SavedGuards) -> None:
        """Take over what was saved."""
        self.guards = saved.guards
        self._known_good = saved.known_good

    # Inside

    def _turned_while_up(self, host_id: str) -> bool:
        entry = self._shared.verdicts.entry(host_id)
        return entry is not None and entry.turned_while_up()

    def _pool_sizes(self) -> dict[str, int]:
        """Return the number of hosts of each pool, by cluster id."""
        hosts_of = self._inventory.hosts_of
        pool_ids = self._inventory.pools.by_cluster
        return {cluster_id: len(hosts_of.get(cluster_id, ())) for cluster_id in pool_ids}

    def _note_waiting(self, host_id: str) -> None:
        text = (
            f"Host {self._inventory.host_name(host_id)} did not restart since it attested well: it "
            f"leaves service in {self._rule.series_ms // 1000} s, unless many others turn "
            "untrusted, too. It gets no VMs meanwhile."
        )
        self._reporter.note("quarantine_waits", text, host_id)

    def _note_end(self, pool: Pool, why: str) -> None:
        text = f"The observation of pool {pool.name} is over: {why}."
        self._reporter.note("observation_over", text)

    def _tell(self, trip: Optional[Trip], pool: Pool, now_ms: int) -> None:
        """Report what began to hold hosts."""
        if trip is Trip.OBSERVATION:
            self._tell_observation(pool)
        elif trip is Trip.POOL:
            host_ids = self.guards.of(pool.cluster_id).held
            text = self._many(f"hosts of cluster {pool.name}", host_ids)
            key = f"guard {pool.cluster_id} {now_ms}"
            self._reporter.tell(Notice(key, "error", text, cluster_id=pool.cluster_id))
        elif trip is Trip.SITE:
            text = self._many("hosts of several clusters", self.guards.held())
            self._reporter.tell(Notice(f"guard_site {now_ms}", "error", text))

    def _tell_observation(self, pool: Pool) -> None:
        name = pool.name
        text = (
            f"Hosts of cluster {name} are untrusted, and this pool is in observation: less than "
            "half of its hosts attested well so far. Untrusted hosts get no VMs, but stay in "
            "service until half of the hosts attest well, or an administrator decides: "
            f"ovirt-tcp guard release --pool {name}, or reject."
        )
        key = f"observation {pool.cluster_id}"
        self._reporter.tell(Notice(key, "error", text, cluster_id=pool.cluster_id))

    def _many(self, subject: str, host_ids: Iterable[str]) -> str:
        names = shortened(self._inventory.host_names(host_ids))
        return (
            f"Many {subject} turned untrusted at once: {names}. "
            "They get no VMs, but stay in service until an administrator decides: "
            "ovirt-tcp guard release, or reject."
        )
