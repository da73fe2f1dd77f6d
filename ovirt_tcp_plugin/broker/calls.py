# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Calls to the engine side by side, one at a time for each subject.

One that hangs keeps only its own subject waiting.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Mapping

# Calls to the engine at once. More would only keep its other users waiting.
CALLS_AT_ONCE = 4
# Calls that hang are gone on without, in so many threads at most.
MOST_THREADS = 12
# When no call ended for so long, those under way are waited for no more. The real engine edits a
# group in 50 ms.
PATIENCE_S = 0.5


class Calls:
    """Jobs by the id of their subject. For one thread's use."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(MOST_THREADS)
        self._under_way: dict[str, concurrent.futures.Future[None]] = {}

    def stop(self) -> None:
        """Wait for the calls under way."""
        self._pool.shutdown()

    def run(self, jobs: Mapping[str, Callable[[], None]]) -> frozenset[str]:
        """Run jobs; return the subjects of those that did not end.

        Those that were not begun, since earlier ones hang, are among them.

        Raises:
            Exception: a job raised what it should have handled itself. Those under way go on.
        """
        waiting = collections.deque(subject for subject in jobs if subject not in self._under_way)
        watched: set[concurrent.futures.Future[None]] = set()
        while True:
            while waiting and len(watched) < CALLS_AT_ONCE and len(self._under_way) < MOST_THREADS:
                subject = waiting.popleft()
                self._under_way[subject] = self._pool.submit(jobs[subject])
                watched.add(self._under_way[subject])
            if not watched:
                break
            first = concurrent.futures.FIRST_COMPLETED
            ended, watched = concurrent.futures.wait(watched, PATIENCE_S, first)
            if not ended:
                watched = set()
            self._forget_ended()
        unended = frozenset(self._under_way).intersection(jobs)
        return unended.union(waiting)

    def is_under_way(self, subject: str) -> bool:
        """Return whether a job of an earlier `run` has not ended yet."""
        self._forget_ended()
        return subject in self._under_way

    def _forget_ended(self) -> None:
        for subject, future in list(self._under_way.items()):
            if future.done():
                del self._under_way[subject]
                future.result()
