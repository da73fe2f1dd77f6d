# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The memory of a lab's host, read by the real boot hook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ovirt_tcp_plugin import boot_hook
from ovirt_tcp_plugin.lab import launch, txt_memory
from ovirt_tcp_plugin.messages import eventlog

BANKS = ("sha1", "sha256")
EVENTS = (
    launch.measured(17, eventlog.HASH_START, b"start", BANKS),
    launch.measured(17, eventlog.MLE_HASH, b"tboot", BANKS),
    launch.measured(18, 0x410, b"key", BANKS),
)


def read(path: Path, events: Sequence[eventlog.Event] | None, element: int) -> bytes | None:
    txt_memory.write(path / "mem", events, BANKS, element)
    with (path / "mem").open("rb") as memory:
        return boot_hook.read_log(memory)


@pytest.mark.parametrize(
    ("element", "banks"),
    [
        (txt_memory.SHA1_LOG, ["sha1"]),
        (txt_memory.BANK_LOGS, ["sha1", "sha256"]),
        (txt_memory.AGILE_LOG, ["sha1", "sha256"]),
    ],
)
def test_the_hook_finds_the_log_by_each_kind_of_element(
    element: int, banks: list[str], tmp_path: Path
) -> None:
    content = read(tmp_path, EVENTS, element)

    assert content is not None
    events = eventlog.parse(content)
    assert eventlog.launched(events)
    for bank in banks:
        replayed = eventlog.replay(events, bank, (17, 18))
        assert replayed == eventlog.replay(EVENTS, bank, (17, 18))


def test_a_heap_without_a_log_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(boot_hook.Unknown, match="tells of no event log"):
        read(tmp_path, EVENTS, 0)


def test_a_boot_without_a_launch_has_no_log(tmp_path: Path) -> None:
    assert read(tmp_path, None, txt_memory.AGILE_LOG) is None


def test_the_memory_takes_hardly_any_room_on_the_disk(tmp_path: Path) -> None:
    read(tmp_path, EVENTS, txt_memory.BANK_LOGS)
    assert (tmp_path / "mem").stat().st_blocks * 512 < 1024 * 1024
