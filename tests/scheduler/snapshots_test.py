# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which snapshot files are believed, and what goes on when one is not."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.clock import boottime_ms as now_ms
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.snapshot import Snapshot
from ovirt_tcp_plugin.scheduler import trusted_hosts
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory, believed_owners
from tests.scheduler.conftest import BAD, GOOD, OTHER_POOL, POOL, pool


@pytest.fixture
def writer(tmp_path: Path) -> SnapshotWriter:
    return SnapshotWriter(tmp_path / "snapshot.d")


@pytest.fixture
def directory(writer: SnapshotWriter, tmp_path: Path) -> SnapshotDirectory:
    return SnapshotDirectory(tmp_path / "snapshot.d", frozenset({os.getuid()}))


def path_of(tmp_path: Path, pool_id: str = POOL) -> Path:
    return tmp_path / "snapshot.d" / f"{pool_id}.json"


def spoil(one: Snapshot, kind: str) -> bytes:
    content = snapshot.encode(one)
    return {
        "truncated": content[:-20],
        "empty": b"",
        "binary": b"\0\xff" * 100,
        "another version": content.replace(b'"version":1', b'"version":2'),
        "another boot": snapshot.encode(dataclasses.replace(one, boot_id="of yesterday")),
        "older": snapshot.encode(dataclasses.replace(one, written_ms=one.written_ms - 1)),
        "of the future": snapshot.encode(dataclasses.replace(one, written_ms=now_ms() + 60_000)),
        "another pool": snapshot.encode(dataclasses.replace(one, pool_id=OTHER_POOL)),
        "deep": b"[" * 100_000,
    }[kind]


KINDS = [
    "truncated",
    "empty",
    "binary",
    "another version",
    "another boot",
    "older",
    "of the future",
    "another pool",
    "deep",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_leaves_the_last_good_one_in_use(
    writer: SnapshotWriter, directory: SnapshotDirectory, tmp_path: Path, kind: str
) -> None:
    writer.write(pool())
    directory.load_all()
    good = directory.by_host[GOOD]
    path_of(tmp_path).write_bytes(spoil(pool(written_ms=good.written_ms), kind))
    directory.load_all()
    assert directory.by_host[GOOD] is good
    assert directory.faults[f"{POOL}.json"]


def test_a_broken_file_closes_only_its_own_pool(
    writer: SnapshotWriter, directory: SnapshotDirectory, tmp_path: Path
) -> None:
    writer.write(
        dataclasses.replace(pool(pool_id=OTHER_POOL), hosts={"other-host": pool().hosts[GOOD]})
    )
    path_of(tmp_path).write_bytes(b"rubbish")
    directory.load_all()
    assert set(directory.by_host) == {"other-host"}


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622])
def test_a_file_that_others_may_write_is_refused(
    writer: SnapshotWriter, directory: SnapshotDirectory, tmp_path: Path, mode: int
) -> None:
    writer.write(pool())
    path_of(tmp_path).chmod(mode)
    directory.load_all()
    assert directory.by_host == {}
    assert "written by group or others" in directory.faults[f"{POOL}.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(
    writer: SnapshotWriter, directory: SnapshotDirectory, tmp_path: Path
) -> None:
    writer.write(pool())
    os.chown(path_of(tmp_path), 12345, -1)
    directory.load_all()
    assert directory.by_host == {}
    assert "another user" in directory.faults[f"{POOL}.json"]


def test_a_directory_of_another_user_is_not_even_looked_into(
    writer: SnapshotWriter, tmp_path: Path
) -> None:
    writer.write(pool())
    directory = SnapshotDirectory(tmp_path / "snapshot.d", frozenset({os.getuid() + 1}))
    directory.load_all()
    assert directory.by_host == {}
    assert "another user" in directory.faults["snapshot.d"]


def test_where_others_may_write_the_last_good_ones_go_on(
    writer: SnapshotWriter, directory: SnapshotDirectory, tmp_path: Path
) -> None:
    """Somebody could put an older file of the broker back in its place."""
    writer.write(pool())
    directory.load_all()
    (tmp_path / "snapshot.d").chmod(0o777)
    writer.write(dataclasses.replace(pool(), hosts={}))
    directory.load_all()
    assert GOOD in directory.by_host
    assert "written by group or others" in directory.faults["snapshot.d"]
    (tmp_path / "snapshot.d").chmod(0o755)
    directory.load_all()
    assert (directory.by_host, directory.faults) == ({}, {})


def a_link(path: Path) -> None:
    good = path.with_suffix(".good")
    good.write_bytes(snapshot.encode(pool()))
    path.symlink_to(good)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(snapshot.encode(pool()))
        file.truncate(snapshot.MAX_SIZE + 1)


@pytest.mark.parametrize(
    "make", [a_link, huge, os.mkfifo, Path.mkdir], ids=["link", "huge", "pipe", "directory"]
)
def test_what_is_no_file_of_the_brokers_kind_is_refused_at_once(
    writer: SnapshotWriter,
    directory: SnapshotDirectory,
    tmp_path: Path,
    make: Callable[[Path], object],
) -> None:
    writer.write(
        dataclasses.replace(pool(pool_id=OTHER_POOL), hosts={"other-host": pool().hosts[GOOD]})
    )
    make(path_of(tmp_path))
    began = time.monotonic()
    directory.load_all()
    assert time.monotonic() - began < 2
    assert set(directory.by_host) == {"other-host"}
    assert directory.faults.keys() == {f"{POOL}.json"}


def test_a_host_in_two_pools_is_in_none_until_one_lets_it_go(
    writer: SnapshotWriter, directory: SnapshotDirectory
) -> None:
    mine, good = pool(), pool().hosts[GOOD]
    writer.write(mine)
    other = dataclasses.replace(mine, pool_id=OTHER_POOL, hosts={GOOD: good, "other-host": good})
    writer.write(other)
    directory.load_all()
    assert set(directory.by_host) == {*mine.hosts, "other-host"} - {GOOD}
    assert f"{GOOD} for one" in directory.faults["hosts"]
    writer.write(dataclasses.replace(mine, hosts={BAD: mine.hosts[BAD]}))
    directory.load_all()
    assert directory.by_host[GOOD].pool_id == OTHER_POOL
    assert directory.faults == {}


def test_a_fault_of_our_own_closes_only_its_pool(
    writer: SnapshotWriter, directory: SnapshotDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = snapshot.decode
    writer.write(pool())
    writer.write(
        dataclasses.replace(pool(pool_id=OTHER_POOL), hosts={"other-host": pool().hosts[GOOD]})
    )
    monkeypatch.setattr(
        snapshot, "decode", lambda *given: 1 / 0 if GOOD.encode() in given[0] else decode(*given)
    )
    directory.load_all()
    assert set(directory.by_host) == {"other-host"}
    assert "ZeroDivisionError" in directory.faults[f"{POOL}.json"]


def test_a_file_that_is_gone_goes_on_until_its_verdicts_end(
    writer: SnapshotWriter, directory: SnapshotDirectory
) -> None:
    writer.write(pool())
    directory.load_all()
    writer.remove(POOL)
    directory.load_all()
    assert GOOD in directory.by_host


def test_a_newer_file_is_swapped_in_and_the_old_map_is_not_touched(
    writer: SnapshotWriter, directory: SnapshotDirectory
) -> None:
    writer.write(pool())
    directory.load_all()
    before = directory.by_host
    writer.write(pool(Scope.MARKED_VMS))
    directory.load_all()
    assert directory.by_host[GOOD].scope is Scope.MARKED_VMS
    assert before[GOOD].scope is Scope.ALL_VMS


@pytest.mark.parametrize("left", [POOL, OTHER_POOL])
def test_a_host_that_moved_is_of_the_pool_that_was_written_last(
    writer: SnapshotWriter, directory: SnapshotDirectory, left: str
) -> None:
    """The pool that it left may have ended, and then nobody writes its file again."""
    entered = {POOL: OTHER_POOL, OTHER_POOL: POOL}[left]
    now = now_ms()
    writer.write(pool(pool_id=left, written_ms=now - 1000))
    writer.write(pool(pool_id=entered, written_ms=now))
    directory.load_all()
    assert directory.by_host[GOOD].pool_id == entered


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "snapshot.d")]
    writer = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    directory = SnapshotDirectory(tmp_path / "snapshot.d", frozenset({os.getuid()}))
    directory.load_all()
    assert GOOD in directory.by_host
    assert directory.faults == {}


_WRITER = """
import sys
from pathlib import Path
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from tests.scheduler.conftest import pool
writer = SnapshotWriter(Path(sys.argv[1]))
while True:
    writer.write(pool())
    print("written", flush=True)
"""


def test_ten_thousand_hosts_are_read_within_a_second(
    writer: SnapshotWriter, directory: SnapshotDirectory
) -> None:
    good = pool().hosts[GOOD]
    writer.write(
        dataclasses.replace(pool(), hosts={f"{number:036d}": good for number in range(10_000)})
    )
    began = time.monotonic()
    directory.load_all()
    assert len(directory.by_host) == 10_000
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("later_ms", [0, 1000], ids=["in two pools", "moved to another pool"])
@pytest.mark.parametrize("asked", [["own", "shared"], ["shared", "own"]])
def test_a_host_that_is_not_this_pools_does_not_pass_by_its_file(
    writer: SnapshotWriter, directory: SnapshotDirectory, later_ms: int, asked: list[str]
) -> None:
    good, now = pool().hosts[GOOD], now_ms()
    moments = {POOL: now - later_ms, OTHER_POOL: now}
    for pool_id, hosts in ((POOL, {"own": good, "shared": good}), (OTHER_POOL, {"shared": good})):
        writer.write(
            dataclasses.replace(pool(pool_id=pool_id, written_ms=moments[pool_id]), hosts=hosts)
        )
    directory.load_all()
    accepted = trusted_hosts.accept(directory.by_host, asked, "vm", {}, now_ms()).hosts
    assert accepted == (() if later_ms else ("own",))


def test_snapshots_of_root_and_of_the_user_that_is_named_are_believed() -> None:
    assert believed_owners("root") == {0}
    assert believed_owners("") == {0, os.getuid()}
    with pytest.raises(errors.InvalidConfig, match="snapshots.owner: there is no user nobody-at"):
        believed_owners("nobody-at-all")
