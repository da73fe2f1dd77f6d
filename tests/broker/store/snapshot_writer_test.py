# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A file is written when it would say something else, and everybody can tell that the broker goes
on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.store.snapshot_writer import CONFIRM_EVERY_MS, SnapshotWriter
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory
from tests.scheduler.conftest import BAD, GOOD, OTHER_POOL, POOL, now_ms, pool

WRITTEN_MS = now_ms() - 600_000
LATER_MS = WRITTEN_MS + 60_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.d"


@pytest.fixture
def writer(directory: Path) -> SnapshotWriter:
    return SnapshotWriter(directory)


FIRST = pool(written_ms=WRITTEN_MS)
SAME = dataclasses.replace(FIRST, written_ms=LATER_MS)


def written_ms(directory: Path, pool_id: str = POOL) -> int:
    content = (directory / f"{pool_id}.json").read_bytes()
    return snapshot.decode(content, FIRST.boot_id).written_ms


def confirmed_ms(directory: Path) -> int:
    return SnapshotDirectory(directory, frozenset({os.getuid()})).confirmed_ms()


def test_a_file_that_would_say_the_same_is_not_written_again(
    writer: SnapshotWriter, directory: Path
) -> None:
    assert writer.write(FIRST)
    before = (directory / f"{POOL}.json").stat()
    assert not writer.write(SAME)
    after = (directory / f"{POOL}.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts": {GOOD: FIRST.hosts[GOOD]}},
        {"hosts": {**FIRST.hosts, GOOD: FIRST.hosts[BAD]}},
        {"vms": {}},
        {"exempt": frozenset()},
    ],
    ids=["a host left", "a host lost trust", "no VM", "nobody exempt"],
)
def test_whatever_changed_is_written(
    writer: SnapshotWriter, directory: Path, changes: dict[str, object]
) -> None:
    writer.write(FIRST)
    assert writer.write(dataclasses.replace(SAME, **changes))  # type: ignore[arg-type]
    assert written_ms(directory) == LATER_MS


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize(
    "spoil", [Path.unlink, append, replace], ids=["gone", "touched", "put in its place"]
)
def test_a_file_that_somebody_touched_is_written_again(
    writer: SnapshotWriter, directory: Path, spoil: Callable[[Path], None]
) -> None:
    writer.write(FIRST)
    spoil(directory / f"{POOL}.json")
    assert writer.write(SAME)
    assert written_ms(directory) == LATER_MS


def test_a_broker_that_restarts_writes_all_once(writer: SnapshotWriter, directory: Path) -> None:
    writer.write(FIRST)
    assert SnapshotWriter(directory).write(SAME)


def test_what_is_told_is_when_all_files_were_right(writer: SnapshotWriter, directory: Path) -> None:
    assert confirmed_ms(directory) == 0
    writer.write(FIRST)
    writer.write(dataclasses.replace(FIRST, pool_id=OTHER_POOL, written_ms=WRITTEN_MS + 10))
    writer.confirm()
    assert confirmed_ms(directory) == WRITTEN_MS
    writer.write(SAME)
    writer.confirm()
    # The other pool was not looked at since.
    assert confirmed_ms(directory) == WRITTEN_MS
    writer.write(dataclasses.replace(SAME, pool_id=OTHER_POOL))
    writer.confirm()
    assert confirmed_ms(directory) == LATER_MS
    assert (written_ms(directory), written_ms(directory, OTHER_POOL)) == (
        WRITTEN_MS,
        WRITTEN_MS + 10,
    )


def test_a_pool_whose_file_cannot_be_written_keeps_the_moment_back(
    writer: SnapshotWriter, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(FIRST)
    writer.write(dataclasses.replace(FIRST, pool_id=OTHER_POOL))
    writer.confirm()
    monkeypatch.setattr(
        snapshot, "encode", lambda _: os.strerror(28)
    )  # what is no content is not written
    with pytest.raises(TypeError):
        writer.write(dataclasses.replace(SAME, vms={}))
    assert not writer.write(dataclasses.replace(SAME, pool_id=OTHER_POOL))
    writer.confirm()
    assert confirmed_ms(directory) == WRITTEN_MS


def test_a_pool_that_ended_keeps_no_moment_back(writer: SnapshotWriter, directory: Path) -> None:
    writer.write(FIRST)
    writer.write(dataclasses.replace(FIRST, pool_id=OTHER_POOL))
    writer.remove(OTHER_POOL)
    writer.write(SAME)
    writer.confirm()
    assert confirmed_ms(directory) == LATER_MS


def test_the_moment_is_not_written_at_each_change(writer: SnapshotWriter, directory: Path) -> None:
    writer.write(FIRST)
    writer.confirm()
    writer.write(dataclasses.replace(FIRST, written_ms=WRITTEN_MS + CONFIRM_EVERY_MS - 1))
    writer.confirm()
    assert confirmed_ms(directory) == WRITTEN_MS


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", snapshot.encode_confirmation("another boot", 5), b"9" * 5000]
)
def test_a_moment_that_cannot_be_read_confirms_nothing(
    writer: SnapshotWriter, directory: Path, content: bytes
) -> None:
    (directory / snapshot.CONFIRMATION_FILE).write_bytes(content)
    assert confirmed_ms(directory) == 0
