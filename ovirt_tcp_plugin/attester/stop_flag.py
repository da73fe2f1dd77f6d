# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A flag that a signal handler may set, and that ends a pause."""

from __future__ import annotations

import contextlib
import os
import select


class StopFlag:
    """Not set at first, and set for good."""

    def __init__(self) -> None:
        self.is_set = False
        # A sleep goes on after a signal handler (PEP 475), and the lock of threading.Event may be
        # held by the code that the handler interrupts. A byte in a pipe has neither fault.
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self) -> None:
        """Set it; a pause under way, and each later one, ends at once."""
        self.is_set = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"x")

    def pause(self, seconds: float) -> None:
        """Wait, at most until the flag is set."""
        # Not `select`, which takes no descriptor beyond the first 1,024.
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll(1000 * seconds)
