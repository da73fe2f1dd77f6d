# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""HTTPS for the SDK, and a control port for the lab."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Optional, Protocol

import tornado.httpserver
import tornado.netutil
import tornado.web

from ovirt_tcp_plugin.lab.engine import documents, faults
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault
from ovirt_tcp_plugin.lab.engine.faults import Faults
from ovirt_tcp_plugin.lab.engine.hosts import Hosts
from ovirt_tcp_plugin.lab.engine.model import NOT_RUNNING, Model, User, Vm
from ovirt_tcp_plugin.lab.engine.rest import Rest
from ovirt_tcp_plugin.lab.engine.sessions import Sessions, Unauthorized

START_WITHIN_S = 10.0
THREADS = 32
ROOT = "/ovirt-engine/"

_XML, _HTML, _JSON = "application/xml;charset=UTF-8", "text/html;charset=UTF-8", "application/json"
_ERROR_PAGE = "<html><head><title>Error</title></head><body>{}</body></html>"
_REFUSED_LOG_IN = (
    "Cannot authenticate user '{}': Unable to log in. Verify your login information or contact the "
    "system administrator.."
)
_SCOPE = (
    "ovirt-app-api ovirt-ext=token-info:authz-search ovirt-ext=token-info:public-authz-search "
    "ovirt-ext=token-info:validate ovirt-ext=token:password-access"
)
_HTML_503 = "<html><body><h1>503 Service Unavailable</h1></body></html>"
_GARBAGE = b'<?xml version="1.0"?><hosts><host id="'


class Engine(Protocol):
    """What is served. `away_until` is 0 while the engine is there."""

    model: Model
    rest: Rest
    sessions: Sessions
    faults: Faults
    hosts: Hosts
    away_until: float

    def restart(self, seconds: Optional[float] = None) -> None:
        """Be away for a while."""


class Web:
    """The two servers in a thread of their own. Requests are answered in a pool: a start waits for
    the scheduler."""

    def __init__(self, engine: Engine, certificate: str, key: str, ports: tuple[int, int]) -> None:
        self._engine, self._certificate, self._key, self._ports = engine, certificate, key, ports
        self.port = self.control_port = 0
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="web")

    def start(self) -> None:
        """Start to serve. Raises TimeoutError."""
        self._thread.start()
        if not self._ready.wait(START_WITHIN_S):
            raise TimeoutError("the simulated engine did not start")

    def stop(self) -> None:
        """Stop, and wait until all threads have ended."""
        self._loop.call_soon_threadsafe(self.stopped.set)
        self._thread.join()
        self.pool.shutdown()

    async def _serve(self) -> None:
        self._loop, self.stopped = asyncio.get_running_loop(), asyncio.Event()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self._certificate, self._key)
        shared = {"engine": self._engine, "web": self}
        api = tornado.web.Application(
            [
                (ROOT + r"sso/oauth/token", _Token, shared),
                (ROOT + r"services/sso-logout", _LogOut, shared),
                (documents.API + r"/?(.*)", _Api, shared),
            ],
            log_function=lambda _: None,
        )
        control = tornado.web.Application(
            [(r"/(.*)", _Control, shared)], log_function=lambda _: None
        )
        servers = [
            tornado.httpserver.HTTPServer(api, ssl_options=tls),
            tornado.httpserver.HTTPServer(control),
        ]
        ports = []
        for server, port in zip(servers, self._ports):
            sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
            server.add_sockets(sockets)
            ports.append(sockets[0].getsockname()[1])
        self.port, self.control_port = ports
        self._ready.set()
        await self.stopped.wait()
        for server in servers:
            server.stop()
            await server.close_all_connections()


class _Handler(tornado.web.RequestHandler):
    """A request to the engine, which may be away or be told to fail."""

    def initialize(self, engine: Engine, web: Web) -> None:
        self.engine, self.web = engine, web
        self.fault: Optional[str] = None

    async def prepare(self) -> None:
        path = self.request.path[len(ROOT) :]
        self.fault = (
            faults.HTML
            if self.engine.away_until
            else self.engine.faults.of_answer(self.request.method or "", path)
        )
        if self.fault == faults.SILENT:
            await self.web.stopped.wait()
        if self.fault in (faults.SILENT, faults.CUT):
            self.detach().close()
        elif self.fault == faults.HTML:
            self.answer(503, _HTML_503, _HTML)
        elif self.fault == faults.BROKEN:
            fault = Fault(500, "Operation Failed", "[Internal Engine Error]")
            self.answer(500, documents.render(documents.fault(fault, False)))
        elif self.fault == faults.GARBAGE:
            self.answer(200, _GARBAGE)

    def answer(self, status: int, content: Any, kind: str = _XML) -> None:
        """Send an answer, or lose it on the way."""
        if self.fault == faults.LOST:
            self.detach().close()
            return
        self.set_status(status)
        if kind:
            self.set_header("Content-Type", kind)
        else:
            self.clear_header("Content-Type")
        self.finish(content)


class _Token(_Handler):
    """SSO: a password for a token."""

    async def post(self) -> None:
        name = self.get_argument("username", "")
        token = self.engine.sessions.log_in(name, self.get_argument("password", ""))
        if token is None:
            await asyncio.sleep(self.engine.model.timings.refused_log_in)
            refusal = {"error_code": "access_denied", "error": _REFUSED_LOG_IN.format(name)}
            self.answer(400, json.dumps(refusal, separators=(",", ":")), _JSON)
            return
        expires = str(int((time.time() + self.engine.model.timings.session_idle) * 1000))
        granted = {"access_token": token, "scope": _SCOPE, "exp": expires, "token_type": "bearer"}
        self.answer(200, json.dumps(granted, separators=(",", ":")), _JSON)


class _LogOut(_Handler):
    """SSO: the end of a token."""

    def post(self) -> None:
        self.engine.sessions.log_out(self.get_argument("token", ""))
        self.answer(200, "{}", _JSON)


class _Api(_Handler):
    """Everything below /ovirt-engine/api."""

    async def _answer(self, path: str) -> None:
        token = self.request.headers.get("Authorization", "")[len("Bearer ") :]
        try:
            user = self.engine.sessions.user(token)
        except Unauthorized as e:
            self.answer(401, _ERROR_PAGE.format(e), _HTML)
            return
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        asked = (
            user,
            self.request.method or "",
            path.split(";")[0].strip("/"),
            query,
            self.request.body,
        )
        loop = asyncio.get_running_loop()
        try:
            status, content = await loop.run_in_executor(self.web.pool, self._rendered, *asked)
        except Bare as e:
            self.answer(e.status, e.text, _HTML if e.status == 404 else _XML)
            return
        delay_s = self.engine.faults.delay_s(self.request.path[len(ROOT) :])
        if delay_s:
            await asyncio.sleep(delay_s)
        self.answer(status, content, _XML if content else "")

    def _rendered(
        self, user: User, verb: str, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        status, document = self.engine.rest.answer(user, verb, path, query, body)
        return status, b"" if document is None else documents.render(document)

    get = post = put = delete = _answer


class _Control(tornado.web.RequestHandler):
    """The lab's hand: `POST /power`, `POST /restart`, `POST /faults`; `GET /journal`, `/calls`,
    `/state`, `/groups`."""

    def initialize(self, engine: Engine, web: Web) -> None:
        self.engine = engine

    def get(self, what: str) -> None:
        tables = self.engine.model
        with tables.lock:
            answers: dict[str, Callable[[], Any]] = {
                "journal": lambda: tables.journal,
                "calls": lambda: self.engine.rest.calls,
                "state": lambda: {
                    "hosts": {one.name: one.status for one in tables.hosts.values()},
                    "vms": {one.name: _place(tables, one) for one in tables.vms.values()},
                },
                # How many members each has.
                "groups": lambda: {
                    uid: [len(one.hosts), len(one.vms)] for uid, one in tables.groups.items()
                },
            }
            self.finish(json.dumps({"answer": answers[what]() if what in answers else None}))

    def post(self, what: str) -> None:
        message = json.loads(self.request.body)
        if what == "power":
            host = next(
                one for one in self.engine.model.hosts.values() if one.name == message["host"]
            )
            self.engine.hosts.power(host, message["powered"])
        elif what == "restart":
            self.engine.restart(message.get("seconds"))
        elif what == "faults":
            self.engine.faults.switch(message)
        self.finish({"answer": "done"})


def _place(tables: Model, vm: Vm) -> Optional[str]:
    host = tables.hosts.get(vm.host)
    return None if vm.status in NOT_RUNNING or host is None else host.name
