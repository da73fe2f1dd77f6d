# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The clocks of the broker: verdicts live by CLOCK_BOOTTIME, which no wall-clock step moves and which runs in sleep."""

from __future__ import annotations

import time
from pathlib import Path


class Clock:
    """Real time. Tests put their own in its place."""

    def __init__(self) -> None:
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now_ms(self) -> int:
        """Return CLOCK_BOOTTIME in milliseconds; comparable only under one `boot_id`."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds; for people, for event numbers and to notice that we were paused."""
        return time.time_ns() // 1_000_000
