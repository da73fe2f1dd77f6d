# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Lists everything at the engine, again and again; what VMs lost by it runs hooks.

A listing takes minutes where there are many VMs, so nothing that is urgent waits for one: the watch
(`watch`) looks at hosts and events, and reads single VMs at once (`read_vms`).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.backoff import pause_ms
from ovirt_tcp_plugin.broker.engine_api import EngineListings
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.lasting_objects import LastingObjects
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.next_runs import NextRuns
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.inventory import Notice, Unit

log = logging.getLogger("broker.service")

# A listing that failed is tried again after half a poll, and then ever later, up to so many polls.
LONGEST_PAUSE_POLLS = 6
FAILURES_REPORTED = 3


@dataclasses.dataclass(frozen=True)
class Reactions:
    """What follows outside of the state from what the engine shows.

    Attributes:
        run_hook: runs the hook of an event.
        hosts_came_up: runs the hooks of hosts that came Up or moved.
        warn: writes the warning that an event of a VM carries.
        record_events: keeps what was reported, raises Unavailable.
        forget_pool: removes the snapshot of a cluster that is no pool any more.
        see_units: takes note of the engine's scheduling policy units.
    """

    run_hook: Callable[[HookEvent], None]
    hosts_came_up: Callable[[Sequence[str]], None]
    warn: Callable[[HookEvent], None]
    record_events: Callable[[], None]
    forget_pool: Callable[[str], None]
    see_units: Callable[[Sequence[Unit]], None]


class ObservationWorker:
    """One thread calls `step` again and again.

    Attributes:
        hosts_known: hosts and pools were listed: their attestation can begin.
        all_known: everything was listed, VMs too.
        listing_due: a complete listing is to be read at once; whoever finds the engine not as the
            state has it sets this.
        vm_listing_due: one is to be read for what it shows of VMs, after a rest that is as long as
            the last listing was: on a busy engine VMs change all the time.
    """

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        engine: EngineListings,
        vm_monitor: VmMonitor,
        next_runs: NextRuns,
        contact: EngineContact,
        reactions: Reactions,
        clock: Clock,
    ) -> None:
        self._poll_ms = int(options.intervals.poll_s * 1000)
        self._full_ms = int(options.intervals.full_s * 1000)
        self._state = state
        self._engine = engine
        self._vm_monitor = vm_monitor
        self._next_runs = next_runs
        self._contact = contact
        self._reactions = reactions
        self._clock = clock
        self._lasting_objects = LastingObjects()
        # When the last complete listing was begun.
        self._last_listing_ms: Optional[int] = None
        self._rest_until_ms = 0
        self._failures = 0
        self._next_try_ms = 0
        self.hosts_known = threading.Event()
        self.all_known = threading.Event()
        self.listing_due = threading.Event()
        self.vm_listing_due = threading.Event()

    def listing_ms(self) -> Optional[int]:
        """Return when the last complete listing was begun, None before the first one."""
        return self._last_listing_ms

    def step(self) -> None:
        """List what is due. Raises Unavailable, and AccessRefused."""
        if self._clock.now_ms() < self._next_try_ms:
            return
        try:
            if not self.hosts_known.is_set():
                self._begin()
            if self._is_listing_due():
                self._list()
        except errors.Error as e:
            self._take_failure(e)
            raise
        if self._failures >= FAILURES_REPORTED:
            self._state.tell(Notice("listing_read", "normal", "The engine can be listed again."))
        self._failures = 0

    # Listings

    def _begin(self) -> None:
        """Begin the startup attestation before all VMs are listed: many of them take long."""
        frame = self._engine.listing_without_vms()
        self._state.observe_frame(frame)
        self._state.observe_hosts(frame.hosts, complete=frame.nameless_hosts == 0)
        try:
            self._reactions.run_hook(HookEvent("backend_initialize"))
        finally:
            self.hosts_known.set()

    def _is_listing_due(self) -> bool:
        now_ms = self._clock.now_ms()
        if self.listing_due.is_set() or self._last_listing_ms is None:
            return True
        if now_ms < self._rest_until_ms:
            return False
        return self.vm_listing_due.is_set() or now_ms - self._last_listing_ms >= self._full_ms

    def _list(self) -> None:
        """Read everything; a reading that fails stays due."""
        began_ms = self._clock.now_ms()
        self.listing_due.clear()
        self.vm_listing_due.clear()
        self._vm_monitor.begin_listing()
        start = self._state.begin_listing()
        try:
            listing = self._next_runs.complete(self._engine.listing(next_runs=False))
        except errors.Error:
            self.listing_due.set()
            raise
        self._contact.answered(began_ms)
        if start.wall_edits != self._state.walls.edits():
            self.vm_listing_due.set()
        for pool in self._state.observe_listing(listing, start):
            self._reactions.forget_pool(pool.cluster_id)
        self._lasting_objects.settle()
        self._last_listing_ms = began_ms
        self._reactions.see_units(listing.units)
        came_up = self._state.observe_hosts(listing.hosts, start, listing.nameless_hosts == 0)
        self._reactions.hosts_came_up(came_up)
        self.all_known.set()
        # Last, since it only warns, and writes to a disk that may be slow.
        self._watch_vms()
        ended_ms = self._clock.now_ms()
        self._rest_until_ms = ended_ms + (ended_ms - began_ms)

    def _take_failure(self, fault: errors.Error) -> None:
        """Have it tried again later, and reported if it is not just that the engine is away."""
        self._failures += 1
        longest_ms = LONGEST_PAUSE_POLLS * self._poll_ms
        now_ms = self._clock.now_ms()
        self._next_try_ms = now_ms + pause_ms(self._poll_ms // 2, longest_ms, self._failures - 1)
        if self._failures == FAILURES_REPORTED and self._contact.is_there():
            self._state.tell(_failed(fault))

    # VMs

    def _watch_vms(self) -> None:
        for event in self._vm_monitor.observe(self._state.listing()):
            self._run_vm_hook(event)
        try:
            # In this order: a warning that is written twice is better than one that is not.
            self._reactions.record_events()
            self._vm_monitor.save()
        except errors.Unavailable as e:
            log.error("records of VMs not saved error=%s", e)

    def _run_vm_hook(self, event: HookEvent) -> None:
        try:
            self._reactions.run_hook(event)
        except Exception:
            text = "hook name=%s vm=%s failed; its warning is written all the same"
            log.exception(text, event.name, event.vm_id)
            self._reactions.warn(event)


def _failed(fault: errors.Error) -> Notice:
    text = (
        f"The engine cannot be listed, though it answers: {fault}. Hosts are watched all the same, "
        f"and VMs that change are read one by one; nothing else is seen. "
        "See why in /var/log/ovirt-engine/engine.log at the engine."
    )
    return Notice("listing_failed", "error", text)
