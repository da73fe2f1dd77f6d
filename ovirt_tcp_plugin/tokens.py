# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tokens by which verifier and broker know their callers.

Only their digests are kept: a secret is shown once, when it is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional, Protocol

import click

from ovirt_tcp_plugin import secret_files

# No end: in seconds of the UTC epoch, as all ends are.
NEVER = 2**62
IDENTIFIER_LENGTH = 12
MAX_NOTE_LENGTH = 255

_DAY_S = 86_400


@dataclasses.dataclass(frozen=True)
class Listed:
    """A token as people see it: its name, its role, whom it is for, and its end."""

    identifier: str
    role: str
    whom: str
    end_s: int


class TokenStore(Protocol):
    """Where a role keeps its tokens."""

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        """Keep a token."""

    def every(self) -> Iterable[Listed]:
        """Return all tokens."""

    def remove(self, identifier: str) -> None:
        """Remove the token of this name. Raises NotFound."""


# Gives the tokens that belong to the configuration in a directory.
OpenedStore = Callable[[Path], contextlib.AbstractContextManager[TokenStore]]


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a token.

    A token has 256 random bits, so nobody finds it by trying, though its digest is a plain one.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def identifier(token_digest: str) -> str:
    """Return the public name of a token."""
    return token_digest[:IDENTIFIER_LENGTH]


def command_group(roles: Iterable[str], roles_help: str, opened: OpenedStore) -> click.Group:
    """Return the group `token` with the commands `add`, `list` and `remove`.

    Their context object is the configuration's directory.

    Args:
        roles_help: what each role may do.
        opened: gives the store that belongs to a configuration.
    """

    @click.group("token")
    def group() -> None:
        """Make the tokens of callers. Each is shown once; only its digest is kept."""

    add_help = f"Make a token for a caller, and print it or write it by --out.\n\n{roles_help}"
    _add_add_command(group, roles, add_help, opened)
    _add_list_command(group, opened)
    _add_remove_command(group, opened)
    return group


def _add_add_command(
    group: click.Group, roles: Iterable[str], help_text: str, opened: OpenedStore
) -> None:
    days_help = "How long it is good; without it, until it is removed."

    @group.command("add", help=help_text)
    @click.option("--role", type=click.Choice(list(roles)), required=True)
    @click.option("--note", default="", help="Whom it is for.")
    @click.option("--days", type=click.IntRange(1), help=days_help)
    @secret_files.output_options
    @click.pass_obj
    def add(
        config_dir: Path,
        role: str,
        note: str,
        days: Optional[int],
        out: Optional[Path],
        owner: str,
    ) -> None:
        if len(note) > MAX_NOTE_LENGTH:
            raise click.UsageError(f"a note has at most {MAX_NOTE_LENGTH} characters")
        output = secret_files.output(out, owner)
        secret = new_secret()
        with output.giving(secret), opened(config_dir) as store:
            store.add(secret, role, note, _end_after(days))


def _add_list_command(group: click.Group, opened: OpenedStore) -> None:
    @group.command("list")
    @click.pass_obj
    def show(config_dir: Path) -> None:
        """Print the tokens: name, role, end, and whom each is for.

        The secrets are not kept.
        """
        with opened(config_dir) as store:
            for token in store.every():
                click.echo(_line(token))


def _add_remove_command(group: click.Group, opened: OpenedStore) -> None:
    @group.command("remove")
    @click.argument("identifier")
    @click.pass_obj
    def remove(config_dir: Path, identifier: str) -> None:
        """Remove the token that `token list` calls IDENTIFIER; it counts at once."""
        with opened(config_dir) as store:
            store.remove(identifier)
        click.echo(f"token {identifier} is removed")


def _end_after(days: Optional[int]) -> int:
    if days is None:
        return NEVER
    now = datetime.datetime.now(datetime.timezone.utc)
    return int(now.timestamp()) + days * _DAY_S


def _line(token: Listed) -> str:
    line = f"{token.identifier}  {token.role:9}  {_end(token.end_s):20}  {token.whom}"
    return line.rstrip()


def _end(end_s: int) -> str:
    try:
        end = datetime.datetime.fromtimestamp(end_s, datetime.timezone.utc)
    except (OverflowError, OSError, ValueError):  # NEVER, and whatever else no calendar holds
        return "never"
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")
