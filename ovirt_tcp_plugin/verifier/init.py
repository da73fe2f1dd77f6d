# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier init`: make what a server needs before its first start."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import click

from ovirt_tcp_plugin import durable
from ovirt_tcp_plugin.verifier import authority, local_store, server_certificate


@click.command()
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


def _make_private(directory: Path) -> None:
    """Make the directory of the server's secrets. Raises InvalidConfig if others may look in."""
    durable.make_directory(directory)
    authority.check_private(directory, 0o077)
