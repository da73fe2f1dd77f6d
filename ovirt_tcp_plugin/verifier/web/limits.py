# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Limits per peer: one that asks too much, or only holds connections open, hurts nobody else."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any, Optional

import tornado.httpserver
import tornado.iostream

# Peers that are remembered; beyond it the one that was quiet for longest is forgotten, and starts afresh.
MAX_PEERS = 20_000
# Seconds' worth of requests that a quiet peer may ask at once.
BURST_S = 4


class Rates:
    """A token bucket for each peer.

    Args:
        per_second: requests that a peer may go on asking each second.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._buckets: collections.OrderedDict[str, tuple[float, int]] = collections.OrderedDict()

    def wait_s(self, peer: str, now_ms: int) -> Optional[int]:
        """Count a request of this peer at `now_ms`; return None, or after how many seconds it may ask again."""
        burst = self._per_second * BURST_S
        left, last_ms = self._buckets.pop(peer, (burst, now_ms))
        left = min(burst, left + (now_ms - last_ms) * self._per_second / 1000)
        admitted = left >= 1
        self._buckets[peer] = (left - 1 if admitted else left, now_ms)
        if len(self._buckets) > MAX_PEERS:
            self._buckets.popitem(last=False)
        return None if admitted else math.ceil((1 - left) / self._per_second)


class HttpServer(tornado.httpserver.HTTPServer):
    """Drops the oldest connections on which nobody was known yet, when there are too many of them."""

    def initialize(self, *args: Any, **options: Any) -> None:
        """Take `max_unknown`, the most connections without a known caller; the other options are the library's."""
        self._max_unknown: int = options.pop("max_unknown")
        super().initialize(*args, **options)
        self._unknown: collections.OrderedDict[tornado.iostream.IOStream, None] = collections.OrderedDict()
        self._known: set[tornado.iostream.IOStream] = set()

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple[object, ...]) -> None:
        """Begin a connection; its TLS handshake is still to come."""
        self._unknown[stream] = None
        while len(self._unknown) > self._max_unknown:
            oldest, _ = self._unknown.popitem(last=False)
            oldest.close()
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection that ended."""
        self._unknown.pop(server_conn.stream, None)
        self._known.discard(server_conn.stream)
        super().on_close(server_conn)

    def know(self, stream: tornado.iostream.IOStream) -> None:
        """Keep a connection: its caller showed who it is."""
        if stream in self._unknown:
            del self._unknown[stream]
            self._known.add(stream)

    @property
    def counts(self) -> Mapping[str, int]:
        """Open connections, by whether a caller was known on it."""
        return {"yes": len(self._known), "no": len(self._unknown)}
