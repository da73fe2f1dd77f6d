# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A peer that is answered while it still sends hears the answer."""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.http1connection import HTTP1Connection

# So much of a refused request's body is taken and dropped: any report, and any question about
# hosts. Longer ones are cut off.
MAX_DROPPED_SIZE = 512 * 1024
# And for so long.
LINGER_S = 5.0


class LingeringConnection:
    """The connection of a request that was answered before its body had arrived.

    The library hangs up at once, and the system then tells the peer of a broken connection, before
    or instead of the answer. Here the rest of the body is taken first; the handler drops it.
    (RFC 9112, clause 9.6)

    Args:
        connection: of the request.
        body: done when the body has arrived, or the connection is gone.
    """

    def __init__(self, connection: HTTP1Connection, body: asyncio.Future[None]) -> None:
        self._connection = connection
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def finish(self) -> None:
        """End the exchange when the body has arrived, or its time is over."""
        stop = asyncio.get_running_loop().call_later(LINGER_S, self._connection.close)
        self._body.add_done_callback(lambda _: self._end(stop))

    def _end(self, stop: asyncio.TimerHandle) -> None:
        stop.cancel()
        self._body.exception()  # else it is logged that nobody asked for it
        stream = self._connection.stream
        if stream is not None and not stream.closed():
            self._connection.finish()
