# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Connections of good and bad peers: what each gets, and what ends when there are too many or they
hold too much."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ovirt_tcp_plugin.scheduler import http1, server
from ovirt_tcp_plugin.scheduler.owners import Owners
from tests.scheduler.filterd import read_answer

ANSWER_SIZE = 700_000
GOOD_USER, BAD_USER = 108, 1000


class Running:
    """A server in a thread that sends each body back, or for `many` a large answer."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=server.BACKLOG)
        self.port = self.listener.getsockname()[1]
        self.slow_s = 0.0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._started.wait()

    async def _serve(self) -> None:
        self.server = server.Server(
            self._answer, lambda reason: b"refused: " + reason.encode(), [self.listener]
        )
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._started.set()
        await self._stopped.wait()
        self.server.stop()

    def _answer(self, body: bytes) -> bytes:
        if body == b"slow":
            time.sleep(self.slow_s)
        return b"x" * ANSWER_SIZE if body == b"many" else b"answer to " + body

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.01)

    def until_open(self, count: int) -> None:
        self.until(lambda: len(self.server._connections) == count)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.stop()


def request(body: bytes, length: int = -1) -> bytes:
    return (
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (len(body) if length < 0 else length)
        + body
    )


def test_requests_that_do_not_wait_for_their_answers_are_answered_in_order(
    running: Running,
) -> None:
    with running.connect() as peer:
        peer.sendall(b"".join(request(b"%d" % number) for number in range(500)))
        for number in range(500):
            assert read_answer(peer)[1] == b"answer to %d" % number


def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    with running.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(b"body"):
            peer.send(bytes([byte]))
            time.sleep(0.001)
        assert read_answer(peer)[1] == b"answer to body"


def test_a_body_that_is_too_long_is_thrown_away_and_the_connection_goes_on(
    running: Running,
) -> None:
    with running.connect() as peer:
        peer.sendall(request(b"x" * 5_000_000) + request(b"next"))
        assert b"refused: a call longer" in read_answer(peer)[1]
        assert read_answer(peer)[1] == b"answer to next"
        running.until(lambda: running.server._connections.long_bytes == 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"x" * http1.MAX_HEAD_SIZE,
        b"rubbish\r\n\r\n" + b"x" * 1_000_000,
        request(b"", server.MAX_DISCARDED_SIZE + 1) + b"x" * 1_000_000,
    ],
    ids=["head without an end", "rubbish", "endless body"],
)
def test_where_nobody_can_tell_where_it_ends_the_answer_is_the_last(
    running: Running, sent: bytes
) -> None:
    with running.connect() as peer:
        peer.sendall(sent)
        status, content = read_answer(peer)
        assert (status, content[:9]) == (b"HTTP/1.1 200 OK", b"refused: ")
        assert peer.recv(1) == b""
    running.until_open(0)


def test_an_answer_waits_for_a_peer_that_reads_slowly_and_for_nobody_else(running: Running) -> None:
    with running.connect() as slow, running.connect() as quick:
        slow.sendall(request(b"many") + request(b"next"))
        time.sleep(0.1)
        quick.sendall(request(b"body"))
        assert read_answer(quick)[1] == b"answer to body"
        assert len(read_answer(slow)[1]) == ANSWER_SIZE
        assert read_answer(slow)[1] == b"answer to next"


def test_a_peer_that_goes_while_it_is_answered_hurts_nobody(running: Running) -> None:
    running.slow_s = 0.2
    gone = running.connect()
    gone.sendall(request(b"slow") + request(b"slow"))
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, server._RESET)
    gone.close()
    with running.connect() as peer:
        peer.sendall(request(b"body"))
        assert read_answer(peer)[1] == b"answer to body"
        running.until_open(1)


def test_who_sends_nothing_for_long_is_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "QUIET_S", 1.0)
    with running.connect() as silent, running.connect() as unfinished, running.connect() as deaf:
        unfinished.sendall(request(b"half", 8))
        deaf.sendall(request(b"many") * 5)
        running.until_open(3)
        running.until_open(0)
        for peer in (silent, unfinished):
            with pytest.raises(ConnectionResetError):
                peer.recv(1)


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return the ports of the peers that are of the engine's user."""
    ports: set[int] = set()
    monkeypatch.setattr(
        Owners, "uid", lambda _, peer: GOOD_USER if peer.getpeername()[1] in ports else BAD_USER
    )
    return ports


def connect_as_engine(running: Running, users: set[int]) -> socket.socket:
    peer = socket.socket()
    peer.bind(("127.0.0.1", 0))
    users.add(peer.getsockname()[1])
    peer.connect(("127.0.0.1", running.port))
    return peer


def test_beyond_the_most_connections_the_oldest_ends_of_the_user_who_has_most(
    running: Running, users: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 10)
    with connect_as_engine(running, users) as engine:
        running.until_open(1)
        others = [running.connect() for _ in range(30)]
        for other in others[:21]:
            with pytest.raises(ConnectionResetError):
                other.recv(1)
        running.until_open(10)
        engine.sendall(request(b"body"))
        assert read_answer(engine)[1] == b"answer to body"
        others[-1].sendall(request(b"body"))
        assert read_answer(others[-1])[1] == b"answer to body"
        for other in others:
            other.close()


def test_beyond_the_most_bytes_the_oldest_ends_of_the_user_who_holds_most(
    running: Running, users: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_LONG_BYTES", 1_000_000)
    half = request(b"x" * 250_000, 500_000)
    with connect_as_engine(running, users) as engine:
        engine.sendall(half)
        running.until(lambda: running.server._connections.long_bytes >= 250_000)
        others = [running.connect() for _ in range(10)]
        for other in others:
            other.sendall(half)
        running.until_open(4)
        assert running.server._connections.long_bytes <= 1_000_000
        engine.sendall(b"x" * 250_000)
        assert len(read_answer(engine)[1]) == len(b"answer to ") + 500_000
        for other in others:
            other.close()


def test_short_requests_are_never_ended_for_what_they_hold(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_LONG_BYTES", 0)
    peers = [running.connect() for _ in range(20)]
    for peer in peers:
        peer.sendall(request(b"x" * 30_000, 30_001))
    for peer in peers:
        peer.sendall(b"x")
        assert len(read_answer(peer)[1]) == len(b"answer to ") + 30_001
        peer.close()


def test_a_user_whose_calls_are_dear_does_not_make_the_engine_wait_for_all_of_them(
    running: Running, users: set[int]
) -> None:
    running.slow_s = 0.05
    others = [running.connect() for _ in range(60)]
    with connect_as_engine(running, users) as engine:
        running.until_open(61)
        for other in others:
            other.sendall(request(b"slow"))
        began = time.monotonic()
        engine.sendall(request(b"body"))
        assert read_answer(engine)[1] == b"answer to body"
        # All of them take 3 s.
        assert time.monotonic() - began < 1
        for other in others:
            other.close()


def test_without_a_descriptor_the_oldest_connection_ends(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running.connect() as old:
        running.until_open(1)
        accept = socket.socket.accept
        failed = []

        def fail_once(listener: socket.socket) -> tuple[socket.socket, object]:
            if not failed:
                failed.append(listener)
                raise OSError(errno.EMFILE, "Too many open files")
            return accept(listener)

        monkeypatch.setattr(socket.socket, "accept", fail_once)
        with running.connect() as peer:
            peer.sendall(request(b"body"))
            assert read_answer(peer)[1] == b"answer to body"
            with pytest.raises(ConnectionResetError):
                old.recv(1)
