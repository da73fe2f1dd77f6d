# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""State files that are whole or absent, whatever kills the process or the power.

What root leaves in a directory of somebody else is theirs, from its first moment: a service has to
be able to use what an administrator's command made.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PRIVATE = 0o600


def replace(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file, whole or not at all; when this returns, it survives a loss of power.

    Args:
        mode: the file has it from its first moment.

    Raises:
        OSError: the earlier file, if there was one, still stands.
    """
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with os.fdopen(create(fresh, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)


def create(path: Path, mode: int = PRIVATE) -> int:
    """Make an empty file, and return its descriptor for writing.

    Raises:
        FileExistsError: there is one; a symbolic link counts, too.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        if os.geteuid() == 0:
            directory = path.parent.stat()
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def ensure(path: Path) -> None:
    """Make an empty file for its owner alone, unless there is one. Raises OSError.

    Another process may do the same at once; nobody sees the file with another owner.
    """
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    os.close(create(fresh))
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        fresh.unlink()


def make_directory(path: Path) -> None:
    """Make a directory for its owner alone, unless there is one. Raises OSError.

    Whoever owns it can reach it: those above that are missing are made for all to pass, whatever
    the umask.
    """
    if path.is_dir():
        return
    for above in reversed(path.parents):
        if not above.exists():
            above.mkdir()
            above.chmod(0o755)
    path.mkdir(mode=0o700, exist_ok=True)


def sync(directory: Path) -> None:
    """Have a renaming itself survive a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
