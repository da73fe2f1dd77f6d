# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Examines the installation on this machine, by the configuration of its services."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovirt_tcp_plugin import clock, config, secret_files
from ovirt_tcp_plugin.admin.commands.settings import CliSettings, broker
from ovirt_tcp_plugin.admin.doctor import checks
from ovirt_tcp_plugin.admin.doctor.findings import CheckedFinding
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSnapshots
from ovirt_tcp_plugin.admin.doctor.probes import Filterd
from ovirt_tcp_plugin.broker.settings import Settings as BrokerSettings
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.placement.snapshot import Snapshot
from ovirt_tcp_plugin.scheduler.settings import Settings as FilterdSettings
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory, believed_owners

# `engine-config` is asked three times, and must not outlive the examination.
_COMMANDS_WITHIN = 4
_READABLE_BY_ALL = 0o004
_PASSABLE_BY_ALL = 0o005


def examine(config_dir: Path, engine_config: Path, within_s: float) -> list[CheckedFinding]:
    """Return the findings of all checks, at least one of each.

    Args:
        engine_config: the engine's command.
        within_s: longest time for all of it, in seconds.

    Raises:
        InvalidConfig: the configuration of broker or filterd cannot be used.
    """
    broker_settings = config.load(BrokerSettings, "broker", config_dir)
    filterd_settings = config.load(FilterdSettings, "filterd", config_dir)
    filterd = Filterd(
        filterd_settings.server.address,
        filterd_settings.server.port,
        lambda: _snapshots(broker_settings, filterd_settings),
        EngineConfig(engine_config, within_s / _COMMANDS_WITHIN),
    )
    return checks.examine(
        broker_settings,
        lambda: broker(config_dir),
        filterd,
        lambda: _open_secrets(broker_settings, config_dir),
        within_s,
    )


def _open_secrets(broker_settings: BrokerSettings, config_dir: Path) -> Sequence[str]:
    """Return the names of the files with secrets that others may read. Raises InvalidConfig."""
    command_line = config.load(CliSettings, "cli", config_dir)
    files = [
        broker_settings.engine.password_file,
        broker_settings.verifier.token_file,
        command_line.verifier.token_file,
        command_line.broker.token_file,
    ]
    return [str(path) for path in files if secret_files.is_open(path)]


def _snapshots(broker_settings: BrokerSettings, settings: FilterdSettings) -> ObservedSnapshots:
    """Return the snapshots that filterd, in its place, would take.

    Raises:
        InvalidConfig: there is no such owner.
    """
    path = settings.snapshots.directory
    directory = SnapshotDirectory(path, believed_owners(settings.snapshots.owner))
    directory.load_all()
    files = sorted(path.glob("*.json"))
    closed = [file.name for file in files if _lacks(file, _READABLE_BY_ALL)]
    if _lacks(path, _PASSABLE_BY_ALL):
        closed.append(str(path))
    return ObservedSnapshots(
        _confirmed(directory.by_host, directory.confirmed_ms()),
        directory.faults,
        closed,
        clock.boottime_ms(),
        broker_directory=str(broker_settings.snapshot.directory),
        filterd_directory=str(path),
    )


def _confirmed(by_host: Mapping[str, Snapshot], confirmed_ms: int) -> Mapping[str, Snapshot]:
    """Return the snapshots as of when they were last right: the broker writes only what changed."""
    pools: dict[str, Snapshot] = {}
    for snapshot in by_host.values():
        if snapshot.pool_id not in pools:
            right_ms = max(snapshot.written_ms, confirmed_ms)
            pools[snapshot.pool_id] = dataclasses.replace(snapshot, written_ms=right_ms)
    return {host_id: pools[snapshot.pool_id] for host_id, snapshot in by_host.items()}


def _lacks(path: Path, bits: int) -> bool:
    """Return whether a file lacks one of these bits of its mode; one that is gone lacks nothing."""
    try:
        return path.lstat().st_mode & bits != bits
    except FileNotFoundError:
        return False
