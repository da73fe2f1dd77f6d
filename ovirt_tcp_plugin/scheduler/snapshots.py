# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads the broker's snapshot files, off the engine's calls, and swaps in what changed.

A file that is broken, older, foreign or writable by others is refused and reported; the last good one goes on, and
its verdicts end by themselves. A file that is gone does the same.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.snapshot import Snapshot

log = logging.getLogger("filterd.snapshots")

# As many trusted pools as one engine will hardly have.
MAX_FILES = 1000
# The broker writes all pools in one go, and that at most once a second.
SAME_MOMENT_MS = 500

# What `faults` calls hosts of two pools.
_TWICE = "hosts"


class SnapshotDirectory:
    """The newest good snapshot of each pool.

    Attributes:
        by_host: snapshot by host id. Replaced as a whole, never changed: a call may go on with the earlier one.
        faults: what is wrong, by the name of the file; and with the directory, under its own.
    """

    def __init__(self, directory: Path, owners: frozenset[int]) -> None:
        self._directory = directory
        self._owners = owners
        self._boot_id = clock.BOOT_ID.read_text(encoding="ascii").strip()
        self._pools: dict[str, Snapshot] = {}
        self._known: dict[str, tuple[int, int, int]] = {}
        self.by_host: Mapping[str, Snapshot] = {}
        self.faults: dict[str, str] = {}

    def load_all(self) -> None:
        """Take over what changed since the last time. Raises nothing: a directory that is gone changes nothing."""
        for path in self.files():
            self.take(path)

    def files(self) -> list[Path]:
        """Return the snapshot files there are."""
        try:
            self._check(self._directory.stat(), stat.S_ISDIR)
            paths = sorted(self._directory.glob("*.json"))[:MAX_FILES]
        except (errors.InvalidMessage, OSError) as e:
            self._report(self._directory.name, str(e))
            return []
        self.faults.pop(self._directory.name, None)
        return paths

    def take(self, path: Path) -> None:
        """Take over a file that changed. Raises nothing."""
        try:
            if self._load(path):
                self._index()
        except (errors.InvalidMessage, OSError) as e:
            self._report(path.name, str(e))
        except Exception as e:  # noqa: BLE001 - the edge of a pool: a fault of our own must not end the service of all
            self._report(path.name, f"internal fault {e!r}")

    def _report(self, name: str, reason: str) -> None:
        if self.faults.get(name) != reason:
            log.error("snapshot refused file=%s reason=%s", name, reason)
        self.faults[name] = reason

    def _index(self) -> None:
        """Find each host's pool: of two files that name it, the later one; the pool that it left may have ended. Two files
        of one moment contradict each other, and then it is in none."""
        found: dict[str, Snapshot] = {}
        twice: set[str] = set()
        for one in sorted(self._pools.values(), key=lambda one: one.written_ms):
            both = found.keys() & one.hosts.keys()
            twice -= both
            twice |= {host for host in both if one.written_ms - found[host].written_ms < SAME_MOMENT_MS}
            found.update(dict.fromkeys(one.hosts, one))
        for host in twice:
            del found[host]
        self.by_host = _each_its_own(found, self._pools.values())
        self.faults.pop(_TWICE, None)
        if twice:
            self._report(_TWICE, f"{len(twice)} hosts are in two pools, {min(twice)} for one: nothing runs there")

    def _load(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._known.get(path.name) == identity:
                return False
            self._check(found, stat.S_ISREG)
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

    def _check(self, found: os.stat_result, is_right: Callable[[int], bool]) -> None:
        if not is_right(found.st_mode):
            raise errors.InvalidMessage("snapshot", "it is not a regular file")
        if found.st_uid not in self._owners:
            raise errors.InvalidMessage("snapshot", "it belongs to another user than the broker")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise errors.InvalidMessage("snapshot", "it can be written by group or others")


def _each_its_own(found: Mapping[str, Snapshot], snapshots: Collection[Snapshot]) -> Mapping[str, Snapshot]:
    """Return the same with snapshots that know no host of another pool, or of none: calls look into them for each host."""
    if len(found) == sum(len(one.hosts) for one in snapshots):
        return found
    own = {
        one.pool_id: dataclasses.replace(one, hosts={k: v for k, v in one.hosts.items() if found.get(k) is one})
        for one in snapshots
    }
    return {host: own[one.pool_id] for host, one in found.items()}
