# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads the broker's snapshot files, off the engine's calls, and swaps in what changed.

A file that is broken, older, foreign or writable by others is refused and reported; the last good
one goes on, and its verdicts end by themselves. A file that is gone does the same.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pwd
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.snapshot import Snapshot

log = logging.getLogger("filterd.snapshots")

# More trusted pools than one engine will have. It is told when files are left out.
MAX_FILES = 4000
# The broker writes all pools in one go, and that at most once a second.
SAME_MOMENT_MS = 500

# The kernel's clock for files stands still for some milliseconds: two changes may have one time.
CLOCK_TICK_NS = 20_000_000

# What `faults` calls hosts of two pools.
_TWICE = "hosts"
_SUFFIX = ".json"
# By which a file is known: its inode, the time of its last change, and its size.
_Identity = tuple[int, int, int]


def believed_owners(user: str) -> frozenset[int]:
    """Return the uids whose snapshots are believed: root's, and that of `user`.

    Args:
        user: the option snapshots.owner; empty for the user that this process runs as.

    Raises:
        InvalidConfig: there is no such user.
    """
    if not user:
        return frozenset({0, os.getuid()})
    try:
        return frozenset({0, pwd.getpwnam(user).pw_uid})
    except KeyError as e:
        fault = f"snapshots.owner: there is no user {user}"
        raise errors.InvalidConfig("filterd.yaml", [fault]) from e


class SnapshotDirectory:
    """The newest good snapshot of each pool.

    Attributes:
        by_host: snapshot by host id. Replaced as a whole, never changed: a call may go on with the
            earlier one.
        faults: what is wrong, by the name of the file; and with the directory, under its own.
        unread: how many files changed that are not taken over yet.
    """

    def __init__(self, directory: Path, owners: frozenset[int]) -> None:
        self._directory = directory
        self._owners = owners
        self._boot_id = clock.BOOT_ID.read_text(encoding="ascii").strip()
        self._known: dict[str, _Identity] = {}
        # By pool id: the snapshots as they were read, as calls use them: with no host of another
        # pool, and the hosts that were in the ones that were used last.
        self._pools: dict[str, Snapshot] = {}
        self._used: dict[str, Snapshot] = {}
        # Pools whose snapshot was read, but is not used yet.
        self._changed: set[str] = set()
        self._named: dict[str, frozenset[str]] = {}
        # By host id: the pools whose snapshot names it; and the hosts that several name.
        self._pools_of: dict[str, tuple[str, ...]] = {}
        self._shared: set[str] = set()
        # When the directory changed last before it was looked through; 0 if it may have changed
        # since.
        self._seen_ns = 0
        self.by_host: Mapping[str, Snapshot] = {}
        self.faults: dict[str, str] = {}
        self.unread = 0

    def load_all(self) -> None:
        """Take over what changed since the last time. Raises nothing: a directory that is gone
        changes nothing."""
        self._seen_ns = 0
        for path in self.changed_files():
            self.read(path)
        self.use()

    def confirmed_ms(self) -> int:
        """Return when the broker last saw that all files are right (CLOCK_BOOTTIME).

        0 if it does not tell.
        """
        path = self._directory / snapshot.CONFIRMATION_FILE
        try:
            content = self._content(path, snapshot.MAX_CONFIRMATION_SIZE)
            written_ms = snapshot.decode_confirmation(content, self._boot_id)
        except (errors.InvalidMessage, OSError):
            return 0
        return min(written_ms, clock.boottime_ms())

    def changed_files(self) -> list[Path]:
        """Return the snapshot files that changed since they were read.

        The broker gives its files their names when they are whole, which changes the directory:
        without that, no file is looked at.
        """
        try:
            files = self._files_of_changed_directory()
        except (errors.InvalidMessage, OSError) as e:
            self._report(self._directory.name, str(e))
            self._seen_ns = 0
            return []
        if files is None:
            return []
        names = sorted(files)
        self._report_left_out(names[MAX_FILES:])
        new = [name for name in names[:MAX_FILES] if self._is_new(files[name])]
        self.unread = len(new)
        return [self._directory / name for name in new]

    def _files_of_changed_directory(self) -> Optional[dict[str, os.DirEntry[str]]]:
        """Return the snapshot files by name; None if the directory did not change.

        Raises InvalidMessage, OSError.
        """
        began_ns = time.time_ns()
        status = self._directory.stat()
        self._check(status, stat.S_ISDIR)
        if status.st_mtime_ns == self._seen_ns:
            return None
        with os.scandir(self._directory) as entries:
            files = {entry.name: entry for entry in entries if entry.name.endswith(_SUFFIX)}
        is_settled = began_ns - status.st_mtime_ns > CLOCK_TICK_NS
        self._seen_ns = status.st_mtime_ns if is_settled else 0
        return files

    def _report_left_out(self, names: Sequence[str]) -> None:
        if not names:
            self.faults.pop(self._directory.name, None)
            return
        left_out = f"{len(names)} files are left out, {names[0]} for one"
        self._report(self._directory.name, f"{left_out}: only {MAX_FILES} are read")

    def read(self, path: Path) -> None:
        """Read a file that changed; `use` puts it to use. Raises nothing."""
        try:
            self._read(path)
        except (errors.InvalidMessage, OSError) as e:
            self._report(path.name, str(e))
        except Exception as e:  # noqa: BLE001 - the edge of a pool: a fault of our own must not end the service of all
            self._report(path.name, f"internal fault {e!r}")
        self.unread -= 1

    def use(self) -> None:
        """Answer by what was read since the last time. It costs what these pools have of hosts.
        Raises nothing."""
        if not self._changed:
            return
        try:
            self._use()
        except Exception as e:  # noqa: BLE001 - the edge: the earlier ones go on, and their verdicts end by themselves
            self._report(self._directory.name, f"internal fault {e!r}")

    def _use(self) -> None:
        affected = set(self._changed)
        for pool_id in self._changed:
            affected |= self._claim(pool_id)
        fresh = {pool_id: self._without_foreign(self._pools[pool_id]) for pool_id in affected}
        by_host = self._replaced(fresh)
        self._used.update(fresh)
        self._changed.clear()
        self.by_host = by_host
        self._report_twice()

    def _replaced(self, fresh: Mapping[str, Snapshot]) -> dict[str, Snapshot]:
        """Return `by_host` with these snapshots, by pool id, instead of the ones in use."""
        by_host = dict(self.by_host)
        for pool_id in fresh.keys() & self._used.keys():
            for host_id in self._used[pool_id].hosts:
                del by_host[host_id]
        for pool in fresh.values():
            by_host.update(dict.fromkeys(pool.hosts, pool))
        return by_host

    def _report(self, name: str, reason: str) -> None:
        if self.faults.get(name) != reason:
            log.error("snapshot refused file=%s reason=%s", name, reason)
        self.faults[name] = reason

    def _claim(self, pool_id: str) -> set[str]:
        """Note which hosts a pool names now.

        Returns:
            The pools that name one of these, or of those that it named before.
        """
        before = self._named.get(pool_id, frozenset())
        hosts = self._pools[pool_id].hosts.keys()
        sharing: set[str] = set()
        for host_id in (before | hosts) & self._shared:
            sharing.update(self._pools_of[host_id])
        for host_id in before - hosts:
            others = [other for other in self._pools_of[host_id] if other != pool_id]
            self._note(host_id, tuple(others))
        for host_id in hosts - before:
            earlier = self._pools_of.get(host_id, ())
            sharing.update(earlier)
            self._note(host_id, (*earlier, pool_id))
        self._named[pool_id] = frozenset(hosts)
        return sharing

    def _note(self, host_id: str, pool_ids: tuple[str, ...]) -> None:
        if pool_ids:
            self._pools_of[host_id] = pool_ids
        else:
            del self._pools_of[host_id]
        if len(pool_ids) > 1:
            self._shared.add(host_id)
        else:
            self._shared.discard(host_id)

    def _pool_of(self, host_id: str) -> Optional[str]:
        """Return the pool of a host that several name.

        It is the one that was written last; the pool that it left may have ended. Two files of one
        moment contradict each other, and then it is in none.
        """
        pools = [self._pools[pool_id] for pool_id in self._pools_of[host_id]]
        pools.sort(key=lambda pool: pool.written_ms)
        second, last = pools[-2:]
        if last.written_ms - second.written_ms < SAME_MOMENT_MS:
            return None
        return last.pool_id

    def _without_foreign(self, pool: Snapshot) -> Snapshot:
        """Return it without the hosts of another pool, or of none.

        Calls look into it for each host.
        """
        shared = self._shared & pool.hosts.keys()
        foreign = {host_id for host_id in shared if self._pool_of(host_id) != pool.pool_id}
        if not foreign:
            return pool
        hosts = dict(pool.hosts)
        for host_id in foreign:
            del hosts[host_id]
        return dataclasses.replace(pool, hosts=hosts)

    def _report_twice(self) -> None:
        twice = [host_id for host_id in self._shared if self._pool_of(host_id) is None]
        if not twice:
            self.faults.pop(_TWICE, None)
            return
        several = f"{len(twice)} hosts are in two pools, {min(twice)} for one"
        self._report(_TWICE, f"{several}: nothing runs there")

    def _is_new(self, entry: os.DirEntry[str]) -> bool:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._known.get(entry.name) != _identity(status)

    def _read(self, path: Path) -> None:
        content = self._content(path, snapshot.MAX_SIZE)
        fresh = snapshot.decode(content, self._boot_id)
        if path.name != fresh.pool_id + _SUFFIX:
            raise errors.InvalidMessage("snapshot", "it is of another pool than its name says")
        before = self._pools.get(fresh.pool_id)
        if before is not None and fresh.written_ms < before.written_ms:
            raise errors.InvalidMessage("snapshot", "it is older than the one in use")
        if fresh.written_ms > clock.boottime_ms():
            raise errors.InvalidMessage("snapshot", "it was written in the future")
        self._pools[fresh.pool_id] = fresh
        self._changed.add(fresh.pool_id)
        self.faults.pop(path.name, None)

    def _content(self, path: Path, max_size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            # Remembered before it is judged: a bad file is looked at once, not five times a second.
            self._known[path.name] = _identity(status)
            self._check(status, stat.S_ISREG)
            if status.st_size > max_size:
                raise errors.InvalidMessage("snapshot", f"longer than {max_size} bytes")
            return os.read(descriptor, status.st_size)
        finally:
            os.close(descriptor)

    def _check(self, found: os.stat_result, is_right: Callable[[int], bool]) -> None:
        if not is_right(found.st_mode):
            raise errors.InvalidMessage("snapshot", "it is not a regular file")
        if found.st_uid not in self._owners:
            raise errors.InvalidMessage("snapshot", "it belongs to another user than the broker")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise errors.InvalidMessage("snapshot", "it can be written by group or others")


def _identity(status: os.stat_result) -> _Identity:
    return status.st_ino, status.st_mtime_ns, status.st_size
