# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The commands that back the server up and restore it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.verifier import authority, backup, local_store
from ovirt_tcp_plugin.verifier.settings import VerifierSettings
from ovirt_tcp_plugin.verifier.store import migrations, transfer, withdrawals
from ovirt_tcp_plugin.verifier.store.database import Database, load_backup
from ovirt_tcp_plugin.verifier.store.withdrawals import Withdrawal

MAX_WITHDRAWALS_SIZE = 256 * 1024 * 1024


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup_command(config_dir: Path, file: Path) -> None:
    """Write authority and database into FILE, while the server runs.

    The file holds ca.key: keep it as that. The configuration is not in it.
    """
    settings = local_store.load_settings(config_dir)
    local_store.check_modes(settings)
    now_s = int(Clock().wall().timestamp())
    contents = backup.Contents(migrations.NEWEST, now_s, _read_files(settings))
    with local_store.opened(settings) as database:
        count = database.snapshot(
            lambda connection: backup.write(file, contents, transfer.dump(connection))
        )
    click.echo(f"{count} rows and {len(contents.files)} files are in {file}")


@click.command("withdrawals")
@click.pass_obj
def withdrawals_command(config_dir: Path) -> None:
    """Print what was taken back, for `restore --withdrawals`: keep it newer than the backups.

    These are removed hosts, tokens and EKs, withdrawn reference values and replaced verdict keys,
    by their digests; no secrets.
    """
    with local_store.opened_by(config_dir) as database:
        gone = database.transact(withdrawals.every)
    for withdrawal in gone:
        click.echo(json.dumps(withdrawal._asdict()))


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--withdrawals",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What was taken back since the backup, as `withdrawals` printed it; repeatable.",
)
@click.option(
    "--nothing-withdrawn",
    is_flag=True,
    help="Say yourself that nothing was removed or withdrawn since the backup.",
)
@click.option("--replace", is_flag=True, help="Replace the database and authority that are here.")
@click.pass_obj
def restore_command(
    config_dir: Path, file: Path, files: tuple[Path, ...], nothing_withdrawn: bool, replace: bool
) -> None:
    """Put authority and database back as they are in FILE; stop all servers first.

    All results are void and every host is asked again; tokens that enrol hosts are gone. What was
    taken back since the backup stays so: the database that is replaced knows it, or the files that
    you name. Without either, nobody could tell, and the restore is refused unless you say so.
    """
    settings = local_store.load_settings(config_dir)
    reader = backup.Reader(file)
    for _ in reader.parts():
        pass  # whole, before anything is changed
    directory = settings.store.directory
    durable.make_directory(directory)
    authority.check_private(directory, 0o077)
    gone = _gone(settings, files, replace)
    if gone is None and not nothing_withdrawn:
        raise errors.Conflict(
            "what was removed or withdrawn since the backup is not known and would come back: name "
            "it by --withdrawals FILE, or say --nothing-withdrawn"
        )
    count = load_backup(settings.store.database, reader.contents.revision, reader.parts, gone or [])
    _write_files(settings, reader.contents.files)
    _say_what_to_check(file, count, gone)


def _gone(
    settings: VerifierSettings, files: Sequence[Path], replace: bool
) -> Optional[list[Withdrawal]]:
    """Return what was taken back; None if nobody knows."""
    known: list[Withdrawal] = []
    is_known = bool(files)
    for file in files:
        known += _read_withdrawals(file)
    if not _is_used(settings):
        return known if is_known else None
    if not replace:
        reason = f"{settings.store.directory} or its database is in use: --replace replaces both"
        raise errors.Conflict(reason)
    try:
        with local_store.opened(settings) as database:
            known += database.transact(withdrawals.every)
    except errors.Error as e:
        click.echo(f"the database here cannot say what was taken back: {e}", err=True)
        return known if is_known else None
    return known


def _is_used(settings: VerifierSettings) -> bool:
    if (settings.store.directory / authority.KEY_FILE).exists():
        return True
    return Database.is_used(settings.store.database)


def _read_withdrawals(file: Path) -> list[Withdrawal]:
    """Return the withdrawals in a file. Raises InvalidMessage."""
    try:
        content = file.read_bytes()
    except OSError as e:
        raise errors.Unavailable(f"file {file}", e.strerror or str(e)) from e
    gone = []
    for line in content.splitlines():
        members = json_fields.parse_members(line, "withdrawal", 4096)
        kind = json_fields.text(members, "kind", 10)
        if kind not in withdrawals.KINDS:
            raise errors.InvalidMessage("withdrawal", f"unknown kind {kind!r}")
        name = json_fields.text(members, "name", 255)
        gone.append(Withdrawal(kind, name, json_fields.text(members, "detail", 64)))
    return gone


def _paths(settings: VerifierSettings) -> Mapping[str, Path]:
    """Return the files of a backup by name; the certificate of the authority is the last."""
    directory = settings.store.directory
    return {
        "server.key": settings.server.key,
        "server.pem": settings.server.certificate,
        authority.KEY_FILE: directory / authority.KEY_FILE,
        authority.CERTIFICATE_FILE: directory / authority.CERTIFICATE_FILE,
    }


def _read_files(settings: VerifierSettings) -> Mapping[str, str]:
    files = {}
    for name, path in _paths(settings).items():
        try:
            files[name] = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as e:
            raise errors.InvalidConfig(str(path), [f"it cannot be read: {e}"]) from e
    return files


def _write_files(settings: VerifierSettings, files: Mapping[str, str]) -> None:
    for name, path in _paths(settings).items():
        if name in files:
            mode = 0o600 if path.suffix == ".key" else 0o644
            durable.replace(path, files[name].encode("ascii"), mode)


def _say_what_to_check(file: Path, count: int, gone: Optional[Sequence[Withdrawal]]) -> None:
    taken = "nothing, as you say" if gone is None else f"{len(gone)} things"
    click.echo(f"{count} rows of {file} are back; taken back again: {taken}")
    click.echo("start the server; every host is asked again and needs nobody. Then check:")
    click.echo("  ovirt-tcp-verifier token list      callers that should be gone")
    click.echo("  ovirt-tcp-verifier host list       hosts that left, or were enrolled since")
    click.echo("  ovirt-tcp-verifier ek list         EKs that should be gone")
    click.echo("  ovirt-tcp reference list           values that were withdrawn, or added since")
    click.echo("  ovirt-tcp-verifier verdict-key list   the hosts must have the active key")
