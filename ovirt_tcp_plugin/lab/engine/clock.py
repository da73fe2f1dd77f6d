# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's time: the machine's own, or one that a test moves."""

from __future__ import annotations

import datetime
import time
from typing import Optional

# A moved clock begins here.
_EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


class EngineClock:
    """The machine's time."""

    def now(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        """Return the time of day, for the audit log."""
        return datetime.datetime.now(datetime.timezone.utc)


class ManualClock(EngineClock):
    """Stands still until somebody moves it.

    An engine with such a clock has no heart-beat: it lives by its `advance`.
    """

    def __init__(self, now: Optional[float] = None) -> None:
        self._now = now or 0.0

    def now(self) -> float:
        """Return the seconds that this clock was moved by."""
        return self._now

    def wall(self) -> datetime.datetime:
        """Return the time of day that goes with it."""
        return _EPOCH + datetime.timedelta(seconds=self._now)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
