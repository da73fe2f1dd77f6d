# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When a host is asked again though nobody wants to know: before its verdict ends.

The gates go by the hosts' own verdicts, so these must not depend on a broker that polls. There is
no list of hosts to go through: each agent is in a long poll at one process of one server, which
alone asks it, by the age of the result that all of them share. A question from outside that was
answered meanwhile puts the next one off.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Optional

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.result_ages import ResultAges
from ovirt_tcp_plugin.verifier.store.results import Result

# Share of the interval by which a question may come earlier: hosts that reported at once, after new
# reference values, drift apart again.
JITTER = 0.2
# Share of the interval over which hosts are spread that are all due at once, as when the server was
# away, or they come from another server.
SPREAD = 0.25
# A host that does not answer is asked again after the life of its nonce, twice over.
RETRY_MS = 30_000


@dataclasses.dataclass(frozen=True)
class _Due:
    """When a host is to report again, and the result that this was decided by."""

    clock_id: str
    born_ms: int
    age_known: bool
    at_ms: int


class RefreshTimes:
    """The next question to each host that polls here.

    Args:
        draw: a number from 0 to 1.
    """

    def __init__(
        self,
        options: settings.Appraisal,
        ages: ResultAges,
        clock: Clock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._interval_ms = options.refresh_ms
        self._ages = ages
        self._clock = clock
        self._draw = draw
        self._due: dict[str, _Due] = {}

    def next_ms(self, host_name: str, result: Result) -> int:
        """Return when the host is to be asked again, by our clock; the past means now.

        Args:
            result: its last one. While it stays, so does the answer, however often the host polls.
        """
        self._ages.watch_for_pause()
        age_ms = self._ages.age_ms(host_name, result)
        decided = (result.clock_id, result.born_ms, age_ms is not None)
        due = self._due.get(host_name)
        if due is None or decided != (due.clock_id, due.born_ms, due.age_known):
            due = _Due(*decided, self._decide_ms(age_ms))
            self._due[host_name] = due
        return due.at_ms

    def _decide_ms(self, age_ms: Optional[int]) -> int:
        now_ms = self._clock.now_ms()
        if age_ms is not None:
            interval_ms = self._interval_ms * (1 - JITTER * self._draw())
            left_ms = int(interval_ms) - age_ms
            if left_ms > 0:
                return now_ms + left_ms
        return now_ms + int(SPREAD * self._interval_ms * self._draw())

    def challenged(self, host_name: str) -> None:
        """Put a host off that was just challenged: it may not answer."""
        due = self._due.get(host_name)
        if due is not None:
            later_ms = max(due.at_ms, self._clock.now_ms() + RETRY_MS)
            self._due[host_name] = dataclasses.replace(due, at_ms=later_ms)
