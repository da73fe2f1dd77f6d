# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""All that the broker knows, under one lock, and what follows from it.

No I/O: threads bring news and take plans.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin.broker.settings import GuardOptions, Settings, VerdictOptions
from ovirt_tcp_plugin.broker.state import pool_watch, readout, verdicts
from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.broker.state.exemptions import ExemptionWatch
from ovirt_tcp_plugin.broker.state.guard import GuardRule
from ovirt_tcp_plugin.broker.state.host_news import HostNews
from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView, VmIndex
from ovirt_tcp_plugin.broker.state.outbox import Outbox
from ovirt_tcp_plugin.broker.state.pending_changes import PendingChanges
from ovirt_tcp_plugin.broker.state.pool_ends import PoolEnds
from ovirt_tcp_plugin.broker.state.pool_watch import PoolWatch
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.questions import Questions
from ovirt_tcp_plugin.broker.state.readout import Explanation, HostState, PoolState
from ovirt_tcp_plugin.broker.state.reporter import Reporter
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.broker.state.startup import Startup
from ovirt_tcp_plugin.broker.state.turns import in_turns
from ovirt_tcp_plugin.broker.state.verdicts import Lifetimes, VerdictCache
from ovirt_tcp_plugin.broker.state.vm_reads import VmReads
from ovirt_tcp_plugin.broker.state.walls import Walls
from ovirt_tcp_plugin.pause_watch import PauseWatch
from ovirt_tcp_plugin.placement.inventory import Group, Host, Listing, Notice
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.placement.snapshot import Snapshot


@dataclasses.dataclass(frozen=True)
class ListingStart:
    """What was known when a listing was begun, which may take minutes: later news are newer.

    Attributes:
        wall_edits: how many edits of walls had been made.
        vm_news: the number of the last news of a VM.
        host_polls: how often the hosts that are not Up had been listed.
        vm_ids: of the VMs.
        walls: by cluster id.
    """

    wall_edits: int
    vm_news: int
    host_polls: int
    vm_ids: frozenset[str]
    walls: Mapping[str, Group]

    def changed_walls(self, listing: Listing) -> frozenset[str]:
        """Return the ids of the clusters whose walls are not listed as they were known."""
        return frozenset(
            cluster_id
            for cluster_id, wall in self.walls.items()
            if listing.walls.get(cluster_id) != wall
        )


class BrokerState:
    """The one state: the engine's inventory, the verdicts, and the parts that plan by them.

    Thread-safe: every method that a thread may call, here and in the parts, takes the one lock and
    waits for nothing else. Lock order: the locks of a worker or of the state file, then this one,
    then the outbox's. Each operation reads CLOCK_BOOTTIME once.

    Args:
        draw: returns a random number in [0, 1), to spread questions.

    Attributes:
        outbox: what is to be written into the history and the engine's events.
    """

    def __init__(self, options: Settings, clock: Clock, draw: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self.outbox = Outbox()
        self._inventory = InventoryView(options.pools.exempt_vms)
        self._verdicts = VerdictCache(_lifetimes(options.verdicts))
        self._changes = PendingChanges(self._lock, self._inventory)
        self._reporter = Reporter(self.outbox, self._inventory, clock)
        self._startup = Startup()
        self._pause_watch = PauseWatch()
        self._exemptions = ExemptionWatch(self._inventory, self._verdicts)
        self._shared = SharedState(
            self._lock,
            clock,
            self._inventory,
            self._verdicts,
            self._startup,
            self._changes,
            self._reporter,
        )
        batch_size = options.verifier.batch_size
        self._quarantine = QuarantineController(self._shared, _guard_rule(options.guard))
        self._questions = Questions(self._shared, self._quarantine, draw, batch_size)
        self._walls = Walls(self._shared, self._questions.servers_answer)
        self._pool_ends = PoolEnds(self._shared, self._quarantine)
        self._pool_watch = PoolWatch(self._shared, self._pool_ends)
        self._host_news = HostNews(
            self._shared, self._quarantine, self._exemptions, options.pools.host_names
        )
        self._vm_reads = VmReads(self._shared, self._walls.forget_members)

    # Parts

    @property
    def questions(self) -> Questions:
        """Which hosts the attestation servers are asked about, and their answers."""
        return self._questions

    @property
    def walls(self) -> Walls:
        """The walls, and the plans for them."""
        return self._walls

    @property
    def vm_reads(self) -> VmReads:
        """Which single VMs are to be read, and how they are."""
        return self._vm_reads

    @property
    def quarantine(self) -> QuarantineController:
        """Which hosts leave service and return, and the guards' decisions."""
        return self._quarantine

    @property
    def pool_ends(self) -> PoolEnds:
        """The pools that a person ended, and what is to be given back there."""
        return self._pool_ends

    @property
    def changes(self) -> PendingChanges:
        """What is not carried out or written yet."""
        return self._changes

    # News of the engine

    def begin_listing(self) -> ListingStart:
        """Return what a listing that is begun now is not newer than."""
        with self._lock:
            return ListingStart(
                self._walls.edits(),
                self._vm_reads.begin_listing(),
                self._host_news.polls(),
                frozenset(self._inventory.vms.by_id),
                dict(self._inventory.walls),
            )

    def observe_hosts(
        self, hosts: Sequence[Host], start: Optional[ListingStart] = None, complete: bool = True
    ) -> tuple[str, ...]:
        """Take the engine's list of hosts into account.

        Args:
            start: of the listing that has them; None if it was read in one go.
            complete: False if the engine failed to show some: known ones are not Up then.

        Returns:
            the ids of the pool hosts that came Up or moved.
        """
        with self._lock:
            if start is None:
                return self._host_news.take_list(hosts, complete)
            return self._host_news.take_listing(hosts, start.host_polls, complete)

    def observe_hosts_not_up(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take the engine's list of hosts that are not Up into account: every other known one is.

        Returns:
            the ids of the pool hosts that came Up or moved.
        """
        with self._lock:
            return self._host_news.take_poll(hosts)

    def observe_frame(self, listing: Listing) -> None:
        """Take note of the pools and their walls in a first listing, which has no VMs yet."""
        with self._lock:
            self._pool_watch.observe_frame(listing)
            self._inventory.see_walls(listing)

    def observe_listing(self, listing: Listing, start: ListingStart) -> tuple[Pool, ...]:
        """Take a complete listing into account; return the pools whose clusters are gone.

        Args:
            start: `begin_listing` of when the reading began.
        """
        # All that takes long for many VMs comes before the lock.
        vms = VmIndex(listing.vms)
        missing = start.vm_ids.difference(vms.by_id)
        changed_walls = start.changed_walls(listing)
        with self._lock:
            now_ms = self._clock.now_ms()
            # Freed after the lock: that takes long, too.
            before = (self._inventory.listing, self._inventory.vms)
            self._vm_reads.merge(listing, vms, start.vm_news, missing)
            self._inventory.see_listing(listing, vms)
            self._quarantine.observe_vms(now_ms)
            self._verdicts.look_again()
            self._walls.observe(listing, start.wall_edits, changed_walls)
            gone = self._pool_watch.observe_listing(listing)
            for pool in gone:
                self._quarantine.pool_gone(pool.cluster_id)
            self._changes.touch()
        del before
        return gone

    def host_restarted(self, host_id: str) -> None:
        """The host left Up, as an event says, whatever the listings show."""
        with self._lock:
            self._host_news.restarted(host_id)

    def void(self, code: str, reason: str, walls_stand: bool = False) -> None:
        """Void every verdict that was born before now; `walls_stand` as for `VerdictCache.void`."""
        with self._lock:
            now_ms = self._clock.now_ms()
            self._verdicts.void(now_ms, now_ms, code, reason, walls_stand)
            self._reporter.note("voided", f"All verdicts are void: {reason}.")
            self._changes.touch(worse=True)

    def watch_clock(self) -> bool:
        """Void all verdicts if this machine was paused; return whether it was."""
        with self._lock:
            paused_ms = self._pause_watch.look(self._clock.wall_ms(), self._clock.now_ms())
            if not paused_ms:
                return False
            went_ahead = f"the wall clock went {paused_ms // 1000} s ahead"
            self.void("clock_jump", f"{went_ahead}: this machine was paused, or the clock set")
            return True

    def tell(self, notice: Notice) -> None:
        """Have this written into the history, and perhaps the engine's events."""
        with self._lock:
            self._reporter.tell(notice)

    # What is known

    def holds(self, host_id: str) -> bool:
        """Return whether a host is trusted now."""
        with self._lock:
            return self._shared.holds(host_id, self._clock.now_ms())

    def pools(self) -> Mapping[str, Pool]:
        """Return the trusted pools by cluster id."""
        with self._lock:
            return dict(self._inventory.pools.by_cluster)

    def exempt_vms(self) -> frozenset[str]:
        """Return the ids of the VMs that may run anywhere."""
        with self._lock:
            return self._inventory.exempt

    def listing(self) -> Listing:
        """Return the last complete listing, with what became known of VMs since."""
        with self._lock:
            return dataclasses.replace(
                self._inventory.listing,
                vms=tuple(self._inventory.vms.by_id.values()),
                unreadable_vms=self._vm_reads.waiting(),
            )

    def snapshots(self, pool_ids: Optional[Collection[str]] = None) -> list[Snapshot]:
        """Return the snapshots of these pools, None for all; each as it is when it is its turn."""
        with self._lock:
            chosen = list(self._inventory.pools.by_cluster if pool_ids is None else pool_ids)
        return in_turns(self._lock, chosen, self._snapshot)

    # Questions of people

    def case(self, vm: str, host: str) -> Explanation:
        """Return all that is known of a VM and a host, each by name or id.

        Raises:
            NotFound: there is no such host.
        """
        with self._lock:
            now_ms = self._clock.now_ms()
            return readout.explanation(
                self._inventory, self._verdicts, self._quarantine, vm, host, now_ms
            )

    def host_states(self) -> list[HostState]:
        """Return every pool host as it is when it is its turn, by name."""
        with self._lock:
            hosts = self._inventory.pool_hosts()
        hosts.sort(key=lambda host: host.name)
        return in_turns(self._lock, [host.id for host in hosts], self._host_state)

    def pool_states(self) -> list[PoolState]:
        """Return every pool as it is when it is its turn."""
        with self._lock:
            pools = list(self._inventory.pools.by_cluster.values())

        def pool_state(pool: Pool) -> PoolState:
            return readout.pool_state(self._inventory, self._quarantine, pool)

        return in_turns(self._lock, pools, pool_state)

    # The state file

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs. The names of the members are those of its first version."""
        with self._lock:
            saved_verdicts = self._verdicts.saved()
            others = {
                "boot_id": self._clock.boot_id,
                "drift_ms": self._clock.wall_ms() - self._clock.now_ms(),
                **self._pool_watch.encode(),
                "exemptions_used": self._exemptions.encode(),
                **self._quarantine.encode(),
            }
        return {**others, "verdicts": verdicts.encode(saved_verdicts)}

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave: all of it, or nothing after an error.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        with self._lock:
            same_boot = encoded["boot_id"] == self._clock.boot_id
            ahead_ms = int(encoded["drift_ms"])
            # Read as a whole before anything is taken over.
            exemptions_used = ExemptionWatch.decode(encoded.get("exemptions_used", ()))
            quarantine = self._quarantine.decode(encoded, same_boot)
            pools = pool_watch.decode(encoded)
            self._verdicts.restore(encoded["verdicts"], same_boot, self._clock.now_ms())
            self._quarantine.restore(quarantine)
            self._exemptions.restore(exemptions_used)
            self._pool_watch.restore(pools)
            # CLOCK_BOOTTIME stood still while this machine was paused, and with it the ages of what
            # was saved.
            self._pause_watch = PauseWatch(ahead_ms if same_boot else None)
            self.watch_clock()

    # Inside: with the lock held

    def _snapshot(self, pool_id: str) -> Optional[Snapshot]:
        """Return a pool's snapshot, None if it is gone."""
        pool = self._inventory.pools.by_cluster.get(pool_id)
        if pool is None:
            return None
        now_ms = self._clock.now_ms()
        boot_id = self._clock.boot_id
        return readout.snapshot(self._inventory, self._verdicts, pool, boot_id, now_ms)

    def _host_state(self, host_id: str) -> Optional[HostState]:
        """Return a pool host as it is, None if it is gone, or in no pool any more."""
        host = self._inventory.hosts.get(host_id)
        if host is None or self._inventory.pool_of(host_id) is None:
            return None
        now_ms = self._clock.now_ms()
        return readout.host_state(self._inventory, self._verdicts, self._quarantine, host, now_ms)


def _lifetimes(options: VerdictOptions) -> Lifetimes:
    return Lifetimes(
        int(options.lifetime_s * 1000),
        options.refresh,
        options.jitter,
        int(options.untrusted_refresh_s * 1000),
    )


def _guard_rule(options: GuardOptions) -> GuardRule:
    window_ms = int(options.window_s * 1000)
    return GuardRule(options.hosts, options.share, window_ms, int(options.series_s * 1000))
