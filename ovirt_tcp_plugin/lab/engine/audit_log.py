# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The audit log: which events are written, when they show, and who may write.

Sources: `AuditLogDirector`, `AddExternalEventCommand`, `AuditLogType` for codes,
`EventFloodRegulator`, and the stored procedure InsertAuditLog for alerts.
"""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine.clock import EngineClock
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.faults import Faults

# Codes of ovirt-engine-notifier: the engine itself writes neither.
ENGINE_START = 1
ENGINE_STOP = 2
# Codes of the engine, of VMs and clusters.
ENFORCEMENT_STARTED = 10780
VM_ADDED = 34
VM_UPDATED = 35
VM_CLONED = 53
VM_IMPORTED = 174
CLUSTER_UPDATED = 811
IMPORTED_FROM_TRUSTED = 10003
IMPORTED_FROM_UNTRUSTED = 10004
VM_RESUMED = 40
VM_START_FAILED = 54
VM_DOWN = 61
VM_DOWN_ERROR = 119
VM_START_FAILED_ON_HOST = 151
VM_STARTED = 153
VM_SUSPENDED = 503
HA_RESTART_FAILED = 9603
MIGRATION_START = 62
MIGRATION_DONE = 63
MIGRATION_FAILED = 65
MIGRATION_RERUN = 128
MIGRATION_FAILED_IN_MAINTENANCE = 140
NO_HOST_TO_MIGRATE_TO = 166
# Codes of hosts.
HOST_DETECTED = 13
HOST_IN_MAINTENANCE = 15
HOST_ACTIVATED = 16
HOST_NOT_FENCED = 423
HOST_TO_MAINTENANCE = 600
HOST_STUCK = 602
HOST_LACKS_FEATURES = 4149
HOST_CONNECTING = 9008
HOST_NOT_RESPONDING = 9027
HOST_RECOVERS = 9502
HOST_UNTRUSTED = 10000
REFUSED = 14001
# Codes of the external scheduler, of users, and of what they edit.
SCHEDULER_UNREACHABLE = 9920
PLUGIN_ERROR = 10500
SCHEDULER_ERROR = 10501
LOGGED_IN = 30
LOGGED_OUT = 31
POLICY_ADDED = 9910
POLICY_UPDATED = 9912
POLICY_REMOVED = 9914
GROUP_ADDED = 10350
GROUP_UPDATED = 10352
GROUP_REMOVED = 10354
LABEL_ADDED = 10380
# Codes of other people's events by severity.
EXTERNAL_EVENT_CODES = {"normal": 9801, "warning": 9802, "error": 9803, "alert": 9804}

# Written by no command of a user, whoever's request the engine works on.
_OF_NOBODY = frozenset(
    {
        ENGINE_START,
        ENGINE_STOP,
        ENFORCEMENT_STARTED,
        SCHEDULER_UNREACHABLE,
        PLUGIN_ERROR,
        SCHEDULER_ERROR,
        HA_RESTART_FAILED,
    }
)
# Not the engine's own: their rows say that a second one within 30 s is dropped, whatever the engine
# makes of that.
WRITTEN_BY_OTHERS = frozenset({ENGINE_START, ENGINE_STOP, *EXTERNAL_EVENT_CODES.values()})
# Events of a VM that link only to it.
WITHOUT_SURROUNDINGS = frozenset({HA_RESTART_FAILED, *EXTERNAL_EVENT_CODES.values()})

# Whose request this thread works on, and the request's id; empty for the engine's own doings.
ACTING: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("acting", default=("", ""))

# Seconds in which a second event of the same code and objects is dropped.
FLOOD_S = {
    LOGGED_IN: 5,
    HOST_UNTRUSTED: 60,
    HOST_NOT_RESPONDING: 180,
    HOST_RECOVERS: 10800,
    SCHEDULER_UNREACHABLE: 60,
}
EXTERNAL_FLOOD_S = 30
MAX_TEXT = 10_000  # MaxAuditLogMessageLength
# The engine's words, with its stray sign.
_ILLEGAL_ORIGIN = "[Cannot add External Event. Illegal Origin for External Event : oVirt]"
_DUPLICATE = "[=Cannot add External Event. External Event with this custom id already exists.]"
NO_SCHEDULER = (
    "Failed to connect to external scheduler proxy. External filters, scoring functions and load "
    "balancing will not be performed."
)
RETENTION = datetime.timedelta(days=30)  # AuditLogAgingThreshold


@dataclasses.dataclass
class AuditEvent:
    """A row.

    Attributes:
        visible: when its transaction ends, on the engine's clock.
        deleted: it is hidden, but its row is kept.
    """

    id: int
    code: int
    severity: str
    description: str
    time: datetime.datetime
    visible: float
    host: str = ""
    vm: str = ""
    cluster: str = ""
    origin: str = "oVirt"
    custom_id: int = -1
    deleted: bool = False
    user: str = ""
    correlation: str = ""
    flood_rate: Optional[int] = None


class AuditLog:
    """The rows, oldest first. Not thread-safe: the tables' lock is around it."""

    def __init__(self, clock: EngineClock, faults: Faults) -> None:
        self.rows: list[AuditEvent] = []
        self._clock = clock
        self._faults = faults
        self._last_id = 0
        self._flooded: dict[tuple[object, ...], float] = {}

    def write(
        self, code: int, description: str, severity: str = "normal", **links: Any
    ) -> Optional[AuditEvent]:
        """Write an event, None if it was dropped."""
        if code in self._faults.lost_events:
            return None
        if self._floods(code, FLOOD_S.get(code, 0), links):
            return None
        if code not in _OF_NOBODY and code not in WRITTEN_BY_OTHERS:
            user, correlation = ACTING.get()
            links["user"] = user
            links["correlation"] = correlation
        self._last_id += 1
        time = self._clock.wall()
        visible = self._clock.now() + self._faults.late_events.get(code, 0.0)
        text = description[:MAX_TEXT]
        row = AuditEvent(self._last_id, code, severity, text, time, visible, **links)
        self.rows.append(row)
        return row

    def write_external(
        self,
        description: str,
        severity: str,
        origin: str,
        custom_id: int,
        flood_rate: Optional[int],
        **links: str,
    ) -> AuditEvent:
        """Write somebody else's event.

        Raises:
            Fault: the origin is the engine's own, or (origin, custom_id) is there already, or the
                event was dropped: an alert while the host has one, or a flood_rate that is 0 (every
                other value means no limit).
        """
        if origin.lower() == "ovirt":
            raise Fault(400, "Operation Failed", _ILLEGAL_ORIGIN)
        if self._has(origin, custom_id):
            raise Fault(400, "Operation Failed", _DUPLICATE)
        code = EXTERNAL_EVENT_CODES[severity]
        dropped = flood_rate == 0 and self._floods(code, EXTERNAL_FLOOD_S, links)
        if severity == "alert" and self._has_alert(links.get("host", "")):
            dropped = True
        row = None
        if not dropped:
            row = self.write(
                code,
                description,
                severity,
                origin=origin,
                custom_id=custom_id,
                flood_rate=flood_rate,
                **links,
            )
        if row is None:
            raise Fault(400, "Operation Failed", "[]")
        return row

    def visible(self) -> list[AuditEvent]:
        """Return the rows that a client can see, oldest first."""
        now = self._clock.now()
        return [row for row in self.rows if row.visible <= now and not row.deleted]

    def age(self) -> None:
        """Forget rows beyond the retention; their custom ids are free again."""
        since = self._clock.wall() - RETENTION
        if self.rows and self.rows[0].time < since:
            self.rows = [row for row in self.rows if row.time >= since]

    def restart(self) -> None:
        """The engine restarts: limits are kept in memory only."""
        self._flooded.clear()

    def _has(self, origin: str, custom_id: int) -> bool:
        return any(row.origin == origin and row.custom_id == custom_id for row in self.rows)

    def _has_alert(self, host: str) -> bool:
        code = EXTERNAL_EVENT_CODES["alert"]
        return any(row.code == code and row.host == host and not row.deleted for row in self.rows)

    def _floods(self, code: int, seconds: float, links: Any) -> bool:
        """Return whether an event is dropped as a repetition; if not, its repetitions are.

        Args:
            seconds: for how long.
        """
        if not seconds:
            return False
        subjects = [links.get(name, "") for name in ("host", "vm", "cluster")]
        key = (code, *subjects)
        now = self._clock.now()
        if now < self._flooded.get(key, 0.0):
            return True
        self._flooded[key] = now + seconds
        return False
