# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What all routes share: the caller is known before the body is read, and errors become answers.

Errors leave as `{"code", "reason"}`; on OpenAttestation's paths in its own shape. A caller learns
the reason of its own fault, never what the server holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from asyncio import Future
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar, cast

import tornado.web
from cryptography import x509
from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, StreamClosedError

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.json_handler import STATUS, JsonHandler
from ovirt_tcp_plugin.messages import json_fields, public_keys
from ovirt_tcp_plugin.messages.result import AttestationResult
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.enrolment import EnrolmentService
from ovirt_tcp_plugin.verifier.fair_share import (
    Accounts,
    Lines,
    Metered,
    Peer,
    Turns,
    parts,
    whole_seconds,
)
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import hosts, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import HostSnapshot
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.tpm_review import EndorsementReview
from ovirt_tcp_plugin.verifier.web.access import INCLUDES, CallerKind, Networks, account_of
from ovirt_tcp_plugin.verifier.web.bodies import Bodies
from ovirt_tcp_plugin.verifier.web.limits import (
    TOO_MANY,
    HttpServer,
    PutOff,
    Rates,
    Shared,
    WaitingLimit,
)
from ovirt_tcp_plugin.verifier.web.lingering import MAX_DROPPED_SIZE, LingeringConnection
from ovirt_tcp_plugin.verifier.web.refusal_log import RefusalLog

log = logging.getLogger("verifier.web")

MAX_SMALL_BODY_SIZE = 64 * 1024
# An answer has to be taken within this time; the longest are some megabytes.
TAKEN_WITHIN_S = 60

# What a host takes of one core: an honest report is some milliseconds, once in minutes.
HOST_SHARE = 0.05
HOST_AT_ONCE_S = 0.1
# A stranger's: enrolments, of hosts that may be many behind one address.
STRANGER_SHARE = 0.1
STRANGER_AT_ONCE_S = 0.5
# Of `question_share`: some thousand hosts.
QUESTION_AT_ONCE_S = 1.0
# Whoever owes waits so long for its turn; if it would be longer, it is put off.
LONGEST_WAIT_S = 5.0
WAITING_REQUESTS = 20
# What a request takes before and after what is metered, and what each byte of its body takes until
# it is decrypted and kept.
REQUEST_S = 0.0002
BYTE_S = 4e-9
# A question about more hosts is a large one: a peer has one of them answered at a time.
LARGE_QUESTION = 1000

T = TypeVar("T")


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
        self.accounts = Accounts()
        self.turns = Turns(self.accounts)
        self.costly = Lines()
        self.refusals = RefusalLog()
        self.in_debt = WaitingLimit(
            WAITING_REQUESTS, "{most} requests of yours are waiting for their turn already"
        )
        self.questions = WaitingLimit(
            self.options.peer_questions, "{most} questions of yours are waiting for hosts already"
        )
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
        self._gave_up = False
        self._digest = ""
        certificate = self._client_certificate()
        if certificate:
            self._digest = hashlib.sha256(certificate).hexdigest()
        self._account = account_of(self.request.remote_ip or "")
        self._peer = Peer(self._account, STRANGER_SHARE, STRANGER_AT_ONCE_S)
        if self._digest:
            # With the address: whoever stole the certificate pays for himself.
            name = f"{self._digest} {self._account}"
            self._peer = Peer(name, HOST_SHARE, HOST_AT_ONCE_S)
        self._is_known = False

    async def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> None:
        # Not `prepare` and the method: what the library refuses itself has its price, too.
        request = super()._execute(transforms, *args, **kwargs)
        await Metered(request, self._spend)

    def _spend(self, cost_s: float) -> None:
        self.context.accounts.charge(self._peer, cost_s)

    def _client_certificate(self) -> bytes:
        """Return the peer's certificate (DER), empty if it shows none or is gone already."""
        if self.request.connection.stream.socket is None:  # type: ignore[union-attr]
            return b""
        certificate = self.request.get_ssl_certificate(binary_form=True)
        return certificate if isinstance(certificate, bytes) else b""

    def data_received(self, chunk: bytes) -> None:
        self._spend(BYTE_S * len(chunk))
        if self._finished or self._gave_up:
            return
        if self.context.bodies.hold(self._peer.name, self, len(chunk)):
            self._chunks.append(chunk)
        else:
            self.give_up()

    def give_up(self) -> None:
        """Release the body: it takes memory that others need.

        The sender is put off when it has sent all, or the body is to be read: one that is answered
        before may not hear it.
        """
        self._release_body()
        self._gave_up = True

    @property
    def content(self) -> bytes:
        """The body, at most `max_body_size` bytes; it is read once, and not held after that.

        Raises PutOff: it took memory that others needed.
        """
        if self._gave_up:
            raise PutOff("too much that you sent is waiting for its end")
        body = b"".join(self._chunks)
        self._release_body()
        return body

    async def prepare(self) -> None:
        self._spend(REQUEST_S)
        self.request.connection.set_max_body_size(self.max_body_size)  # type: ignore[union-attr]
        if self.context.server is not None:
            self.context.server.await_body(self.request)
        wait_s = self.context.rates.wait_s(self._peer.name, self.context.clock.now_ms())
        if wait_s is not None:
            self._put_off(wait_s, "you ask too often")
        elif await self._admitted(self._digest):
            self._keep_connection()
        elif CallerKind.ANYONE not in self._callers:
            self.answer_stranger()
        if self._length > self.max_body_size and not self._finished:
            reason = f"a body has at most {self.max_body_size} bytes here"
            self.answer_error(413, "too_long", reason)
        if not self._finished:
            await self._pay()

    async def _pay(self) -> None:
        """Wait until the peer owes no more than it may.

        Raises:
            PutOff: that takes too long, or too many requests of its wait already.
        """
        accounts = self.context.accounts
        if not accounts.wait_s(self._peer):
            return
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LONGEST_WAIT_S
        with self.context.in_debt.of(self._peer.name):
            wait_s = accounts.wait_s(self._peer)
            while wait_s > 0:
                if loop.time() + wait_s > end_s:
                    raise PutOff(
                        "your requests took too much of the server's time", whole_seconds(wait_s)
                    )
                await asyncio.sleep(wait_s)
                wait_s = accounts.wait_s(self._peer)

    @property
    def _is_admitting(self) -> bool:
        """Whether the body is not read yet; once it was, the route's method would still be run."""
        return self._prepared_future is not None and not self._prepared_future.done()

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
            self._is_known = self.state is not None
        elif self._is_in_network():
            self._know_as(f"network {self._account}")
        elif self._callers - {CallerKind.ANYONE}:
            await self._admit_by_token()
        return self._is_known

    async def _admit_by_token(self) -> None:
        secret = self.bearer or self.request.headers.get("X-Auth-Blob", "")
        if secret and await self._token_callers(secret) & self._callers:
            digest = hashlib.sha256(secret.encode()).hexdigest()
            self._know_as(f"token {digest} {self._account}")

    def _know_as(self, name: str) -> None:
        """Charge what the request takes to this account from now on."""
        self._is_known = True
        self._peer = Peer(name, self.context.options.question_share, QUESTION_AT_ONCE_S)

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
            stream = self.request.connection.stream  # type: ignore[union-attr]
            self.context.server.know(stream, self._peer.name)

    def finish(self, chunk: Any = None) -> Future[None]:
        connection = cast(HTTP1Connection, self.request.connection)
        stream = connection.stream
        body = self.request._body_future
        if self._is_admitting and self._length <= MAX_DROPPED_SIZE and not body.done():
            connection.set_max_body_size(max(self.max_body_size, MAX_DROPPED_SIZE))
            self.request.connection = cast(Any, LingeringConnection(connection, body))
        elif not body.done():
            # The library hangs up after it, and would not say so.
            self.set_header("Connection", "close")
        written = super().finish(chunk)
        self._taken = written
        if stream.writing():
            asyncio.get_running_loop().call_later(TAKEN_WITHIN_S, _drop_unread, stream, written)
        return written

    def on_finish(self) -> None:
        self._release()
        self.context.metrics.request(type(self).__name__, self.get_status())

    def on_connection_close(self) -> None:
        # What has arrived whole is worked at all the same.
        is_whole = self.request._body_future.done()
        super().on_connection_close()
        if not is_whole:
            self._release()

    def _release(self) -> None:
        self._release_body()
        if self.context.server is not None:
            self.context.server.end_request(self.request)

    def _release_body(self) -> None:
        self._chunks.clear()
        self.context.bodies.release(self._peer.name, self)

    def turn(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a turn of this peer for some milliseconds of work."""
        return self.context.turns.of(self._peer)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Wait until no other costly request of this peer is worked at, and its debt is paid.

        Gives whether another one was.

        Raises:
            PutOff: its debt is too high.
        """
        async with self.context.costly.of(self._peer) as waited:
            await self._pay()
            yield waited

    async def ask(
        self, names: Sequence[str], max_age_ms: Optional[int], wait_ms: int
    ) -> list[AttestationResult]:
        """Return a result for each name, as `Attestation.results` does.

        Raises:
            Unavailable: the store does not answer.
        """
        return await self.context.attestation.results(names, max_age_ms, wait_ms, self.turn)

    @contextlib.asynccontextmanager
    async def question(self, size: int) -> AsyncIterator[None]:
        """Count a question about so many hosts until it is answered.

        A large one waits until the peer's last large one was answered, and its answer taken.

        Raises:
            PutOff: too many questions of this caller wait already, or its debt is too high.
        """
        with self.context.questions.of(self._peer.name):
            if size <= LARGE_QUESTION:
                yield
                return
            async with self.alone():
                yield
                with contextlib.suppress(StreamClosedError):
                    await self._taken

    async def answer_hosts(
        self, hosts: Sequence[T], encode: Callable[[Sequence[T]], Sequence[Mapping[str, Any]]]
    ) -> None:
        """Finish with the object `{"hosts": [...]}`, which is written in turns."""
        texts = []
        for part in parts(hosts):
            async with self.turn():
                texts.append(json.dumps(encode(part))[1:-1])
        self.set_header("Content-Type", "application/json")
        self.finish('{"hosts": [' + ", ".join(texts) + "]}")

    def body(self, what: str) -> Mapping[str, object]:
        """Return the request's JSON object. Raises InvalidMessage."""
        return json_fields.parse_members(self.content, what, self.max_body_size)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, PutOff):
            self._put_off(error.wait_s, error.reason)
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        is_refusal = isinstance(value, (*STATUS, tornado.web.HTTPError))
        if is_refusal and not self.context.refusals.admits(self._peer.name, self._is_known):
            return
        left_out = self.context.refusals.left_out()
        if left_out:
            log.info("refusals left_out=%d", left_out)
        super().log_exception(typ, value, tb)

    async def _token_callers(self, secret: str) -> set[CallerKind]:
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
