# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whom the simulated engine talks to in tests: the SDK as a client, and an external scheduler that answers as told."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import ovirtsdk4
from ovirtsdk4 import types


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
        return next(one for one in self.system.hosts_service().list() if one.name == name)

    def host_service(self, name: str) -> ovirtsdk4.services.HostService:
        return self.system.hosts_service().host_service(self.host(name).id)

    def vm(self, name: str) -> types.Vm:
        return next(one for one in self.system.vms_service().list() if one.name == name)

    def vm_service(self, name: str) -> ovirtsdk4.services.VmService:
        return self.system.vms_service().vm_service(self.vm(name).id)

    def codes(self) -> list[int]:
        return [event.code for event in self.system.events_service().list()]

    def use_policy(self, cluster: str, filters: Sequence[str], balance: str = "", **properties: str) -> None:
        """Give a cluster a policy of its own, made as an administrator's script would make it."""
        policies = self.system.scheduling_policies_service()
        given = [types.Property(name=name, value=value) for name, value in properties.items()]
        policy = policies.add(types.SchedulingPolicy(name=f"policy of {cluster}", properties=given))
        service = policies.policy_service(policy.id)
        for uid in filters:
            service.filters_service().add(types.Filter(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid)))
        if balance:
            unit = types.SchedulingPolicyUnit(id=balance)
            service.balances_service().add(types.Balance(scheduling_policy_unit=unit))
        clusters = self.system.clusters_service()
        uid = next(one.id for one in clusters.list() if one.name == cluster)
        clusters.cluster_service(uid).update(types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy.id)))

    def unit(self, name: str) -> types.SchedulingPolicyUnit:
        return next(one for one in self.system.scheduling_policy_units_service().list() if one.name == name)

    def place(self, vm: str) -> str:
        found = self.vm(vm)
        return next(h.name for h in self.system.hosts_service().list() if found.host and h.id == found.host.id)


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
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))


def reply_of(value: str) -> bytes:
    return (
        f'<?xml version="1.0"?><methodResponse><params><param><value>{value}</value></param></params></methodResponse>'
    ).encode()


def envelope(hosts: list[str], code: int = 0, error: str = "") -> bytes:
    listed = "".join(f"<value>{host}</value>" for host in hosts)
    errors = f"<value>{error}</value>" if error else ""
    return reply_of(
        f"<struct><member><name>result_code</name><value><int>{code}</int></value></member>"
        f"<member><name>result</name><value><array><data>{listed}</data></array></value></member>"
        f"<member><name>errors</name><value><array><data>{errors}</data></array></value></member></struct>"
    )
