# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier`: make a server, run it, and the groups of its other commands."""

from __future__ import annotations

import asyncio
import datetime
import signal
import socket
from pathlib import Path

import click

from ovirt_tcp_plugin import command, tokens
from ovirt_tcp_plugin.verifier import (
    authority,
    authority_commands,
    backup_commands,
    commands,
    local_store,
    processes,
    server_certificate,
    service,
)
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.web.access import TOKEN_ROLES

_ROLES_HELP = (
    "viewer (the broker) may ask for results; operator may also remove hosts; policy may look and "
    "choose reference values; "
    "enrolment may make tokens that enrol hosts, and nothing else."
)


@click.group(cls=command.CommandGroup)
@command.config_dir_option("verifier")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The attestation server: appraises what hosts report of their boot and answers for them.

    First `init`, then `token add` for the broker and the administrator, `token enrol` for each
    host, and `run`.
    """
    context.obj = config_dir


@main.command()
@click.option(
    "--name", "names", multiple=True, help="DNS name or address of this server; repeatable."
)
@click.pass_obj
def init(config_dir: Path, names: tuple[str, ...]) -> None:
    """Make the server's authority and certificate, and print what others need to know."""
    settings = local_store.load_settings(config_dir)
    directory = settings.store.directory
    _make_private(directory)
    now = datetime.datetime.now(datetime.timezone.utc)
    ca = authority.Authority.create(directory, now)
    server = settings.server
    if not server.certificate.exists():
        server_certificate.make(server, ca, names or [socket.getfqdn()], now)
    elif names:
        server_certificate.check_names(server, names)
    local_store.prepare(settings, ca)
    click.echo(f"authority (give it to agents and broker as ca_file): {directory / 'ca.pem'}")
    fingerprint = server_certificate.fingerprint(server)
    click.echo(f"server certificate, SHA-256 fingerprint: {fingerprint}")


@main.command()
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


def _make_private(directory: Path) -> None:
    """Make the directory of the server's secrets. Raises InvalidConfig if others may look in."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority.check_private(directory, 0o077)


token_group = tokens.add_commands(main, TOKEN_ROLES, _ROLES_HELP, commands.stored_tokens)
token_group.add_command(commands.token_enrol)
main.add_command(commands.host_group)
main.add_command(commands.ek_group)
main.add_command(commands.verdict_key_group)
main.add_command(authority_commands.authority_group)
main.add_command(backup_commands.backup_command)
main.add_command(backup_commands.restore_command)
main.add_command(backup_commands.withdrawals_command)
command.add_config_commands(main, "verifier", VerifierSettings)


if __name__ == "__main__":
    main()
