# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The service `ovirt-engine-notifier`, if it is installed.

It writes events 1 and 2, which the engine itself never does. It looks at intervals whether the
engine answers, and only a change since its last look is an event: an engine that was away between
two looks leaves none (`EngineMonitorService`).
"""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.model import Model

_UP = "Engine server is up and running."
_DOWN = (
    "ovirt-engine-notifier is not able to connect to engine server, engine might be down or not "
    "responding."
)


class Notifier:
    """Looks every `timings.notifier` seconds of the engine's clock, never if that is 0."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self._due = tables.now()
        self._was_up = True

    def tick(self, up: bool) -> None:
        """Look at the engine, if it is time for that."""
        interval = self._model.timings.notifier
        now = self._model.now()
        if not interval or now < self._due:
            return
        self._due = now + interval
        if up and not self._was_up:
            self._model.log(audit_log.ENGINE_START, _UP)
        if self._was_up and not up:
            self._model.log(audit_log.ENGINE_STOP, _DOWN, "warning")
        self._was_up = up
