# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Takes what the broker noticed and did into its history, and from there into the engine's events.

An event that the engine cannot take now is written later under the same number, which makes a
second try harmless; neither an engine that is away nor a restart of the broker loses one. Where the
engine is there and fails at one event, the others do not wait for it.
"""

from __future__ import annotations

import dataclasses
import logging
import threading

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineEventLog
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.outbox import Outbox
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.inventory import Notice

log = logging.getLogger("broker.event_writer")

# An engine that did not take an event is asked again after this.
RETRY_MS = 1000
EVENTS_AT_ONCE = 100
# An event that the engine fails at for so long stays in the history only.
GIVE_UP_AFTER_MS = 3_600_000


class EventWriter:
    """Thread-safe."""

    def __init__(
        self,
        outbox: Outbox,
        history: History,
        engine: EngineEventLog,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._history = history
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._next_ms = 0
        # By number: since when the engine fails at an event.
        self._failing_since_ms: dict[int, int] = {}
        # How many of the notices that fell out of the outbox have been counted.
        self._overflowed = 0

    def record(self) -> None:
        """Keep the notices since the last time. Raises Unavailable; then none is forgotten."""
        with self._lock:
            notices = self._outbox.take()
            if not notices:
                return
            try:
                lost = self._history.record(notices, self._clock.wall_ms())
            except errors.Unavailable:
                self._outbox.give_back(notices)
                raise
            overflowed = self._outbox.lost
            lost += overflowed - self._overflowed
            self._overflowed = overflowed
        if lost:
            log.error(
                "events lost count=%d: the engine or the disk did not take them in time", lost
            )
            self._metrics.event(written=False, count=lost)

    def step(self) -> None:
        """Keep the new notices, and write the events that wait. Raises Unavailable."""
        self.record()
        if self._clock.now_ms() < self._next_ms:
            return
        # Stays so if an event cannot be written now.
        self._next_ms = self._clock.now_ms() + RETRY_MS
        waiting = self._history.waiting(EVENTS_AT_ONCE)
        for number, notice in waiting:
            self._write(notice, number)
        # The history forgets what is very old, though it waits.
        for number in self._failing_since_ms.keys() - {number for number, _ in waiting}:
            del self._failing_since_ms[number]
        if not self._failing_since_ms:
            self._next_ms = 0

    def _write(self, notice: Notice, number: int) -> None:
        try:
            self._add(notice, number)
        except errors.RequestFailed as e:
            self._failed(notice, number, e)
        except (errors.Conflict, errors.NotFound) as e:
            self._give_up(notice, number, e)
        else:
            self._metrics.event(written=True)
            self._settle(number)

    def _failed(self, notice: Notice, number: int, error: errors.RequestFailed) -> None:
        now_ms = self._clock.now_ms()
        since_ms = self._failing_since_ms.get(number)
        if since_ms is None:
            log.warning("event not written, tried again code=%s error=%s", notice.code, error)
            self._failing_since_ms[number] = now_ms
        elif now_ms - since_ms >= GIVE_UP_AFTER_MS:
            self._give_up(notice, number, error)

    def _give_up(self, notice: Notice, number: int, error: errors.Error) -> None:
        log.error("event lost code=%s error=%s", notice.code, error)
        self._metrics.event(written=False)
        self._settle(number)

    def _settle(self, number: int) -> None:
        self._history.settle(number)
        self._failing_since_ms.pop(number, None)

    def _add(self, notice: Notice, number: int) -> None:
        try:
            self._engine.add_event(notice, number)
        except (errors.Conflict, errors.NotFound):
            if not (notice.host_id or notice.vm_id or notice.cluster_id):
                raise
            # What it is linked to may be gone by now; what happened is still worth reporting.
            unlinked = dataclasses.replace(notice, host_id="", vm_id="", cluster_id="")
            self._engine.add_event(unlinked, number)
