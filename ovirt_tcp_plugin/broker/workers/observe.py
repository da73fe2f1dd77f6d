# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Looks at the engine: its events, its starts, the filter unit, hosts, and complete listings.

What it sees goes to the state and to the VM monitor; what happened to hosts and VMs runs hooks.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineListings
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.metrics import Ages
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.filter_watch import FilterWatch
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.group_edits import GroupEdits
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.engine.client import MAX_EVENTS
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.engine.starts import EngineStarts
from ovirt_tcp_plugin.placement.inventory import Event, Listing, Unit

log = logging.getLogger("broker.service")

# An engine that was away for longer may have restarted hosts behind our back.
MAX_ENGINE_SILENCE_MS = 10_000
# Events may become visible out of order: the last ones are read again each time, and known ones
# passed over.
EVENT_OVERLAP = 50


@dataclasses.dataclass(frozen=True)
class Reactions:
    """What follows outside of the state from what the engine shows.

    Attributes:
        run_hook: runs the hook of an event.
        warn: writes the warning that an event of a VM carries.
        record_events: keeps what was reported, raises Unavailable.
        forget_pool: removes the snapshot of a cluster that is no pool any more.
    """

    run_hook: Callable[[HookEvent], None]
    warn: Callable[[HookEvent], None]
    record_events: Callable[[], None]
    forget_pool: Callable[[str], None]


class ObservationWorker:
    """One thread calls `step` again and again.

    Attributes:
        hosts_known: hosts and pools were listed: their attestation can begin.
        all_known: everything was listed, VMs too.
        listing_due: a complete listing is to be read at the next step; whoever finds the engine not
            as the state has it sets this.
    """

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        engine: EngineListings,
        state_file: StateFile,
        vm_monitor: VmMonitor,
        reactions: Reactions,
        clock: Clock,
    ) -> None:
        self._poll_ms = int(options.intervals.poll_s * 1000)
        self._full_ms = int(options.intervals.full_s * 1000)
        self._start_file = options.engine.start_file
        self._state = state
        self._engine = engine
        self._state_file = state_file
        self._vm_monitor = vm_monitor
        self._reactions = reactions
        self._clock = clock
        self._filter_watch = FilterWatch(clock)
        self._group_edits = GroupEdits(engine, clock)
        self._looks_fully = False
        self._starts = EngineStarts(clock, state_file.engine_started_ms)
        # When the engine last answered, and when the last complete listing was begun.
        self._last_engine_ms: Optional[int] = None
        self._last_listing_ms: Optional[int] = None
        self.hosts_known = threading.Event()
        self.all_known = threading.Event()
        self.listing_due = threading.Event()

    def ages(self) -> Ages:
        """Return how long ago the engine was heard."""
        now_ms = self._clock.now_ms()
        return Ages(_age_ms(self._last_engine_ms, now_ms), _age_ms(self._last_listing_ms, now_ms))

    def step(self) -> None:
        """Look once. Raises Unavailable, and AccessRefused."""
        now_ms = self._clock.now_ms()
        self._read_events()
        edited = self._group_edits.is_listing_due()
        if edited:
            self.listing_due.set()
        # Each second time only for that: who is let into a wall has to be out within 5 s.
        self._looks_fully = not self._looks_fully
        if not self._looks_fully and self.all_known.is_set() and not edited:
            return
        self._see_start(now_ms)
        if not self.hosts_known.is_set():
            self._begin()
        if self._filter_watch.is_due():
            self._watch_filter()
        listing = self._read_listing(now_ms) if self._is_listing_due(now_ms) else None
        if listing is None:
            came_up = self._state.observe_hosts_not_up(self._engine.hosts_not_up())
        else:
            came_up = self._state.observe_hosts(listing.hosts)
        for host_id in came_up:
            self._reactions.run_hook(HookEvent("init_vds_on_up", host_id))
        self.all_known.set()
        self._last_engine_ms = self._clock.now_ms()
        if listing is not None:
            # Last, since it only warns, and writes to a disk that may be slow.
            self._watch_vms(listing)

    # Listings

    def _begin(self) -> None:
        """Begin the startup attestation before all VMs are listed: many of them take long."""
        frame = self._engine.listing_without_vms()
        self._state.observe_frame(frame)
        self._state.observe_hosts(frame.hosts)
        try:
            self._reactions.run_hook(HookEvent("backend_initialize"))
        finally:
            self.hosts_known.set()

    def _is_listing_due(self, now_ms: int) -> bool:
        if self.listing_due.is_set() or self._last_listing_ms is None:
            return True
        return now_ms - self._last_listing_ms >= self._full_ms

    def _read_listing(self, now_ms: int) -> Listing:
        """Read everything; a reading that fails stays due."""
        self.listing_due.clear()
        wall_edits = self._state.walls.edits()
        try:
            listing = self._engine.listing()
        except errors.Error:
            self.listing_due.set()
            raise
        if wall_edits != self._state.walls.edits():
            self.listing_due.set()
        for pool in self._state.observe_listing(listing, wall_edits):
            self._reactions.forget_pool(pool.cluster_id)
        self._last_listing_ms = now_ms
        self._observe_filter(listing.units)
        return listing

    def _watch_vms(self, listing: Listing) -> None:
        for event in self._vm_monitor.observe(listing):
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

    # The filter unit

    def _watch_filter(self) -> None:
        """See whether the engine asks the filter: before any listing, which may take minutes."""
        try:
            units = self._engine.units()
        except errors.Error as e:
            log.warning("the engine's policy units cannot be read error=%s", e)
        else:
            self._observe_filter(units)

    def _observe_filter(self, units: Sequence[Unit]) -> None:
        started = started_at(self._start_file)
        has_pools = bool(self._state.pools())
        notice = self._filter_watch.observe(units, started, has_pools)
        if notice is not None:
            self._state.tell(notice)

    # Events

    def take_event(self, event: Event) -> None:
        """Take a new event of the engine into account."""
        if self._starts.is_new_by_event(event.code):
            self._engine_started("the engine restarted", event.code in events.ENGINE_STARTED)
        if event.host_id and self._ends_verdict(event):
            self._state.host_restarted(event.host_id)
        self._vm_monitor.take_event(event)
        self._group_edits.take_event(event)
        # It is reported where an exempt VM runs.
        arrived = event.code in events.VM_ARRIVED and event.vm_id in self._state.exempt_vms()
        if event.code in events.LISTING_DUE or arrived:
            self.listing_due.set()

    def _ends_verdict(self, event: Event) -> bool:
        """Return whether the host that an event is about was not Up all the time.

        A host that came Up was so as far as the listings show, but not before our own start, which
        they do not reach.
        """
        if event.code in events.HOST_LEFT_UP:
            return True
        return event.code in events.HOST_CAME_UP and not self.all_known.is_set()

    def _read_events(self) -> None:
        """Take new events into account.

        Ids may become visible out of order, so the last ones are read again.
        """
        last = self._last_event()
        recent = self._engine.events(max(last - EVENT_OVERLAP, 0))
        newest = recent[-1].id if recent else self._engine.last_event_id()
        if len(recent) >= MAX_EVENTS and recent[0].id > last + 1:
            # More happened than one answer holds, while we were away: any host may have rebooted.
            self._starts.conclude()
            self._engine_started("events of the engine were missed")
        if not recent and 0 < newest < last:
            self._starts.conclude()
            self._engine_started("the engine's events begin anew, as after a restored backup")
        for event in recent:
            if event.id not in self._state_file.seen:
                self.take_event(event)
        self._remember(recent, newest or last)

    def _last_event(self) -> int:
        """Return the id of the last event that was taken into account.

        Where none is known, it is the engine's newest: what happened before is of no concern.
        """
        last = self._state_file.last_event
        if last is None:
            last = self._engine.last_event_id()
            self._state_file.seen = frozenset(range(last - EVENT_OVERLAP, last + 1))
        return last

    def _remember(self, recent: Sequence[Event], last: int) -> None:
        """Note which events were taken into account.

        Ids are followed back, too: those that are shown no more will be other events' ids. An empty
        log shows none.
        """
        self._state_file.last_event = last
        kept = range(last - 2 * EVENT_OVERLAP + 1, last + 1)
        seen = self._state_file.seen.union(event.id for event in recent)
        self._state_file.seen = frozenset(event_id for event_id in seen if event_id in kept)

    # Starts of the engine

    def _see_start(self, now_ms: int) -> None:
        """See whether the engine started, though no event that was read just now shows it."""
        heard_ms = self._last_engine_ms
        silence_ms = max(MAX_ENGINE_SILENCE_MS, 2 * self._poll_ms)
        if heard_ms is not None and now_ms - heard_ms > silence_ms:
            # Once for this absence, even if the lists that come next fail again and again.
            self._last_engine_ms = now_ms
            if self._starts.is_new_by_silence(heard_ms):
                reason = "the engine was out of reach, so hosts may have changed behind our back"
                self._engine_started(reason)
        written = started_at(self._start_file)
        if self._starts.is_new_by_file(written, heard_ms):
            self._engine_started("the engine's service was started again", surely=True)

    def _engine_started(self, reason: str, surely: bool = False) -> None:
        """Do what every start of the engine asks for; nothing else has to notice one.

        Called once for each start.

        Args:
            surely: False for an engine that perhaps was only out of reach.
        """
        # First: it is saved with the verdicts that end now.
        self._state_file.engine_started_ms = self._starts.last_ms
        log.info("engine started reason=%s", reason)
        self._state.void("engine_restarted", reason, walls_stand=True)
        self._filter_watch.engine_started(surely)
        try:
            self._reactions.run_hook(HookEvent("backend_initialize"))
        except Exception:
            # The event that told of the start would be read again, and the start count again.
            text = "hook name=backend_initialize failed; each host is asked about all the same"
            log.exception(text)


def _age_ms(then_ms: Optional[int], now_ms: int) -> Optional[int]:
    return None if then_ms is None else now_ms - then_ms
