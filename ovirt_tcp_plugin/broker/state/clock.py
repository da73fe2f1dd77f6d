# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the state asks of time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """CLOCK_BOOTTIME and the wall clock; `ovirt_tcp_plugin.clock.Clock` is the machine's own.

    Attributes:
        boot_id: the boot of this machine that `now_ms` is of.
    """

    boot_id: str

    def now_ms(self) -> int:
        """Return CLOCK_BOOTTIME in milliseconds."""

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
