# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-broker`: parse arguments, load the configuration, wire, run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ovirt_tcp_plugin import command, config, tokens
from ovirt_tcp_plugin.broker import hooks
from ovirt_tcp_plugin.broker.api import server as web
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.service import Service
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store import database
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.store.tokens import INCLUDES, Tokens
from ovirt_tcp_plugin.broker.verifiers import choose
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmMonitor
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine.client import Engine

log = logging.getLogger("broker")

# A listing of many VMs is minutes of work in one thread. When another one wants to go on, it
# waits so long: with the usual 5 ms, a few calls of the engine would take a second.
SWITCH_INTERVAL_S = 0.001


@click.group(cls=command.CommandGroup)
@command.config_dir_option("broker")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The relying party on the engine machine: keeps verdicts and enforces where VMs may run.

    It needs the engine's discovery of `ovirt-tcp-filterd`, and a cluster whose scheduling policy
    has `TrustedHosts`.
    """
    context.obj = config_dir


@main.command()
@click.pass_obj
def run(config_dir: Path) -> None:
    """Watch the engine's trusted pools until SIGTERM."""
    command.log_to_stderr()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    options = config.load(Settings, "broker", config_dir)
    handles = hooks.load(options.hooks.directory)
    clock = Clock()
    state = BrokerState(options, clock, random.random)
    state_file = StateFile(options.state.directory)
    state_file.load(state)
    opened = database.open_anyway(options.state.directory)
    history = History(opened, options.history.entries, options.history.days)
    service = Service(
        options,
        state,
        Engine(engine_access(options.engine)),
        choose.make(options.verifier, clock),
        SnapshotWriter(options.snapshot.directory),
        state_file,
        history,
        VmMonitor(state, opened),
        handles,
        clock,
    )
    asyncio.run(_serve(options, web.Context(state, service, history, Tokens(opened), clock)))
    opened.close()


async def _serve(options: Settings, context: web.Context) -> None:
    server, port = web.serve(context, options.api)
    service = context.service
    service.start()
    log.info("serving address=%s port=%d", options.api.address, port)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.stop()
    await asyncio.get_running_loop().run_in_executor(None, service.stop)
    log.info("stopped")


@contextlib.contextmanager
def _tokens(config_dir: Path) -> Iterator[Tokens]:
    stored = database.Database(config.load(Settings, "broker", config_dir).state.directory)
    try:
        yield Tokens(stored)
    finally:
        stored.close()


_ROLES = "viewer may look; operator may also decide for the guard and run engine hooks by hand."
main.add_command(tokens.command_group(INCLUDES, _ROLES, _tokens))
command.add_config_commands(main, "broker", Settings)


if __name__ == "__main__":
    main()
