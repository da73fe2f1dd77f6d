# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whose turn is it? Fair queueing by what each turn cost (Demers, Keshav and Shenker 1989). Pure.

Those who have something to do share the time evenly, whatever they ask for. Virtual time is the
service that each of them has had if it was shared so; who has had less than that is served first,
and who had nothing to do for a while gets no credit for it.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar


class Member:
    """Somebody who waits for turns.

    Attributes:
        served_s: how far its share of the service is used up, in virtual time.
        is_waiting: whether it is in the queue.
    """

    def __init__(self) -> None:
        self.served_s = 0.0
        self.is_waiting = False


M = TypeVar("M", bound=Member)


class Turns(Generic[M]):
    """A queue in which who was served least comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, M]] = []
        self._arrivals = itertools.count()
        self._virtual_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def put(self, member: M) -> None:
        """Let a member wait for a turn, unless it does already."""
        if not member.is_waiting:
            member.is_waiting = True
            member.served_s = max(member.served_s, self._virtual_s)
            heapq.heappush(self._heap, (member.served_s, next(self._arrivals), member))

    def take(self) -> M:
        """Return the member whose turn it is; `charge` tells what it cost."""
        _, _, member = heapq.heappop(self._heap)
        member.is_waiting = False
        return member

    def charge(self, member: M, cost_s: float) -> None:
        """A turn of a member took so many seconds."""
        member.served_s += cost_s
        self._virtual_s += cost_s / (len(self._heap) + 1)
