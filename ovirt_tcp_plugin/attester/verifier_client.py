# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 2: the agent's HTTPS requests to its attestation servers.

Outbound only; nothing on a host listens.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import requests
import urllib3.exceptions

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields

CONNECT_WITHIN_S = 10.0
# For an answer that is not waited for on purpose; the appraisal itself takes milliseconds.
ANSWER_WITHIN_S = 30.0
# Results with hundreds of findings stay far below it.
MAX_ANSWER_SIZE = 1024 * 1024
_CHUNK = 16 * 1024


class VerifierClient:
    """The attestation servers, of which one is asked until it fails.

    Args:
        urls: in the order of preference.
        ca_file: authority of their certificates, PEM.
        client_file: our key and certificate, PEM; None before the enrolment.
    """

    def __init__(self, urls: Sequence[str], ca_file: Path, client_file: Optional[Path]) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._ca_file = ca_file
        self._client_file = client_file
        self._current = 0
        self._session = self._new_session()

    @property
    def current(self) -> str:
        """The URL that is asked now."""
        return self._urls[self._current]

    def post(self, path: str, message: Mapping[str, Any], wait_s: float = 0.0) -> Optional[object]:
        """Return the JSON value that the server answers, None for 204.

        Args:
            wait_s: how long the server may let us wait on purpose.

        Raises:
            Refused: the server understood and refused (4xx); code and reason are the server's.
            Unavailable: it did not answer in time, failed (5xx), or its certificate is not good.
            InvalidMessage: the answer is not of our protocol.
        """
        within_s = CONNECT_WITHIN_S + ANSWER_WITHIN_S + wait_s
        try:
            with _deadline(within_s, self.current):
                return self._post(path, message, wait_s, time.monotonic() + within_s)
        except BaseException:
            # What is left of this exchange must not become part of the next one.
            self.reconnect()
            raise

    def reconnect(self) -> None:
        """Begin a new connection, with the client certificate as it is on disk now."""
        self._session.close()
        self._session = self._new_session()

    def fail_over(self) -> bool:
        """Turn to the next server.

        Return whether that is the first one again, so that all have failed.
        """
        self._current = (self._current + 1) % len(self._urls)
        return self._current == 0

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no proxy and no other CA bundle from the environment
        session.verify = str(self._ca_file)
        if self._client_file is not None:
            session.cert = str(self._client_file)
        return session

    def _post(
        self, path: str, message: Mapping[str, Any], wait_s: float, deadline: float
    ) -> Optional[object]:
        url = self.current + path
        timeouts = (CONNECT_WITHIN_S, ANSWER_WITHIN_S + wait_s)
        try:
            with self._session.post(
                url, json=message, timeout=timeouts, stream=True, allow_redirects=False
            ) as response:
                body = _bounded(response, deadline, self.current)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            # requests wraps most of what goes wrong below it, but not all: TLS faults within a
            # body, odd addresses.
            raise errors.Unavailable(f"attestation server {self.current}", _cause(e)) from e
        if response.status_code == 204:
            return None
        return _judge(response.status_code, body, self.current)


def _bounded(response: requests.Response, deadline: float, url: str) -> bytes:
    body = b""
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > MAX_ANSWER_SIZE:
            raise errors.InvalidMessage("answer", f"longer than {MAX_ANSWER_SIZE} bytes")
        if time.monotonic() > deadline:
            raise errors.Unavailable(f"attestation server {url}", "its answer did not end in time")
    return body


def _judge(status: int, body: bytes, url: str) -> object:
    if status == 200:
        return json_fields.parse(body, "answer", MAX_ANSWER_SIZE)
    if status >= 500:
        raise errors.Unavailable(f"attestation server {url}", f"it answered with status {status}")
    if not 400 <= status < 500:
        raise errors.InvalidMessage("answer", f"unexpected status {status}")
    members = json_fields.parse_members(body, "error answer", MAX_ANSWER_SIZE)
    code = json_fields.text(members, "code", 64)
    reason = json_fields.text(members, "reason", 2000)
    # The server words its reason as the whole sentence of the error that is raised here again.
    raise errors.Refused(code, reason.removeprefix(f"refused ({code}): "))


def _cause(error: BaseException) -> str:
    """Return the innermost reason: requests wraps what matters into several layers."""
    seen: BaseException = error
    for _ in range(8):
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in seen.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        seen = inner
    return " ".join(str(seen).split())[:300] or type(seen).__name__


@contextlib.contextmanager
def _deadline(within_s: float, url: str) -> Iterator[None]:
    """Bound a whole exchange.

    A peer that sends one header byte at a time renews each socket timeout forever.

    By SIGALRM, so only in the main thread, where the agent runs; elsewhere the timeouts of each
    wait remain.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Optional[FrameType]) -> None:
        raise errors.Unavailable(
            f"attestation server {url}", f"the exchange did not end within {within_s:g} s"
        )

    handler = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left_s:  # somebody else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - started), 0.001))
