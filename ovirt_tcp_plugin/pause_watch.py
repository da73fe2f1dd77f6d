# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Notices that this machine was paused. Pure: both clocks are arguments.

CLOCK_BOOTTIME stands still while a virtual machine is paused, and with it every age; the wall clock
does not.
"""

from __future__ import annotations

from typing import Optional

# The wall clock may run ahead of CLOCK_BOOTTIME by so much between two looks; more means that this
# machine was paused, or its clock set.
MAX_PAUSE_MS = 60_000


class PauseWatch:
    """Compares the two clocks at each look. Not thread-safe.

    Args:
        ahead_ms: by how much the wall clock was ahead of CLOCK_BOOTTIME at an earlier look in the
            same boot; None if there was none.
    """

    def __init__(self, ahead_ms: Optional[int] = None) -> None:
        self._ahead_ms = ahead_ms

    def look(self, wall_ms: int, now_ms: int) -> int:
        """Return for how many milliseconds the machine was paused since the last look, 0 for none.

        Args:
            wall_ms: the wall clock.
            now_ms: CLOCK_BOOTTIME of the same moment.
        """
        before_ms = self._ahead_ms
        self._ahead_ms = wall_ms - now_ms
        if before_ms is None:
            return 0
        paused_ms = self._ahead_ms - before_ms
        return paused_ms if paused_ms > MAX_PAUSE_MS else 0
