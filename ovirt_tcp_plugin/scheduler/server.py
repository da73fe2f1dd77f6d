# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Serves the engine beside other users of its machine, who may connect, too, and mean it ill.

The engine has to be connected within 100 ms and answered within 3 s, else it keeps all hosts. So

- users share the time evenly, and so do the connections of a user: a turn is one read of at most
  READ_SIZE, or one answer, and who costs much waits.
- At most MAX_CONNECTIONS are open. Beyond it one ends of the user who has most: the one in which
  nothing new happened for longest.
- Each may hold SHORT_SIZE of a request that is not complete, or of an answer that it does not
  take. What is longer shares MAX_LONG_BYTES; beyond it the oldest ends of the user who holds most.
- A body that is too long for any call is read and thrown away, and then refused.

What ends so ends by a reset: an orderly end would keep the port of the peer for a minute, and ports
are what the engine needs, too.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_tcp_plugin.scheduler import fairness, http1, owners, xmlrpc
from ovirt_tcp_plugin.scheduler.connections import Connection, Connections, User

log = logging.getLogger("filterd")

# The engine gives up after 100 ms to connect: a short queue would make it keep all hosts under a
# burst. The kernel takes no more than net.core.somaxconn.
BACKLOG = 4096
# Of the kernel, for each connection and direction; they count for this service.
SOCKET_BUFFER_SIZE = 65536
MAX_CONNECTIONS = 2000
# Longer than the JVM keeps an idle connection (5 s), and than it may collect garbage within a call.
QUIET_S = 30.0
READ_SIZE = 65536
MAX_LONG_BYTES = 32 * 1024 * 1024
# Beyond it a body is not even read.
MAX_DISCARDED_SIZE = 64 * 1024 * 1024
# After so much work the kernel is asked again who is there, and the snapshots have their turn.
TURN_S = 0.01
ACCEPTED_PER_TURN = 512
EVENTS_PER_TURN = 2 * MAX_CONNECTIONS
TELL_EVERY_S = 1.0

# No descriptor or no memory is left.
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET = struct.pack("ii", 1, 0)


class Server:
    """The connections of some listening sockets, served on the running loop.

    Args:
        answer: returns the reply to a body; it does not raise.
        refuse: returns the reply that lets nobody pass, with that reason.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        refuse: Callable[[str], bytes],
        listeners: Sequence[socket.socket],
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        for listener in listeners:
            self._listen(listener)
        self._owners = owners.Owners()
        self._connections = Connections()
        self._turns: fairness.Turns[User] = fairness.Turns()
        self._next_turn: Optional[asyncio.Handle] = None
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._ended: collections.Counter[tuple[str, Optional[int]]] = collections.Counter()
        self._loop.add_reader(self._epoll, self._wake)
        self._timer = self._loop.call_later(TELL_EVERY_S, self._look_after)

    def stop(self) -> None:
        """Close everything."""
        self._timer.cancel()
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._loop.remove_reader(self._epoll)
        for connection in self._connections.all():
            self._close(connection)
        for listener in self._listeners.values():
            listener.close()
        self._epoll.close()
        self._owners.close()

    def _listen(self, listener: socket.socket) -> None:
        # Connections inherit these.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)
        listener.setblocking(False)
        self._epoll.register(listener, select.EPOLLIN)

    # Turns

    def _wake(self) -> None:
        if self._next_turn is None:
            self._turn()

    def _turn(self) -> None:
        """See who has something to do, and give turns, for TURN_S."""
        self._next_turn = None
        for number, _ in self._epoll.poll(0, EVENTS_PER_TURN):
            self._hear(number)
        # Time of the processor: on a busy machine nobody pays for what others do meanwhile.
        end = time.thread_time() + TURN_S
        while self._turns and time.thread_time() < end:
            self._give_turn()
        if self._turns:
            self._next_turn = self._loop.call_soon(self._turn)

    def _hear(self, number: int) -> None:
        """Something happened at the descriptor of that number."""
        listener = self._listeners.get(number)
        connection = self._connections.find(number)
        if listener is not None:
            self._accept(listener)
        elif connection is not None:
            connection.user.turns.put(connection)
            self._turns.put(connection.user)

    def _give_turn(self) -> None:
        user = self._turns.take()
        connection = user.turns.take()
        began = time.thread_time()
        has_more = connection.is_open and self._step(connection)
        if connection.is_open:
            self._share(connection)
        cost_s = time.thread_time() - began
        user.turns.charge(connection, cost_s)
        self._turns.charge(user, cost_s)
        if has_more and connection.is_open:
            user.turns.put(connection)
        if user.turns:
            self._turns.put(user)

    def _step(self, connection: Connection) -> bool:
        """Read once, answer or go on with an answer; return whether there is more to do at once."""
        if connection.unsent:
            self._send(connection)
        elif connection.body is not None:
            self._respond(connection, self._answer(connection.body))
        else:
            return self._read(connection)
        return connection.body is not None

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                peer, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in NO_ROOM:
                    self._make_room()
                return
            self._admit(peer)

    def _admit(self, peer: socket.socket) -> None:
        try:
            uid = self._owners.uid(peer)
        except owners.Gone:
            peer.close()
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            self._make_room()
        peer.setblocking(False)
        self._connections.add(peer, uid, self._loop.time())
        self._epoll.register(peer, select.EPOLLIN)

    def _make_room(self) -> None:
        connection = self._connections.most_dispensable()
        if connection is not None:
            self._end(connection, "too_many")

    # Requests

    def _read(self, connection: Connection) -> bool:
        """Read once; return whether there is more to do at once."""
        try:
            count = connection.socket.recv_into(self._buffer)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if not count:
            self._close(connection)
            return False
        if connection.to_discard:
            self._discard(connection, count)
        elif not connection.is_ending:
            if connection.head is None and not connection.received:
                self._connections.renew(connection, self._loop.time())
            connection.received += self._buffer[:count]
            self._take(connection)
        return count == READ_SIZE or connection.body is not None

    def _discard(self, connection: Connection, count: int) -> None:
        rest = self._buffer[connection.to_discard : count]
        connection.to_discard -= count - len(rest)
        if not connection.to_discard:
            connection.received += rest
            reason = f"a call longer than {xmlrpc.MAX_REQUEST_SIZE} bytes is not looked into"
            self._respond(connection, self._refuse(reason))

    def _take(self, connection: Connection) -> None:
        """Take head and body from what was received, as far as they are there."""
        if connection.head is None:
            self._take_head(connection)
        head = connection.head
        received = connection.received
        if head is None or connection.to_discard or len(received) < head.body_length:
            return
        with memoryview(received) as view:
            connection.body = bytes(view[: head.body_length])
        del received[: head.body_length]
        self._connections.make_busy(connection)

    def _take_head(self, connection: Connection) -> None:
        received = connection.received
        end = received.find(http1.HEAD_END, 0, http1.MAX_HEAD_SIZE)
        if end < 0:
            if len(received) >= http1.MAX_HEAD_SIZE:
                self._give_up(connection, f"its head is longer than {http1.MAX_HEAD_SIZE} bytes")
            return
        head = http1.parse_head(bytes(received[:end]))
        del received[: end + len(http1.HEAD_END)]
        if head.fault:
            self._give_up(connection, head.fault)
            return
        if head.body_length > MAX_DISCARDED_SIZE:
            self._give_up(connection, f"a body of {head.body_length} bytes is not read")
            return
        connection.head = head
        if head.body_length > xmlrpc.MAX_REQUEST_SIZE:
            # At most READ_SIZE was received, and so not all of it.
            connection.to_discard = head.body_length - len(received)
            received.clear()

    # Answers

    def _give_up(self, connection: Connection, reason: str) -> None:
        """Refuse a request of which nobody can tell, or wants to wait, where it ends."""
        connection.received.clear()
        self._respond(connection, self._refuse(reason))

    def _respond(self, connection: Connection, content: bytes) -> None:
        head = connection.head or http1.Head()
        connection.head = None
        connection.body = None
        connection.is_ending = not head.keeps_open
        connection.unsent = memoryview(http1.encode_answer(content, head))
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        """Send what the kernel takes of an answer."""
        try:
            sent = connection.socket.send(connection.unsent)
            connection.unsent = connection.unsent[sent:]
            if connection.is_ending and not connection.unsent:
                connection.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)
            return
        self._connections.renew(connection, self._loop.time())
        is_blocked = bool(connection.unsent)
        if is_blocked is not connection.is_blocked:
            connection.is_blocked = is_blocked
            event = select.EPOLLOUT if is_blocked else select.EPOLLIN
            self._epoll.modify(connection.number, event)
        if connection.received and not is_blocked and not connection.is_ending:
            # The peer did not wait for its answer.
            self._take(connection)

    # Ends

    def _share(self, connection: Connection) -> None:
        """Count what it holds of the shared room, and see that this is enough for all."""
        self._connections.count(connection)
        while self._connections.long_bytes > MAX_LONG_BYTES:
            oldest = self._connections.oldest_long()
            if oldest is None:
                # All of it is in requests that are complete, and will be answered soon.
                break
            self._end(oldest, "too_long")

    def _end(self, connection: Connection, reason: str) -> None:
        self._ended[reason, connection.user.uid] += 1
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._connections.remove(connection)
        connection.socket.close()

    def _look_after(self) -> None:
        """End what is quiet for too long, and tell what was ended."""
        for connection in self._connections.quiet_since(self._loop.time() - QUIET_S):
            self._end(connection, "quiet")
        for (reason, uid), count in self._ended.items():
            user = "?" if uid is None else uid
            log.warning("connections ended reason=%s user=%s count=%d", reason, user, count)
        self._ended.clear()
        self._timer = self._loop.call_later(TELL_EVERY_S, self._look_after)
