# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The open connections by user: what each holds, and which of them have to go first."""

from __future__ import annotations

import socket
from typing import Optional

from ovirt_tcp_plugin.scheduler import fairness, http1

# A call for six hundred hosts.
SHORT_SIZE = 32768


class User(fairness.Member):
    """A user of this machine and its connections, each set in the order in which they came into it.

    Attributes:
        quiet: those without a complete request.
        long: of these, those that hold more than SHORT_SIZE.
        long_bytes: what all hold that hold more than that.
        turns: of those that have something to do.
    """

    def __init__(self, uid: Optional[int]) -> None:
        super().__init__()
        self.uid = uid
        self.connections: dict[Connection, None] = {}
        self.quiet: dict[Connection, None] = {}
        self.long: dict[Connection, None] = {}
        self.long_bytes = 0
        self.turns: fairness.Turns[Connection] = fairness.Turns()


class Connection(fairness.Member):
    """A peer, and how far its request or answer is.

    Attributes:
        since: when it connected, began its request or was answered, on the loop's clock.
        received: bytes that are not used yet.
        head: of the request whose body is awaited or complete.
        to_discard: how much has still to come of a body that is too long.
        body: of a complete request that waits for its turn.
        unsent: what is left of an answer.
        is_blocked: whether the peer takes no more of it for now; nothing is read from it then.
        is_ending: whether the last answer was given: what still comes is thrown away.
        long_bytes: what it holds of the room that is shared.
    """

    def __init__(self, peer: socket.socket, user: User, since: float) -> None:
        super().__init__()
        self.socket = peer
        self.user = user
        self.number = peer.fileno()
        self.since = since
        self.received = bytearray()
        self.head: Optional[http1.Head] = None
        self.to_discard = 0
        self.body: Optional[bytes] = None
        self.unsent = memoryview(b"")
        self.is_blocked = False
        self.is_ending = False
        self.is_open = True
        self.long_bytes = 0

    def holds(self) -> int:
        """Return how many bytes this process keeps for it."""
        return len(self.received) + len(self.body or b"") + len(self.unsent)


class Connections:
    """The connections of all users.

    Attributes:
        long_bytes: what those hold together that hold more than SHORT_SIZE.
    """

    def __init__(self) -> None:
        self._users: dict[Optional[int], User] = {}
        self._by_number: dict[int, Connection] = {}
        self.long_bytes = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def all(self) -> list[Connection]:
        """Return all connections."""
        return list(self._by_number.values())

    def find(self, number: int) -> Optional[Connection]:
        """Return the connection with the descriptor of that number, None if there is none."""
        return self._by_number.get(number)

    def add(self, peer: socket.socket, uid: Optional[int], now: float) -> None:
        """Add a peer, who belongs to a user of this machine."""
        user = self._users.get(uid)
        if user is None:
            user = User(uid)
            self._users[uid] = user
        connection = Connection(peer, user, now)
        self._by_number[connection.number] = connection
        user.connections[connection] = None
        user.quiet[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection, and what it holds."""
        connection.is_open = False
        self._hold(connection, 0)
        # It may still wait for its turn, and must not keep its bytes until then.
        connection.received.clear()
        connection.body = None
        connection.unsent = memoryview(b"")
        del self._by_number[connection.number]
        user = connection.user
        del user.connections[connection]
        user.quiet.pop(connection, None)
        user.long.pop(connection, None)
        if not user.connections:
            del self._users[user.uid]

    # What happens to a connection

    def renew(self, connection: Connection, now: float) -> None:
        """Something new happened to it: it is the last that has to go."""
        connection.since = now
        connection.user.quiet.pop(connection, None)
        connection.user.quiet[connection] = None

    def make_busy(self, connection: Connection) -> None:
        """Its request is complete: it is not quiet any more."""
        del connection.user.quiet[connection]

    def count(self, connection: Connection) -> None:
        """Count what it holds of the room that is shared."""
        size = connection.holds()
        self._hold(connection, size if size > SHORT_SIZE else 0)
        if connection.long_bytes and connection.body is None:
            connection.user.long.setdefault(connection)
        else:
            connection.user.long.pop(connection, None)

    def _hold(self, connection: Connection, long_bytes: int) -> None:
        more = long_bytes - connection.long_bytes
        connection.long_bytes = long_bytes
        connection.user.long_bytes += more
        self.long_bytes += more

    # Which have to go

    def most_dispensable(self) -> Optional[Connection]:
        """Return the connection that is quiet for longest, of the user who has most."""
        if not self._users:
            return None
        user = max(self._users.values(), key=lambda user: len(user.connections))
        return next(iter(user.quiet or user.connections))

    def oldest_long(self) -> Optional[Connection]:
        """Return the oldest that holds more than SHORT_SIZE, of the user who holds most.

        None if all of them wait for an answer.
        """
        holders = [user for user in self._users.values() if user.long]
        if not holders:
            return None
        user = max(holders, key=lambda user: user.long_bytes)
        return next(iter(user.long))

    def quiet_since(self, moment: float) -> list[Connection]:
        """Return those that are quiet since before that moment, on the loop's clock."""
        quiet: list[Connection] = []
        for user in self._users.values():
            for connection in user.quiet:
                if connection.since >= moment:
                    break
                quiet.append(connection)
        return quiet
