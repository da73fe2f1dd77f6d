# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is looked at, by the name under which checks need it. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.admin.doctor import peers, services, walls
from ovirt_tcp_plugin.admin.doctor.collector import Collector, settle
from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding
from ovirt_tcp_plugin.admin.doctor.observations import BrokerView, ObservedSite, ObservedSnapshots, SchedulerOptions, site
from ovirt_tcp_plugin.admin.setup.options import SCHEDULER_ENABLED, SCHEDULER_TIMEOUT, SCHEDULER_URL
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.engine.inspection import EngineInspection, Hooks
from ovirt_tcp_plugin.engine.sdk import Access
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.remote import Remote

# By these names the engine finds this machine.
HERE = frozenset({"localhost", "127.0.0.1", "::1"})
# What the gate's hook files are copies of.
GATE = Path(__file__).parents[2] / "gate.py"


@dataclasses.dataclass(frozen=True)
class Filterd:
    """Where filterd answers, and what it would take of the snapshot files; `engine_config` says where the engine asks."""

    address: str
    port: int
    snapshots: Callable[[], ObservedSnapshots]
    engine_config: EngineConfig


def begin(
    collector: Collector, options: Settings, broker: Callable[[], Remote], filterd: Filterd, within_s: float
) -> None:
    """Begin to look for everything that checks need."""
    reach = engine_access(options.engine)
    view = EngineInspection(reach)
    collector.start("policy_units", view.policy_units)
    collector.start("started", lambda: started_at(options.engine.start_file))
    collector.start("properties", view.vm_properties)
    collector.start("permits", view.permits)
    collector.start("addresses", view.addresses)
    _begin_walls(collector, options, reach, broker)
    collector.start("groups", lambda seen: AdminClient(reach).forbidding_groups(seen.pools), "site")
    collector.start("hooks", lambda seen: _hooks(view, seen, within_s / 2), "site")
    collector.start("scheduler", lambda: _scheduler(filterd.engine_config))
    collector.start("filterd_at", lambda: (HERE | {filterd.address}, filterd.port))
    collector.start("units", lambda: filterd_client.discover(filterd.address, filterd.port))
    collector.start("snapshots", filterd.snapshots)
    collector.start("filtering", lambda seen, _: _filtering(seen, filterd), "site", "units")
    _begin_servers(collector, options)
    collector.start("gate", lambda: hashlib.sha256(GATE.read_bytes()).hexdigest())


def _begin_walls(
    collector: Collector, options: Settings, reach: Access, broker: Callable[[], Remote]
) -> None:
    """What the broker repairs by itself is looked at again, before anybody is told of it."""
    engine = Engine(reach)

    def inventory() -> ObservedSite:
        return site(engine.listing(), options.pools.exempt_vms)

    def faults(seen: ObservedSite) -> Sequence[DoctorFinding]:
        return list(walls.walls(seen)) and settle(lambda: list(walls.walls(inventory())))

    def host_faults(seen: ObservedSite, said: BrokerView) -> Sequence[DoctorFinding]:
        known = list(walls.wall_hosts(seen, said))
        return known and settle(lambda: list(walls.wall_hosts(inventory(), peers.broker(broker()))))

    collector.start("site", inventory)
    collector.start("broker", lambda: peers.broker(broker()))
    collector.start("walls", faults, "site")
    collector.start("wall_hosts", host_faults, "site", "broker")


def _begin_servers(collector: Collector, options: Settings) -> None:
    """Each server on its own: one that hangs delays no other."""
    own = options.verifier
    names = [f"server {url}" for url in own.urls]
    for name, url in zip(names, own.urls):
        collector.start(name, functools.partial(peers.server, own, url))
    collector.start("servers", lambda *views: views, *names)
    collector.start("servers_at", lambda: _servers_at(options))


def _hooks(view: EngineInspection, seen: ObservedSite, within_s: float) -> Mapping[str, Hooks]:
    """Return the hooks of the pools' hosts that are Up: only of these the engine knows what they have now."""
    up = [host.id for pool in seen.pools.values() for host in seen.hosts(pool) if host.up]
    return view.hooks(up, within_s)


def _scheduler(config: EngineConfig) -> SchedulerOptions:
    """Return the engine's options, which its interface shows to nobody. Raises Unavailable."""
    url = urllib.parse.urlsplit(config.value(SCHEDULER_URL))
    try:
        port, response_ms = url.port or 80, int(config.value(SCHEDULER_TIMEOUT))
    except ValueError as e:
        raise errors.Unavailable("engine-config", f"an option of the external scheduler makes no sense: {e}") from e
    return SchedulerOptions(config.value(SCHEDULER_ENABLED).lower() == "true", url.hostname or "", port, response_ms)


def _filtering(seen: ObservedSite, filterd: Filterd) -> Sequence[DoctorFinding]:
    """Return what is wrong with filterd's answers, asked as the engine asks."""

    def look() -> Sequence[DoctorFinding]:
        hosts_of = {uid: [host.id for host in seen.hosts(pool)] for uid, pool in seen.pools.items()}
        found, now_ms = filterd.snapshots(), clock.boottime_ms()
        passed: dict[str, frozenset[str]] = {}
        for cluster_id, host_ids in hosts_of.items():
            if host_ids:
                passed[cluster_id] = filterd_client.run_filters(filterd.address, filterd.port, host_ids)
        return list(services.filtering(seen, found, passed, now_ms))

    return settle(look)


def _servers_at(options: Settings) -> Mapping[str, frozenset[str]]:
    """Return by what names and addresses engine and attestation servers are reached."""
    servers = frozenset[str]().union(*map(peers.addresses, options.verifier.urls))
    return {"engine": peers.addresses(options.engine.url), "attestation server": servers}
