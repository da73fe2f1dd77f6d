# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""HTTPS for the SDK, and a control port for the lab."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Optional, Protocol

import tornado.netutil
import tornado.web
from tornado.httpserver import HTTPServer

from ovirt_tcp_plugin.lab.engine import faults
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.documents import actions
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault
from ovirt_tcp_plugin.lab.engine.faults import Faults
from ovirt_tcp_plugin.lab.engine.hosts import HostLifecycle
from ovirt_tcp_plugin.lab.engine.model import (
    NOT_RUNNING,
    EngineUser,
    Model,
    SimulatedHost,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.rest import Rest
from ovirt_tcp_plugin.lab.engine.rest.routes import Query
from ovirt_tcp_plugin.lab.engine.sessions import Sessions, Unauthorized
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import render

START_WITHIN_S = 10.0
THREADS = 32
ROOT = "/ovirt-engine/"

_XML = "application/xml;charset=UTF-8"
_HTML = "text/html;charset=UTF-8"
_JSON = "application/json"
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
_INTERNAL_ERROR = Fault(500, "Operation Failed", "[Internal Engine Error]")
_GARBAGE = b'<?xml version="1.0"?><hosts><host id="'


class ServedEngine(Protocol):
    """What is served. `away_until` is 0 while the engine is there."""

    model: Model
    rest: Rest
    sessions: Sessions
    faults: Faults
    hosts: HostLifecycle
    away_until: float

    def restart(self, seconds: Optional[float] = None) -> None:
        """Be away for a while."""


class Web:
    """The two servers in a thread of their own.

    Requests are answered in a pool: a start waits for the scheduler.
    """

    def __init__(self, engine: ServedEngine, config: Config) -> None:
        self._engine = engine
        self._config = config
        self.port = 0
        self.control_port = 0
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web")

    def _run(self) -> None:
        asyncio.run(self._serve())

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
        self._loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        api = self._api_server()
        control = self._control_server()
        self.port = _listen(api, self._config.port)
        self.control_port = _listen(control, self._config.control_port)
        self._ready.set()
        await self.stopped.wait()
        for server in (api, control):
            server.stop()
            await server.close_all_connections()

    def _api_server(self) -> HTTPServer:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self._config.certificate, self._config.key)
        shared = {"engine": self._engine, "web": self}
        handlers: list[tuple[Any, ...]] = [
            (ROOT + r"sso/oauth/token", _Token, shared),
            (ROOT + r"services/sso-logout", _LogOut, shared),
            (API + r"/?(.*)", _Api, shared),
        ]
        return HTTPServer(_application(handlers), ssl_options=tls)

    def _control_server(self) -> HTTPServer:
        return HTTPServer(_application([(r"/(.*)", _Control, {"engine": self._engine})]))


def _application(handlers: list[Any]) -> tornado.web.Application:
    return tornado.web.Application(handlers, log_function=lambda _: None)


def _listen(server: HTTPServer, port: int) -> int:
    """Have a server listen, and return its port."""
    sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    chosen: int = sockets[0].getsockname()[1]
    return chosen


class _Handler(tornado.web.RequestHandler):
    """A request to the engine, which may be away or be told to fail."""

    def initialize(self, engine: ServedEngine, web: Web) -> None:
        self.engine = engine
        self.web = web
        self.fault: Optional[str] = None

    async def prepare(self) -> None:
        self.fault = self._next_fault()
        if self.fault == faults.SILENT:
            await self.web.stopped.wait()
        if self.fault in (faults.SILENT, faults.CUT):
            self.detach().close()
        elif self.fault == faults.HTML:
            self.answer(503, _HTML_503, _HTML)
        elif self.fault == faults.BROKEN:
            self.answer(500, render(actions.fault(_INTERNAL_ERROR, False)))
        elif self.fault == faults.GARBAGE:
            self.answer(200, _GARBAGE)

    def _next_fault(self) -> Optional[str]:
        if self.engine.away_until:
            return faults.HTML
        path = self.request.path[len(ROOT) :]
        return self.engine.faults.of_answer(self.request.method or "", path)

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
        password = self.get_argument("password", "")
        token = self.engine.sessions.log_in(name, password)
        timings = self.engine.model.timings
        if token is None:
            await asyncio.sleep(timings.refused_log_in)
            error = _REFUSED_LOG_IN.format(name)
            self.answer_json(400, {"error_code": "access_denied", "error": error})
            return
        expires_ms = int((time.time() + timings.session_idle) * 1000)
        self.answer_json(
            200,
            {
                "access_token": token,
                "scope": _SCOPE,
                "exp": str(expires_ms),
                "token_type": "bearer",
            },
        )

    def answer_json(self, status: int, members: Mapping[str, str]) -> None:
        """Send an answer without blanks, as the engine's SSO does."""
        self.answer(status, json.dumps(members, separators=(",", ":")), _JSON)


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
        resource = path.split(";")[0].strip("/")
        work = functools.partial(self._rendered, user, resource)
        try:
            status, content = await asyncio.get_running_loop().run_in_executor(self.web.pool, work)
        except Bare as e:
            self.answer(e.status, e.text, _HTML if e.status == 404 else _XML)
            return
        delay_s = self.engine.faults.delay_s(self.request.path[len(ROOT) :])
        if delay_s:
            await asyncio.sleep(delay_s)
        self.answer(status, content, _XML if content else "")

    def _query(self) -> Query:
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    def _rendered(self, user: EngineUser, path: str) -> tuple[int, bytes]:
        """Return status and content of the answer; the pool's threads call it."""
        verb = self.request.method or ""
        status, document = self.engine.rest.answer(
            user, verb, path, self._query(), self.request.body
        )
        content = b"" if document is None else render(document)
        return status, content

    get = post = put = delete = _answer


class _Control(tornado.web.RequestHandler):
    """The lab's hand.

    `POST /power`, `POST /restart`, `POST /faults`; `GET /journal`, `/calls`, `/state`, `/groups`.
    """

    def initialize(self, engine: ServedEngine) -> None:
        self.engine = engine

    def get(self, what: str) -> None:
        with self.engine.model.lock:
            self.finish(json.dumps({"answer": self._look_at(what)}))

    def _look_at(self, what: str) -> Any:
        if what == "journal":
            return self.engine.model.journal
        if what == "calls":
            return self.engine.rest.calls
        if what == "state":
            return _state(self.engine.model)
        if what == "groups":
            return _sizes_of_groups(self.engine.model)
        return None

    def post(self, what: str) -> None:
        message = json.loads(self.request.body)
        if what == "power":
            self.engine.hosts.power(self._host(message["host"]), message["powered"])
        elif what == "restart":
            self.engine.restart(message.get("seconds"))
        elif what == "faults":
            self.engine.faults.switch(message)
        self.finish({"answer": "done"})

    def _host(self, name: str) -> SimulatedHost:
        return next(host for host in self.engine.model.hosts.values() if host.name == name)


def _state(tables: Model) -> dict[str, dict[str, Any]]:
    """Return the status of each host, and the host of each VM that runs."""
    hosts = {host.name: host.status for host in tables.hosts.values()}
    vms = {vm.name: _host_of(tables, vm) for vm in tables.vms.values()}
    return {"hosts": hosts, "vms": vms}


def _host_of(tables: Model, vm: SimulatedVm) -> Optional[str]:
    host = tables.hosts.get(vm.host)
    return None if vm.status in NOT_RUNNING or host is None else host.name


def _sizes_of_groups(tables: Model) -> dict[str, list[int]]:
    """Return how many hosts and VMs each affinity group has."""
    sizes: dict[str, list[int]] = {}
    for uid, group in tables.groups.items():
        sizes[uid] = [len(group.hosts), len(group.vms)]
    return sizes
