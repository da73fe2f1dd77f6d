# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A site with a simulated engine and the whole broker: real SDK, threads and files; only the
attestation is scripted."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks, settings
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.service import Service
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.database import Database
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import builtin, model
from ovirt_tcp_plugin.lab.engine.audit_log import AuditEvent
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.inventory import PERMITS, wall_name
from tests.site_pki import PASSWORD

ADMINISTRATOR = "admin@internal"
HOOKS = Path(__file__).parents[2] / "hooks" / "engine"
TIMINGS = {
    "host_initialization": 0.1,
    "event_after_up": 0.1,
    "not_responding_after": 0.1,
    "migration": 0.05,
    "vm_start": 0.05,
    "ha_retry": 0.2,
}


def until(holds: Callable[[], object], within_s: float = 12) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class ScriptedSource:
    """An attestation server of the test's own: levels by name; silence for the whole when it is
    down."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.levels: dict[str, Level] = {}
        self.life_ms = 600_000
        self.down = False
        self.asked: list[list[str]] = []

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        sent_ms = self._clock.now_ms()
        self.asked.append(list(names))
        if self.down:
            raise errors.Unavailable("the attestation server", "refused")
        return {name: self._answer(name, sent_ms) for name in names}

    def _answer(self, name: str, sent_ms: int) -> Answer:
        level = self.levels.get(name, Level.TRUSTED)
        if level in (Level.TRUSTED, Level.UNTRUSTED):
            bad = level is Level.UNTRUSTED
            code, reason = ("pcr_differs", "PCR 17 is not the known one") if bad else ("", "")
            return Answer(level, sent_ms, 0, self.life_ms, True, code, reason)
        return Answer(level, sent_ms, code="no_answer", reason="the host's agent did not answer")


class Site:
    """An engine with a trusted pool, and a broker that can be started, stopped and started again.

    Args:
        vms: those that run when it starts; None for two.
        external_scheduler: URL of filterd, empty for none.
        engine: one that is there already; without it, one with a pool is made.
    """

    def __init__(
        self,
        directory: Path,
        pki: Path,
        hosts: int,
        vms: Sequence[Mapping[str, Any]] | None = None,
        external_scheduler: str = "",
        engine: EngineSimulator | None = None,
    ) -> None:
        self.directory, self.pki = directory, pki
        given = [{"name": f"vm{n}", "host": f"h{n}"} for n in (1, 2)] if vms is None else vms
        self.engine = engine or _engine(pki, hosts, given, external_scheduler)
        self.clock = Clock()
        self.source = ScriptedSource(self.clock)
        options = settings.Settings(
            settings.EngineOptions(
                self.engine.url, "broker@internal", pki / "password", pki / "ca.pem", 5.0
            ),
            settings.VerifierOptions(("https://attest.lab",)),
        )
        self.options = dataclasses.replace(
            options,
            verdicts=settings.VerdictOptions(untrusted_refresh_s=0.2),
            guard=settings.GuardOptions(series_s=0),
            startup=settings.StartupOptions(2, 3),
            intervals=settings.IntervalOptions(0.1, 0.3),
            snapshot=settings.SnapshotOptions(directory / "snapshot.d"),
            state=settings.StateOptions(directory / "state"),
        )

    def start(self) -> None:
        self.state = BrokerState(self.options, self.clock, random.random)
        memory = StateFile(self.options.state.directory)
        memory.load(self.state)
        writer = SnapshotWriter(self.options.snapshot.directory)
        adapter, handles = Engine(engine_access(self.options.engine)), hooks.load(HOOKS)
        self.database = Database(self.options.state.directory)
        self.history = History(self.database, 100_000, 90)
        vms = VmMonitor(self.state, self.database)
        self.service = Service(
            self.options,
            self.state,
            adapter,
            self.source,
            writer,
            memory,
            self.history,
            vms,
            handles,
            self.clock,
        )
        self.service.start()

    def stop(self) -> None:
        self.service.stop()
        self.database.close()

    @property
    def cluster(self) -> str:
        return next(iter(self.engine.model.clusters))

    def wall(self) -> model.AffinityGroup | None:
        groups = self.engine.model.groups.values()
        return next((one for one in groups if one.name == wall_name(self.cluster)), None)

    def inside(self) -> set[str]:
        wall = self.wall()
        return {self.engine.model.hosts[one].name for one in wall.hosts} if wall else set()

    def host(self, name: str) -> model.SimulatedHost:
        return next(one for one in self.engine.model.hosts.values() if one.name == name)

    def statuses(self) -> dict[str, str]:
        return {one.name: one.status for one in self.engine.model.hosts.values()}

    def told(self, part: str) -> list[AuditEvent]:
        return [
            one
            for one in self.engine.model.events
            if one.origin == "ovirt-tcp" and part in one.description
        ]

    def asked_for(self, name: str) -> bool:
        """Return whether the attestation server was asked about this host."""
        return any(name in names for names in self.source.asked)

    def snapshot(self) -> snapshot.Snapshot:
        content = (self.options.snapshot.directory / f"{self.cluster}.json").read_bytes()
        return snapshot.decode(content, self.clock.boot_id)

    def trusted_in_snapshot(self) -> set[str]:
        """Return the names of hosts that filterd may use; none as long as there is no file."""
        try:
            verdicts = self.snapshot().hosts
        except FileNotFoundError:
            return set()
        trusted = [
            host_id for host_id, verdict in verdicts.items() if verdict.level is Level.TRUSTED
        ]
        return {self.engine.model.hosts[host_id].name for host_id in trusted}


def _engine(
    pki: Path, hosts: int, vms: Sequence[Mapping[str, Any]], external_scheduler: str
) -> EngineSimulator:
    given: list[dict[str, Any]] = [
        {"name": f"h{n}", "address": f"h{n}.lab", "cluster": "Trusted"} for n in range(1, hosts + 1)
    ]
    config = Config(
        str(pki / "engine.pem"),
        str(pki / "engine.key"),
        {ADMINISTRATOR: PASSWORD},
        directory={"broker@internal": PASSWORD},
        clusters=("Trusted",),
        hosts=given,
        vms=[{"cluster": "Trusted", **one} for one in vms],
        timings=TIMINGS,
        external_scheduler=external_scheduler,
    )
    engine = EngineSimulator(config)
    make_pools(engine.model)
    engine.start()
    return engine


def make_pools(tables: model.Model) -> None:
    """Give every user the smallest role, which is enough for all that the broker does, and make
    each cluster a pool."""
    tables.roles["smallest"] = model.Role("smallest", "ovirt-tcp", set(PERMITS.values()))
    for user in tables.users.values():
        user.roles.add("smallest")
    unit = model.PolicyUnit(model.new_id(), "TrustedHosts", "filter", internal=False)
    tables.units[unit.id] = unit
    none = tables.policies[builtin.NONE_POLICY]
    policy = model.SchedulingPolicy(
        model.new_id(), "trusted", filters=[*none.filters, unit.id], balances=none.balances
    )
    tables.policies[policy.id] = policy
    for cluster in tables.clusters.values():
        cluster.policy = policy.id


EVERYBODY = {"h1", "h2", "h3", "h4", "h5"}
