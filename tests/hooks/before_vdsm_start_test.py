# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The boot hook on fake physical memory: a sparse file with TXT's registers, a heap and an event log."""

from __future__ import annotations

import dataclasses
import grp
import importlib.util
import os
import stat
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.messages import eventlog

HOOK = Path(__file__).parents[2] / "hooks/vdsm/before_vdsm_start/50_ovirt_tcp_boot.py"

REGISTERS = 0xFED30000
HEAP = 0x10020000
HEAP_SIZE = 0x20000
LOG = 0x20001000
EVENT = eventlog.Event(17, eventlog.HASH_START, {"sha256": bytes(32)}, b"start")
TXT_LOG = eventlog.encode([EVENT], ["sha256"])


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ovirt_tcp_boot", HOOK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = _load()


@dataclasses.dataclass
class Memory:
    """What a machine's memory holds; a test changes what it is about."""

    didvid: int = 0xB00600008086
    sts: int = 0x1C091
    heap_base: int = HEAP
    heap_size: int = HEAP_SIZE
    bios_size: int = 0x40
    version: int = 7
    elements: tuple[tuple[int, bytes], ...] = ((1, b"\0" * 8),)
    log_address: int = LOG
    allocated: int = 0x2000
    first: int = 0
    following: int = len(TXT_LOG)
    log: bytes = TXT_LOG + b"\xff" * 100
    file_size: int = 1 << 32

    def heap(self) -> bytes:
        place = struct.pack("<QIII", self.log_address, self.allocated, self.first, self.following)
        elements = [*self.elements, (8, place), (0, b"")]
        body = b"".join(struct.pack("<II", kind, 8 + len(data)) + data for kind, data in elements)
        sinit = struct.pack("<QI", 8 + 92 + len(body), self.version).ljust(8 + 92, b"\0") + body
        bios = struct.pack("<Q", self.bios_size).ljust(0x40, b"\0")
        return bios + struct.pack("<Q", 0x100).ljust(0x100, b"\0") + sinit

    def write(self, path: Path) -> Path:
        with path.open("wb") as file:
            file.truncate(self.file_size)
            for address, content in (
                (REGISTERS, struct.pack("<Q", self.sts)),
                (REGISTERS + 0x110, struct.pack("<Q", self.didvid)),
                (REGISTERS + 0x300, struct.pack("<QQ", self.heap_base, self.heap_size)),
                (HEAP, self.heap()),
                (LOG, self.log),
            ):
                if address + len(content) <= self.file_size:
                    file.seek(address)
                    file.write(content)
        return path


def read(memory: Memory, tmp_path: Path) -> bytes:
    with memory.write(tmp_path / "mem").open("rb") as file:
        return hook.read_log(file)


def test_reads_the_log_up_to_its_last_event(tmp_path: Path) -> None:
    content = read(Memory(), tmp_path)

    assert content == TXT_LOG
    assert eventlog.parse(content) == (EVENT,)


def test_reads_a_log_that_starts_within_its_container(tmp_path: Path) -> None:
    memory = Memory(log=b"\0" * 48 + TXT_LOG, first=48, following=48 + len(TXT_LOG))

    assert read(memory, tmp_path) == TXT_LOG


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(Memory(sts=0x1C090), id="SENTER not done"),
        pytest.param(Memory(didvid=2**64 - 1, sts=2**64 - 1), id="no chipset answers"),
        pytest.param(Memory(didvid=0x1022, sts=0), id="another vendor"),
    ],
)
def test_tells_that_there_was_no_launch(memory: Memory, tmp_path: Path) -> None:
    assert read(memory, tmp_path) is None


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        pytest.param(Memory(heap_base=0), "impossible place or size", id="no heap"),
        pytest.param(Memory(heap_size=2**40), "impossible place or size", id="endless heap"),
        pytest.param(Memory(bios_size=2**63), "a table leaves the TXT heap", id="table leaves the heap"),
        pytest.param(Memory(bios_size=0), "a table leaves the TXT heap", id="table without size"),
        pytest.param(Memory(version=5), "version 5, at least 6", id="old OsSinitData"),
        pytest.param(Memory(elements=((0, b""),)), "no event log of a TPM 2.0", id="no element"),
        pytest.param(Memory(elements=((1, b""),) * 100), "no event log of a TPM 2.0", id="too many elements"),
        pytest.param(Memory(allocated=2**31), "event log has an impossible", id="endless log"),
        pytest.param(Memory(following=0x2001), "event log has an impossible", id="next behind the end"),
        pytest.param(Memory(first=600), "event log has an impossible", id="next before first"),
        pytest.param(Memory(log_address=0), "event log has an impossible", id="log nowhere"),
        pytest.param(Memory(log=b"\0" * 4000), "no event log", id="zeros in the log's place"),
        pytest.param(Memory(log_address=2**60), "cannot be read", id="log outside the memory"),
        pytest.param(Memory(file_size=1 << 31), "cannot be read", id="registers outside the memory"),
    ],
)
def test_does_not_know(memory: Memory, reason: str, tmp_path: Path) -> None:
    with pytest.raises(hook.Unknown, match=reason):
        read(memory, tmp_path)


@given(st.binary(max_size=2000))
def test_any_heap_gives_a_place_or_unknown(heap: bytes) -> None:
    try:
        _, size = hook.find_log(heap)
    except hook.Unknown:
        return
    assert 0 < size <= hook.MAX_LOG_SIZE


def test_keeps_the_log_for_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrgid(os.getegid())
    monkeypatch.setattr(hook, "GROUP", group.gr_name)
    directory = tmp_path / "run" / "boot"

    told = hook.run(Memory().write(tmp_path / "mem"), directory)

    kept = directory / "txt_event_log"
    assert told == f"ovirt-tcp: kept the event log of the measured launch, {len(TXT_LOG)} bytes"
    assert kept.read_bytes() == TXT_LOG
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert kept.stat().st_gid == group.gr_gid
    assert [path.name for path in directory.iterdir()] == ["txt_event_log"]


def test_a_boot_without_launch_removes_an_older_log(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "boot"
    hook.run(Memory().write(tmp_path / "mem"), directory)

    told = hook.run(Memory(sts=0).write(tmp_path / "mem"), directory)

    assert told == "ovirt-tcp: no measured launch took place in this boot"
    assert list(directory.iterdir()) == []


def test_unknown_is_not_told_as_no_launch(tmp_path: Path) -> None:
    told = hook.run(tmp_path / "absent", tmp_path / "run" / "boot")

    assert told.startswith("ovirt-tcp: unknown whether a measured launch took place: ")
    assert not (tmp_path / "run").exists()


def test_does_not_write_where_others_may(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "boot"
    directory.mkdir(parents=True)
    (tmp_path / "run").chmod(0o777)

    told = hook.run(Memory().write(tmp_path / "mem"), directory)

    assert told.endswith("is not a directory of this user alone")
    assert list(directory.iterdir()) == []


def test_does_not_follow_a_link_in_the_place_of_its_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "boot").symlink_to(elsewhere)

    told = hook.run(Memory().write(tmp_path / "mem"), tmp_path / "run" / "boot")

    assert told.endswith("is not a directory of this user alone")
    assert list(elsewhere.iterdir()) == []


def test_ends_in_time_and_well_whatever_happens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def hang(*_: object) -> None:
        hook.signal.pause()

    monkeypatch.setattr(hook, "WITHIN_S", 1)
    monkeypatch.setattr(hook, "run", hang)

    hook.main()

    assert capsys.readouterr().err == "ovirt-tcp: the boot hook failed: TimeoutError: not done within 1 s\n"


@pytest.mark.skipif(os.path.exists("/dev/mem"), reason="would read this machine's memory")
def test_runs_as_vdsm_runs_it() -> None:
    """Executable, by the system's Python, without any argument."""
    done = subprocess.run([HOOK], capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("ovirt-tcp: unknown whether a measured launch took place: ")
