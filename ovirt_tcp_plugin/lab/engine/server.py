# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine as a running thing: its parts together, its start, its restarts and its heart-beat."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log, options, population
from ovirt_tcp_plugin.lab.engine.clock import EngineClock, ManualClock
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.discovery import Discovery
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler
from ovirt_tcp_plugin.lab.engine.faults import Faults
from ovirt_tcp_plugin.lab.engine.hosts import HostLifecycle
from ovirt_tcp_plugin.lab.engine.model import Model, Timings
from ovirt_tcp_plugin.lab.engine.notifier import Notifier
from ovirt_tcp_plugin.lab.engine.options import Options
from ovirt_tcp_plugin.lab.engine.rest import Rest
from ovirt_tcp_plugin.lab.engine.rounds import Rounds
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.sessions import Sessions
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.vms import VmLifecycle
from ovirt_tcp_plugin.lab.engine.web import Web

HEARTBEAT_S = 0.1
# How long, in real seconds, a start's transaction is open at most while discovery waits for its
# answer.
START_TRANSACTION_S = 1.0


class EngineSimulator:
    """An engine in this process.

    With a ManualClock nothing happens by itself: `advance` is its time.
    """

    def __init__(self, config: Config, clock: Optional[EngineClock] = None) -> None:
        self.config = config
        self.clock = clock or EngineClock()
        self.faults = Faults()
        timings = Timings(**config.timings)  # type: ignore[arg-type]
        self.model = Model(timings, self.clock, self.faults)
        population.fill(self.model, config)
        dice = random.Random(config.seed)  # noqa: S311 - a lab's dice
        self.discovery = Discovery(self.model, dice)
        self.scheduling = Scheduling(self.model)
        self.vms = VmLifecycle(self.model, self.scheduling)
        self.hosts = HostLifecycle(self.model, self.vms)
        self.rounds = Rounds(self.model, self.scheduling, self.vms, self.hosts)
        self.notifier = Notifier(self.model)
        self.sessions = Sessions(self.model)
        # What the engine's options say; its REST API holds the same mapping.
        self._vm_properties: dict[str, str] = {}
        self.rest = Rest(
            self.model,
            self.scheduling,
            self.hosts,
            self.vms,
            self._vm_properties,
            config.attestation_server,
        )
        self.web = Web(self, config)
        self.away_until = 0.0
        self._stopping = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heart-beat")

    @property
    def url(self) -> str:
        """Root of the API for the SDK."""
        return f"https://127.0.0.1:{self.web.port}{API}"

    def start(self) -> None:
        """Start to serve.

        By then the external scheduler has answered, unless it takes longer than the engine's start.
        """
        self._begin()
        self.discovery.wait(self.model.timings.restart)
        self.web.start()
        if not isinstance(self.clock, ManualClock):
            self._heart.start()

    def stop(self) -> None:
        """Stop, and wait until all threads have ended."""
        self._stopping.set()
        self.web.stop()
        if self._heart.ident is not None:
            self._heart.join()
        self.discovery.wait()
        self._unmark()

    def restart(self, seconds: Optional[float] = None) -> None:
        """Be away for a while, with the proxy's HTML 503; then start again, with a new discovery.

        No event tells of it.

        Args:
            seconds: how long; None for the usual time.
        """
        pause = self.model.timings.restart if seconds is None else seconds
        self._unmark()
        self.away_until = self.model.now() + pause
        self.sessions.end_all()

    def advance(self, seconds: float, step_s: float = HEARTBEAT_S) -> None:
        """Let time pass, by the engine's own heart-beat or a slower one.

        Raises:
            TypeError: it has no ManualClock.
        """
        if not isinstance(self.clock, ManualClock):
            raise TypeError("the machine's own clock cannot be moved")
        end = self.clock.now() + seconds
        while end - self.clock.now() > step_s / 2:
            self.clock.move(step_s)
            self.tick()

    def tick(self) -> None:
        """Let everything happen that is due."""
        self.notifier.tick(up=not self.away_until)
        if self.away_until:
            if self.model.now() < self.away_until:
                return
            self._begin()
            self.away_until = 0.0
        self.hosts.tick()
        self.vms.tick()
        self.rounds.tick()

    def _begin(self) -> None:
        """What every start of the engine does (`ovirt-engine.py`, `Backend.initialize`)."""
        if self.config.up_mark:
            Path(self.config.up_mark).write_text(f"{os.getpid()}\n", encoding="ascii")
        with self.model.lock:
            # What refused edits left in memory is gone.
            self.model.policies.update(self.model.unspoiled_policies)
            self.model.unspoiled_policies.clear()
        self._apply(self._options())
        self.model.audit_log.restart()
        self.hosts.restart()
        self.rounds.restart()
        self.discovery.begin()
        self.model.log(audit_log.ENFORCEMENT_STARTED, "Affinity Rules Enforcement Manager started.")
        self.discovery.end_start(START_TRANSACTION_S)

    def _unmark(self) -> None:
        if self.config.up_mark:
            Path(self.config.up_mark).unlink(missing_ok=True)

    def _options(self) -> Options:
        if self.config.options:
            return options.read(Path(self.config.options))
        timings = self.model.timings
        return Options(
            self.config.external_scheduler,
            timings.external_response,
            timings.ha_long_retry,
            self.config.vm_properties,
        )

    def _apply(self, current: Options) -> None:
        with self.model.lock:
            self.model.timings = dataclasses.replace(
                self.model.timings,
                external_response=current.external_response,
                ha_long_retry=current.ha_long_retry,
            )
            self._vm_properties.clear()
            self._vm_properties.update(current.vm_properties)
        external = None
        if current.external_scheduler:
            external = ExternalScheduler(current.external_scheduler, current.external_response)
        self.discovery.external = external
        self.scheduling.external = external

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            self.tick()
