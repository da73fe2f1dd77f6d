# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The clocks of this machine.

Ages and ends are CLOCK_BOOTTIME: no step of the wall clock moves it, and it runs in sleep.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime_ms() -> int:
    """Return CLOCK_BOOTTIME in milliseconds; comparable only within one boot of one machine."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Clock:
    """Real time, and the boot that it belongs to. Tests put their own clock in its place."""

    def __init__(self) -> None:
        self.boot_id = BOOT_ID.read_text(encoding="ascii").strip()

    def now_ms(self) -> int:
        """Return CLOCK_BOOTTIME in milliseconds; comparable only under one `boot_id`."""
        return boottime_ms()

    def wall(self) -> datetime.datetime:
        """Return the wall clock in UTC; for certificates and for people."""
        return datetime.datetime.now(datetime.timezone.utc)

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds.

        For the numbers of events, and to notice that this machine was paused.
        """
        return time.time_ns() // 1_000_000
