# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The one clock of the verifier: ages are CLOCK_BOOTTIME, which no wall-clock step moves and which runs in sleep."""

from __future__ import annotations

import datetime
import time
from pathlib import Path


class Clock:
    """Real time. Tests put their own in its place."""

    def __init__(self) -> None:
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now_ms(self) -> int:
        """Return CLOCK_BOOTTIME in milliseconds; comparable only under one `boot_id`."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall(self) -> datetime.datetime:
        """Return the wall clock in UTC; for certificates and `vtime` only."""
        return datetime.datetime.now(datetime.timezone.utc)
