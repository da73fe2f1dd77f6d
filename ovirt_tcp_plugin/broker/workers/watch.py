# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Watches the engine: its events, its starts, its filter unit, and the hosts that are not Up.

Each look is a few short calls, in a thread of its own: nothing here waits for a listing, which may
take minutes, or for a VM that the engine cannot show.
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
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.event_cursor import EventCursor
from ovirt_tcp_plugin.broker.workers.filter_reports import FilterReports
from ovirt_tcp_plugin.broker.workers.group_edits import GroupEdits
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.engine.starts import EngineStarts
from ovirt_tcp_plugin.placement.inventory import Event, Notice

log = logging.getLogger("broker.service")

# A host that left Up is out of the snapshots within a second, and a VM that was marked is held
# there: one of these pauses, two calls, the pause of the snapshots' thread, and the writing of one.
# At an engine where nothing has happened for so long, calls are saved.
BUSY_PAUSE_S = 0.3
CALM_PAUSE_S = 0.8
CALM_AFTER_MS = 60_000

# After an event that says that a host left Up or came: lists may show the change later.
URGENT_POLLS = 2
# Hosts that could not be listed are tried again so soon.
RETRY_MS = 1_000


@dataclasses.dataclass(frozen=True)
class WatchReactions:
    """What follows outside of the state from what the engine shows.

    Attributes:
        run_hook: runs the hook of an event.
        hosts_came_up: runs the hooks of hosts that came Up or moved.
        take_vm_event: has the VM monitor note an event.
        take_message: takes an event that may be a message of another broker.
        messages_missed: such events may have been missed.
        request_listing: a complete listing is due at once.
        request_vm_listing: a complete listing is due for what it shows of VMs.
        hosts_known, all_known: return whether hosts, and whether all, were listed.
    """

    run_hook: Callable[[HookEvent], None]
    hosts_came_up: Callable[[Sequence[str]], None]
    take_vm_event: Callable[[Event], None]
    take_message: Callable[[Event], None]
    messages_missed: Callable[[], None]
    request_listing: Callable[[], None]
    request_vm_listing: Callable[[], None]
    hosts_known: Callable[[], bool]
    all_known: Callable[[], bool]


class WatchWorker:
    """One thread calls `step` again and again.

    Attributes:
        events_read: set once the events so far were read, or given up. Hosts may be listed then:
            what happened before ends nothing any more.
    """

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        engine: EngineListings,
        state_file: StateFile,
        reactions: WatchReactions,
        contact: EngineContact,
        filter_reports: FilterReports,
        clock: Clock,
    ) -> None:
        self._poll_s = options.intervals.poll_s
        self._poll_ms = int(self._poll_s * 1000)
        self._start_file = options.engine.start_file
        self._state = state
        self._engine = engine
        self._state_file = state_file
        self._reactions = reactions
        self._contact = contact
        self._filter_reports = filter_reports
        self._clock = clock
        self._group_edits = GroupEdits(engine, clock)
        self._starts = EngineStarts(clock, state_file.engine_started_ms)
        # When something was last seen to happen: our own start counts.
        self._busy_ms = clock.now_ms()
        self._next_poll_ms = 0
        self._urgent_polls = 0
        self._cursor = EventCursor(state_file)
        # Whether it was reported that events cannot be read.
        self._are_events_unreadable = False
        self.events_read = threading.Event()

    def pause_s(self) -> float:
        """Return the seconds until the next look."""
        is_calm = self._clock.now_ms() - self._busy_ms >= CALM_AFTER_MS
        return min(self._poll_s / 2, CALM_PAUSE_S if is_calm else BUSY_PAUSE_S)

    def step(self) -> None:
        """Look once. Raises Unavailable, and AccessRefused; it has looked at all it could then."""
        heard_ms = self._contact.last_ms()
        event_fault = _fault_of(self._read_events)
        if event_fault is None:
            self._cursor.succeeded()
            self._are_events_unreadable = False
            self._see_start(heard_ms)
            self.events_read.set()
        if self._group_edits.is_listing_due():
            self._reactions.request_listing()
        if self._filter_reports.is_due():
            self._watch_filter()
        host_fault: Optional[errors.Error] = None
        if self._urgent_polls or self._clock.now_ms() >= self._next_poll_ms:
            self._urgent_polls = max(self._urgent_polls - 1, 0)
            host_fault = _fault_of(self._poll_hosts)
            pause_ms = self._poll_ms if host_fault is None else min(self._poll_ms, RETRY_MS)
            self._next_poll_ms = self._clock.now_ms() + pause_ms
            if event_fault is not None and host_fault is None:
                self._see_start(heard_ms)
                self._take_event_fault(event_fault)
        fault = event_fault or host_fault
        if fault is not None:
            raise fault

    # Hosts

    def _poll_hosts(self) -> None:
        self._reactions.hosts_came_up(self._observe_hosts())

    def _observe_hosts(self) -> Sequence[str]:
        """Look which hosts are not Up; return the ids of those that came Up or moved."""
        asked_ms = self._clock.now_ms()
        try:
            hosts = self._engine.hosts_not_up()
        except errors.AccessRefused:
            raise
        except errors.Unavailable as e:
            if not self._contact.is_there() or not self._reactions.hosts_known():
                raise
            # Perhaps it fails at a single one, which would count as Up if it were passed over.
            log.warning("hosts that are not Up cannot be listed, all are error=%s", e)
            hosts = self._engine.hosts()
            self._contact.answered(asked_ms)
            return self._state.observe_hosts(hosts, complete=False)
        self._contact.answered(asked_ms)
        if not self._reactions.hosts_known():
            # What is known of hosts that are Up would be gone.
            return ()
        return self._state.observe_hosts_not_up(hosts)

    # The filter unit

    def _watch_filter(self) -> None:
        """See whether the engine asks the filter: before any listing, which may take minutes."""
        try:
            units = self._engine.units()
        except errors.Error as e:
            log.warning("the engine's policy units cannot be read error=%s", e)
        else:
            self._filter_reports.observe(units)

    # Events

    def take_event(self, event: Event) -> None:
        """Take a new event of the engine into account."""
        self._busy_ms = self._clock.now_ms()
        if self._starts.is_new_by_event(event.code):
            self._engine_started("the engine restarted", event.code in events.ENGINE_STARTED)
        if event.host_id:
            self._take_host_event(event)
        self._reactions.take_vm_event(event)
        self._reactions.take_message(event)
        self._group_edits.take_event(event)
        if event.code in events.VM_CHANGED and event.vm_id:
            self._state.vm_reads.changed(event.vm_id)
            self._reactions.request_vm_listing()
        # It is reported where an exempt VM runs.
        arrived = event.code in events.VM_ARRIVED and event.vm_id in self._state.exempt_vms()
        nameless = event.code in events.VM_CHANGED and not event.vm_id
        if event.code in events.LISTING_DUE or arrived or nameless:
            self._reactions.request_listing()

    def _take_host_event(self, event: Event) -> None:
        if self._ends_verdict(event):
            self._state.host_restarted(event.host_id)
            # It may attest well before it is seen to be away.
            self._urgent_polls = URGENT_POLLS
        if event.code in events.HOST_CAME_UP:
            # No event gives trust, but it is asked about as soon as a list shows it.
            self._urgent_polls = URGENT_POLLS

    def _ends_verdict(self, event: Event) -> bool:
        """Return whether the host that an event is about was not Up all the time.

        A host that came Up was so as far as the listings show, but not before our own start, which
        they do not reach.
        """
        if event.code in events.HOST_LEFT_UP:
            return True
        return event.code in events.HOST_CAME_UP and not self._reactions.all_known()

    def _read_events(self) -> None:
        """Take new events into account.

        Ids may become visible out of order, so the last ones are read again.
        """
        asked_ms = self._clock.now_ms()
        cursor = self._cursor
        if not cursor.is_set:
            cursor.start_at(self._engine.last_event_id())
        recent = self._engine.events(cursor.after())
        newest = recent[-1].id if recent else self._engine.last_event_id()
        self._contact.answered(asked_ms)
        if cursor.has_gap(recent):
            # More happened than one answer holds, while we were away: any host may have rebooted.
            self._events_missed("events of the engine were missed")
        if cursor.is_beyond(newest):
            self._events_missed("the engine's events begin anew, as after a restored backup")
            cursor.rewind(newest)
        for event in cursor.unseen(recent):
            self.take_event(event)
        cursor.advance(recent, newest)

    def _take_event_fault(self, fault: errors.Error) -> None:
        """Events cannot be read, and hosts can: pass over the events until now after some tries.

        A single one that the engine cannot show would keep all later ones from being read. Any of
        those that are passed over may say that a host left Up.
        """
        if isinstance(fault, errors.AccessRefused) or not self._cursor.failed():
            return
        self.events_read.set()
        if not self._are_events_unreadable:
            self._are_events_unreadable = True
            self._state.tell(_events_unreadable(fault))
        try:
            has_news = self._cursor.pass_over(self._engine.last_event_id())
        except errors.Error:
            self._events_missed("events of the engine could not be read")
            raise
        if has_news:
            self._events_missed("events of the engine could not be read")

    def _events_missed(self, reason: str) -> None:
        """Void all verdicts: hosts may have left Up, and the engine may have started again."""
        self._starts.conclude()
        self._engine_started(reason)
        self._reactions.messages_missed()

    # Starts of the engine

    def _see_start(self, heard_ms: Optional[int]) -> None:
        """See whether the engine started, though no event that was read just now shows it.

        Args:
            heard_ms: when it was heard before this look (CLOCK_BOOTTIME).
        """
        absent_since_ms = self._contact.take_absence()
        if absent_since_ms is not None and self._starts.is_new_by_silence(absent_since_ms):
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
        log.info("engine started reason=%s", reason)
        self._state.void("engine_restarted", reason, walls_stand=True)
        # Afterwards: saved before, a start would be known whose verdicts had not ended.
        self._state_file.engine_started_ms = self._starts.last_ms
        self._state.changes.touch(walls=False, pools=())
        self._filter_reports.engine_started(surely)
        try:
            self._reactions.run_hook(HookEvent("backend_initialize"))
        except Exception:
            # The event that told of the start would be read again, and the start count again.
            text = "hook name=backend_initialize failed; each host is asked about all the same"
            log.exception(text)


def _fault_of(action: Callable[[], None]) -> Optional[errors.Error]:
    """Return what an action raised, so that others follow all the same."""
    try:
        action()
    except errors.Error as e:
        return e
    return None


def _events_unreadable(fault: errors.Error) -> Notice:
    text = (
        f"The engine's events cannot be read, though its hosts can be: {fault}. "
        "All verdicts are void, since hosts may have left Up; the events until now are passed "
        "over. See why in /var/log/ovirt-engine/engine.log at the engine."
    )
    return Notice("events_unreadable", "error", text)
