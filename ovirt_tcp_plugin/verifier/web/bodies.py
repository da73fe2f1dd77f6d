# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The memory that bodies of requests take until they are read: bounded per peer, and in all."""

from __future__ import annotations

import collections
from typing import Protocol

from ovirt_tcp_plugin.messages import evidence

# Bytes of bodies that one peer may have the server hold, over all its connections: two of the
# longest.
MAX_HELD = 2 * evidence.MAX_EVIDENCE_SIZE
# Of all peers together: 200 KiB, which is much for a report, of more than 300 hosts at a time.
MAX_HELD_IN_ALL = 64 * 1024 * 1024


class Body(Protocol):
    """What a request has sent so far of its body."""

    def give_up(self) -> None:
        """Put the request off and release what is held of it: others need the room."""


class Bodies:
    """What is held of requests whose bodies were not read yet.

    Neither one peer's hundred connections nor fifty peers may fill the memory. When all that there
    may be is taken, whoever holds most makes room: never a host whose report is one of hundreds.
    """

    def __init__(self, most: int = MAX_HELD, most_in_all: int = MAX_HELD_IN_ALL) -> None:
        self._most = most
        self._most_in_all = most_in_all
        self._by_peer: collections.Counter[str] = collections.Counter()
        self._bodies: dict[str, dict[Body, int]] = {}
        self.in_all = 0

    def hold(self, peer: str, body: Body, size: int) -> bool:
        """Count `size` bytes more of a body.

        Return False, counting nothing, when that would be too much.
        """
        if self._by_peer[peer] + size > self._most:
            return False
        while self.in_all + size > self._most_in_all:
            largest = max(self._by_peer, key=self._by_peer.__getitem__)
            if largest == peer or not self._by_peer[largest]:
                return False
            self._newest_of(largest).give_up()
        held = self._bodies.setdefault(peer, {})
        held[body] = held.get(body, 0) + size
        self._by_peer[peer] += size
        self.in_all += size
        return True

    def release(self, peer: str, body: Body) -> None:
        """Count nothing of this body any more."""
        held = self._bodies.get(peer, {})
        size = held.pop(body, 0)
        self._by_peer[peer] -= size
        self.in_all -= size
        if not held:
            self._bodies.pop(peer, None)
            del self._by_peer[peer]

    def _newest_of(self, peer: str) -> Body:
        return next(reversed(self._bodies[peer]))
