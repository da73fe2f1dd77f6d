# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Writes snapshots for filterd: `<directory>/<pool id>.json`, whole or not at all.

A file that would say the same is not written again: filterd reads each that is. So that everybody
sees that the broker goes on, one small file tells of when all the others were right.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.snapshot import Snapshot

# The moment of all files is written once for all pools that were looked at in one go.
CONFIRM_EVERY_MS = 1000


@dataclasses.dataclass
class _File:
    """A pool's file as it was written.

    Attributes:
        inode, changed_ns, size: by which it is known: somebody may have put another in its place.
        confirmed_ms: CLOCK_BOOTTIME of when it was last seen to be right.
    """

    content: Snapshot
    inode: int
    changed_ns: int
    size: int
    confirmed_ms: int

    def is_at(self, path: Path) -> bool:
        """Return whether it is still there, untouched. Raises OSError."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        here = (status.st_ino, status.st_mtime_ns, status.st_size)
        return here == (self.inode, self.changed_ns, self.size)


class SnapshotWriter:
    """The files of one directory, which is on tmpfs: they need not survive this boot, and so no
    fsync."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._confirmed_ms = 0
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def without_file(self, pool_ids: Iterable[str]) -> frozenset[str]:
        """Return the pools that have no file."""
        return frozenset(pool_id for pool_id in pool_ids if not self._path(pool_id).exists())

    def earlier(self, pool_id: str, boot_id: str) -> Optional[Snapshot]:
        """Return what a pool's file says, None if there is none that filterd would take.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return snapshot.decode(self._path(pool_id).read_bytes(), boot_id)
        except (FileNotFoundError, errors.InvalidMessage):
            return None

    def write(self, fresh: Snapshot) -> bool:
        """Replace a pool's file, unless it says the same already; return whether it was replaced.

        Raises:
            OSError: and then the earlier file stands.
        """
        path = self._path(fresh.pool_id)
        file = self._files.get(fresh.pool_id)
        if file is not None and _is_same(file.content, fresh) and file.is_at(path):
            file.confirmed_ms = fresh.written_ms
            return False
        status = self._replace(path, snapshot.encode(fresh))
        self._files[fresh.pool_id] = _File(
            fresh, status.st_ino, status.st_mtime_ns, status.st_size, fresh.written_ms
        )
        return True

    def confirm(self) -> None:
        """Tell until when all files were right, if that is news. Raises OSError."""
        oldest: Optional[_File] = min(
            self._files.values(), key=lambda file: file.confirmed_ms, default=None
        )
        if oldest is None or oldest.confirmed_ms < self._confirmed_ms + CONFIRM_EVERY_MS:
            return
        moment = snapshot.encode_confirmation(oldest.content.boot_id, oldest.confirmed_ms)
        self._replace(self._directory / snapshot.CONFIRMATION_FILE, moment)
        self._confirmed_ms = oldest.confirmed_ms

    def remove(self, pool_id: str) -> None:
        """Remove the file of a pool that ended."""
        self._files.pop(pool_id, None)
        self._path(pool_id).unlink(missing_ok=True)

    def _path(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"

    def _replace(self, path: Path, content: bytes) -> os.stat_result:
        # Made again if somebody cleaned up: filterd only knows the path.
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            status = os.fstat(descriptor)
        fresh.replace(path)
        return status


def _is_same(before: Snapshot, fresh: Snapshot) -> bool:
    """Return whether they differ in nothing but the moment."""
    return dataclasses.replace(before, written_ms=fresh.written_ms) == fresh
