# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Files with a secret in them: tokens and passwords that people put beside the configuration."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import click

from ovirt_tcp_plugin import durable, errors

log = logging.getLogger("secrets")

# A group may read a secret, since an administrator chose that group; nobody else may, or write it.
_FORBIDDEN = 0o037


class SecretOutput(NamedTuple):
    """Where a command leaves the secret that it makes.

    Attributes:
        path: a file that does not exist yet; None for the terminal.
        owner: whose the file will be; empty for the user who runs the command.
    """

    path: Optional[Path]
    owner: str

    @contextlib.contextmanager
    def giving(self, secret: str) -> Iterator[None]:
        """Give the secret to the caller when what this context does has succeeded.

        Raises:
            Conflict: the file exists.
            Unavailable: the file cannot be written.
        """
        if self.path is None:
            yield
            click.echo(secret)
            return
        _write(self.path, secret, self.owner)
        try:
            yield
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        click.echo(f"the token is in {self.path}")


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that makes a secret the options `--out` and `--owner`."""
    owner_help = "User whose the file of --out will be, such as the service's; needs root."
    owner = click.option("--owner", default="", help=owner_help)
    out_help = "Write the token into this new file, mode 0600, instead of printing it."
    out = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help=out_help)
    return out(owner(command))


def output(out: Optional[Path], owner: str) -> SecretOutput:
    """Return what the options of `output_options` say.

    Raises:
        UsageError: an owner without a file, or of a name that no user has.
    """
    if owner and out is None:
        raise click.UsageError("--owner is the owner of the file of --out")
    if owner:
        try:
            pwd.getpwnam(owner)
        except KeyError as e:
            raise click.UsageError(f"this machine has no user {owner}") from e
    return SecretOutput(out, owner)


def is_open(path: Path) -> bool:
    """Return whether others than a file's owner and group may read or change it."""
    return bool(_mode(path) & _FORBIDDEN)


def warn_if_open(path: Path) -> None:
    """Log it if others may read a secret; it is used all the same, for placement rests on it."""
    mode = _mode(path)
    if mode & _FORBIDDEN:
        log.warning(
            "others may read the secret in path=%s mode=%04o; chmod 600 %s, and make a new secret "
            "if somebody may have read it",
            path,
            mode,
            path,
        )


def _mode(path: Path) -> int:
    """Return the permissions of a file, none for one that cannot be looked at."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _write(path: Path, secret: str, owner: str) -> None:
    """Write a file, with its owner and mode from its first moment and only when it is whole."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, durable.PRIVATE)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            if owner:
                user = pwd.getpwnam(owner)
                os.fchown(descriptor, user.pw_uid, user.pw_gid)
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(descriptor)
        # Unlike a renaming, a link never takes the place of a file.
        os.link(fresh, path)
        durable.sync(path.parent)
    except FileExistsError as e:
        reason = f"{path} exists: choose another name, or remove it first"
        raise errors.Conflict(reason) from e
    except OSError as e:
        raise errors.Unavailable(f"file {path}", e.strerror or str(e)) from e
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
