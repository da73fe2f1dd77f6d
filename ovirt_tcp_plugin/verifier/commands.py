# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The commands that look at or change the server's database: tokens, hosts, EKs, verdict keys."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import durable, errors, secret_files
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.tokens import Listed, command_group, new_secret
from ovirt_tcp_plugin.verifier import authority, enrolment, local_store, signing
from ovirt_tcp_plugin.verifier.store import bad_rows, endorsements, hosts, tokens, verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.tokens import Token
from ovirt_tcp_plugin.verifier.web.access import TOKEN_ROLES

_HOUR_S = 3600
_ROLES_HELP = (
    "viewer (the broker) may ask for results; operator may also remove hosts; policy may look and "
    "choose reference values; "
    "enrolment may make tokens that enrol hosts, and nothing else."
)


class StoredTokens:
    """The database's tokens, for the commands that all roles share (`TokenStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        """Keep a token."""
        token = Token(role, note=note, end_s=end_s)
        self._database.transact(lambda connection: tokens.add(connection, secret, token))

    def every(self) -> Iterator[Listed]:
        """Return all tokens."""
        stored = self._database.transact(tokens.every)
        for identifier, token in stored.items():
            whom = token.host_name or token.note
            yield Listed(identifier, token.role, whom, token.end_s)

    def remove(self, identifier: str) -> None:
        """Remove the token of this name. Raises NotFound."""
        self._database.transact(lambda connection: tokens.remove(connection, identifier))


@contextlib.contextmanager
def stored_tokens(config_dir: Path) -> Iterator[StoredTokens]:
    """Give the tokens of the server whose configuration is in a directory."""
    with local_store.opened_by(config_dir) as database:
        yield StoredTokens(database)


token_group = command_group(TOKEN_ROLES, _ROLES_HELP, stored_tokens)


@token_group.command("enrol")
@click.argument("host")
@click.option("--host-id", default="", help="The engine's id of the host.")
@click.option(
    "--hours", default=24, show_default=True, type=click.IntRange(1), help="How long it is good."
)
@secret_files.output_options
@click.pass_obj
def token_enrol(
    config_dir: Path, host: str, host_id: str, hours: int, out: Optional[Path], owner: str
) -> None:
    """Make a token that enrols HOST (its address in the engine, lower case), once."""
    enrolment.check_host_name(host)
    output = secret_files.output(out, owner)
    secret = new_secret()
    now_s = int(Clock().wall().timestamp())
    token = Token("enrolment", host, host_id, end_s=now_s + hours * _HOUR_S)
    with output.giving(secret), local_store.opened_by(config_dir) as database:
        database.transact(lambda connection: tokens.add(connection, secret, token))


@click.group("host")
def host_group() -> None:
    """Look at or remove enrolled hosts."""


@host_group.command("list")
@click.pass_obj
def host_list(config_dir: Path) -> None:
    """Print the names of the enrolled hosts."""
    with local_store.opened_by(config_dir) as database:
        names = database.transact(hosts.names)
    for name in names:
        click.echo(name)


@host_group.command("remove")
@click.argument("host")
@click.pass_obj
def host_remove(config_dir: Path, host: str) -> None:
    """Forget HOST: its TPM was replaced, or it left. It enrols again with a new token."""
    with local_store.opened_by(config_dir) as database:
        database.transact(lambda connection: hosts.remove(connection, host))
    click.echo(f"{host} is no longer enrolled")


@click.group("ek")
def ek_group() -> None:
    """Vouch for TPMs yourself: for those without a vendor's certificate, or instead of believing
    vendors."""


@ek_group.command("add")
@click.argument("host")
@click.argument("digest")
@click.pass_obj
def ek_add(config_dir: Path, host: str, digest: str) -> None:
    """Register the EK of HOST. DIGEST is what `ovirt-tcp-agent ek` prints on that machine."""
    enrolment.check_host_name(host)
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise errors.InvalidMessage("EK digest", "it has 64 hexadecimal digits in lower case")
    with local_store.opened_by(config_dir) as database:
        database.transact(lambda connection: endorsements.add(connection, digest, host))
    click.echo(
        f"{host} may enrol with this TPM and no other; it still needs a token: ovirt-tcp-verifier "
        f"token enrol {host}"
    )


@ek_group.command("list")
@click.pass_obj
def ek_list(config_dir: Path) -> None:
    """Print the registered EKs."""
    with local_store.opened_by(config_dir) as database:
        registered = database.transact(endorsements.every)
    for host, digest in registered:
        click.echo(f"{digest}  {host}")


@ek_group.command("remove")
@click.argument("host")
@click.pass_obj
def ek_remove(config_dir: Path, host: str) -> None:
    """Forget the registered EK of HOST; an enrolled host stays enrolled."""
    with local_store.opened_by(config_dir) as database:
        database.transact(lambda connection: endorsements.remove(connection, host))
    click.echo(f"no EK is registered for {host}")


@click.group("verdict-key")
def verdict_key_group() -> None:
    """Change the key that signs the verdicts for the hosts' gates, without a good verdict refused.

    `prepare` the next key, `export` both public keys and give them to every host, then `activate`.
    When the last verdict of the former key has ended (appraisal.lifetime), its file may leave the
    hosts.
    """


@verdict_key_group.command("list")
@click.pass_obj
def verdict_key_list(config_dir: Path) -> None:
    """Print the keys: state and id. The active one signs."""
    with local_store.opened_by(config_dir) as database:
        keys = database.transact(verdict_keys.every)
    for state, key in keys.items():
        click.echo(f"{state:6}  {key.key_id}")


@verdict_key_group.command("prepare")
@click.pass_obj
def verdict_key_prepare(config_dir: Path) -> None:
    """Make the key that will sign next."""
    settings = local_store.load_settings(config_dir)
    ca = authority.Authority.load(settings.store.directory)
    fresh = signing.new_key(ca)
    with local_store.opened(settings) as database:
        database.transact(lambda connection: verdict_keys.prepare(connection, fresh))
    click.echo(
        f"key {fresh.key_id} is prepared; export it and give it to every host before you activate "
        "it"
    )


@verdict_key_group.command("export")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.pass_obj
def verdict_key_export(config_dir: Path, directory: Path) -> None:
    """Write the public keys that sign now and next into DIRECTORY, for /etc/ovirt-tcp/verdict-keys/
    of every host."""
    with local_store.opened_by(config_dir) as database:
        keys = database.transact(verdict_keys.every)
    for state, key in keys.items():
        if state != verdict_keys.FORMER:
            path = directory / f"{key.key_id}.pem"
            durable.replace(path, key.public.encode("ascii"), 0o644)
            click.echo(f"{state:6}  {path}")


@verdict_key_group.command("activate")
@click.pass_obj
def verdict_key_activate(config_dir: Path) -> None:
    """Have every server on this database sign with the prepared key; every host must know it by
    now."""
    with local_store.opened_by(config_dir) as database:
        active = database.transact(verdict_keys.activate)
    click.echo(f"key {active.key_id} signs from now on")


@click.group("record")
def record_group() -> None:
    """Find and mend rows of the server's database that cannot be read."""


@record_group.command("list")
@click.pass_obj
def record_list(config_dir: Path) -> None:
    """Print the rows that cannot be read, and what to do; exit status 1 if there are any."""
    with local_store.opened_by(config_dir) as database:
        unreadable = database.transact(bad_rows.find)
    for row in unreadable:
        next_step = row.next_step
        if row.mends:
            command = f"ovirt-tcp-verifier record mend {row.table} '{row.address}'"
            next_step = f"{command}, then: {next_step}"
        click.echo(f"{row.table} {row.name!r} cannot be read. Next: {next_step}")
    if unreadable:
        raise SystemExit(1)
    click.echo("every row can be read")


@record_group.command("mend")
@click.argument("table")
@click.argument("address")
@click.pass_obj
def record_mend(config_dir: Path, table: str, address: str) -> None:
    """Mend or remove the row of TABLE at ADDRESS, both as `record list` prints them."""
    with local_store.opened_by(config_dir) as database:
        row = database.transact(lambda connection: bad_rows.mend(connection, table, address))
    click.echo(f"{row.table} {row.name!r} is mended. Next: {row.next_step}")
