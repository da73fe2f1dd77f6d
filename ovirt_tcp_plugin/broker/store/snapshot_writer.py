# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Writes snapshots for filterd: `<directory>/<pool id>.json`, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.snapshot import Snapshot


class SnapshotWriter:
    """The files of one directory, which is on tmpfs: they need not survive this boot, and so no fsync."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def without_file(self, pool_ids: Iterable[str]) -> frozenset[str]:
        """Return the pools that have no file."""
        return frozenset(one for one in pool_ids if not (self._directory / f"{one}.json").exists())

    def write(self, one: Snapshot) -> None:
        """Replace a pool's file. Raises OSError, and then the earlier file stands."""
        # Made again if somebody cleaned up: filterd only knows the path.
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self._directory / f"{one.pool_id}.json"
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(snapshot.encode(one))
        fresh.replace(path)

    def remove(self, pool_id: str) -> None:
        """Remove the file of a pool that ended."""
        (self._directory / f"{pool_id}.json").unlink(missing_ok=True)
