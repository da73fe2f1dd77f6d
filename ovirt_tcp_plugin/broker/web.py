# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface for `ovirt-tcp` and other programs. Every route declares its callers."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import ssl
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web
from prometheus_client import CONTENT_TYPE_LATEST

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import overview, settings, why
from ovirt_tcp_plugin.broker.history import MAX_ENTRIES, History
from ovirt_tcp_plugin.broker.knowledge import Knowledge
from ovirt_tcp_plugin.broker.service import Service
from ovirt_tcp_plugin.broker.tokens import Caller, Tokens
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.json_handler import JsonHandler

log = logging.getLogger("broker.web")

# No request needs a body.
MAX_BODY_SIZE = 64 * 1024
BODY_WITHIN_S = 10
IDLE_CONNECTION_S = 60
MAX_QUERY_LENGTH = 255

LOOK, WORK = frozenset({Caller.VIEWER}), frozenset({Caller.OPERATOR})


@dataclasses.dataclass(frozen=True)
class Context:
    """What the handlers share."""

    knowledge: Knowledge
    service: Service
    history: History
    tokens: Tokens
    clock: Clock


class Handler(JsonHandler):
    """Knows the caller by the token before anything else."""

    server_name = "ovirt-tcp-broker"
    log = log

    def initialize(self, context: Context) -> None:
        self.context, self.knowledge = context, context.knowledge
        self.bearer_id = ""

    def prepare(self) -> None:
        wanted = self.callers_of(self.request.method or "")
        bearer = self.context.tokens.find(self.bearer, self.context.clock.wall().timestamp()) if self.bearer else None
        if bearer is not None and bearer.callers & wanted:
            self.bearer_id = bearer.identifier
        elif Caller.ANYONE not in wanted:
            self.answer_stranger()

    def query(self, name: str, default: str = "") -> str:
        """Return a word of the query, or the default. Raises InvalidMessage."""
        given = str(self.get_query_argument(name, default))
        if len(given) > MAX_QUERY_LENGTH:
            raise errors.InvalidMessage("query", f"{name} has more than {MAX_QUERY_LENGTH} characters")
        return given

    def needed(self, name: str) -> str:
        """Return a word of the query that must be there. Raises InvalidMessage."""
        given = self.query(name)
        if not given:
            raise errors.InvalidMessage("query", f"{name} is missing")
        return given


class Nowhere(Handler):
    """Every other path."""

    callers = frozenset({Caller.ANYONE})

    def prepare(self) -> None:
        self.answer_error(404, "NotFound", "there is nothing under this path")


class Health(Handler):
    """Whether the broker answers."""

    callers = frozenset({Caller.ANYONE})

    def get(self) -> None:
        self.answer({"status": "serving"})


class Hosts(Handler):
    """The pool hosts with their verdicts."""

    callers = LOOK

    def get(self) -> None:
        hosts = [overview.describe_host(one) for one in self.knowledge.host_states()]
        startup = dataclasses.asdict(self.knowledge.progress)
        self.answer({"hosts": hosts, "servers_answer": self.knowledge.servers_answer, "startup": startup})


class Pools(Handler):
    """The trusted pools with their walls and guards."""

    callers = LOOK

    def get(self) -> None:
        self.answer({"pools": [overview.describe_pool(one) for one in self.knowledge.pool_states()]})


class Why(Handler):
    """What each line of enforcement says to a VM and a host."""

    callers = LOOK

    def get(self) -> None:
        self.answer(why.explain(self.knowledge.case(self.needed("vm"), self.needed("host"))))


class Status(Handler):
    """How far the startup attestation is, and when engine and attestation servers were last heard."""

    callers = LOOK

    def get(self) -> None:
        ages = self.context.service.ages()
        self.answer(
            {
                "startup": dataclasses.asdict(self.knowledge.progress),
                "servers_answer": self.knowledge.servers_answer,
                "engine_age_ms": ages.engine_ms,
                "listing_age_ms": ages.listing_ms,
            }
        )


class HistoryEntries(Handler):
    """What the broker noticed and did, the newest last."""

    callers = LOOK

    def get(self) -> None:
        since = self.query("since")
        most = self.query("most", str(MAX_ENTRIES))
        if not most.isdecimal() or not 1 <= int(most) <= MAX_ENTRIES:
            raise errors.InvalidMessage("query", f"most is not a number from 1 to {MAX_ENTRIES}")
        since_ms = _moment_ms(since) if since else 0
        found = self.context.history.find(self.query("host"), self.query("vm"), since_ms, int(most))
        self.answer({"history": found})


class Guards(Handler):
    """Each pool's guard."""

    callers = LOOK

    def get(self) -> None:
        pools = self.knowledge.pool_states()
        self.answer({"guards": [{"pool": o.pool.name, "tripped": o.guard_tripped, "held": list(o.held)} for o in pools]})


class Guard(Handler):
    """Release the held hosts into quarantine, or leave them in service, out of placement."""

    callers = WORK

    def post(self, verb: str) -> None:
        hosts = self.knowledge.guard(verb == "release", f"token {self.bearer_id}", self.query("pool"))
        # Acknowledged means kept: a broker that is killed now may not hold them again.
        self.context.service.save_all()
        log.warning("guard verb=%s token=%s hosts=%s", verb, self.bearer_id, ",".join(hosts))
        self.answer({"hosts": hosts})


class Hook(Handler):
    """Run an engine hook by hand."""

    callers = WORK

    def post(self, name: str) -> None:
        self.context.service.run_hook_by_hand(name, self.query("host"), self.query("vm"))
        log.warning("hook by hand name=%s token=%s", name, self.bearer_id)
        self.answer({"hook": name})


class MetricsText(Handler):
    """The broker's counters for Prometheus."""

    callers = LOOK

    def get(self) -> None:
        service, knowledge = self.context.service, self.knowledge
        hosts, pools = knowledge.host_states(), knowledge.pool_states()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(service.metrics.render(hosts, pools, knowledge.servers_answer, service.ages()))


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/v1/health", Health),
    (r"/metrics", MetricsText),
    (r"/v1/status", Status),
    (r"/v1/hosts", Hosts),
    (r"/v1/pools", Pools),
    (r"/v1/why", Why),
    (r"/v1/history", HistoryEntries),
    (r"/v1/guard", Guards),
    (r"/v1/guard/(release|reject)", Guard),
    (r"/v1/hooks/([a-z_]+)", Hook),
]


def serve(context: Context, options: settings.Api) -> tuple[tornado.httpserver.HTTPServer, int]:
    """Return a listening server and its port.

    Raises:
        Unavailable: the address or port cannot be had.
        InvalidConfig: the certificate cannot be used.
    """
    shared = {"context": context}
    application = tornado.web.Application(
        [(path, handler, shared) for path, handler in ROUTES],
        default_handler_class=Nowhere,
        default_handler_args=shared,
        log_function=lambda _: None,
    )
    tls = _tls(options) if options.certificate else None
    try:
        sockets = tornado.netutil.bind_sockets(options.port, options.address)
    except OSError as e:
        raise errors.Unavailable(f"port {options.port} of {options.address}", str(e)) from e
    server = tornado.httpserver.HTTPServer(
        application,
        ssl_options=tls,
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=2 * MAX_BODY_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(sockets)
    return server, int(sockets[0].getsockname()[1])


def _tls(options: settings.Api) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as e:
        raise errors.InvalidConfig("api.certificate", [f"it or its key cannot be used: {e}"]) from e
    return context


def _moment_ms(untrusted: str) -> int:
    """Return a moment such as 2026-01-02T03:04:05Z in milliseconds of the UTC epoch. Raises InvalidMessage."""
    try:
        moment: Any = datetime.datetime.strptime(untrusted, "%Y-%m-%dT%H:%M:%SZ")
        return int(moment.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    except (ValueError, OverflowError) as e:
        raise errors.InvalidMessage("query", "since is no moment such as 2026-01-02T03:04:05Z") from e
