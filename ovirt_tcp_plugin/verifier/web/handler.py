# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What all routes share: the caller is known before the body is read, and errors become answers.

Errors leave as `{"code", "reason"}`; on OpenAttestation's paths in its own shape. A caller learns
the reason of its own fault, never what the server holds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import logging
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tornado.web
from cryptography import x509
from tornado.iostream import IOStream

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.json_handler import JsonHandler
from ovirt_tcp_plugin.messages import json_fields, public_keys
from ovirt_tcp_plugin.messages.result import AttestationResult
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.enrolment import EnrolmentService
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import HostSnapshot
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.tpm_review import EndorsementReview
from ovirt_tcp_plugin.verifier.web.access import INCLUDES, CallerKind, Networks
from ovirt_tcp_plugin.verifier.web.limits import (
    TOO_MANY,
    Bodies,
    HttpServer,
    QuestionLimit,
    Rates,
    Shared,
)

log = logging.getLogger("verifier.web")

MAX_SMALL_BODY_SIZE = 64 * 1024
# An answer has to be taken within this time; the longest are some megabytes.
TAKEN_WITHIN_S = 60


@dataclasses.dataclass
class HandlerContext:
    """What the handlers share. `server` is None until it listens."""

    database: Database
    authority: Authority
    enrolment: EnrolmentService
    review: EndorsementReview
    attestation: Attestation
    signer: Signer
    reference_values: ReferenceValueService
    metrics: VerifierMetrics
    clock: Clock
    options: settings.ServerOptions
    server: Optional[HttpServer] = None

    def __post_init__(self) -> None:
        self.rates = Rates(self.options.requests_per_second)
        self.questions = QuestionLimit(self.options.peer_questions)
        self.bodies = Bodies()
        self.host_list = Shared()
        self.metrics_text = Shared()
        self.networks = {
            CallerKind.OAT_NETWORK: Networks(self.options.oat_networks),
            CallerKind.METRICS_NETWORK: Networks(self.options.metrics_networks),
        }


@tornado.web.stream_request_body
class Handler(JsonHandler):
    """Checks the caller before the body is read, and turns errors into answers.

    The body is collected here, because the library would parse forms in it for anybody, before any
    check.
    """

    server_name = "ovirt-tcp-verifier"
    log = log
    max_body_size = MAX_SMALL_BODY_SIZE

    def initialize(self, context: HandlerContext) -> None:
        self.context = context
        self.state: Optional[HostSnapshot] = None
        self._callers = self.callers_of(self.request.method or "")
        self._chunks: list[bytes] = []
        self._held = 0
        self._digest = ""
        certificate = self._client_certificate()
        if certificate:
            self._digest = hashlib.sha256(certificate).hexdigest()
        self._peer = self._digest or self.request.remote_ip or ""

    def _client_certificate(self) -> bytes:
        """Return the peer's certificate (DER), empty if it shows none or is gone already."""
        if self.request.connection.stream.socket is None:  # type: ignore[union-attr]
            return b""
        certificate = self.request.get_ssl_certificate(binary_form=True)
        return certificate if isinstance(certificate, bytes) else b""

    def data_received(self, chunk: bytes) -> None:
        if self._finished:
            return
        if self.context.bodies.hold(self._peer, len(chunk)):
            self._chunks.append(chunk)
            self._held += len(chunk)
        else:
            self._put_off(1, "too much that you sent is waiting for its end")

    @property
    def content(self) -> bytes:
        """The body, at most `max_body_size` bytes."""
        return b"".join(self._chunks)

    async def prepare(self) -> None:
        self.request.connection.set_max_body_size(self.max_body_size)  # type: ignore[union-attr]
        if self.context.server is not None:
            self.context.server.await_body(self.request)
        wait_s = self.context.rates.wait_s(self._peer, self.context.clock.now_ms())
        if wait_s is not None:
            self._put_off(wait_s, "you ask too often")
        elif await self._admitted(self._digest):
            self._keep_connection()
        elif CallerKind.ANYONE not in self._callers:
            self.answer_stranger()
        if self._length > self.max_body_size and not self._finished:
            reason = f"a body has at most {self.max_body_size} bytes here"
            self.answer_error(413, "too_long", reason)

    def _put_off(self, wait_s: int, reason: str) -> None:
        self.set_header("Retry-After", str(wait_s))
        self.answer_error(429, TOO_MANY, f"{reason}: ask again in {wait_s} s")

    @property
    def _length(self) -> int:
        """The body's length as it was announced, 0 if it was not."""
        announced = self.request.headers.get("Content-Length", "")
        return int(announced) if announced.isdecimal() and len(announced) < 20 else 0

    async def _admitted(self, digest: str) -> bool:
        """Return whether the caller is known as one that the route is for."""
        if CallerKind.AGENT in self._callers:
            if digest:
                self.state = await self._host_state(digest)
            return self.state is not None
        if self._is_in_network():
            return True
        if not self._callers - {CallerKind.ANYONE}:
            return False
        return bool(await self._token_callers() & self._callers)

    async def _host_state(self, digest: str) -> Optional[HostSnapshot]:
        """Return the state of the host that shows the certificate of this digest."""
        work = functools.partial(hosts.by_certificate, digest=digest)
        state = await self.context.database.read(work)
        if state is None:
            return None
        host = state.host
        if host.certificate_digest == digest and host.certificate_end_s is not None:
            return state
        # Seen for the first time: from now on the one before is void.
        end_s = _end_s(self._client_certificate())
        await self.context.database.write(lambda c: hosts.see(c, digest, end_s))
        return await self.context.database.read(work)

    def _is_in_network(self) -> bool:
        """Return whether the peer's address alone makes it one that the route is for."""
        address = self.request.remote_ip or ""
        for caller, networks in self.context.networks.items():
            if caller in self._callers and networks.hold(address):
                return True
        return False

    def _keep_connection(self) -> None:
        if self.context.server is not None:
            self.context.server.know(self.request.connection.stream, self._peer)  # type: ignore[union-attr]

    def finish(self, chunk: Any = None) -> Future[None]:
        stream = self.request.connection.stream  # type: ignore[union-attr]
        if not self.request._body_future.done():
            # The library hangs up after it, and would not say so.
            self.set_header("Connection", "close")
        written = super().finish(chunk)
        if stream.writing():
            asyncio.get_running_loop().call_later(TAKEN_WITHIN_S, _drop_unread, stream, written)
        return written

    def on_finish(self) -> None:
        self._chunks.clear()
        self._release()
        self.context.metrics.request(type(self).__name__, self.get_status())

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._release()

    def _release(self) -> None:
        self.context.bodies.release(self._peer, self._held)
        self._held = 0
        if self.context.server is not None:
            self.context.server.end_request(self.request)

    async def ask(
        self, names: Sequence[str], max_age_ms: Optional[int], wait_ms: int
    ) -> list[AttestationResult]:
        """Return a result for each name, as `Attestation.results` does.

        Raises:
            Refused: too many questions of this caller wait already.
            Unavailable: the store does not answer.
        """
        with self.context.questions.of(self._peer):
            return await self.context.attestation.results(names, max_age_ms, wait_ms)

    def body(self, what: str) -> Mapping[str, object]:
        """Return the request's JSON object. Raises InvalidMessage."""
        return json_fields.parse_members(self.content, what, self.max_body_size)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, errors.Refused) and error.code == TOO_MANY:
            self._put_off(1, error.reason)
        else:
            super().write_error(status_code, **kwargs)

    async def _token_callers(self) -> set[CallerKind]:
        secret = self.bearer or self.request.headers.get("X-Auth-Blob", "")
        if not secret:
            return set()
        token = await self.context.database.read(lambda c: tokens.find(c, secret))
        if token is None:
            return set()
        now_s = self.context.clock.wall().timestamp()
        return _callers_of(token, now_s)


def _end_s(certificate: bytes) -> int:
    """Return when a client certificate (DER) ends that TLS has checked, in seconds of the epoch."""
    if not certificate:
        return 0
    _, end = public_keys.life(x509.load_der_x509_certificate(certificate))
    return int(end.timestamp())


def _drop_unread(stream: IOStream, written: Future[None]) -> None:
    if not written.done():
        stream.close()


def _callers_of(token: Token, now_s: float) -> set[CallerKind]:
    # A token that enrols one host is shown inside the message of enrolment, and opens no route.
    if token.host_name or token.end_s <= now_s:
        return set()
    return INCLUDES.get(token.role, set())
