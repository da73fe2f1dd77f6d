# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp doctor`: a look at the whole installation, on the engine machine."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ovirt_tcp_plugin import clock, config
from ovirt_tcp_plugin.admin.commands.printing import as_json, print_json
from ovirt_tcp_plugin.admin.commands.settings import broker
from ovirt_tcp_plugin.admin.doctor.checks import examine
from ovirt_tcp_plugin.admin.doctor.findings import Finding, State
from ovirt_tcp_plugin.admin.doctor.observations import Snapshots
from ovirt_tcp_plugin.admin.doctor.probes import Filterd
from ovirt_tcp_plugin.broker.settings import Settings as BrokerSettings
from ovirt_tcp_plugin.engine.engine_config import DEFAULT_COMMAND, EngineConfig
from ovirt_tcp_plugin.placement.snapshot import Snapshot
from ovirt_tcp_plugin.scheduler.main import owners
from ovirt_tcp_plugin.scheduler.settings import Settings as FilterdSettings
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory

COLOURS = {State.OK: "green", State.WARNING: "yellow", State.FAIL: "red", State.NOT_CHECKED: "yellow"}
# Peers have a part in what is told; a terminal gets no more than this of it, and only what is printable.
MAX_TEXT_LENGTH = 1000
READABLE_BY_ALL = 0o004
PASSABLE_BY_ALL = 0o005


@click.command()
@click.option("--within", "within_s", type=click.IntRange(1, 3600), default=60, show_default=True, help="Seconds at most.")
@click.option("--engine-config", type=click.Path(path_type=Path), default=DEFAULT_COMMAND, show_default=True)
@as_json
@click.pass_obj
def doctor(config_dir: Path, within_s: int, engine_config: Path, as_json: bool) -> None:
    """Check this installation, and say what to do. Nothing is changed.

    Run it as root on the engine machine: it reads the configuration of broker, filterd and ovirt-tcp, with their secrets.
    The exit status is 0 when all is well or only warned of, and 1 when something fails or could not be checked.
    """
    # What filterd would log of a snapshot is among the findings.
    logging.getLogger().addHandler(logging.NullHandler())
    options = config.load(BrokerSettings, "broker", config_dir)
    place = config.load(FilterdSettings, "filterd", config_dir)
    # It is asked three times, and must not outlive this command.
    command = EngineConfig(engine_config, within_s / 4)
    filterd = Filterd(place.server.address, place.server.port, lambda: _snapshots(options, place), command)
    found = examine(options, lambda: broker(config_dir), filterd, within_s)
    if as_json:
        print_json([_plain(check, finding) for check, finding in found])
    else:
        _print(found)
    if any(finding.state in (State.FAIL, State.NOT_CHECKED) for _, finding in found):
        raise click.exceptions.Exit(1)


def _snapshots(options: BrokerSettings, place: FilterdSettings) -> Snapshots:
    """Return the snapshots that filterd, in its place, would take. Raises InvalidConfig: there is no such owner."""
    path = place.snapshots.directory
    directory = SnapshotDirectory(path, owners(place.snapshots.owner))
    directory.load_all()
    closed = [one.name for one in sorted(path.glob("*.json")) if _closed(one, READABLE_BY_ALL)]
    if _closed(path, PASSABLE_BY_ALL):
        closed.append(str(path))
    directories = str(options.snapshot.directory), str(path)
    by_host = _confirmed(directory.by_host, directory.confirmed_ms())
    return Snapshots(by_host, directory.faults, closed, clock.boottime_ms(), directories)


def _confirmed(by_host: Mapping[str, Snapshot], confirmed_ms: int) -> Mapping[str, Snapshot]:
    """Return the snapshots as of when they were last seen to be right: the broker writes only what changed."""
    pools = {
        snapshot.pool_id: dataclasses.replace(snapshot, written_ms=max(snapshot.written_ms, confirmed_ms))
        for snapshot in by_host.values()
    }
    return {host_id: pools[snapshot.pool_id] for host_id, snapshot in by_host.items()}


def _closed(path: Path, bits: int) -> bool:
    """Return whether a file lacks these bits of its mode; one that is gone lacks nothing."""
    try:
        return path.lstat().st_mode & bits != bits
    except FileNotFoundError:
        return False


def _print(found: Sequence[tuple[str, Finding]]) -> None:
    # Which check could not be made tells its name.
    lines = [(check if finding.state is State.NOT_CHECKED else finding.code, finding) for check, finding in found]
    states, codes = max(len(one.state.value) for _, one in lines), max(len(code) for code, _ in lines)
    for code, finding in lines:
        state = finding.state.value.ljust(states)
        shown = click.style(state, fg=COLOURS[finding.state]) if sys.stdout.isatty() else state
        click.echo(f"{shown}  {code.ljust(codes)}  {_printable(finding.text)}")
        if finding.next_step:
            click.echo(f"{' ' * states}  {'next'.rjust(codes)}  {_printable(finding.next_step)}")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:MAX_TEXT_LENGTH])


def _plain(check: str, finding: Finding) -> dict[str, str]:
    return {
        "check": check,
        "state": finding.state.value,
        "code": finding.code,
        "text": finding.text,
        "next": finding.next_step,
    }
