# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface for `ovirt-tcp` and other programs. Every route declares its callers."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import socket
import ssl
from typing import Any, Optional

import tornado.httpserver
import tornado.netutil
import tornado.web
from prometheus_client import CONTENT_TYPE_LATEST

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.api import explanation as why
from ovirt_tcp_plugin.broker.api import views
from ovirt_tcp_plugin.broker.hooks import OF_HOSTS, OF_VMS
from ovirt_tcp_plugin.broker.service import Service
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.history import MAX_ENTRIES, History
from ovirt_tcp_plugin.broker.store.tokens import Bearer, Caller, Tokens
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.json_handler import JsonHandler

log = logging.getLogger("broker.web")

# No request needs a body.
MAX_BODY_SIZE = 64 * 1024
BODY_WITHIN_S = 10
IDLE_CONNECTION_S = 60
MAX_QUERY_LENGTH = 255

LOOK = frozenset({Caller.VIEWER})
WORK = frozenset({Caller.OPERATOR})


@dataclasses.dataclass(frozen=True)
class Context:
    """What the handlers share."""

    state: BrokerState
    service: Service
    history: History
    tokens: Tokens
    clock: Clock


class BrokerHandler(JsonHandler):
    """Knows the caller by the token before anything else."""

    server_name = "ovirt-tcp-broker"
    log = log

    def initialize(self, context: Context) -> None:
        self.context = context
        self.state = context.state
        self.bearer_id = ""

    def prepare(self) -> None:
        callers = self.callers_of(self.request.method or "")
        bearer = self._find_bearer()
        if bearer is not None and bearer.callers & callers:
            self.bearer_id = bearer.identifier
        elif Caller.ANYONE not in callers:
            self.answer_stranger()

    def query(self, name: str, default: str = "") -> str:
        """Return a word of the query, or the default. Raises InvalidMessage."""
        value = str(self.get_query_argument(name, default))
        if len(value) > MAX_QUERY_LENGTH:
            fault = f"{name} has more than {MAX_QUERY_LENGTH} characters"
            raise errors.InvalidMessage("query", fault)
        return value

    def needed(self, name: str) -> str:
        """Return a word of the query that must be there. Raises InvalidMessage."""
        value = self.query(name)
        if not value:
            raise errors.InvalidMessage("query", f"{name} is missing")
        return value

    def _find_bearer(self) -> Optional[Bearer]:
        if not self.bearer:
            return None
        now_s = self.context.clock.wall().timestamp()
        return self.context.tokens.find(self.bearer, now_s)


class UnknownPath(BrokerHandler):
    """Every other path."""

    callers = frozenset({Caller.ANYONE})

    def prepare(self) -> None:
        self.answer_error(404, "NotFound", "there is nothing under this path")


class HealthRoute(BrokerHandler):
    """Whether the broker answers."""

    callers = frozenset({Caller.ANYONE})

    def get(self) -> None:
        self.answer({"status": "serving"})


class HostsRoute(BrokerHandler):
    """The pool hosts with their verdicts."""

    callers = LOOK

    def get(self) -> None:
        hosts = [views.describe_host(state) for state in self.state.host_states()]
        self.answer(
            {
                "hosts": hosts,
                "servers_answer": self.state.questions.servers_answer(),
                "startup": dataclasses.asdict(self.state.questions.progress()),
            }
        )


class PoolsRoute(BrokerHandler):
    """The trusted pools with their walls and guards, and which broker is in charge of them."""

    callers = LOOK

    def get(self) -> None:
        pools = [views.describe_pool(state) for state in self.state.pool_states()]
        charge = dataclasses.asdict(self.context.service.charge())
        self.answer({"pools": pools, "charge": charge})


class WhyRoute(BrokerHandler):
    """What each line of enforcement says to a VM and a host."""

    callers = LOOK

    def get(self) -> None:
        explanation = self.state.case(self.needed("vm"), self.needed("host"))
        self.answer(why.explain(explanation))


class StatusRoute(BrokerHandler):
    """How far the startup attestation is, and when engine and attestation servers last answered."""

    callers = LOOK

    def get(self) -> None:
        ages = self.context.service.ages()
        self.answer(
            {
                "startup": dataclasses.asdict(self.state.questions.progress()),
                "servers_answer": self.state.questions.servers_answer(),
                "engine_age_ms": ages.engine_ms,
                "listing_age_ms": ages.listing_ms,
            }
        )


class HistoryRoute(BrokerHandler):
    """What the broker noticed and did, the newest last."""

    callers = LOOK

    def get(self) -> None:
        since = self.query("since")
        since_ms = _moment_ms(since) if since else 0
        entries = self.context.history.find(
            self.query("host"), self.query("vm"), since_ms, self._most()
        )
        self.answer({"history": entries})

    def _most(self) -> int:
        """Return how many entries are asked for. Raises InvalidMessage."""
        most = self.query("most", str(MAX_ENTRIES))
        if not most.isdecimal() or not 1 <= int(most) <= MAX_ENTRIES:
            fault = f"most is not a number from 1 to {MAX_ENTRIES}"
            raise errors.InvalidMessage("query", fault)
        return int(most)


class GuardsRoute(BrokerHandler):
    """Each pool's guard."""

    callers = LOOK

    def get(self) -> None:
        guards: list[dict[str, Any]] = []
        for state in self.state.pool_states():
            guards.append(
                {
                    "pool": state.pool.name,
                    "observation": state.observation,
                    "tripped": state.guard_tripped,
                    "held": list(state.held),
                }
            )
        self.answer({"guards": guards})


class GuardDecisionRoute(BrokerHandler):
    """Release the held hosts into quarantine, or leave them in service, out of placement."""

    callers = WORK

    def post(self, verb: str) -> None:
        who = f"token {self.bearer_id}"
        hosts = self.state.quarantine.decide(verb == "release", who, self.query("pool"))
        # Acknowledged means kept: a broker that is killed now must not hold them again.
        self.context.service.save_all()
        log.warning("guard verb=%s token=%s hosts=%s", verb, self.bearer_id, ",".join(hosts))
        self.answer({"hosts": hosts})


class PoolEndRoute(BrokerHandler):
    """End a trusted pool whose scheduling policy does not have our unit any more."""

    callers = WORK

    def post(self) -> None:
        who = f"token {self.bearer_id}"
        name, was_pool = self.state.pool_ends.end(self.needed("pool"), who)
        # Acknowledged means kept: a broker that is killed now must not go on with the pool.
        self.context.service.save_all()
        log.warning("pool end cluster=%s token=%s was_pool=%s", name, self.bearer_id, was_pool)
        self.answer({"pool": name, "was_pool": was_pool})


class HookRoute(BrokerHandler):
    """Run an engine hook by hand."""

    callers = WORK

    def post(self, name: str) -> None:
        host = self.needed("host") if name in OF_HOSTS else self.query("host")
        vm = self.needed("vm") if name in OF_VMS else self.query("vm")
        self.context.service.run_hook_by_hand(name, host, vm)
        log.warning("hook by hand name=%s token=%s", name, self.bearer_id)
        self.answer({"hook": name})


class MetricsRoute(BrokerHandler):
    """The broker's counters for Prometheus."""

    callers = LOOK

    def get(self) -> None:
        service = self.context.service
        text = service.metrics.render(
            self.state.host_states(),
            self.state.pool_states(),
            self.state.questions.servers_answer(),
            service.ages(),
            service.charge().acts,
        )
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)


ROUTES: list[tuple[str, type[BrokerHandler]]] = [
    (r"/v1/health", HealthRoute),
    (r"/metrics", MetricsRoute),
    (r"/v1/status", StatusRoute),
    (r"/v1/hosts", HostsRoute),
    (r"/v1/pools", PoolsRoute),
    (r"/v1/pools/end", PoolEndRoute),
    (r"/v1/why", WhyRoute),
    (r"/v1/history", HistoryRoute),
    (r"/v1/guard", GuardsRoute),
    (r"/v1/guard/(release|reject)", GuardDecisionRoute),
    (r"/v1/hooks/([a-z_]+)", HookRoute),
]


def serve(
    context: Context, options: settings.ApiOptions
) -> tuple[tornado.httpserver.HTTPServer, int]:
    """Return a listening server and its port.

    Raises:
        Unavailable: the address or port cannot be had.
        InvalidConfig: the certificate cannot be used.
    """
    tls = _tls(options) if options.certificate else None
    sockets = _bind(options)
    server = tornado.httpserver.HTTPServer(
        _application(context),
        ssl_options=tls,
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=2 * MAX_BODY_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(sockets)
    return server, int(sockets[0].getsockname()[1])


def _application(context: Context) -> tornado.web.Application:
    shared = {"context": context}
    return tornado.web.Application(
        [(path, handler, shared) for path, handler in ROUTES],
        default_handler_class=UnknownPath,
        default_handler_args=shared,
        log_function=lambda _: None,
    )


def _bind(options: settings.ApiOptions) -> list[socket.socket]:
    """Return the listening sockets. Raises Unavailable."""
    try:
        return tornado.netutil.bind_sockets(options.port, options.address)
    except OSError as e:
        peer = f"port {options.port} of {options.address}"
        raise errors.Unavailable(peer, str(e)) from e


def _tls(options: settings.ApiOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as e:
        fault = f"it or its key cannot be used: {e}"
        raise errors.InvalidConfig("api.certificate", [fault]) from e
    return context


def _moment_ms(untrusted: str) -> int:
    """Return a moment such as 2026-01-02T03:04:05Z in milliseconds of the UTC epoch.

    Raises:
        InvalidMessage: it is none.
    """
    try:
        moment = datetime.datetime.strptime(untrusted, "%Y-%m-%dT%H:%M:%SZ")
        utc = moment.replace(tzinfo=datetime.timezone.utc)
        return int(utc.timestamp() * 1000)
    except (ValueError, OverflowError) as e:
        fault = "since is no moment such as 2026-01-02T03:04:05Z"
        raise errors.InvalidMessage("query", fault) from e
