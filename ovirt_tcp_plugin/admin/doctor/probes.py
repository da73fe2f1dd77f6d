# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is observed, by the name under which checks need it. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.admin.doctor import peers, services, walls
from ovirt_tcp_plugin.admin.doctor.collector import Collector, settle
from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding
from ovirt_tcp_plugin.admin.doctor.observations import (
    BrokerView,
    ObservedSite,
    ObservedSnapshots,
    SchedulerOptions,
    observed_site,
)
from ovirt_tcp_plugin.admin.setup.options import (
    SCHEDULER_ENABLED,
    SCHEDULER_TIMEOUT,
    SCHEDULER_URL,
)
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.engine.inspection import EngineInspection, Hooks
from ovirt_tcp_plugin.engine.sdk import Access
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.remote import Remote

# By these names the engine finds this machine.
HERE = frozenset({"localhost", "127.0.0.1", "::1"})
# What the gate's hook files are copies of.
GATE = Path(__file__).parents[2] / "gate.py"


@dataclasses.dataclass(frozen=True)
class Filterd:
    """Where filterd answers.

    Attributes:
        snapshots: returns what it would take of the snapshot files.
        engine_config: says where the engine asks.
    """

    address: str
    port: int
    snapshots: Callable[[], ObservedSnapshots]
    engine_config: EngineConfig


def start_all(
    collector: Collector,
    settings: Settings,
    broker: Callable[[], Remote],
    filterd: Filterd,
    within_s: float,
) -> None:
    """Start to look at everything that checks need."""
    access = engine_access(settings.engine)
    # First, since others need the site.
    _start_walls(collector, settings, access, broker)
    _start_engine(collector, settings, access, within_s)
    _start_filterd(collector, filterd)
    _start_servers(collector, settings)
    collector.start("gate", _gate_checksum)


def _start_engine(
    collector: Collector, settings: Settings, access: Access, within_s: float
) -> None:
    inspection = EngineInspection(access)
    admin = AdminClient(access)

    def hooks(site: ObservedSite) -> Mapping[str, Hooks]:
        # Only of the hosts that are Up the engine knows what they have now.
        up: list[str] = []
        for pool in site.pools.values():
            up += [host.id for host in site.hosts(pool) if host.up]
        return inspection.hooks(up, within_s / 2)

    collector.start("policy_units", inspection.policy_units)
    collector.start("started", functools.partial(started_at, settings.engine.start_file))
    collector.start("properties", inspection.vm_properties)
    collector.start("permits", inspection.permits)
    collector.start("addresses", inspection.addresses)
    collector.start("groups", lambda site: admin.enforcing_groups(site.pools), "site")
    collector.start("hooks", hooks, "site")


def _start_walls(
    collector: Collector, settings: Settings, access: Access, broker: Callable[[], Remote]
) -> None:
    probe = _WallProbe(Engine(access), broker, settings.pools.exempt_vms)
    collector.start("site", probe.site)
    collector.start("broker", probe.broker_view)
    collector.start("walls", probe.faults, "site")
    collector.start("wall_hosts", probe.host_faults, "site", "broker")


class _WallProbe:
    """Looks at pools and walls, at the engine and at the broker.

    What the broker repairs by itself is looked at again before it is reported.
    """

    def __init__(
        self, engine: Engine, broker: Callable[[], Remote], exempt_vms: Sequence[str]
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._exempt_vms = exempt_vms

    def broker_view(self) -> BrokerView:
        """Return what the broker says now. Raises as `peers.broker` does."""
        return peers.broker(self._broker())

    def site(self) -> ObservedSite:
        """Return what the engine shows now. Raises Unavailable."""
        return observed_site(self._engine.listing(), self._exempt_vms, self._pools_of_broker())

    def _pools_of_broker(self) -> Optional[Mapping[str, Pool]]:
        try:
            return self.broker_view().pools
        except errors.Error:  # the finding of another check
            return None

    def faults(self, first_site: ObservedSite) -> Sequence[DoctorFinding]:
        """Return what is wrong with the walls, and stays so."""
        if not list(walls.walls(first_site)):
            return []
        return settle(lambda: list(walls.walls(self.site())))

    def host_faults(
        self, first_site: ObservedSite, first_view: BrokerView
    ) -> Sequence[DoctorFinding]:
        """Return which hosts are wrongly inside or outside, and stay so."""
        if not list(walls.wall_hosts(first_site, first_view)):
            return []
        return settle(lambda: list(walls.wall_hosts(self.site(), self.broker_view())))


def _start_filterd(collector: Collector, filterd: Filterd) -> None:
    names = HERE | {filterd.address}

    def filtering(site: ObservedSite, _units: object) -> Sequence[DoctorFinding]:
        return settle(lambda: _filtering(site, filterd))

    collector.start("scheduler", functools.partial(_scheduler, filterd.engine_config))
    collector.start("filterd_at", lambda: (names, filterd.port))
    collector.start("units", lambda: filterd_client.discover(filterd.address, filterd.port))
    collector.start("snapshots", filterd.snapshots)
    collector.start("filtering", filtering, "site", "units")


def _start_servers(collector: Collector, settings: Settings) -> None:
    """Each server has a probe of its own: one that hangs delays no other."""
    names: list[str] = []
    for url in settings.verifier.urls:
        name = f"server {url}"
        names.append(name)
        collector.start(name, functools.partial(peers.server, settings.verifier, url))
    collector.start("servers", lambda *views: views, *names)
    collector.start("servers_at", functools.partial(_servers_at, settings))


def _scheduler(config: EngineConfig) -> SchedulerOptions:
    """Return the engine's options, which its interface shows to nobody. Raises Unavailable."""
    url = urllib.parse.urlsplit(config.value(SCHEDULER_URL))
    try:
        port = url.port or 80
        response_ms = int(config.value(SCHEDULER_TIMEOUT))
    except ValueError as e:
        fault = f"an option of the external scheduler cannot be parsed: {e}"
        raise errors.Unavailable("engine-config", fault) from e
    enabled = config.value(SCHEDULER_ENABLED).lower() == "true"
    return SchedulerOptions(enabled, url.hostname or "", port, response_ms)


def _filtering(site: ObservedSite, filterd: Filterd) -> Sequence[DoctorFinding]:
    """Return what is wrong with filterd's answers, asked as the engine asks."""
    snapshots = filterd.snapshots()
    now_ms = clock.boottime_ms()
    passed: dict[str, frozenset[str]] = {}
    for cluster_id, pool in site.pools.items():
        host_ids = [host.id for host in site.hosts(pool)]
        if host_ids:
            answer = filterd_client.run_filters(filterd.address, filterd.port, host_ids)
            passed[cluster_id] = answer
    return list(services.filtering(site, snapshots, passed, now_ms))


def _servers_at(settings: Settings) -> Mapping[str, frozenset[str]]:
    """Return by what names and addresses engine and attestation servers are reached."""
    servers: set[str] = set()
    for url in settings.verifier.urls:
        servers |= peers.addresses(url)
    engine = peers.addresses(settings.engine.url)
    return {"engine": engine, "attestation server": frozenset(servers)}


def _gate_checksum() -> str:
    return hashlib.sha256(GATE.read_bytes()).hexdigest()
