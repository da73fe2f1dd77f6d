# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Did the engine start? No single sign is sure, so there are several; each start counts once.

| sign | when it is missing |
|---|---|
| event `AFFINITY_RULES_ENFORCEMENT_MANAGER_START` for each start | that manager is switched off |
| the engine was silent for long | the restart was shorter |
| its service wrote its file anew (`ENGINE_UP_MARK`) | the broker runs on another machine |
| event `VDC_START`, minutes later | `ovirt-engine-notifier` does not run, or did not look then |

The end of our session is no sign. A restart ends it, but so does `TokenCleanupService` 100 hours
after the log-in (SSO_TOKEN_TIMEOUT; use does not prolong it), or an administrator
(`TerminateSessionCommand`), and the engine answers all of them alike.

A restart that leaves none of these signs is not noticed. What happens to hosts meanwhile is: by
their own events, by the list of hosts that are not Up, and by the next complete listing.
"""

from __future__ import annotations

import datetime
from typing import Optional

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events

# The event is there before the engine answers anybody; but events may become visible late.
LATE_EVENT_MS = 10_000
# The notifier looks every 300 s, for up to 90 s (ENGINE_INTERVAL_IN_SECONDS,
# ENGINE_MONITOR_RETRIES), and may be told to look less often.
LATE_NOTIFIER_MS = 900_000


class EngineStarts:
    """Tells the starts of the engine that are news. Not thread-safe.

    Args:
        last_ms: `last_ms` of an earlier run of the broker, None if it knew of no start.

    Attributes:
        last_ms: when the last start was noticed, by the wall clock, which outlives the boot of this
            machine.
    """

    def __init__(self, clock: Clock, last_ms: Optional[int] = None) -> None:
        self._clock = clock
        self.last_ms = last_ms
        # By CLOCK_BOOTTIME; None before the first one of this run.
        self._noticed_ms: Optional[int] = None
        # Until then an event may still be that of the start noticed last.
        self._event_due_until_ms = 0
        self._file_ms: Optional[int] = None

    def is_new_by_event(self, code: int) -> bool:
        """Return whether an event tells of a start that was not noticed by another sign."""
        if code in events.ENGINE_STARTED:
            return self._is_new_by_engine_event()
        if code in events.ENGINE_ANSWERS_AGAIN:
            return self._is_new_by_notifier()
        return False

    def is_new_by_silence(self, heard_ms: int) -> bool:
        """Return whether the engine's silence since `heard_ms` (CLOCK_BOOTTIME) is news."""
        return self._count_unless_noticed_since(heard_ms)

    def is_new_by_file(self, written: Optional[datetime.datetime], heard_ms: Optional[int]) -> bool:
        """Return whether the file of the engine's service is news.

        Args:
            written: when the service wrote it, by the engine machine's clock (aware); None where it
                cannot be seen.
            heard_ms: when the engine was heard before (CLOCK_BOOTTIME), None if not in this run.
        """
        if written is None:
            return False
        written_ms = int(written.timestamp() * 1000)
        if self._file_ms is None:
            # At the first look only: a clock that was set back makes the file newer than whatever
            # is noticed now, again and again.
            news = self.last_ms is not None and written_ms > self.last_ms
        else:
            news = written_ms != self._file_ms
        self._file_ms = written_ms
        return news and self._count_unless_noticed_since(heard_ms)

    def conclude(self) -> None:
        """Take note of a start that something else shows; its event may still come."""
        self._count()
        self._event_due_until_ms = self._clock.now_ms() + LATE_EVENT_MS

    def _is_new_by_engine_event(self) -> bool:
        expected = self._clock.now_ms() < self._event_due_until_ms
        self._event_due_until_ms = 0
        if not expected:
            self._count()
        return not expected

    def _is_new_by_notifier(self) -> bool:
        now_ms = self._clock.wall_ms()
        if self.last_ms is not None and self.last_ms <= now_ms < self.last_ms + LATE_NOTIFIER_MS:
            return False
        self._count()
        return True

    def _count_unless_noticed_since(self, heard_ms: Optional[int]) -> bool:
        noticed_ms = self._noticed_ms
        if noticed_ms is not None and heard_ms is not None and noticed_ms > heard_ms:
            return False
        self.conclude()
        return True

    def _count(self) -> None:
        self._noticed_ms = self._clock.now_ms()
        self.last_ms = self._clock.wall_ms()
