# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The commands for the server's authority: look at it, renew it, replace a lost one."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import public_keys
from ovirt_tcp_plugin.verifier import authority, local_store, server_certificate, signing
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.store import authorities, verdict_keys

_RELOAD = "systemctl reload ovirt-tcp-verifier"


@click.group("authority")
def authority_group() -> None:
    """Look at the server's certificate authority, renew it, or replace one whose key is lost."""


@authority_group.command("show")
@click.pass_obj
def show(config_dir: Path) -> None:
    """Print the ends of the authorities and of the server's certificate."""
    settings = local_store.load_settings(config_dir)
    ca = Authority.load(settings.store.directory)
    for root, digest in zip(ca.roots, ca.digests()):
        state = "in use" if root == ca.certificate else "before"
        click.echo(f"authority  {state:6}  {_end(public_keys.life(root)[1])}  {digest}")
    end = public_keys.life(server_certificate.load(settings.server))[1]
    click.echo(f"server     in use  {_end(end)}  {server_certificate.fingerprint(settings.server)}")


@authority_group.command("renew")
@click.pass_obj
def renew(config_dir: Path) -> None:
    """Make the next authority. Whoever believes the one before believes it, too.

    The server's own certificate is made anew under it. Agents learn it by themselves within an
    hour after the reload. Give the new ca.pem to brokers and command lines before the authority
    before it ends, and copy ca.pem and ca.key to other servers on the same database.
    """
    settings = local_store.load_settings(config_dir)
    local_store.check_modes(settings)
    directory = settings.store.directory
    before = Authority.load(directory)
    with local_store.opened(settings) as database:
        local_store.claim(database, before)
        # The key before this one leaves ca.key now.
        signing.protect_again(database, before)
        now = _now()
        fresh = before.renewed(now)
        fresh.write(directory)
        signing.protect_again(database, fresh)
        local_store.claim(database, fresh)
    if server_certificate.is_of(settings.server, before):
        names = server_certificate.names_of(server_certificate.load(settings.server))
        server_certificate.make(settings.server, fresh, names, now)
    _say_what_is_next(settings, fresh)


def _say_what_is_next(settings: VerifierSettings, fresh: Authority) -> None:
    click.echo(f"the authority ends {_end(fresh.end)}")
    click.echo(f"now: {_RELOAD}")
    click.echo(f"then give {settings.store.directory / 'ca.pem'} to brokers and command lines")


@authority_group.command("certify")
@click.option("--name", "names", multiple=True, help="DNS name or address; repeatable.")
@click.pass_obj
def certify(config_dir: Path, names: tuple[str, ...]) -> None:
    """Make another certificate for this server, by default for the names it has."""
    settings = local_store.load_settings(config_dir)
    local_store.check_modes(settings)
    server = settings.server
    ca = Authority.load(settings.store.directory)
    chosen = list(names) or server_certificate.names_of(server_certificate.load(server))
    if not chosen:
        raise click.UsageError("the present certificate has no name: say --name")
    if server.certificate.exists() and not server_certificate.is_of(server, ca):
        reason = f"{server.certificate} is of another authority: have that one make another"
        raise errors.Conflict(reason)
    server_certificate.make(server, ca, chosen, _now())
    click.echo(
        f"server certificate for {', '.join(chosen)}: {server_certificate.fingerprint(server)}"
    )
    click.echo(f"now: {_RELOAD}")


@authority_group.command("replace")
@click.option("--name", "names", multiple=True, help="DNS name or address; repeatable.")
@click.confirmation_option(
    prompt="Nobody believes the new authority until you give out its ca.pem. Go on?"
)
@click.pass_obj
def replace(config_dir: Path, names: tuple[str, ...]) -> None:
    """Make an authority in the place of one whose key is lost. Stop all servers first.

    The enrolled hosts stay: EK and AK are in the database. Once they have the new ca.pem as their
    ca_file they get new certificates by themselves. The key that signs verdicts is lost, too, and
    made anew: give both to every host, and ca.pem to brokers and command lines.
    """
    settings = local_store.load_settings(config_dir)
    directory = settings.store.directory
    authority.check_private(directory, 0o077)
    server = settings.server
    chosen = list(names) or server_certificate.names_of(server_certificate.load(server))
    if not chosen:
        raise click.UsageError("the present certificate has no name: say --name")
    _set_aside(directory)
    now = _now()
    fresh = Authority.create(directory, now)
    key = signing.new_key(fresh)
    with local_store.opened(settings) as database:
        digest = fresh.digests()[0]
        database.transact(lambda connection: authorities.replace(connection, digest))
        database.transact(lambda connection: verdict_keys.replace_all(connection, key))
    server_certificate.make(server, fresh, chosen, now)
    click.echo(f"give {directory / 'ca.pem'} to hosts, brokers and command lines as ca_file")
    click.echo("and the verdict key to hosts: ovirt-tcp-verifier verdict-key export DIRECTORY")


def _set_aside(directory: Path) -> None:
    """Rename what is left of the authority before."""
    for name in (authority.CERTIFICATE_FILE, authority.KEY_FILE):
        path = directory / name
        if path.exists():
            path.replace(path.with_name(f"{name}.before"))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _end(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d")
