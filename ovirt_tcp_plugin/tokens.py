# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tokens by which verifier and broker know their callers: only digests are kept, and a secret is shown only once."""

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

# No end: in seconds of the UTC epoch, as all ends are.
NEVER = 2**62
IDENTIFIER_LENGTH = 12
MAX_NOTE_LENGTH = 255

_DAY_S = 86_400


@dataclasses.dataclass(frozen=True)
class Listed:
    """A token for people: what it is called, its role, whom it is for, and its end."""

    identifier: str
    role: str
    whom: str
    end_s: int


class Store(Protocol):
    """Where a role keeps its tokens."""

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        """Keep a token."""

    def every(self) -> Iterable[Listed]:
        """Return all tokens."""

    def remove(self, identifier: str) -> None:
        """Remove the token that is called so. Raises NotFound."""


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a token. It has 256 random bits, so a plain digest cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def identifier(of_digest: str) -> str:
    """Return what a token may be called in public."""
    return of_digest[:IDENTIFIER_LENGTH]


def add_commands(
    main: click.Group,
    roles: Iterable[str],
    roles_help: str,
    opened: Callable[[Path], contextlib.AbstractContextManager[Store]],
) -> click.Group:
    """Give `main`, whose context object is the configuration's directory, the commands `token add`, `list` and `remove`.

    Args:
        roles_help: what each role may do.
        opened: gives the store under a configuration.

    Returns:
        the group `token`.
    """

    @main.group("token")
    def group() -> None:
        """Make the tokens by which callers are known. Each is shown once; only its digest is kept."""

    @group.command("add", help=f"Make a token for a caller, and print it, this once.\n\n{roles_help}")
    @click.option("--role", type=click.Choice(list(roles)), required=True)
    @click.option("--note", default="", help="Whom it is for.")
    @click.option("--days", type=click.IntRange(1), help="How long it is good; without it, until it is removed.")
    @click.pass_obj
    def add(config_dir: Path, role: str, note: str, days: Optional[int]) -> None:
        if len(note) > MAX_NOTE_LENGTH:
            raise click.UsageError(f"a note has at most {MAX_NOTE_LENGTH} characters")
        now_s = int(datetime.datetime.now(datetime.timezone.utc).timestamp())
        secret = new_secret()
        with opened(config_dir) as store:
            store.add(secret, role, note, NEVER if days is None else now_s + days * _DAY_S)
        click.echo(secret)

    @group.command("list")
    @click.pass_obj
    def show(config_dir: Path) -> None:
        """Print the tokens: what each is called, its role, its end, and whom it is for. The secrets are not kept."""
        with opened(config_dir) as store:
            for one in store.every():
                click.echo(f"{one.identifier}  {one.role:9}  {_end(one.end_s):20}  {one.whom}".rstrip())

    @group.command("remove")
    @click.argument("identifier")
    @click.pass_obj
    def remove(config_dir: Path, identifier: str) -> None:
        """Remove the token that `token list` calls IDENTIFIER; it counts at once."""
        with opened(config_dir) as store:
            store.remove(identifier)
        click.echo(f"token {identifier} is removed")

    return group


def _end(end_s: int) -> str:
    if end_s == NEVER:
        return "never"
    return datetime.datetime.fromtimestamp(end_s, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
