# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier init`: make what a server needs before its first start."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Sequence
from pathlib import Path

import click
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_pem_x509_certificate

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier import authority, local_store
from ovirt_tcp_plugin.verifier.settings import ServerOptions


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
    if not settings.server.certificate.exists():
        _make_server_certificate(settings.server, ca, names, now)
    local_store.prepare(settings, ca)
    click.echo(f"authority (give it to agents and broker as ca_file): {directory / 'ca.pem'}")
    fingerprint = _fingerprint(settings.server.certificate)
    click.echo(f"server certificate, SHA-256 fingerprint: {fingerprint}")


def _make_private(directory: Path) -> None:
    """Make the directory of the server's secrets. Raises InvalidConfig if others may look in."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        fault = "others may look into it; make it private: chmod 700"
        raise errors.InvalidConfig(str(directory), [fault])


def _make_server_certificate(
    server: ServerOptions, ca: authority.Authority, names: Sequence[str], now: datetime.datetime
) -> None:
    certificate, key = ca.issue_server(names or [socket.getfqdn()], now)
    authority.write_key(server.key, key)
    authority.write_private(server.certificate, certificate, 0o644)


def _fingerprint(path: Path) -> str:
    certificate = load_pem_x509_certificate(path.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex(":")
