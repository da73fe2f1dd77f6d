# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads the broker's snapshot files, off the engine's calls, and swaps in what changed.

A file that is broken, older, foreign or writable by others is refused and reported; the last good one goes on, and
its verdicts end by themselves. A file that is gone does the same.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.broker import snapshot
from ovirt_tcp_plugin.broker.snapshot import Snapshot

log = logging.getLogger("filterd.snapshots")

class SnapshotDirectory:
    """The newest good snapshot of each pool.

    Attributes:
        by_host: snapshot by host id. Replaced as a whole, never changed: a call may go on with the earlier one.
        faults: what is wrong with a file, by its name.
    """

    def __init__(self, directory: Path, owners: frozenset[int]) -> None:
        self._directory = directory
        self._owners = owners
        self._boot_id = clock.BOOT_ID.read_text(encoding="ascii").strip()
        self._pools: dict[str, Snapshot] = {}
        self._known: dict[str, tuple[int, int, int]] = {}
        self.by_host: Mapping[str, Snapshot] = {}
        self.faults: dict[str, str] = {}

    def load(self) -> None:
        """Take over what changed since the last time. Raises nothing: a directory that is gone changes nothing."""
        changed = False
        for path in self._files():
            try:
                changed |= self._load(path)
            except (errors.InvalidMessage, OSError) as e:
                if self.faults.get(path.name) != str(e):
                    log.error("snapshot refused file=%s reason=%s", path.name, e)
                self.faults[path.name] = str(e)
        if changed:
            # A host that moved is in two: the file of a pool that ended is never written again, or gone.
            newest_last = sorted(self._pools.values(), key=lambda one: one.written_ms)
            self.by_host = {host_id: one for one in newest_last for host_id in one.hosts}

    def _files(self) -> list[Path]:
        try:
            return sorted(self._directory.glob("*.json"))
        except OSError as e:
            log.error("snapshot directory unreadable reason=%s", e)
            return []

    def _load(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._known.get(path.name) == identity:
                return False
            self._check(found)
            content = file.read(snapshot.MAX_SIZE + 1)
        # Remembered before it is judged: a bad file is looked at once, not five times a second.
        self._known[path.name] = identity
        one = snapshot.decode(content, self._boot_id)
        if path.name != f"{one.pool_id}.json":
            raise errors.InvalidMessage("snapshot", "it is of another pool than its name says")
        before = self._pools.get(one.pool_id)
        if before is not None and one.written_ms < before.written_ms:
            raise errors.InvalidMessage("snapshot", "it is older than the one in use")
        if one.written_ms > clock.boottime_ms():
            raise errors.InvalidMessage("snapshot", "it was written in the future")
        self._pools[one.pool_id] = one
        self.faults.pop(path.name, None)
        return True

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise errors.InvalidMessage("snapshot", "it is not a regular file")
        if found.st_uid not in self._owners:
            raise errors.InvalidMessage("snapshot", "it belongs to another user than the broker")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise errors.InvalidMessage("snapshot", "it can be written by group or others")
