# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Wires the broker's workers, and runs each of them in a loop of its own.

They meet only in BrokerState. Each loop is the outermost edge for its own errors: it logs, goes on,
and extends no trust.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks
from ovirt_tcp_plugin.broker.engine_api import EngineApi
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.metrics import Ages, Metrics
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.answer import Source
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.readout import ChargeState
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers import vm_monitor
from ovirt_tcp_plugin.broker.workers.attest import AttestationWorker
from ovirt_tcp_plugin.broker.workers.charge_keeper import ChargeKeeper
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.enforce import EnforcementWorker
from ovirt_tcp_plugin.broker.workers.events import EventWriter
from ovirt_tcp_plugin.broker.workers.filter_reports import FilterReports
from ovirt_tcp_plugin.broker.workers.next_runs import NextRuns
from ovirt_tcp_plugin.broker.workers.observe import ObservationWorker, Reactions
from ovirt_tcp_plugin.broker.workers.publish import PublicationWorker
from ovirt_tcp_plugin.broker.workers.read_vms import VmReader
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.broker.workers.watch import WatchReactions, WatchWorker
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.placement.inventory import Event

log = logging.getLogger("broker.service")

TICK_S = 0.1
# Threads that read single VMs. One more reads those that could not be read before.
VM_READERS = 3


@dataclasses.dataclass(frozen=True)
class _Loop:
    """A step that one thread repeats.

    Attributes:
        pause_s: returns the seconds between the end of a step and the next one.
        wait: waits so many seconds, or until something ends the pause early.
    """

    name: str
    step: Callable[[], None]
    pause_s: Callable[[], float]
    wait: Callable[[float], object]


class Service:
    """The running broker. Also what hooks may ask for (`hooks.HookApi`).

    Attributes:
        metrics: what the workers count.
        watch, observation, enforcement: three of the workers.
    """

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        engine: EngineApi,
        source: Source,
        writer: SnapshotWriter,
        state_file: StateFile,
        history: History,
        vms: VmMonitor,
        handles: Mapping[str, hooks.Handle],
        clock: Clock,
    ) -> None:
        self._state = state
        self._state_file = state_file
        self._vms = vms
        self._handles = handles
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.metrics = Metrics()
        self._event_writer = EventWriter(state.outbox, history, engine, self.metrics, clock)
        self._attestation = AttestationWorker(options, state, source, self.metrics, clock)
        self._clock = clock
        self._contact = EngineContact(engine, clock, int(options.intervals.poll_s * 1000))
        self._charge = ChargeKeeper(state, engine, state_file, clock)
        self._next_runs = NextRuns(engine, state.vm_reads, self._contact)
        self._filter_reports = FilterReports(state, clock, options.engine.start_file)
        self.observation = self._make_observation(options, engine)
        self.watch = self._make_watch(options, engine)
        self._vm_reader = VmReader(state, engine, self._contact, clock)
        self._publication = self._make_publication(writer)
        self.enforcement = self._make_enforcement(options, engine)

    def start(self) -> None:
        """Start the threads."""
        for loop in self._loops():
            thread = threading.Thread(target=self._run, args=(loop,), name=loop.name)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the threads, and save what is known."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._attestation.stop()
        self.enforcement.stop()
        self.save_all()

    def save_all(self) -> None:
        """Save what is known, and what happened: when this returns, it survives a crash."""
        self._state_file.save(self._state)
        self._event_writer.record()

    def ages(self) -> Ages:
        """Return how long ago the engine was heard."""
        now_ms = self._clock.now_ms()
        engine_ms = _age_ms(self._contact.last_ms(), now_ms)
        return Ages(engine_ms, _age_ms(self.observation.listing_ms(), now_ms))

    def charge(self) -> ChargeState:
        """Return which broker is in charge at the engine."""
        return self._charge.view()

    # Hooks

    def run_hook(self, event: HookEvent) -> None:
        """Run the hook of an event. Raises NotFound when there is none of that name."""
        if event.name not in self._handles:
            raise errors.NotFound("engine hook", event.name)
        log.info("hook name=%s host=%s vm=%s", event.name, event.host_id or "-", event.vm_id or "-")
        self._handles[event.name](event, self)

    def hosts_came_up(self, host_ids: Sequence[str]) -> None:
        """Run the hook `init_vds_on_up` of each host; one that fails drops no other's."""
        for host_id in host_ids:
            try:
                self.run_hook(HookEvent("init_vds_on_up", host_id))
            except Exception:
                text = "hook name=init_vds_on_up host=%s failed; it is asked about all the same"
                log.exception(text, host_id)

    def run_hook_by_hand(self, name: str, host: str, vm: str) -> None:
        """Run a hook for a pool's host or a VM, each by name or id or empty. Raises NotFound."""
        if vm:
            self.run_hook(self._vms.by_hand(name, vm, self._state.listing()))
        else:
            self.run_hook(HookEvent(name, self._state.questions.host_id(host) if host else ""))

    def warn(self, event: HookEvent) -> None:
        """Write a warning event of the VM's fault, if it has one."""
        if event.fault:
            self._state.tell(vm_monitor.warning(event))

    def attest_in_stages(self) -> None:
        """Attest every Up host of every pool, first a small stage, then larger ones."""
        self._attestation.attest_in_stages()

    def attest_host(self, host_id: str) -> None:
        """Attest one host before it counts."""
        self._state.questions.ask_soon(host_id)

    # Parts

    def _make_observation(self, options: Settings, engine: EngineApi) -> ObservationWorker:
        reactions = Reactions(
            run_hook=self.run_hook,
            hosts_came_up=self.hosts_came_up,
            warn=self.warn,
            record_events=self._event_writer.record,
            forget_pool=self._forget_pool,
            see_units=self._filter_reports.observe,
        )
        return ObservationWorker(
            options,
            self._state,
            engine,
            self._vms,
            self._next_runs,
            self._contact,
            reactions,
            self._clock,
        )

    def _make_publication(self, writer: SnapshotWriter) -> PublicationWorker:
        return PublicationWorker(
            self._state,
            writer,
            self._state_file,
            self.metrics,
            self._clock,
            may_begin=self._attestation.begun.is_set,
            all_known=self.observation.all_known.is_set,
        )

    def _make_enforcement(self, options: Settings, engine: EngineApi) -> EnforcementWorker:
        return EnforcementWorker(
            self._state,
            engine,
            self._contact,
            EndRequests(options.state.directory),
            self._publication,
            self.metrics,
            self._clock,
            in_charge=self._charge.acts,
            may_begin=self.observation.all_known.is_set,
            listing_due=self.observation.listing_due.set,
        )

    def _forget_pool(self, pool_id: str) -> None:
        try:
            self._publication.forget(pool_id)
        except OSError as e:
            log.error("snapshot not removed pool=%s error=%s", pool_id, e)

    def _make_watch(self, options: Settings, engine: EngineApi) -> WatchWorker:
        reactions = WatchReactions(
            run_hook=self.run_hook,
            hosts_came_up=self.hosts_came_up,
            take_vm_event=self._take_vm_event,
            take_message=self._charge.take_event,
            messages_missed=self._charge.doubt,
            request_listing=self.observation.listing_due.set,
            request_vm_listing=self.observation.vm_listing_due.set,
            hosts_known=self.observation.hosts_known.is_set,
            all_known=self.observation.all_known.is_set,
        )
        return WatchWorker(
            options,
            self._state,
            engine,
            self._state_file,
            reactions,
            self._contact,
            self._filter_reports,
            self._clock,
        )

    # Loops

    def _loops(self) -> Sequence[_Loop]:
        wait = self._stopping.wait
        return (
            _Loop("watch", self._watch, self.watch.pause_s, wait),
            _Loop("observe", self._observe, _tick_s, wait),
            _Loop("charge", self._keep_charge, _tick_s, wait),
            *(_Loop(f"vms-{n}", self._vm_reader.step, _tick_s, wait) for n in range(VM_READERS)),
            _Loop("vms-again", self._vm_reader.step_again, _tick_s, wait),
            _Loop("attest", self._attest, _tick_s, self._attestation.wait),
            _Loop("enforce", self.enforcement.step, _tick_s, wait),
            _Loop("snapshot", self._publication.step, _tick_s, wait),
            _Loop("save", self._publication.save_step, _tick_s, wait),
            _Loop("events", self._event_writer.step, _tick_s, wait),
        )

    def _watch(self) -> None:
        self.watch.step()
        self.metrics.access(refused=False)

    def _observe(self) -> None:
        # What events end from before our start does not count when hosts are listed.
        if self.watch.events_read.is_set():
            self.observation.step()

    def _keep_charge(self) -> None:
        # A claim counts from when its answers are read.
        if self.watch.events_read.is_set():
            self._charge.step()

    def _take_vm_event(self, event: Event) -> None:
        self._vms.take_event(event)
        if event.code in events.VM_CHANGED:
            self._next_runs.forget(event.vm_id)

    def _attest(self) -> None:
        if self.observation.hosts_known.is_set():
            self._attestation.step()

    def _run(self, loop: _Loop) -> None:
        refusal = ""
        while not self._stopping.is_set():
            try:
                loop.step()
            except errors.AccessRefused as e:
                self.metrics.access(refused=True)
                # It stays so until an administrator changes something: it is logged once.
                if str(e) != refusal:
                    log.warning("loop=%s error=%s", loop.name, e)
                refusal = str(e)
            except errors.Error as e:
                log.warning("loop=%s error=%s", loop.name, e)
            except Exception:
                log.exception("loop=%s failed; it goes on, and no trust was extended", loop.name)
            loop.wait(loop.pause_s())


def _tick_s() -> float:
    return TICK_S


def _age_ms(then_ms: Optional[int], now_ms: int) -> Optional[int]:
    return None if then_ms is None else now_ms - then_ms
