# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Notices that are not in the history yet: in memory, and bounded, while the disk keeps nothing."""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence

from ovirt_tcp_plugin.broker.inventory import Notice

# Some for each of 10,000 hosts.
SIZE = 50_000


class Outbox:
    """Thread-safe.

    Attributes:
        lost: how many notices fell out because there was no room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notices: collections.deque[Notice] = collections.deque(maxlen=SIZE)
        self.lost = 0

    def put(self, notice: Notice) -> None:
        """Add a notice; without room, the oldest falls out."""
        with self._lock:
            if len(self._notices) == SIZE:
                self.lost += 1
            self._notices.append(notice)

    def take(self) -> list[Notice]:
        """Return all notices, the oldest first, and forget them."""
        with self._lock:
            taken = list(self._notices)
            self._notices.clear()
            return taken

    def give_back(self, notices: Sequence[Notice]) -> None:
        """Have these again, before all others: they could not be kept."""
        with self._lock:
            room = SIZE - len(self._notices)
            surplus = max(len(notices) - room, 0)
            self.lost += surplus
            self._notices.extendleft(reversed(notices[surplus:]))
