# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Peers of the simulated engine in tests: the SDK, and an external scheduler with a script."""

from __future__ import annotations

import contextlib
import http.client
import json
import socketserver
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

import ovirtsdk4
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import builtin, request_documents
from ovirt_tcp_plugin.lab.engine.model import SimulatedHost, SimulatedVm
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator

TIMINGS = {
    "host_initialization": 10,
    "event_after_up": 5,
    "not_responding_after": 60,
    "vm_start": 5,
    "migration": 20,
}
HOSTS = [{"name": f"h{n}", "address": f"h{n}.lab", "cluster": "Default"} for n in (1, 2, 3)]


def until(holds: Callable[[], object], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Session:
    """The SDK's services, by the names that a test uses."""

    def __init__(self, connection: ovirtsdk4.Connection) -> None:
        self.connection = connection
        self.system = connection.system_service()

    def host(self, name: str) -> types.Host:
        return next(host for host in self.system.hosts_service().list() if host.name == name)

    def host_service(self, name: str) -> ovirtsdk4.services.HostService:
        return self.system.hosts_service().host_service(self.host(name).id)

    def vm(self, name: str) -> types.Vm:
        return next(vm for vm in self.system.vms_service().list() if vm.name == name)

    def vm_service(self, name: str) -> ovirtsdk4.services.VmService:
        return self.system.vms_service().vm_service(self.vm(name).id)

    def codes(self) -> list[int]:
        return [event.code for event in self.system.events_service().list()]

    def use_policy(
        self, cluster: str, filters: Sequence[str], balance: str = "", **properties: str
    ) -> None:
        """Give a cluster a policy of its own, made as an administrator's script would make it."""
        policies = self.system.scheduling_policies_service()
        settings = [types.Property(name=name, value=value) for name, value in properties.items()]
        policy = policies.add(types.SchedulingPolicy(name=f"policy of {cluster}"))
        service = policies.policy_service(policy.id)
        for uid in filters:
            service.filters_service().add(
                types.Filter(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid))
            )
        if balance:
            unit = types.SchedulingPolicyUnit(id=balance)
            service.balances_service().add(types.Balance(scheduling_policy_unit=unit))
        service.update(types.SchedulingPolicy(properties=settings))
        clusters = self.system.clusters_service()
        uid = next(row.id for row in clusters.list() if row.name == cluster)
        clusters.cluster_service(uid).update(
            types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy.id))
        )

    def unit(self, name: str) -> types.SchedulingPolicyUnit:
        return next(
            unit
            for unit in self.system.scheduling_policy_units_service().list()
            if unit.name == name
        )

    def place(self, vm: str) -> str:
        row = self.vm(vm)
        return next(
            h.name for h in self.system.hosts_service().list() if row.host and h.id == row.host.id
        )


def add_group(
    connection: ovirtsdk4.Connection,
    hosts: list[types.Host],
    vms: list[types.Vm],
    positive: bool = True,
) -> str:
    """Make an enforcing VM-to-host affinity group; return its id."""
    (cluster,) = connection.system_service().clusters_service().list()
    groups = (
        connection.system_service()
        .clusters_service()
        .cluster_service(cluster.id)
        .affinity_groups_service()
    )
    rule = types.AffinityRule(enabled=True, enforcing=True, positive=positive)
    group = types.AffinityGroup(
        name=f"group {len(groups.list())}",
        hosts_rule=rule,
        vms_rule=types.AffinityRule(enabled=False),
        hosts=[types.Host(id=host.id) for host in hosts],
        vms=[types.Vm(id=vm.id) for vm in vms],
    )
    return str(groups.add(group).id)


def exchange(
    url: str, verb: str, path: str, body: str, headers: dict[str, str]
) -> tuple[int, str, str]:
    """Return status, body and content type of an answer."""
    address = urllib.parse.urlsplit(url)
    # The lab's own certificate; nothing secret travels.
    trusting = ssl._create_unverified_context()  # noqa: S323
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, timeout=10, context=trusting
    )
    with contextlib.closing(connection):
        connection.request(verb, path, body.encode() or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers.get("Content-Type", "")


class ScriptedScheduler(socketserver.ThreadingTCPServer):
    """Answers every request with the bytes it was given; remembers what was asked."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.discovery = reply_of(
            "<struct><member><name>filters</name><value><struct><member><name>TrustedHosts</name><value><array><data>"
            "<value>trust</value><value>trust_scope=^(all_vms|marked_vms)$</value></data></array></value></member>"
            "</struct></value></member></struct>"
        )
        self.reply = b""
        self.talks, self.waited_for = threading.Event(), threading.Event()
        self.talks.set()
        self.asked: list[bytes] = []
        self.connections = 0

    @contextlib.contextmanager
    def silence(self) -> Iterator[threading.Event]:
        """Accept and answer nothing for a while; the event is set once somebody waits."""
        self.talks.clear()
        self.waited_for.clear()
        yield self.waited_for
        self.talks.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Answer(socketserver.StreamRequestHandler):
    server: ScriptedScheduler

    def handle(self) -> None:
        self.server.connections += 1
        while True:
            length = 0
            for line in iter(self.rfile.readline, b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                if line == b"\r\n":
                    break
            if not length:
                return
            body = self.rfile.read(length)
            self.server.asked.append(body)
            self.server.waited_for.set()
            self.server.talks.wait(30)
            reply = self.server.discovery if b"discover" in body else self.server.reply
            if not reply:
                return
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply)
            )


def reply_of(value: str) -> bytes:
    return (
        "<?xml "
        f'version="1.0"?><methodResponse><params><param><value>{value}</value></param></params></methodResponse>'
    ).encode()


def envelope(hosts: list[str], code: int = 0, error: str = "") -> bytes:
    listed = "".join(f"<value>{host}</value>" for host in hosts)
    errors = f"<value>{error}</value>" if error else ""
    return reply_of(
        f"<struct><member><name>result_code</name><value><int>{code}</int></value></member>"
        f"<member><name>result</name><value><array><data>{listed}</data></array></value></member>"
        f"<member><name>errors</name><value><array><data>{errors}</data></array></value></member></struct>"
    )


def vm(name: str, host: str = "", **changes: object) -> dict[str, object]:
    return {"name": name, "cluster": "Default", "host": host, **changes}


class Lab:
    """An engine whose time stands still, and the SDK connected to it."""

    def __init__(self, engine: EngineSimulator, connection: ovirtsdk4.Connection) -> None:
        self.engine, self.session = engine, Session(connection)
        self.system = self.session.system
        self.events = self.system.events_service()

    def restart(self) -> None:
        """Restart the engine, and wait until it is there."""
        self.engine.restart(1)
        self.pass_time(2)
        self.engine.discovery.wait()

    def pass_time(self, seconds: float) -> None:
        self.engine.advance(seconds, min(1.0, seconds))

    def host(self, name: str) -> SimulatedHost:
        return next(host for host in self.engine.model.hosts.values() if host.name == name)

    def vm(self, name: str) -> SimulatedVm:
        return next(vm for vm in self.engine.model.vms.values() if vm.name == name)

    def status(self, host: str) -> str:
        return str(self.session.host(host).status.value)

    def write(
        self,
        custom_id: int,
        severity: types.LogSeverity = types.LogSeverity.ERROR,
        **changes: object,
    ) -> int:
        event = types.Event(
            origin="ovirt-tcp",
            custom_id=custom_id,
            severity=severity,
            description="text",
            **changes,
        )
        return int(self.events.add(event).id)

    @property
    def groups(self) -> str:
        """The path of the cluster's affinity groups."""
        (cluster,) = self.engine.model.clusters
        return f"clusters/{cluster}/affinitygroups"

    def ask(self, verb: str, path: str, body: str = "", token: str = "") -> tuple[int, str]:
        """Return status and body of a request below /ovirt-engine/api, as the engine writes it."""
        session = token or self.session.connection.authenticate()
        headers = {"Authorization": f"Bearer {session}", "Version": "4"}
        return exchange(
            self.engine.url, verb, f"/ovirt-engine/api/{path}".rstrip("/"), body, headers
        )[:2]

    def log_in(self, username: str, password: str) -> tuple[int, dict[str, str]]:
        """Return status and answer of the request for a token."""
        form = {
            "grant_type": "password",
            "scope": "ovirt-app-api",
            "username": username,
            "password": password,
        }
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        path = "/ovirt-engine/sso/oauth/token"
        status, answer, _ = exchange(
            self.engine.url, "POST", path, urllib.parse.urlencode(form), headers
        )
        return status, json.loads(answer)

    def refused(self, verb: str, path: str, body: str = "") -> tuple[int, str]:
        """Return status and detail of a refusal, which is a fault or an action with one."""
        status, answer = self.ask(verb, path, body)
        detail = request_documents.parse(answer.encode()).find(".//detail") if answer else None
        return status, "" if detail is None else detail.text or ""

    def journal(self) -> dict[str, object]:
        return self.engine.model.journal[-1]

    def filter_by(self, name: str = "TrustedHosts", cluster: str = "Default") -> None:
        self.session.use_policy(
            cluster,
            [self.session.unit(name).id, builtin.AFFINITY_FILTER],
            builtin.NO_BALANCE,
            trust_scope="all_vms",
        )
