# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A clock that stands still until a test moves it."""

from __future__ import annotations

import datetime

from ovirt_tcp_plugin.clock import Clock

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class FakeClock(Clock):
    """Both clocks, in milliseconds: `ms` is CLOCK_BOOTTIME, `utc_ms` the wall clock since 1970.

    A test may set either alone, as a machine that was paused or whose clock was set shows it.
    """

    def __init__(self, ms: int = 1_000_000, utc_ms: int = 5_000_000) -> None:
        self.boot_id = "00000000-0000-0000-0000-000000000001"
        self.ms = ms
        self.utc_ms = utc_ms

    def now_ms(self) -> int:
        return self.ms

    def wall_ms(self) -> int:
        return self.utc_ms

    def wall(self) -> datetime.datetime:
        return EPOCH + datetime.timedelta(milliseconds=self.utc_ms)

    def pass_ms(self, ms: int) -> None:
        """Let time pass on both."""
        self.ms += ms
        self.utc_ms += ms
