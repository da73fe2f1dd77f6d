# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Limits per peer: one that asks too much, or only holds connections open, hurts nobody else."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Optional

import tornado.httpserver
import tornado.ioloop
import tornado.iostream
from tornado.httputil import HTTPServerRequest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.web.access import account_of

TOO_MANY = "too_many_requests"

# Peers that are remembered; beyond it the one that was quiet for longest is forgotten, and starts
# afresh.
MAX_PEERS = 20_000
# Seconds' worth of requests that a quiet peer may ask at once.
BURST_S = 4
# How often slow senders are looked for.
LOOK_INTERVAL_S = 1.0
# So many times as long as it took has costly work to wait before it is done again.
PAUSE = 4


class PutOff(errors.Refused):
    """A request that may be asked again later (too_many_requests)."""

    def __init__(self, reason: str, wait_s: int = 1) -> None:
        super().__init__(TOO_MANY, reason)
        self.wait_s = wait_s


class Rates:
    """A token bucket for each peer.

    Args:
        per_second: requests that a peer may go on asking each second.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._buckets: collections.OrderedDict[str, tuple[float, int]] = collections.OrderedDict()

    def wait_s(self, peer: str, now_ms: int) -> Optional[int]:
        """Count a request of this peer at `now_ms`.

        Return None, or after how many seconds it may ask again.
        """
        burst = self._per_second * BURST_S
        left, last_ms = self._buckets.pop(peer, (burst, now_ms))
        left = min(burst, left + (now_ms - last_ms) * self._per_second / 1000)
        admitted = left >= 1
        self._buckets[peer] = (left - 1 if admitted else left, now_ms)
        if len(self._buckets) > MAX_PEERS:
            self._buckets.popitem(last=False)
        return None if admitted else math.ceil((1 - left) / self._per_second)


class Shared:
    """Costly work for everybody who asks: who asks while it is done shares it.

    It is begun again only after PAUSE times as long as it took: the list of ten thousand hosts
    takes a quarter of a second in which nobody else is served, and a single caller could ask for it
    all the time.
    """

    def __init__(self) -> None:
        self._done: Optional[asyncio.Future[bytes]] = None
        self._next_s = 0.0

    async def get(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what `work` of this caller, or of one who asked before, gives."""
        if self._done is None:
            self._done = asyncio.ensure_future(self._work(work))
            self._done.add_done_callback(self._forget)
        return await asyncio.shield(self._done)

    async def _work(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next_s - loop.time(), 0))
        began_s = loop.time()
        try:
            return await work()
        finally:
            self._next_s = loop.time() + PAUSE * (loop.time() - began_s)

    def _forget(self, _: asyncio.Future[bytes]) -> None:
        self._done = None


class WaitingLimit:
    """Requests of one peer that wait at a time.

    Questions wait for hosts, and each may hold ten thousand names for seconds; and whoever owes
    waits for its next turn.

    Args:
        most: of one peer at a time.
        reason: what a peer is told beyond it; `{most}` in it is the number.
    """

    def __init__(self, most: int, reason: str) -> None:
        self._most = most
        self._reason = reason.format(most=most)
        self._waiting: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def of(self, peer: str) -> Iterator[None]:
        """Count a request of this peer for as long as it waits.

        Raises PutOff.
        """
        if self._waiting[peer] >= self._most:
            raise PutOff(self._reason)
        self._waiting[peer] += 1
        try:
            yield
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]


class HttpServer(tornado.httpserver.HTTPServer):
    """Drops the oldest connections when there are too many.

    That is: too many on which nobody was known yet, or too many of one peer.

    An address that opens them too fast is refused at once: a TLS handshake costs the server as much
    as a report does.
    """

    def initialize(self, *args: Any, **options: Any) -> None:
        """Take our options; the others are the library's.

        Args:
            per_second: new connections of one address, or /64 of IPv6.
            max_unknown, max_of_peer: numbers of connections.
            body_within_s: seconds in which a body has to arrive.
        """
        self._body_within_s: float = options.pop("body_within_s")
        self._openings = Rates(options.pop("per_second"))
        self._max_unknown: int = options.pop("max_unknown")
        self._max_of_peer: int = options.pop("max_of_peer")
        super().initialize(*args, **options)
        # Both in the order of their beginning.
        self._unknown: dict[tornado.iostream.IOStream, None] = {}
        self._by_peer: dict[str, dict[tornado.iostream.IOStream, None]] = {}
        self._known: dict[tornado.iostream.IOStream, str] = {}
        # Requests, and when their bodies have to be there.
        self._begun: dict[HTTPServerRequest, float] = {}
        self._slow = tornado.ioloop.PeriodicCallback(self._drop_slow, 1000 * LOOK_INTERVAL_S)
        self._slow.start()

    def stop(self) -> None:
        """Take no more connections."""
        self._slow.stop()
        super().stop()

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple[object, ...]) -> None:
        """Begin a connection; its TLS handshake is still to come."""
        now_ms = int(1000 * asyncio.get_running_loop().time())
        account = account_of(str(address[0]))
        if self._openings.wait_s(account, now_ms) is not None:
            stream.close()
            return
        self._unknown[stream] = None
        self._drop_oldest(self._unknown, self._max_unknown)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection that ended."""
        self._forget(server_conn.stream)
        super().on_close(server_conn)

    def know(self, stream: tornado.iostream.IOStream, peer: str) -> None:
        """Keep a connection: its caller showed who it is."""
        if stream in self._unknown:
            del self._unknown[stream]
            self._known[stream] = peer
            self._by_peer.setdefault(peer, {})[stream] = None
            self._drop_oldest(self._by_peer[peer], self._max_of_peer)

    def await_body(self, request: HTTPServerRequest) -> None:
        """Drop the request's connection unless its body arrives in time.

        The library's own `body_timeout` would take a task and a timer for each request: a twentieth
        of all work.
        """
        self._begun[request] = asyncio.get_running_loop().time() + self._body_within_s

    def end_request(self, request: HTTPServerRequest) -> None:
        """Forget a request that was answered or broken off."""
        self._begun.pop(request, None)

    def _drop_slow(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._begun:
            request, end_s = next(iter(self._begun.items()))
            if now_s < end_s:
                return
            del self._begun[request]
            if not request._body_future.done():
                request.connection.stream.close()  # type: ignore[union-attr]

    @property
    def counts(self) -> Mapping[str, int]:
        """Open connections, by whether a caller was known on it."""
        return {"yes": len(self._known), "no": len(self._unknown)}

    def _drop_oldest(self, streams: Mapping[tornado.iostream.IOStream, None], most: int) -> None:
        for stream in list(streams)[: max(0, len(streams) - most)]:
            self._forget(stream)
            stream.close()

    def _forget(self, stream: tornado.iostream.IOStream) -> None:
        self._unknown.pop(stream, None)
        peer = self._known.pop(stream, None)
        if peer is not None:
            del self._by_peer[peer][stream]
            if not self._by_peer[peer]:
                del self._by_peer[peer]
