# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The one HTTPS client of broker, agent and command line: every exchange has every bound.

Bounded are the time to connect, the time of the whole exchange, and the sizes of the answer's head
and body. The server's certificate is always checked against the CA file; it establishes who
answered, not that the answer is true. No proxy and no .netrc of the environment counts, no
redirect is followed, and no compressed answer is asked for.

Not bounded: the name service of this machine, which has timeouts of its own (resolv.conf(5)).
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional, cast

from ovirt_tcp_plugin import errors

CHUNK_SIZE = 64 * 1024
# Of status line and headers, and of all interim answers (1xx) before them.
MAX_HEAD_SIZE = 64 * 1024
# A kept connection ends after so many seconds, so that another certificate authority counts from
# then on.
MAX_CONNECTION_AGE_S = 300.0
MAX_REASON_LENGTH = 300

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Limits: seconds to connect, seconds for the whole exchange, bytes of the answer's body."""

    connect_s: float
    deadline_s: float
    max_size: int


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of whom.

    Attributes:
        peer: the server's name in errors.
        url: begins with https, or with http for a server on this machine.
        ca_file: the authorities of the server's certificate, PEM; None for those of this machine.
        repeatable: the server may get the request twice, when a kept connection breaks.
    """

    peer: str
    method: str
    url: str
    ca_file: Optional[Path]
    headers: Mapping[str, str]
    body: Optional[bytes] = None
    repeatable: bool = False


@dataclasses.dataclass(frozen=True)
class Reply:
    """Status, `Date` header (empty if absent) and body of an answer."""

    status: int
    date: str
    body: bytes


def json_request(
    peer: str,
    method: str,
    url: str,
    message: Optional[Mapping[str, Any]],
    headers: Mapping[str, str],
    ca_file: Optional[Path],
) -> Request:
    """Return a request that expects JSON, and sends a JSON object unless `message` is None."""
    all_headers = {"Accept": "application/json", **headers}
    body = None
    if message is not None:
        all_headers["Content-Type"] = "application/json"
        body = json.dumps(message).encode("utf-8")
    return Request(peer, method, url, ca_file, all_headers, body)


def exchange(request: Request, bounds: Bounds) -> Reply:
    """Return the reply, of any status, to a request on a connection of its own.

    Raises:
        Unavailable: no connection, too slow as a whole, too long, or not HTTP.
        CertificateFault: the server's certificate, or the CA file, is not good.
    """
    with contextlib.closing(Session()) as session:
        return session.exchange(request, bounds)


def post(
    peer: str,
    url: str,
    message: Mapping[str, Any],
    headers: Mapping[str, str],
    ca_file: Path,
    bounds: Bounds,
) -> Reply:
    """POST a question that changes nothing, and return the reply, of any status.

    Each thread keeps its connections for its next question: a new one costs more than question
    and answer together.

    Raises:
        Unavailable: as `exchange` does.
    """
    request = json_request(peer, "POST", url, message, headers, ca_file)
    question = dataclasses.replace(request, repeatable=True)
    return _this_thread.session.exchange(question, bounds)


def post_form(peer: str, url: str, form: Mapping[str, str], ca_file: Path, bounds: Bounds) -> Reply:
    """POST a form, as a log-in needs it, and return the reply, of any status.

    Raises:
        Unavailable: as `exchange` does.
    """
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    body = urllib.parse.urlencode(form).encode("ascii")
    return exchange(Request(peer, "POST", url, ca_file, headers, body), bounds)


class Session:
    """Keeps connections for the next exchange. For one thread at a time.

    Args:
        client_file: our certificate and its key, PEM, read for each new connection; None to show
            no certificate.
        max_age_s: how long a connection is kept.
    """

    def __init__(
        self, client_file: Optional[Path] = None, max_age_s: float = MAX_CONNECTION_AGE_S
    ) -> None:
        self._client_file = client_file
        self._max_age_s = max_age_s
        # Only those on which nothing is under way: an exchange that was stopped leaves nothing for
        # the next one to mistake for its answer.
        self._idle: dict[_Server, _Connection] = {}
        self._under_way: Optional[_Connection] = None
        self._interrupted = False

    def exchange(self, request: Request, bounds: Bounds) -> Reply:
        """Return the reply, of any status, to a request.

        Raises:
            Unavailable: as the function `exchange` does.
        """
        end_s = time.monotonic() + bounds.deadline_s
        try:
            return self._exchange(request, bounds, end_s)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise _unavailable(request.peer, e, bounds, end_s) from e

    def interrupt(self) -> None:
        """End the exchange under way, and every later one, with Unavailable, until `resume`.

        It neither waits nor raises, so signal handlers may call it. A connection that is only
        being made ends within its own time.
        """
        self._interrupted = True
        connection = self._under_way
        if connection is not None:
            connection.hang_up()

    def resume(self) -> None:
        """Let exchanges run again."""
        self._interrupted = False

    def close(self) -> None:
        """End all connections."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()

    def _exchange(self, request: Request, bounds: Bounds, end_s: float) -> Reply:
        server = _Server.of(request)
        kept = self._take(server)
        if kept is not None:
            try:
                return self._ask(kept, request, bounds, end_s)
            except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
                # The server may have closed it after we looked.
                if not request.repeatable:
                    raise
        within_s = min(bounds.connect_s, end_s - time.monotonic())
        fresh = _Connection(server, self._client_file, within_s, end_s)
        return self._ask(fresh, request, bounds, end_s)

    def _take(self, server: _Server) -> Optional[_Connection]:
        """Return the connection that was kept for a server, if it can still be used."""
        kept = self._idle.pop(server, None)
        if kept is None:
            return None
        if kept.usable(self._max_age_s):
            return kept
        kept.close()
        return None

    def _ask(
        self, connection: _Connection, request: Request, bounds: Bounds, end_s: float
    ) -> Reply:
        # In this order: an interruption is seen here, or it sees the connection.
        self._under_way = connection
        try:
            if self._interrupted:
                connection.hang_up()
            reply = connection.exchange(request, bounds.max_size, end_s)
        except BaseException:
            connection.close()
            raise
        finally:
            self._under_way = None
        self._idle[connection.server] = connection
        return reply


class _Server(NamedTuple):
    """A server, and who certifies it."""

    scheme: str
    host: str
    port: int
    ca_file: Optional[Path]

    @classmethod
    def of(cls, request: Request) -> _Server:
        """Return the server of a request. Raises ValueError."""
        parts = urllib.parse.urlsplit(request.url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{request.url} is not the URL of an HTTPS server")
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, port, request.ca_file)


class _TooLong(OSError):
    """More bytes have come than we take."""


class _UnusableFile(OSError):
    """A file of certificates cannot be read, or has none."""


class _BoundedSocket(socket.socket):
    """Ends every wait at one moment, and takes only so many bytes.

    A timeout of a socket starts again with every byte that arrives: a peer that sends one byte at
    a time would keep us for ever.

    Attributes:
        end_s: when the time of the exchange is over, CLOCK_MONOTONIC.
        takes: how many bytes may still arrive.
    """

    end_s = 0.0
    takes = 0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit_wait()
        received = super().recv_into(*args, **kwargs)
        self.takes -= received
        if self.takes < 0:
            raise _TooLong("its answer is too long")
        return received

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._limit_wait()
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._limit_wait()
        super().sendall(*args, **kwargs)

    def _limit_wait(self) -> None:
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise socket.timeout("timed out")
        self.settimeout(left_s)


class _BoundedTlsSocket(_BoundedSocket, ssl.SSLSocket):
    """The same over TLS: the bytes are those within."""


class _Connection:
    """A connection to one server. Raises OSError, HTTPException or ValueError, or one of ours."""

    def __init__(
        self, server: _Server, client_file: Optional[Path], within_s: float, end_s: float
    ) -> None:
        self.server = server
        self._socket = _connect(server, client_file, within_s, end_s)
        self._http = http.client.HTTPConnection(server.host, server.port)
        # One that is closed is not opened again, without TLS, behind our back.
        self._http.auto_open = 0
        self._http.sock = self._socket
        self._made_s = time.monotonic()

    def usable(self, max_age_s: float) -> bool:
        """Return whether the next exchange may be on it.

        It is readable if the server has closed it, or has sent what nobody asked for.
        """
        if self._http.sock is None:
            # The server said that it closes it.
            return False
        if time.monotonic() - self._made_s > max_age_s:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def exchange(self, request: Request, max_size: int, end_s: float) -> Reply:
        """Send a request and return its reply."""
        self._socket.end_s = end_s
        self._socket.takes = MAX_HEAD_SIZE
        headers = _checked(request.headers)
        self._http.request(request.method, _target(request.url), request.body, headers)
        with self._http.getresponse() as response:
            if response.status < http.client.OK:
                # The true answer would follow, and be taken for that to the next request.
                raise http.client.HTTPException(f"its answer has status {response.status}")
            # What is around the body when it comes in chunks takes no more than the body itself.
            self._socket.takes = 2 * max_size + MAX_HEAD_SIZE
            body = _read_body(response, max_size)
            return Reply(response.status, response.headers.get("Date", ""), body)

    def hang_up(self) -> None:
        """End what it waits for: nothing more arrives."""
        # Not the method of SSLSocket, which takes TLS away from the read that is under way.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._http.close()
        # It no longer belongs to `_http` if the server said that it closes it.
        self._socket.close()


class _ThisThread(threading.local):
    """The session of each thread."""

    def __init__(self) -> None:
        self.session = Session()


_this_thread = _ThisThread()


def _connect(
    server: _Server, client_file: Optional[Path], within_s: float, end_s: float
) -> _BoundedSocket:
    context = None
    if server.scheme == "https":
        context = _tls_context(server.ca_file, client_file)
    plain = _connect_plain(server, within_s, end_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return _BoundedSocket(fileno=plain.detach())
        # The timeout is that of the whole handshake.
        plain.settimeout(_left(within_s, end_s))
        secured = context.wrap_socket(plain, server_hostname=server.host)
        return cast(_BoundedTlsSocket, secured)
    except BaseException:
        plain.close()
        raise


def _connect_plain(server: _Server, within_s: float, end_s: float) -> socket.socket:
    """Connect to the first address of a name that answers; all together end with the exchange."""
    failure = OSError(f"{server.host} has no address")
    infos = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    for _, _, _, _, socket_address in infos:
        address = (str(socket_address[0]), server.port)
        try:
            return socket.create_connection(address, _left(within_s, end_s))
        except OSError as e:
            failure = e
    raise failure


def _left(within_s: float, end_s: float) -> float:
    """Return the seconds for one wait. Raises socket.timeout: the exchange is over."""
    left_s = min(within_s, end_s - time.monotonic())
    if left_s <= 0:
        raise socket.timeout("timed out")
    return left_s


def _tls_context(ca_file: Optional[Path], client_file: Optional[Path]) -> ssl.SSLContext:
    """Return how a connection is secured, with both files as they are now.

    Raises:
        _UnusableFile: one of them cannot be used.
    """
    # The errors of this library do not say which file they are about.
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as e:
        raise _UnusableFile(f"{ca_file} cannot be read: {cause(e)}") from None
    if client_file is not None:
        try:
            context.load_cert_chain(client_file)
        except OSError as e:
            raise _UnusableFile(f"{client_file} cannot be read: {cause(e)}") from None
    context.sslsocket_class = _BoundedTlsSocket
    return context


def _target(url: str) -> str:
    """Return path and query, as they stand in a request's first line."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that can be sent. Raises ValueError, without the value: it may be a token."""
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the header {name} to send has characters that no header may have")
    return dict(headers)


def _read_body(response: http.client.HTTPResponse, max_size: int) -> bytes:
    content = bytearray()
    while True:
        chunk = response.read(min(CHUNK_SIZE, max_size + 1 - len(content)))
        if not chunk:
            break
        content += chunk
        if len(content) > max_size:
            raise _TooLong(f"its answer is longer than {max_size} bytes")
    if response.length:
        raise http.client.HTTPException("its answer ends too early")
    return bytes(content)


def _unavailable(peer: str, error: Exception, bounds: Bounds, end_s: float) -> errors.Unavailable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.CertificateFault(peer, f"its certificate is not good: {error.verify_message}")
    if isinstance(error, _UnusableFile):
        return errors.CertificateFault(peer, str(error))
    in_time = time.monotonic() < end_s
    if in_time and isinstance(error, socket.timeout):
        # While connected, all waits end with the exchange.
        return errors.Unavailable(peer, f"no connection within {bounds.connect_s:g} s")
    if in_time:
        return errors.Unavailable(peer, _reason(error))
    reason = f"no whole answer within {bounds.deadline_s:g} s"
    if not isinstance(error, socket.timeout):
        reason = f"{reason}: {cause(error)}"
    return errors.Unavailable(peer, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer ends too early"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
        return "its answer is not HTTP"
    return cause(error)


def cause(error: BaseException) -> str:
    """Return the innermost reason: the outer ones only name the library's layers."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return " ".join(str(error).split())[:MAX_REASON_LENGTH] or type(error).__name__
        error = inner
