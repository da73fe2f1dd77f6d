# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One HTTPS question with every bound: time to connect, time for the whole, size of the answer.

The certificate is always checked against the CA file given. It establishes who answered, not that the answer is true.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import requests
import requests.adapters
import urllib3

from ovirt_tcp_plugin import errors

CHUNK = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Reply:
    """Status, `Date` header (empty if absent) and body of an answer."""

    status: int
    date: str
    body: bytes


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Limits of one question: seconds to connect, seconds for the whole of it, bytes of the answer."""

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
    return _post(peer, url, json.dumps(message).encode("utf-8"), sent_headers, ca_file, bounds)


def post_form(peer: str, url: str, form: Mapping[str, str], ca_file: Path, bounds: Bounds) -> Reply:
    """POST a form, as log-ins want it, and return the reply, of any status. Raises Unavailable as `post` does."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return _post(peer, url, urllib.parse.urlencode(form).encode("ascii"), headers, ca_file, bounds)


def _post(peer: str, url: str, body: bytes, headers: Mapping[str, str], ca_file: Path, bounds: Bounds) -> Reply:
    timeouts = (bounds.connect_s, bounds.deadline_s)
    deadline = _Deadline(bounds.deadline_s)
    try:
        with requests.Session() as session, deadline:
            # Proxies and .netrc of the environment are not ours to follow.
            session.trust_env = False
            session.mount("https://", _Adapter(deadline))
            with session.post(
                url,
                data=body,
                headers=dict(headers),
                timeout=timeouts,
                verify=str(ca_file),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = _read(peer, answer, bounds.max_size)
                if deadline.over:
                    raise errors.Unavailable(peer, f"no whole answer within {bounds.deadline_s:.0f} s")
                return Reply(answer.status_code, answer.headers.get("Date", ""), content)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as e:
        late = f"no whole answer within {bounds.deadline_s:.0f} s: " if deadline.over else ""
        raise errors.Unavailable(peer, late + cause(e)) from e


def cause(error: BaseException) -> str:
    """Return the innermost reason: the outer ones only name the library's layers."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return " ".join(str(error).split())[:300] or type(error).__name__
        error = inner


def _read(peer: str, answer: requests.Response, max_size: int) -> bytes:
    content = bytearray()
    for chunk in _chunks(answer):
        content += chunk
        if len(content) > max_size:
            raise errors.Unavailable(peer, f"its answer is longer than {max_size} bytes")
    return bytes(content)


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    return answer.iter_content(CHUNK)


class _Deadline:
    """Shuts the connection down when the time for the whole question is over.

    The library's timeouts start anew with every byte that arrives; a peer that sends one byte at a time would keep us
    for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._socket: Optional[socket.socket] = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def watch(self, connected: socket.socket) -> None:
        """Remember a connection. A duplicate is kept, because TLS takes the original over."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = connected.dup()

    def _end(self) -> None:
        with self._lock:
            self.over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Adapter(requests.adapters.HTTPAdapter):
    """Has each new connection watched by a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        deadline = self._deadline

        class Connection(urllib3.connection.HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                connected: socket.socket = super()._new_conn()
                deadline.watch(connected)
                return connected

        class Pool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Connection

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}
