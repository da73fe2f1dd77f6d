# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier run`: serve in one process or in several."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from ovirt_tcp_plugin import command
from ovirt_tcp_plugin.verifier import authority, local_store, processes, service


@click.command()
@click.pass_obj
def run(config_dir: Path) -> None:
    """Serve until SIGTERM; SIGHUP reads the certificates again."""
    # Until somebody listens to it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command.log_to_stderr()
    settings = local_store.load_settings(config_dir)
    local_store.check_modes(settings)
    if settings.server.processes == 1:
        asyncio.run(service.serve(settings))
        return
    ca = authority.Authority.load(settings.store.directory)
    local_store.prepare(settings, ca)
    processes.run(settings.server, lambda share: asyncio.run(service.serve(settings, share)))
