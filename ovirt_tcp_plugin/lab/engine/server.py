# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine as a running thing: HTTPS for the SDK, a control port for the lab, and a heart-beat."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import json
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tornado.httpserver
import tornado.netutil
import tornado.web

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler
from ovirt_tcp_plugin.lab.engine.lifecycle import Lifecycle
from ovirt_tcp_plugin.lab.engine.model import Cluster, Host, Model, Timings, Vm
from ovirt_tcp_plugin.lab.engine.rest import Rest
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling

HEARTBEAT_S = 0.1
START_WITHIN_S = 10.0
THREADS = 32
RESTART_S = 1.0

_HTML_503 = "<html><body><h1>503 Service Unavailable</h1></body></html>"


@dataclasses.dataclass(frozen=True)
class Config:
    """A simulated engine.

    Attributes:
        certificate, key: PEM files of the HTTPS server.
        users: password by user name.
        clusters: names.
        hosts: mappings with name, address, cluster (a name) and optionally status.
        vms: mappings with name, cluster and optionally host, high_availability, custom_properties.
        external_scheduler: URL, empty if ExternalSchedulerEnabled is false.
        port, control_port: 0 for any.
    """

    certificate: str
    key: str
    users: Mapping[str, str]
    clusters: Sequence[str] = ("Default",)
    hosts: Sequence[Mapping[str, Any]] = ()
    vms: Sequence[Mapping[str, Any]] = ()
    external_scheduler: str = ""
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    port: int = 0
    control_port: int = 0


class EngineSimulator:
    """An engine in this process. `start` returns when it serves and has asked the external scheduler for its units."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = Model(Timings(**config.timings))
        _fill(self.model, config)
        within = self.model.timings.external_response
        external = ExternalScheduler(config.external_scheduler, within) if config.external_scheduler else None
        self.scheduling = Scheduling(self.model, external)
        self.lifecycle = Lifecycle(self.model, self.scheduling)
        self.rest = Rest(self.model, self.lifecycle, config.users)
        self.away_until = 0.0
        self.port = self.control_port = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._run), threading.Thread(target=self._beat)]

    @property
    def url(self) -> str:
        """Root of the API for the SDK."""
        return f"https://127.0.0.1:{self.port}{documents.API}"

    def start(self) -> None:
        """Start to serve."""
        self.model.log(model.ENGINE_START, "Starting oVirt Engine.")
        self.scheduling.discover()
        for thread in self._threads:
            thread.start()
        if not self._ready.wait(START_WITHIN_S):
            raise TimeoutError("the simulated engine did not start")

    def stop(self) -> None:
        """Stop, and wait until all threads have ended."""
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._stopped.set)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown()

    def restart(self, seconds: float = RESTART_S) -> None:
        """Be away for a while, with the proxy's HTML 503; then a new start with a new discovery."""
        self.away_until = time.monotonic() + seconds
        self.rest.end_tokens()

    async def answer(self, verb: str, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Return status and document of an API request; the work is done in a thread."""
        loop = asyncio.get_running_loop()
        status, document = await loop.run_in_executor(self._pool, self.rest.answer, verb, path, query, body)
        return status, documents.render(document)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.config.certificate, self.config.key)
        shared = {"engine": self}
        api = tornado.web.Application(
            [
                (r"/ovirt-engine/sso/oauth/token", _Token, shared),
                (r"/ovirt-engine/services/sso-logout", _LogOut, shared),
                (documents.API + r"/?(.*)", _Api, shared),
            ],
            log_function=lambda _: None,
        )
        control = tornado.web.Application([(r"/(.*)", _Control, shared)], log_function=lambda _: None)
        servers = [tornado.httpserver.HTTPServer(api, ssl_options=tls), tornado.httpserver.HTTPServer(control)]
        ports = []
        for server, port in zip(servers, (self.config.port, self.config.control_port)):
            sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
            server.add_sockets(sockets)
            ports.append(sockets[0].getsockname()[1])
        self.port, self.control_port = ports
        self._ready.set()
        await self._stopped.wait()
        for server in servers:
            server.stop()
            await server.close_all_connections()

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            if self.away_until:
                if time.monotonic() < self.away_until:
                    continue
                self.away_until = 0.0
                self.model.log(model.ENGINE_START, "Starting oVirt Engine.")
                self.scheduling.discover()
            self.lifecycle.tick()


class _Handler(tornado.web.RequestHandler):
    def initialize(self, engine: EngineSimulator) -> None:
        self.engine = engine

    def prepare(self) -> None:
        if self.engine.away_until and not isinstance(self, _Control):
            self.set_status(503)
            self.set_header("Content-Type", "text/html")
            self.finish(_HTML_503)


class _Token(_Handler):
    """SSO: a password for a token."""

    def post(self) -> None:
        token = self.engine.rest.log_in(self.get_argument("username", ""), self.get_argument("password", ""))
        self.set_header("Content-Type", "application/json")
        if token is None:
            refusal = {"error": "access_denied", "error_code": "access_denied", "error_description": "wrong password"}
            self.set_status(401)
            self.finish(refusal)
        else:
            self.finish({"access_token": token, "scope": "ovirt-app-api", "exp": "9223372036854775807"})


class _LogOut(_Handler):
    """SSO: the end of a token."""

    def post(self) -> None:
        self.engine.rest.log_out(self.get_argument("token", ""))
        self.set_header("Content-Type", "application/json")
        self.finish("{}")


class _Api(_Handler):
    """Everything below /ovirt-engine/api."""

    async def _answer(self, path: str) -> None:
        token = self.request.headers.get("Authorization", "")[len("Bearer ") :]
        self.set_header("Content-Type", "application/xml")
        if not self.engine.rest.knows(token):
            self.set_status(401)
            self.finish(documents.render(documents.fault(model.Fault(401, "Unauthorized", ""), False)))
            return
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        status, document = await self.engine.answer(
            self.request.method or "", path.split(";")[0].strip("/"), query, self.request.body
        )
        self.set_status(status)
        self.finish(document)

    get = post = put = delete = _answer


class _Control(_Handler):
    """The lab's hand: `POST /power`, `POST /restart`, `GET /journal`, `GET /calls`, `GET /state`."""

    def get(self, what: str) -> None:
        tables = self.engine.model
        with tables.lock:
            answers: dict[str, Any] = {
                "journal": tables.journal,
                "calls": self.engine.rest.calls,
                "state": {
                    "hosts": {one.name: one.status for one in tables.hosts.values()},
                    "vms": {one.name: _place(tables, one) for one in tables.vms.values()},
                },
            }
            self.finish(json.dumps({"answer": answers.get(what)}))

    def post(self, what: str) -> None:
        message = json.loads(self.request.body)
        if what == "power":
            host = next(one for one in self.engine.model.hosts.values() if one.name == message["host"])
            self.engine.lifecycle.power(host, message["powered"])
        elif what == "restart":
            self.engine.restart(message.get("seconds", RESTART_S))
        self.finish({"answer": "done"})


def _place(tables: Model, vm: Vm) -> Optional[str]:
    host = tables.hosts.get(vm.host)
    return None if vm.status == "down" or host is None else host.name


def _fill(tables: Model, config: Config) -> None:
    for name in config.clusters:
        cluster = Cluster(model.new_id(), name)
        tables.clusters[cluster.id] = cluster
    clusters = {cluster.name: cluster.id for cluster in tables.clusters.values()}
    for given in config.hosts:
        host = Host(model.new_id(), given["name"], given["address"], clusters[given["cluster"]])
        host.status = given.get("status", "up")
        tables.hosts[host.id] = host
    hosts = {host.name: host.id for host in tables.hosts.values()}
    for given in config.vms:
        vm = Vm(model.new_id(), given["name"], clusters[given["cluster"]])
        vm.high_availability = given.get("high_availability", False)
        vm.custom_properties = dict(given.get("custom_properties", {}))
        if given.get("host"):
            vm.host, vm.status = hosts[given["host"]], "up"
        tables.vms[vm.id] = vm
