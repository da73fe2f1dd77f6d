# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine as a running thing: its parts wired together, its start, its restarts, and its
heart-beat."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, documents, model, options
from ovirt_tcp_plugin.lab.engine.clock import Clock, ManualClock
from ovirt_tcp_plugin.lab.engine.discovery import Discovery
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler
from ovirt_tcp_plugin.lab.engine.faults import Faults
from ovirt_tcp_plugin.lab.engine.hosts import Hosts
from ovirt_tcp_plugin.lab.engine.model import Cluster, Host, Model, Role, Timings, User, Vm
from ovirt_tcp_plugin.lab.engine.notifier import Notifier
from ovirt_tcp_plugin.lab.engine.options import Options
from ovirt_tcp_plugin.lab.engine.permits import PERMITS
from ovirt_tcp_plugin.lab.engine.rest import Rest
from ovirt_tcp_plugin.lab.engine.rounds import Rounds
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.sessions import Sessions
from ovirt_tcp_plugin.lab.engine.vms import Vms
from ovirt_tcp_plugin.lab.engine.web import Web

HEARTBEAT_S = 0.1
SUPER_USER = "00000000-0000-0000-0000-000000000001"
# So long, in real seconds, a start's transaction is open at most while discovery waits for its
# answer.
START_TRANSACTION_S = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """A simulated engine.

    Attributes:
        certificate, key: PEM files of the HTTPS server.
        users: password by user name. They are super users.
        directory: password by user name, of users without any role.
        clusters: names.
        hosts: mappings with name, address, cluster (a name) and optionally status, hosted_engine,
            features, and hook_directory: that of the VDSM hooks which decide there.
        vms: mappings with name, cluster and optionally host, high_availability, priority,
            custom_properties, origin, affinity and pinned_to (host names).
        external_scheduler: URL, empty if ExternalSchedulerEnabled is false.
        attestation_server: AttestationServer, of which only the existence counts.
        vm_properties: UserDefinedVMProperties, name -> regular expression of the whole value.
        options: file of the lab's `engine-config`, read at each start; it then counts instead of
            external_scheduler, vm_properties and the timings external_response and ha_long_retry.
        up_mark: file that is there while the engine runs and is written at each start
            (ENGINE_UP_MARK, on a real machine /var/lib/ovirt-engine/engine.up), empty for none.
        seed: of the engine's races.
        port, control_port: 0 for any.
    """

    certificate: str
    key: str
    users: Mapping[str, str]
    directory: Mapping[str, str] = dataclasses.field(default_factory=dict)
    clusters: Sequence[str] = ("Default",)
    hosts: Sequence[Mapping[str, Any]] = ()
    vms: Sequence[Mapping[str, Any]] = ()
    external_scheduler: str = ""
    attestation_server: str = ""
    vm_properties: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"trusted_host_flag": "^(true|false)$"}
    )
    options: str = ""
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    up_mark: str = ""
    seed: int = 0
    port: int = 0
    control_port: int = 0


class EngineSimulator:
    """An engine in this process. With a ManualClock nothing happens by itself: `advance` is its
    time."""

    def __init__(self, config: Config, clock: Optional[Clock] = None) -> None:
        self.config = config
        self.clock, self.faults = clock or Clock(), Faults()
        timings = Timings(**config.timings)  # type: ignore[arg-type]
        self.model = Model(timings, self.clock, self.faults)
        _fill(self.model, config)
        self.discovery = Discovery(self.model, random.Random(config.seed))  # noqa: S311 - a lab's dice
        self.scheduling = Scheduling(self.model)
        self.vms = Vms(self.model, self.scheduling)
        self.hosts = Hosts(self.model, self.vms)
        self.rounds = Rounds(self.model, self.scheduling, self.vms, self.hosts)
        self.notifier = Notifier(self.model)
        self.sessions = Sessions(self.model)
        self._vm_properties: dict[str, str] = {}
        self.rest = Rest(
            self.model,
            self.scheduling,
            self.hosts,
            self.vms,
            self._vm_properties,
            config.attestation_server,
        )
        self.web = Web(self, config.certificate, config.key, (config.port, config.control_port))
        self.away_until = 0.0
        self._stopping = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heart-beat")

    @property
    def url(self) -> str:
        """Root of the API for the SDK."""
        return f"https://127.0.0.1:{self.web.port}{documents.API}"

    def start(self) -> None:
        """Start to serve. By then the external scheduler has answered, unless it takes longer than
        the engine's start."""
        self._begin()
        self.discovery.wait(self.model.timings.restart)
        self.web.start()
        if not isinstance(self.clock, ManualClock):
            self._heart.start()

    def stop(self) -> None:
        """Stop, and wait until all threads have ended."""
        self._stopping.set()
        self.web.stop()
        if self._heart.ident is not None:
            self._heart.join()
        self.discovery.wait()
        self._unmark()

    def restart(self, seconds: Optional[float] = None) -> None:
        """Be away for a while, with the proxy's HTML 503; then a new start with a new discovery. No
        event tells of it.
        """
        pause = self.model.timings.restart if seconds is None else seconds
        self._unmark()
        self.away_until = self.model.now() + pause
        self.sessions.end_all()

    def advance(self, seconds: float, step_s: float = HEARTBEAT_S) -> None:
        """Let time pass, by the engine's own heart-beat or a slower one. Raises TypeError without a
        ManualClock."""
        if not isinstance(self.clock, ManualClock):
            raise TypeError("the machine's own clock cannot be moved")
        end = self.clock.now() + seconds
        while end - self.clock.now() > step_s / 2:
            self.clock.move(step_s)
            self.tick()

    def tick(self) -> None:
        """Let everything happen that is due."""
        self.notifier.tick(up=not self.away_until)
        if self.away_until:
            if self.model.now() < self.away_until:
                return
            self._begin()
            self.away_until = 0.0
        self.hosts.tick()
        self.vms.tick()
        self.rounds.tick()

    def _begin(self) -> None:
        """What every start of the engine does (`ovirt-engine.py`, `Backend.initialize`)."""
        if self.config.up_mark:
            Path(self.config.up_mark).write_text(f"{os.getpid()}\n", encoding="ascii")
        with self.model.lock:
            # What refused edits left in memory is gone.
            self.model.policies.update(self.model.unspoiled_policies)
            self.model.unspoiled_policies.clear()
        self._obey(
            options.read(Path(self.config.options)) if self.config.options else self._given()
        )
        self.model.audit_log.restart()
        self.hosts.restart()
        self.rounds.restart()
        self.discovery.begin()
        self.model.log(audit_log.ENFORCEMENT_STARTED, "Affinity Rules Enforcement Manager started.")
        self.discovery.end_start(START_TRANSACTION_S)

    def _unmark(self) -> None:
        if self.config.up_mark:
            Path(self.config.up_mark).unlink(missing_ok=True)

    def _given(self) -> Options:
        config, timings = self.config, self.model.timings
        return Options(
            config.external_scheduler,
            timings.external_response,
            timings.ha_long_retry,
            config.vm_properties,
        )

    def _obey(self, given: Options) -> None:
        with self.model.lock:
            self.model.timings = dataclasses.replace(
                self.model.timings,
                external_response=given.external_response,
                ha_long_retry=given.ha_long_retry,
            )
            self._vm_properties.clear()
            self._vm_properties.update(given.vm_properties)
        url = given.external_scheduler
        self.discovery.external = self.scheduling.external = (
            ExternalScheduler(url, given.external_response) if url else None
        )

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            self.tick()


def _fill(tables: Model, config: Config) -> None:
    _fill_users(tables, config)
    for name in config.clusters:
        cluster = Cluster(model.new_id(), name)
        cluster.properties = tables.saved_properties(cluster.policy, {})
        tables.clusters[cluster.id] = cluster
    clusters = {cluster.name: cluster.id for cluster in tables.clusters.values()}
    for given in config.hosts:
        host = Host(model.new_id(), given["name"], given["address"], clusters[given["cluster"]])
        host.status = given.get("status", model.UP)
        host.hosted_engine = given.get("hosted_engine", False)
        host.features = set(given.get("features", ()))
        host.hook_directory = given.get("hook_directory", "")
        tables.hosts[host.id] = host
    hosts = {host.name: host.id for host in tables.hosts.values()}
    for given in config.vms:
        vm = Vm(model.new_id(), given["name"], clusters[given["cluster"]])
        for name in ("high_availability", "priority", "origin", "affinity"):
            setattr(vm, name, given.get(name, getattr(vm, name)))
        vm.custom_properties = dict(given.get("custom_properties", {}))
        vm.pinned_to = tuple(hosts[name] for name in given.get("pinned_to", ()))
        if given.get("host"):
            vm.host, vm.status = hosts[given["host"]], model.UP
        tables.vms[vm.id] = vm


def _fill_users(tables: Model, config: Config) -> None:
    role = Role(SUPER_USER, "SuperUser", set(PERMITS.values()), mutable=False)
    tables.roles[role.id] = role
    for uid, name, permits, _ in builtin.EVERYONES_ROLES:
        tables.roles[uid] = Role(uid, name, set(permits), mutable=False)
    for users, roles in ((config.users, {role.id}), (config.directory, set())):
        for name, password in users.items():
            user = User(model.new_id(), name, password, set(roles))
            tables.users[user.id] = user
