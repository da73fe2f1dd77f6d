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

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks
from ovirt_tcp_plugin.broker.engine_api import EngineApi
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.metrics import Ages, Metrics
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.answer import Source
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers import vm_monitor
from ovirt_tcp_plugin.broker.workers.attest import AttestationWorker
from ovirt_tcp_plugin.broker.workers.enforce import EnforcementWorker
from ovirt_tcp_plugin.broker.workers.events import EventWriter
from ovirt_tcp_plugin.broker.workers.observe import ObservationWorker, Reactions
from ovirt_tcp_plugin.broker.workers.publish import PublicationWorker
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.clock import Clock

log = logging.getLogger("broker.service")

TICK_S = 0.1


@dataclasses.dataclass(frozen=True)
class _Loop:
    """A step that one thread repeats.

    Attributes:
        pause_s: seconds between the end of a step and the next one.
        wait: waits so many seconds, or until something ends the pause early.
    """

    name: str
    step: Callable[[], None]
    pause_s: float
    wait: Callable[[float], object]


class Service:
    """The running broker. Also what hooks may ask for (`hooks.HookApi`).

    Attributes:
        metrics: what the workers count.
        observation, enforcement: two of the workers.
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
        self._poll_s = options.intervals.poll_s
        self._state = state
        self._state_file = state_file
        self._vms = vms
        self._handles = handles
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.metrics = Metrics()
        self._event_writer = EventWriter(state.outbox, history, engine, self.metrics, clock)
        self._attestation = AttestationWorker(options, state, source, self.metrics, clock)
        reactions = Reactions(self.run_hook, self.warn, self._event_writer.record, writer.remove)
        self.observation = ObservationWorker(
            options, state, engine, state_file, vms, reactions, clock
        )
        all_known = self.observation.all_known.is_set
        first_stage_over = self._attestation.begun.is_set
        self._publication = PublicationWorker(
            state, writer, state_file, self.metrics, clock, first_stage_over, all_known
        )
        listing_due = self.observation.listing_due.set
        self.enforcement = EnforcementWorker(
            state,
            engine,
            EndRequests(options.state.directory),
            self._publication,
            self.metrics,
            clock,
            all_known,
            listing_due,
        )

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
        return self.observation.ages()

    # Hooks

    def run_hook(self, event: HookEvent) -> None:
        """Run the hook of an event. Raises NotFound when there is none of that name."""
        if event.name not in self._handles:
            raise errors.NotFound("engine hook", event.name)
        log.info("hook name=%s host=%s vm=%s", event.name, event.host_id or "-", event.vm_id or "-")
        self._handles[event.name](event, self)

    def run_hook_by_hand(self, name: str, host: str, vm: str) -> None:
        """Run a hook for a pool's host or a VM, each by name or id or empty. Raises NotFound."""
        if vm:
            self.run_hook(self._vms.by_hand(name, vm, self._state.listing()))
        else:
            self.run_hook(HookEvent(name, self._state.host_id(host) if host else ""))

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

    # Loops

    def _loops(self) -> Sequence[_Loop]:
        wait = self._stopping.wait
        return (
            _Loop("observe", self._observe, self._poll_s / 2, wait),
            _Loop("attest", self._attest, TICK_S, self._attestation.wait),
            _Loop("enforce", self.enforcement.step, TICK_S, wait),
            _Loop("snapshot", self._publication.step, TICK_S, wait),
            _Loop("events", self._event_writer.step, TICK_S, wait),
        )

    def _observe(self) -> None:
        self.observation.step()
        self.metrics.access(refused=False)

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
            loop.wait(loop.pause_s)
