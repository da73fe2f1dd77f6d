# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whether the engine is there: the one place that says so.

Whatever it answers, it is there. Who could not do something asks whether the engine `is_away`, or
only failed at that; who would report that something goes wrong though the engine `is_there` goes by
what all threads heard of it.
"""

from __future__ import annotations

import threading
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineAnswers
from ovirt_tcp_plugin.clock import Clock

# An engine that was away for longer may have restarted hosts behind our back.
MAX_ENGINE_SILENCE_MS = 10_000


class EngineContact:
    """Answers of the engine to all threads that ask it. Thread-safe.

    Args:
        poll_ms: how often the engine is asked at least.
    """

    def __init__(self, engine: EngineAnswers, clock: Clock, poll_ms: int) -> None:
        self._engine = engine
        self._clock = clock
        self._poll_ms = poll_ms
        self._lock = threading.Lock()
        self._last_ms: Optional[int] = None
        self._absent_since_ms: Optional[int] = None

    def answered(self, asked_ms: int) -> None:
        """Take note of an answer.

        Args:
            asked_ms: when it was asked for (CLOCK_BOOTTIME): an engine that thinks for long is not
                away.
        """
        with self._lock:
            last_ms = self._last_ms
            if last_ms is not None and asked_ms - last_ms > self._longest_silence_ms():
                self._absent_since_ms = last_ms
            self._last_ms = self._clock.now_ms()

    def take_absence(self) -> Optional[int]:
        """Return since when the engine was away until it answered again, once for each absence."""
        with self._lock:
            absent_since_ms = self._absent_since_ms
            self._absent_since_ms = None
            return absent_since_ms

    def is_away(self, error: errors.Error) -> bool:
        """Return whether the engine answers nothing, and not only failed at one thing.

        It is asked something simple.

        Args:
            error: with which it failed.
        """
        if not isinstance(error, errors.Unavailable):
            return False
        asked_ms = self._clock.now_ms()
        if not self._engine.answers():
            return True
        self.answered(asked_ms)
        return False

    def is_there(self) -> bool:
        """Return whether the engine answered somebody not long ago. Asks nothing."""
        last_ms = self.last_ms()
        return last_ms is not None and self._clock.now_ms() - last_ms <= self._longest_silence_ms()

    def last_ms(self) -> Optional[int]:
        """Return when the engine last answered, None if it did not in this run."""
        with self._lock:
            return self._last_ms

    def _longest_silence_ms(self) -> int:
        """Return for how long an engine that is there may not be heard: it is asked that seldom."""
        return max(MAX_ENGINE_SILENCE_MS, 2 * self._poll_ms)
