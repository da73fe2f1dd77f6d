# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's interface on loopback, for `ovirt-tcp` and for programs. Every route needs the token."""

from __future__ import annotations

import hmac
import logging
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import overview
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.knowledge import Knowledge
from ovirt_tcp_plugin.broker.service import Service
from ovirt_tcp_plugin.json_handler import JsonHandler

log = logging.getLogger("broker.web")

MAX_BODY_SIZE = 64 * 1024
BODY_WITHIN_S = 10
IDLE_CONNECTION_S = 60


class Handler(JsonHandler):
    """Knows the caller by the token; every route is for its bearer only."""

    server_name = "ovirt-tcp-broker"

    def initialize(self, knowledge: Knowledge, service: Service, token: str) -> None:
        self.knowledge, self.service, self._token = knowledge, service, token

    def prepare(self) -> None:
        given = self.request.headers.get("Authorization", "")
        if not self._token or not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            self.answer_error(401, "unauthenticated", "this needs the token of the broker's API")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, errors.NotFound):
            self.answer_error(404, "NotFound", str(error))
        else:
            self.answer_error(status_code, "error", "the broker could not do this; its log says why")


class Hosts(Handler):
    """The pool hosts with their verdicts."""

    def get(self) -> None:
        hosts = [overview.describe_host(one) for one in self.knowledge.host_states()]
        self.answer({"hosts": hosts, "servers_answer": self.knowledge.servers_answer})


class Pools(Handler):
    """The trusted pools with their walls and guards."""

    def get(self) -> None:
        self.answer({"pools": [overview.describe_pool(one) for one in self.knowledge.pool_states()]})


class Why(Handler):
    """The decision on a VM and a host."""

    def get(self) -> None:
        vm, host = self.get_query_argument("vm"), self.get_query_argument("host")
        decision = self.knowledge.why(vm, host)
        if decision is None:
            raise errors.NotFound("host of a trusted pool", host)
        self.answer({"allowed": decision.allowed, "code": decision.code, "reason": decision.reason})


class Status(Handler):
    """How far the startup attestation is."""

    def get(self) -> None:
        progress = self.knowledge.progress
        self.answer(
            {"stage": progress.stage, "asked": progress.asked, "total": progress.total, "done": progress.done}
        )


class Journal(Handler):
    """What the broker noticed and did lately, the newest last."""

    def get(self) -> None:
        with self.knowledge.lock:
            self.answer({"journal": list(self.knowledge.journal)})


class Guard(Handler):
    """Release the held hosts into quarantine, or leave them in service, out of placement."""

    def post(self, verb: str) -> None:
        hosts = self.knowledge.guard(release=verb == "release")
        log.warning("guard verb=%s hosts=%s", verb, ",".join(hosts))
        self.answer({"hosts": hosts})


class Hook(Handler):
    """Run an engine hook by hand."""

    def post(self, name: str) -> None:
        host = self.get_query_argument("host", "")
        known = {one.host.name: one.host.id for one in self.knowledge.host_states()}
        if host and host not in known and host not in known.values():
            raise errors.NotFound("host of a trusted pool", host)
        self.service.run_hook(HookEvent(name, known.get(host, host)))
        self.answer({"hook": name})


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/v1/hosts", Hosts),
    (r"/v1/pools", Pools),
    (r"/v1/why", Why),
    (r"/v1/status", Status),
    (r"/v1/journal", Journal),
    (r"/v1/guard/(release|reject)", Guard),
    (r"/v1/hooks/([a-z_]+)", Hook),
]


def serve(
    knowledge: Knowledge, service: Service, token: str, address: str, port: int
) -> tuple[tornado.httpserver.HTTPServer, int]:
    """Return a listening server and its port.

    Raises:
        Unavailable: the address or port cannot be had.
    """
    shared = {"knowledge": knowledge, "service": service, "token": token}
    application = tornado.web.Application(
        [(path, handler, shared) for path, handler in ROUTES], log_function=lambda _: None
    )
    try:
        sockets = tornado.netutil.bind_sockets(port, address)
    except OSError as e:
        raise errors.Unavailable(f"port {port} of {address}", str(e)) from e
    server = tornado.httpserver.HTTPServer(
        application,
        max_body_size=MAX_BODY_SIZE,
        max_buffer_size=2 * MAX_BODY_SIZE,
        body_timeout=BODY_WITHIN_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )
    server.add_sockets(sockets)
    return server, int(sockets[0].getsockname()[1])
