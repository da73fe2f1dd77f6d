# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verifier's HTTPS interface. Each route declares who may call it; nothing is open by omission.

Errors leave as `{"code", "reason"}`; on OpenAttestation's paths in its own shape. A caller learns the reason of its
own fault, never what the server holds.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import logging
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

import tornado.httpserver
import tornado.netutil
import tornado.web

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.json_handler import JsonHandler
from ovirt_tcp_plugin.messages import enrolment, evidence, fields, oat, reference_values, result
from ovirt_tcp_plugin.verifier.attestation import Attestation
from ovirt_tcp_plugin.verifier.enrolment import Enrolment
from ovirt_tcp_plugin.verifier.store import hosts, references, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import Host

log = logging.getLogger("verifier.web")

MAX_BODY_SIZE = max(evidence.MAX_EVIDENCE_SIZE, oat.MAX_POLL_SIZE)
MAX_SMALL_BODY_SIZE = 64 * 1024
# A body has to arrive within this time; evidence is 100 KiB at most on real machines.
BODY_WITHIN_S = 20
IDLE_CONNECTION_S = 120
MAX_HEADER_SIZE = 16 * 1024

_REFERENCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Caller(enum.Enum):
    """Who may call a route. Values are the roles of tokens, but for the first two."""

    ANYONE = "anyone"
    AGENT = "agent"
    VIEWER = "viewer"
    POLICY = "policy"


TOKEN_ROLES = ("viewer", "policy", "enrolment")

# A policy administrator may look, too.
_INCLUDES = {"viewer": {Caller.VIEWER}, "policy": {Caller.VIEWER, Caller.POLICY}}

_STATUS = {
    errors.InvalidMessage: 400,
    errors.Refused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
}


class Context:
    """What the handlers share."""

    def __init__(
        self, database: Database, enrolment: Enrolment, attestation: Attestation, clock: Clock, poll_deadline_ms: int
    ) -> None:
        self.database = database
        self.enrolment = enrolment
        self.attestation = attestation
        self.clock = clock
        self.poll_deadline_ms = poll_deadline_ms


@tornado.web.stream_request_body
class Handler(JsonHandler):
    """Checks the caller before the body is read, and turns errors into answers.

    The body is collected here, because the library would parse forms in it for anybody, before any check.
    """

    server_name = "ovirt-tcp-verifier"
    callers: frozenset[Caller] = frozenset()
    max_body_size = MAX_SMALL_BODY_SIZE

    def initialize(self, context: Context) -> None:
        self.context = context
        self.host: Optional[Host] = None
        self._chunks: list[bytes] = []

    def data_received(self, chunk: bytes) -> None:
        if not self._finished:
            self._chunks.append(chunk)

    @property
    def content(self) -> bytes:
        """The body, at most `max_body_size` bytes."""
        return b"".join(self._chunks)

    async def prepare(self) -> None:
        self.request.connection.set_max_body_size(self.max_body_size)  # type: ignore[union-attr]
        if Caller.ANYONE in self.callers:
            return
        if Caller.AGENT in self.callers:
            self.host = await self._agent()
            if self.host is not None:
                return
        elif await self._token_callers() & self.callers:
            return
        self.answer_error(401, "unauthenticated", f"this needs {' or '.join(sorted(c.value for c in self.callers))}")

    def body(self, what: str) -> Mapping[str, object]:
        """Return the request's JSON object. Raises InvalidMessage."""
        return fields.members(fields.parse(self.content, what, self.max_body_size), what)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        for kind, status in _STATUS.items():
            if isinstance(error, kind):
                if isinstance(error, errors.Refused):
                    self.answer_error(status, error.code, error.reason)
                else:
                    self.answer_error(status, kind.__name__, str(error))
                return
        reason = "the server could not do this; its log says why" if status_code >= 500 else "bad request"
        self.answer_error(status_code, "error", reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, tuple(_STATUS)):
            log.info("refused path=%s peer=%s reason=%s", self.request.path, self.request.remote_ip, value)
        elif isinstance(value, tornado.web.HTTPError):
            log.info("refused path=%s peer=%s reason=%s", self.request.path, self.request.remote_ip, value.reason)
        else:
            log.error("failed path=%s", self.request.path, exc_info=(typ, value, tb))

    async def _agent(self) -> Optional[Host]:
        """Return the host whose client certificate this connection proved, None if there is none."""
        certificate = self.request.get_ssl_certificate(binary_form=True)
        if not isinstance(certificate, bytes):
            return None
        digest = hashlib.sha256(certificate).hexdigest()
        return await self.context.database.read(lambda c: hosts.by_certificate(c, digest))

    async def _token_callers(self) -> set[Caller]:
        headers = self.request.headers
        bearer = headers.get("Authorization", "")
        secret = bearer[len("Bearer ") :] if bearer.startswith("Bearer ") else headers.get("X-Auth-Blob", "")
        if not secret:
            return set()
        token = await self.context.database.read(lambda c: tokens.find(c, secret))
        return _INCLUDES.get(token.role, set()) if token else set()


class BeginEnrolment(Handler):
    """EnrolmentRequest -> CredentialChallenge. The caller shows a token inside the message."""

    callers = frozenset({Caller.ANYONE})

    async def post(self) -> None:
        request = enrolment.decode_request(self.content)
        self.answer(enrolment.encode(await self.context.enrolment.begin(request)))


class FinishEnrolment(Handler):
    """EnrolmentProof -> EnrolmentReply. The caller shows that it read the secret."""

    callers = frozenset({Caller.ANYONE})

    async def post(self) -> None:
        proof = enrolment.decode_proof(self.content)
        self.answer(enrolment.encode(await self.context.enrolment.finish(proof)))


class RenewCertificate(Handler):
    """PKCS #10 request of an agent -> its new client certificate."""

    callers = frozenset({Caller.AGENT})

    async def post(self) -> None:
        request = fields.blob(self.body("renewal"), "certificate_request", enrolment.MAX_CERTIFICATE_SIZE)
        certificate = await self.context.enrolment.renew(cast(Host, self.host), request)
        self.answer({"certificate": certificate})


class NextChallenge(Handler):
    """Long poll of an agent: a Challenge, or 204 when nobody wants its evidence."""

    callers = frozenset({Caller.AGENT})
    _gone = False

    def on_connection_close(self) -> None:
        self._gone = True
        if self.host is not None:
            self.context.attestation.hang_up(self.host.name)

    async def post(self) -> None:
        members = self.body("challenge request")
        boot_id = fields.text(members, "boot_id", 36)
        wait_ms = fields.integer(members, "wait_ms", 0, 3600_000)
        challenge = await self.context.attestation.next_challenge(cast(Host, self.host), boot_id, wait_ms)
        if self._gone:
            return
        if challenge is None:
            self.set_status(204)
            self.finish()
        else:
            self.answer(evidence.encode_challenge(challenge))


class SubmitEvidence(Handler):
    """Evidence -> the host's own result."""

    callers = frozenset({Caller.AGENT})
    max_body_size = evidence.MAX_EVIDENCE_SIZE

    async def post(self) -> None:
        attestation, host = self.context.attestation, cast(Host, self.host)
        if not await attestation.expects(host.name):
            # Before it is decoded: an agent that sends megabytes unasked would hold up all others.
            raise errors.Refused("nonce_unknown", "no evidence was asked for, or its nonce was used before")
        try:
            reported = evidence.decode(self.content)
        except errors.InvalidMessage:
            await attestation.spoil(host.name)
            raise
        outcome = await attestation.submit(host, reported)
        self.answer(result.encode(outcome))


class Results(Handler):
    """Host names -> results with findings and ages. Our own, richer form of PollHosts."""

    callers = frozenset({Caller.VIEWER})
    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        members = self.body("results request")
        names = [_name(name) for name in fields.items(members, "hosts", oat.MAX_HOSTS)]
        max_age = None if members.get("max_age_ms") is None else fields.integer(members, "max_age_ms", 0, 2**53)
        wait_ms = fields.integer(members, "wait_ms", 0, 60_000)
        results = await self.context.attestation.results(names, max_age, wait_ms)
        self.answer({"hosts": [result.encode(one) for one in results]})


class Hosts(Handler):
    """Every enrolled host with its last result, however old; nobody is asked anew."""

    callers = frozenset({Caller.VIEWER})

    async def get(self) -> None:
        endorsed_by = await self.context.database.read(hosts.endorsed_by)
        known = [result.encode(one) for one in await self.context.attestation.last_results()]
        # Whoever enrolled between the two questions is shown the next time.
        self.answer({"hosts": [{**one, "endorsed_by": endorsed_by.get(one["host_name"], "")} for one in known]})


class ReferenceValues(Handler):
    """The reference values; a golden host's present boot becomes a new set."""

    callers = frozenset({Caller.POLICY})

    async def get(self) -> None:
        known = await self.context.database.read(references.load)
        self.answer({"reference_values": [reference_values.encode(good) for good in known.sets]})

    async def post(self) -> None:
        members = self.body("reference values request")
        name, host_name = fields.text(members, "name", 64), fields.text(members, "host", oat.MAX_NAME_LENGTH)
        if not _REFERENCE_NAME.fullmatch(name):
            raise errors.InvalidMessage("name", "it may have letters, digits, dot, dash and underscore")
        good = await self.context.attestation.import_reference_values(name, host_name.lower())
        log.info("reference_values imported name=%s host=%s", name, host_name.lower())
        self.answer(reference_values.encode(good))


class ReferenceValue(Handler):
    """One set of reference values; removing it has every host judged anew."""

    callers = frozenset({Caller.POLICY})

    async def delete(self, name: str) -> None:
        await self.context.database.write(lambda c: references.remove(c, name))
        await self.context.attestation.judge_all()
        log.info("reference_values removed name=%s", name)
        self.answer({"removed": name})


class PollHosts(Handler):
    """OpenAttestation's question (1.0, 1.5-1.7, 2.x)."""

    callers = frozenset({Caller.VIEWER})
    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        try:
            poll = oat.decode_poll(self.content)
        except errors.InvalidMessage as e:
            self.answer_error(400, "400", str(e))
            return
        attestation, clock = self.context.attestation, self.context.clock
        results = await attestation.results(poll.hosts, poll.time_threshold_ms, self.context.poll_deadline_ms)
        now = clock.wall()
        self.answer(oat.encode_answer(_host_trust(one, now) for one in results))

    def answer_error(self, status: int, code: str, reason: str) -> None:
        self.set_status(status)
        self.answer({"error_code": status, "error_message": reason, "detail": code})


class Health(Handler):
    """Whether the server answers."""

    callers = frozenset({Caller.ANYONE})

    def get(self) -> None:
        self.answer({"status": "serving"})


class Nowhere(Handler):
    """Every other path."""

    callers = frozenset({Caller.ANYONE})

    async def prepare(self) -> None:
        self.answer_error(404, "NotFound", "there is nothing under this path")


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/v1/health", Health),
    (r"/v1/enrolment", BeginEnrolment),
    (r"/v1/enrolment/proof", FinishEnrolment),
    (r"/v1/certificate", RenewCertificate),
    (r"/v1/challenge", NextChallenge),
    (r"/v1/evidence", SubmitEvidence),
    (r"/v1/results", Results),
    (r"/v1/hosts", Hosts),
    (r"/v1/reference-values", ReferenceValues),
    (r"/v1/reference-values/([^/]+)", ReferenceValue),
    (r"/AttestationService/resources/PollHosts", PollHosts),
    (r"/OpenAttestationWebServices/V1.0/PollHosts", PollHosts),
]


def serve(
    context: Context, tls: ssl.SSLContext, address: str, port: int
) -> tuple[tornado.httpserver.HTTPServer, int]:
    """Return a listening server and its port (one of the kernel's choice for 0).

    Raises:
        Unavailable: the address or port cannot be had.
    """
    try:
        sockets = tornado.netutil.bind_sockets(port, address, backlog=1024)
    except OSError as e:
        raise errors.Unavailable(f"port {port} of {address or 'all addresses'}", str(e)) from e
    routes = [(path, handler, {"context": context}) for path, handler in ROUTES]
    application = tornado.web.Application(
        routes, default_handler_class=Nowhere, default_handler_args={"context": context}, log_function=_log_request
    )
    server = tornado.httpserver.HTTPServer(
        application,
        ssl_options=tls,
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=MAX_BODY_SIZE + MAX_HEADER_SIZE,
        max_header_size=MAX_HEADER_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(sockets)
    return server, int(sockets[0].getsockname()[1])


def tls_context(certificate: Path, key: Path, client_authority: bytes) -> ssl.SSLContext:
    """Return TLS 1.2 or later; a client may show a certificate of our own authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=client_authority.decode("ascii"))
    # Optional here, because tokens and enrolment come without one; the routes of agents demand it.
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _host_trust(one: result.AttestationResult, now: datetime.datetime) -> oat.HostTrust:
    age = datetime.timedelta(milliseconds=one.age_ms or 0)
    return oat.HostTrust(one.host_name, one.level.value, now - age)


def _name(untrusted: object) -> str:
    if not isinstance(untrusted, str) or len(untrusted) > oat.MAX_NAME_LENGTH or not fields.encodable(untrusted):
        raise errors.InvalidMessage("results request", "a host name is not a text of at most 255 characters")
    return untrusted


def _log_request(handler: tornado.web.RequestHandler) -> None:
    request = handler.request
    log.debug("request path=%s peer=%s status=%d", request.path, request.remote_ip, handler.get_status())
