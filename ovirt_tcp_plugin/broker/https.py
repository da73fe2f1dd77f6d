# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One HTTPS question with every bound: time to connect, time for the whole, size of the answer.

The certificate is always checked against the CA file. It establishes who answered, not that the
answer is true. Each thread keeps its connections for its next question: a new one costs more than
question and answer together. No proxy, no .netrc of the environment and no redirect is followed.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ovirt_tcp_plugin import errors

CHUNK = 64 * 1024
# A kept connection ends after so many seconds, so that another certificate authority counts from
# then on.
MAX_CONNECTION_AGE_S = 300


@dataclasses.dataclass(frozen=True)
class Reply:
    """Status, `Date` header (empty if absent) and body of an answer."""

    status: int
    date: str
    body: bytes


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Limits: seconds to connect, seconds for the whole question, bytes of the answer."""

    connect_s: float
    deadline_s: float
    max_size: int


def post(
    peer: str,
    url: str,
    message: Mapping[str, Any],
    headers: Mapping[str, str],
    ca_file: Path,
    bounds: Bounds,
) -> Reply:
    """POST a JSON object and return the reply, of any status.

    Raises:
        Unavailable: no connection, wrong certificate, too slow as a whole, or too long.
    """
    sent_headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    body = json.dumps(message).encode("utf-8")
    return _post(peer, url, body, sent_headers, ca_file, bounds)


def post_form(
    peer: str, url: str, form: Mapping[str, str], ca_file: Path, bounds: Bounds
) -> Reply:
    """POST a form, as a log-in needs it, and return the reply, of any status.

    Raises:
        Unavailable: as `post` does.
    """
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    body = urllib.parse.urlencode(form).encode("ascii")
    return _post(peer, url, body, headers, ca_file, bounds)


class _BoundSocket(ssl.SSLSocket):
    """Every wait ends at one moment, `end` on CLOCK_MONOTONIC.

    A timeout starts again with every byte that arrives: a peer that sends one byte at a time would
    keep us for ever.
    """

    end = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._bound()
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._bound()
        return super().send(*args, **kwargs)

    def _bound(self) -> None:
        left_s = self.end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time for the whole question is over")
        self.settimeout(left_s)


@dataclasses.dataclass(frozen=True)
class _Question:
    """A question on its way: `end` is the moment on CLOCK_MONOTONIC at which its time is over."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    connect_s: float
    end: float


class _Connection:
    """A connection to one server by one authority, used by one thread."""

    def __init__(self, host: str, port: int, ca_file: Path) -> None:
        self._host = host
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._tls.sslsocket_class = _BoundSocket
        self._http: Optional[http.client.HTTPConnection] = None
        self._made = 0.0

    @property
    def kept(self) -> bool:
        """Whether there is a connection of an earlier question.

        The server may have closed it meanwhile.
        """
        if self._http is None:
            return False
        if time.monotonic() - self._made > MAX_CONNECTION_AGE_S:
            self.close()
            return False
        return self._http.sock is not None

    def ask(self, question: _Question) -> http.client.HTTPResponse:
        """Return the answer, whose body is still to be read."""
        if not self.kept:
            self._connect(question)
        connected: Any = self._http
        connected.sock.end = question.end
        connected.request("POST", question.path, question.body, dict(question.headers))
        response: http.client.HTTPResponse = connected.getresponse()
        return response

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._http is not None:
            self._http.close()
        self._http = None

    def _connect(self, question: _Question) -> None:
        self.close()
        # The time to connect counts for the whole handshake.
        within_s = min(question.connect_s, question.end - time.monotonic())
        plain = socket.create_connection((self._host, self._port), within_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secured = self._tls.wrap_socket(plain, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise
        self._http = http.client.HTTPConnection(self._host, self._port)
        self._http.sock = secured
        self._made = time.monotonic()


class _Connections(threading.local):
    """The connections of this thread, by host, port and authority."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int, Path], _Connection] = {}

    def to(self, url: urllib.parse.SplitResult, ca_file: Path) -> _Connection:
        """Return the connection to a URL's server. Raises OSError: the authority cannot be read."""
        key = (url.hostname or "", url.port or 443, ca_file)
        if key not in self.kept:
            self.kept[key] = _Connection(*key)
        return self.kept[key]

    def drop(self, connection: _Connection) -> None:
        """Forget a connection and the authority that it was checked against."""
        connection.close()
        self.kept = {key: kept for key, kept in self.kept.items() if kept is not connection}


_connections = _Connections()


def _post(
    peer: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    ca_file: Path,
    bounds: Bounds,
) -> Reply:
    end = time.monotonic() + bounds.deadline_s
    parts = urllib.parse.urlsplit(url)
    question = _Question(parts.path, body, headers, bounds.connect_s, end)
    connection: Optional[_Connection] = None
    try:
        connection = _connections.to(parts, ca_file)
        response = _ask(connection, question)
        content = _read(peer, response, bounds.max_size)
    except (OSError, http.client.HTTPException, ValueError) as e:
        _drop(connection)
        reason = cause(e)
        if time.monotonic() >= end:
            reason = f"no whole answer within {bounds.deadline_s:.0f} s: {reason}"
        raise errors.Unavailable(peer, reason) from e
    except errors.Unavailable:
        _drop(connection)
        raise
    return Reply(response.status, response.headers.get("Date", ""), content)


def _ask(connection: _Connection, question: _Question) -> http.client.HTTPResponse:
    """Ask, on a new connection if the server has closed the kept one since the last question."""
    reused = connection.kept
    try:
        return connection.ask(question)
    except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
        if not reused:
            raise
    connection.close()
    return connection.ask(question)


def _drop(connection: Optional[_Connection]) -> None:
    if connection is not None:
        _connections.drop(connection)


def cause(error: BaseException) -> str:
    """Return the innermost reason: the outer ones only name the library's layers."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return " ".join(str(error).split())[:300] or type(error).__name__
        error = inner


def _read(peer: str, response: http.client.HTTPResponse, max_size: int) -> bytes:
    content = bytearray()
    while True:
        chunk = response.read(CHUNK)
        if not chunk:
            break
        content += chunk
        if len(content) > max_size:
            raise errors.Unavailable(peer, f"its answer is longer than {max_size} bytes")
    if response.length:
        raise errors.Unavailable(peer, "its answer ends too early")
    return bytes(content)
