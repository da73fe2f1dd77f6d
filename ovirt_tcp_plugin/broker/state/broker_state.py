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

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.settings import GuardOptions, Settings, VerdictOptions
from ovirt_tcp_plugin.broker.state import readout
from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.broker.state.exemptions import ExemptionWatch
from ovirt_tcp_plugin.broker.state.guard import GuardRule
from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView, Place
from ovirt_tcp_plugin.broker.state.outbox import Outbox
from ovirt_tcp_plugin.broker.state.pending_changes import PendingChanges
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.questions import Questions
from ovirt_tcp_plugin.broker.state.readout import Explanation, HostState, PoolState
from ovirt_tcp_plugin.broker.state.reporter import Reporter
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.broker.state.startup import Startup
from ovirt_tcp_plugin.broker.state.verdicts import Changes, Lifetimes, VerdictCache
from ovirt_tcp_plugin.broker.state.walls import Walls
from ovirt_tcp_plugin.pause_watch import PauseWatch
from ovirt_tcp_plugin.placement.inventory import Host, Listing, Notice
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.placement.snapshot import Snapshot


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
        self._host_names = options.pools.host_names
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
        # Keys of the notices that the last listing gave rise to: each is told once while it lasts.
        self._standing: frozenset[str] = frozenset()
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
    def quarantine(self) -> QuarantineController:
        """Which hosts leave service and return, and the guards' decisions."""
        return self._quarantine

    @property
    def changes(self) -> PendingChanges:
        """What is not carried out or written yet."""
        return self._changes

    # News of the engine

    def observe_hosts(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take the engine's list of hosts into account.

        Returns:
            the ids of the pool hosts that came Up or moved.
        """
        with self._lock:
            now_ms = self._clock.now_ms()
            places = self._inventory.places()
            # An empty list is no evidence that all are gone, with what is known of them; but nobody
            # counts as Up by it.
            listed = hosts or self._inventory.hosts_none_up()
            self._inventory.see_hosts(listed, self._host_names)
            self._verdicts.look_again()
            changes = self._verdicts.observe({host.id: host.up for host in listed}, now_ms)
            moved = self._restart_moved(places, now_ms)
            self._quarantine.observe(changes.came_up, now_ms)
            # One of ours may have attested well a moment before it was seen to be away, which
            # counts for nothing: it would wait for its next turn in maintenance.
            self._verdicts.ask_soon(self._quarantine.ours(changes.left_up), now_ms)
            for notice in self._exemptions.observe(now_ms):
                self._reporter.tell(notice)
            self._take_changes(changes)
            came_up = (*changes.came_up, *moved)
            return tuple(host_id for host_id in came_up if self._inventory.pool_of(host_id))

    def observe_hosts_not_up(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take the engine's list of hosts that are not Up into account: every other known one is.

        Returns:
            the ids of the pool hosts that came Up or moved.
        """
        with self._lock:
            not_up = {host.id for host in hosts}
            return self.observe_hosts([*self._inventory.other_hosts_up(not_up), *hosts])

    def observe_frame(self, listing: Listing) -> None:
        """Take note of the pools and their walls in a first listing.

        It has no VMs yet, and ends nothing.
        """
        with self._lock:
            self._inventory.pools.update(dataclasses.replace(listing, walls={}))
            self._inventory.see_walls(listing)

    def observe_listing(self, listing: Listing, edits: int) -> tuple[Pool, ...]:
        """Take a complete listing into account; return the pools that ended.

        Args:
            edits: `Walls.edits` of when the reading began.
        """
        with self._lock:
            now_ms = self._clock.now_ms()
            self._inventory.see_listing(listing)
            self._quarantine.observe_vms(now_ms)
            self._verdicts.look_again()
            self._walls.observe(listing, edits)
            change = self._inventory.pools.update(listing)
            for notice in change.notices:
                if notice.key not in self._standing:
                    self._reporter.tell(notice)
            self._standing = frozenset(notice.key for notice in change.notices)
            self._walls.end(change.ended, listing)
            for pool in change.ended:
                self._quarantine.pool_ended(pool.cluster_id)
            self._changes.touch()
            return change.ended

    def host_restarted(self, host_id: str) -> None:
        """The host left Up, as an event says, whatever the listings show."""
        with self._lock:
            self._verdicts.restarted(host_id, self._clock.now_ms())
            self._changes.touch(worse=True, pools=self._inventory.pools_of([host_id]))

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
        """Return the last complete listing."""
        with self._lock:
            return self._inventory.listing

    def snapshots(self, pool_ids: Optional[Collection[str]] = None) -> list[Snapshot]:
        """Return the snapshots of these pools, None for all."""
        with self._lock:
            now_ms = self._clock.now_ms()
            snapshots: list[Snapshot] = []
            for pool in self._inventory.pools.by_cluster.values():
                if pool_ids is None or pool.cluster_id in pool_ids:
                    snapshot = readout.snapshot(
                        self._inventory, self._verdicts, pool, self._clock.boot_id, now_ms
                    )
                    snapshots.append(snapshot)
            return snapshots

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

    def host_id(self, host: str) -> str:
        """Return the id of a pool's host by its name or id. Raises NotFound."""
        with self._lock:
            known = self._inventory.find_host(host)
            if known is None or self._inventory.pool_of(known.id) is None:
                raise errors.NotFound("host of a trusted pool", host)
            return known.id

    def host_states(self) -> list[HostState]:
        """Return every pool host as it is now, by name."""
        with self._lock:
            now_ms = self._clock.now_ms()
            hosts = sorted(self._inventory.pool_hosts(), key=lambda host: host.name)
            return [
                readout.host_state(self._inventory, self._verdicts, self._quarantine, host, now_ms)
                for host in hosts
            ]

    def pool_states(self) -> list[PoolState]:
        """Return every pool as it is now."""
        with self._lock:
            pools = self._inventory.pools.by_cluster.values()
            return [readout.pool_state(self._inventory, self._quarantine, pool) for pool in pools]

    # The state file

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs. The names of the members are those of its first version."""
        with self._lock:
            return {
                "boot_id": self._clock.boot_id,
                "drift_ms": self._clock.wall_ms() - self._clock.now_ms(),
                "verdicts": self._verdicts.encode(),
                "exemptions_used": self._exemptions.encode(),
                **self._quarantine.encode(),
            }

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
            self._verdicts.restore(encoded["verdicts"], same_boot, self._clock.now_ms())
            self._quarantine.restore(quarantine)
            self._exemptions.restore(exemptions_used)
            # CLOCK_BOOTTIME stood still while this machine was paused, and with it the ages of what
            # was saved.
            self._pause_watch = PauseWatch(ahead_ms if same_boot else None)
            self.watch_clock()

    # Inside

    def _restart_moved(self, before: Mapping[str, Place], now_ms: int) -> list[str]:
        """Have hosts in another cluster or of another name attest again: a verdict is of one place.

        Returns:
            the ids of those that are Up.
        """
        up: list[str] = []
        for host_id, place in self._inventory.places().items():
            if before.get(host_id, place) == place:
                continue
            self._verdicts.restarted(host_id, now_ms)
            self._changes.touch(worse=True)
            if self._inventory.hosts[host_id].up:
                up.append(host_id)
        return up

    def _take_changes(self, changes: Changes) -> None:
        """Have walls and snapshots show which hosts came Up, left it, or are gone."""
        if not (changes.came_up or changes.left_up or changes.removed):
            return
        pools = None
        if not changes.removed:
            pools = self._inventory.pools_of([*changes.came_up, *changes.left_up])
        self._changes.touch(worse=bool(changes.left_up or changes.removed), pools=pools)
        self._startup.keep(self._inventory.hosts)
        self._reporter.note_hosts(changes)


def _lifetimes(options: VerdictOptions) -> Lifetimes:
    return Lifetimes(
        int(options.lifetime_s * 1000),
        options.refresh,
        options.jitter,
        int(options.untrusted_refresh_s * 1000),
    )


def _guard_rule(options: GuardOptions) -> GuardRule:
    return GuardRule(options.hosts, options.share, int(options.window_s * 1000))
