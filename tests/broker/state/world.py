# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A pool, and what a broker knows of it, on a clock of the test's own."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable
from typing import Any

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.wall_plan import Edit
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Cluster, Group, Host, Listing, Policy, Unit, Vm
from tests.broker.state.full_plans import full_plans
from tests.fake_clock import FakeClock

POOL = "pool"


LIFE = 600_000


OPTIONS = settings.Settings(
    settings.EngineOptions("https://engine.lab/ovirt-engine/api", "broker@internal"),
    settings.VerifierOptions(("https://attest.lab",)),
    # Untrusted hosts leave at once: tests of series have options of their own.
    guard=settings.GuardOptions(series_s=0),
)


class World:
    """A pool of hosts, and what a broker knows of it."""

    def __init__(self, hosts: int = 4, vms: int = 2, options: settings.Settings = OPTIONS) -> None:
        self.options, self.clock = options, FakeClock()
        self.hosts = [Host(f"h{n}", f"host-{n}", f"h{n}.lab", POOL, "up") for n in range(hosts)]
        self.vms = [Vm(f"v{n}", f"vm-{n}", POOL) for n in range(vms)]
        self.cluster = Cluster(POOL, "Trusted", "policy")
        self.policy = Policy("policy", "trusted", filter_ids=frozenset({"unit"}))
        self.units: tuple[Unit, ...] = (Unit("unit", "TrustedHosts"),)
        self.wall: Group | None = Group("wall", "ovirt-tcp-wall")
        self.engine_hosts: frozenset[str] = frozenset()
        self.state = BrokerState(options, self.clock, random.random)
        self.look()

    def look(self) -> None:
        """Let the broker list everything."""
        walls = {POOL: self.wall} if self.wall else {}
        hosts, vms = tuple(self.hosts), tuple(self.vms)
        listing = Listing(
            (self.cluster,), (self.policy,), self.units, hosts, vms, walls, self.engine_hosts
        )
        self.gone = self.state.observe_listing(listing, self.state.begin_listing())
        self.state.observe_hosts(self.hosts)

    def status(self, host_id: str, status: str, detail: str = "") -> None:
        """Change a host at the engine, and let the broker look."""
        self.hosts = [
            dataclasses.replace(one, status=status, status_detail=detail)
            if one.id == host_id
            else one
            for one in self.hosts
        ]
        self.state.observe_hosts(self.hosts)

    def change_host(self, number: int, **changes: str) -> None:
        """Change a host at the engine, and let the broker look."""
        host = self.hosts[number]
        self.hosts[number] = dataclasses.replace(host, **changes)  # type: ignore[arg-type]
        self.look()

    def attest(self, good: Iterable[str] = (), bad: Iterable[str] = ()) -> None:
        """Let the server answer now."""
        now = self.clock.ms
        answers = {one: Answer(Level.TRUSTED, now, 0, LIFE, True) for one in good}
        reason = ("pcr_differs", "PCR 17 is not the known one")
        answers.update({one: Answer(Level.UNTRUSTED, now, 0, LIFE, True, *reason) for one in bad})
        self.state.questions.record(answers)

    def restart(self) -> None:
        """Restart the broker: only what it saved is left."""
        saved: dict[str, Any] = json.loads(json.dumps(self.state.encode()))
        self.state = BrokerState(self.options, self.clock, random.random)
        self.state.restore(saved)
        self.look()

    def build(self) -> None:
        """Carry out the plan of the wall."""
        (plan,) = full_plans(self.state.walls)
        group = plan.group or Group("wall", "ovirt-tcp-wall")
        hosts, vms = set(group.host_ids), set(group.vm_ids)
        for step in plan.steps:
            if step.edit is Edit.ADD_HOST:
                hosts.add(step.subject)
            elif step.edit is Edit.REMOVE_HOST:
                hosts.discard(step.subject)
            elif step.edit is Edit.ADD_VM:
                vms.add(step.subject)
            elif step.edit is Edit.REMOVE_VM:
                vms.discard(step.subject)
            elif step.edit in (Edit.REMOVE_HOSTS, Edit.ADD_HOSTS):
                hosts = set(step.host_ids)
            elif step.edit is Edit.CHANGE_VMS:
                vms = set(step.vm_ids)
        self.wall = Group("wall", "ovirt-tcp-wall", frozenset(hosts), frozenset(vms))
        self.state.walls.edited(POOL, self.wall)
        if not full_plans(self.state.walls)[0].steps:
            self.state.walls.in_order([POOL])

    def inside(self) -> set[str]:
        self.build()
        assert self.wall is not None
        return set(self.wall.host_ids)

    def leaving(self) -> set[str]:
        return {host_id for host_id, _ in self.state.quarantine.to_deactivate()}

    def ids(self) -> list[str]:
        return [host.id for host in self.hosts]

    def told(self) -> list[str]:
        return [notice.text for notice in self.state.outbox.take() if notice.event]
