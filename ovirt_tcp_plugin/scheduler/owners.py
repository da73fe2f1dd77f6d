# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which user of this machine has the other end of a local connection? Asked from the kernel, by
sock_diag(7)."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from typing import Any, Optional

log = logging.getLogger("filterd")

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 0x1
_ESTABLISHED = 1
_DIAGNOSED = socket.IPPROTO_TCP
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBBI")
_ENDS = struct.Struct("!HH16s16s")
_REST_OF_ENDS = struct.Struct("=III")
_UID = struct.Struct("=I")
_STATE_OFFSET = _HEADER.size + 1
# Behind the header, four bytes, the ends, and three numbers.
_UID_OFFSET = _HEADER.size + 4 + _ENDS.size + _REST_OF_ENDS.size + 12
_MAX_REPLY_SIZE = 8192
_MAX_NUMBER = 0xFFFFFFFF


class Gone(Exception):
    """The peer has closed its end already: nobody waits for an answer."""


class Owners:
    """Asks for the owners of peers. It waits for nobody: the kernel answers before `send`
    returns."""

    def __init__(self) -> None:
        self._channel: Optional[socket.socket] = None
        self._asked = 0
        try:
            self._channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self._channel.setblocking(False)
        except OSError as e:
            log.warning("users of connections cannot be told apart error=%s", e)

    def uid(self, peer: socket.socket) -> Optional[int]:
        """Return the uid that made the other end of a connection, None if that cannot be told.

        Raises:
            Gone: it is closed, and belongs to nobody any more.
        """
        if peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
            raise Gone
        try:
            reply = self._ask(peer)
        except (OSError, ValueError):
            return None
        # An error says that there is no such socket, or that this kernel cannot tell: it has one
        # number for both.
        if reply is None:
            return None
        if reply[_STATE_OFFSET] != _ESTABLISHED:
            raise Gone
        (uid,) = _UID.unpack_from(reply, _UID_OFFSET)
        return int(uid)

    def _ask(self, peer: socket.socket) -> Optional[bytes]:
        """Return what the kernel tells of the other end, None if it tells nothing. Raises
        OSError."""
        if self._channel is None:
            return None
        self._asked = (self._asked + 1) & _MAX_NUMBER
        self._channel.send(_question(peer, self._asked))
        while True:
            reply = self._channel.recv(_MAX_REPLY_SIZE)
            _, kind, _, number, _ = _HEADER.unpack_from(reply)
            # The answer to an earlier question, which was not there in time, is of another socket.
            if number == self._asked:
                return reply if kind == _SOCK_DIAG_BY_FAMILY else None

    def close(self) -> None:
        """Ask no more."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.close()


def _question(peer: socket.socket, number: int) -> bytes:
    """Return the message that asks for the socket whose own end is the peer of this one."""
    there: tuple[Any, ...] = peer.getpeername()
    here: tuple[Any, ...] = peer.getsockname()
    addresses = [socket.inet_pton(peer.family, end[0]) for end in (there, here)]
    question = _QUESTION.pack(peer.family, _DIAGNOSED, 0, 0, _ANY_STATE)
    question += _ENDS.pack(there[1], here[1], *addresses)
    question += _REST_OF_ENDS.pack(0, _NO_COOKIE, _NO_COOKIE)
    size = _HEADER.size + len(question)
    return _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST, number, 0) + question
