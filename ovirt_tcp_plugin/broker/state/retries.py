# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When something that the engine refused, or failed at, is tried again. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable

FIRST_RETRY_MS = 1000
# A passing fault is over by then, and a wall protects: so many tries are not slowed down.
QUICK_TRIES = 5
LONGEST_RETRY_MS = 60_000
# So many failures are told: what changed while the edit was planned is mended by the next listing,
# and no news.
FAILURES_REPORTED = 3


@dataclasses.dataclass
class _Failures:
    number: int
    next_ms: int


class Retries:
    """Failures by subject, each with its own pauses. Not thread-safe."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, _Failures] = {}

    def due(self, subject: Hashable, now_ms: int) -> bool:
        """Return whether a subject may be tried now."""
        failures = self._failures.get(subject)
        return failures is None or now_ms >= failures.next_ms

    def number(self, subject: Hashable) -> int:
        """Return how often a subject failed since it last succeeded."""
        failures = self._failures.get(subject)
        return 0 if failures is None else failures.number

    def failed(self, subject: Hashable, now_ms: int) -> int:
        """Take note of a failure; return how many there are now."""
        number = self.number(subject) + 1
        doublings = min(max(number - QUICK_TRIES, 0), 10)
        pause_ms = min(FIRST_RETRY_MS * 2**doublings, LONGEST_RETRY_MS)
        self._failures[subject] = _Failures(number, now_ms + pause_ms)
        return number

    def succeeded(self, subject: Hashable) -> None:
        """Forget the failures of a subject."""
        self._failures.pop(subject, None)

    def keep(self, subjects: Iterable[Hashable]) -> None:
        """Forget all other subjects: nobody means to try them again."""
        if self._failures:
            kept = set(subjects).intersection(self._failures)
            self._failures = {subject: self._failures[subject] for subject in kept}
