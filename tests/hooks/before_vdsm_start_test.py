# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The boot hook on fake physical memory.

A sparse file with TXT's registers, a heap and an event log.
"""

from __future__ import annotations

import dataclasses
import grp
import hashlib
import os
import stat
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import boot_hook as hook
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2

HOOK = Path(__file__).parents[2] / "hooks/vdsm/before_vdsm_start/50_ovirt_tcp_boot.py"
ABSENCES = ["firmware_event_log.absent", "txt_event_log.absent"]

REGISTERS = 0xFED30000
HEAP = 0x10020000
HEAP_SIZE = 0x20000
LOG = 0x20001000
EVENT = eventlog.Event(17, eventlog.HASH_START, {"sha256": bytes(32)}, b"start")
TXT_LOG = eventlog.encode([EVENT], ["sha256"])


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
        pytest.param(
            Memory(bios_size=2**63), "a table leaves the TXT heap", id="table leaves the heap"
        ),
        pytest.param(Memory(bios_size=0), "a table leaves the TXT heap", id="table without size"),
        pytest.param(Memory(version=5), "version 5, at least 6", id="old OsSinitData"),
        pytest.param(Memory(elements=((0, b""),)), "no event log", id="no element"),
        pytest.param(
            Memory(elements=((1, b""),) * 100), "tells of no event log", id="too many elements"
        ),
        pytest.param(Memory(allocated=2**31), "event log has an impossible", id="endless log"),
        pytest.param(
            Memory(following=0x2001), "event log has an impossible", id="next behind the end"
        ),
        pytest.param(Memory(first=600), "event log has an impossible", id="next before first"),
        pytest.param(Memory(log_address=0), "event log has an impossible", id="log nowhere"),
        pytest.param(Memory(log=b"\0" * 4000), "no event log", id="zeros in the log's place"),
        pytest.param(Memory(log_address=2**60), "cannot be read", id="log outside the memory"),
        pytest.param(
            Memory(file_size=1 << 31), "cannot be read", id="registers outside the memory"
        ),
    ],
)
def test_does_not_know(memory: Memory, reason: str, tmp_path: Path) -> None:
    with pytest.raises(hook.Unknown, match=reason):
        read(memory, tmp_path)


@given(st.binary(max_size=2000))
def test_any_heap_gives_a_place_or_unknown(heap: bytes) -> None:
    try:
        kind, position = hook.find_log(heap)
    except hook.Unknown:
        return
    assert kind in (5, 7, 8)
    assert position > 0


def container(log: bytes, signature: bytes = b"TXT Event Container\0", size: int = 0x2000) -> bytes:
    """Return what tboot sets aside for the log of a TPM 1.2."""
    head = signature + bytes(12) + b"\1\0\1\0"
    return head + struct.pack("<III", size, 48, 48 + len(log)) + log + b"\xff" * 64


def of_tpm12(content: bytes) -> Memory:
    """Return memory in whose heap element 5 points to that content."""
    return Memory(elements=((5, struct.pack("<Q", LOG)),), log=content)


class TestTpm12:
    """Element 5: the log of a TPM 1.2 lies in a container of its own."""

    EVENTS = (
        eventlog.Event(255, eventlog.PCR_MAPPING, {"sha1": bytes(20)}, b""),
        eventlog.Event(17, eventlog.HASH_START, {"sha1": b"\1" * 20}, b"start"),
        eventlog.Event(18, 0x404, {"sha1": b"\2" * 20}, b""),
    )

    def test_its_events_are_handed_over(self, tmp_path: Path) -> None:
        content = read(of_tpm12(container(eventlog.encode_sha1(self.EVENTS))), tmp_path)

        assert eventlog.parse(content, padded=True) == self.EVENTS

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0" * 500,
            container(b"events", signature=b"another" + bytes(13)),
            container(b"events", size=10),
            container(b"events", size=2**31),
            container(b""),
        ],
    )
    def test_what_is_no_container_is_unknown(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(hook.Unknown, match="no event log|impossible place or size"):
            read(of_tpm12(content), tmp_path)


SHA256, SHA384 = 0x000B, 0x000C


def bank_log(bank: int, *digests: bytes) -> bytes:
    """Return the log of one bank as older SINITs and tboot write it."""
    first = struct.pack("<II20sI", 0, 3, b"", 28) + bytes(28) if bank != 0x0004 else b""
    kinds = (eventlog.HASH_START, 0x404, 0x501)
    events = [
        struct.pack("<II", 17, kind) + digest + struct.pack("<I", 4) + b"data"
        for kind, digest in zip(kinds, digests)
    ]
    return first + b"".join(events)


def of_banks(*logs: tuple[int, bytes]) -> Memory:
    """Return memory in whose heap element 7 points to a log for each bank."""
    memory = b""
    element = struct.pack("<I", len(logs))
    for bank, log in logs:
        place = LOG + len(memory)
        element += struct.pack("<HHQIII", bank, 0, place, 0x1000, 0, len(log))
        memory += log.ljust(0x1000, b"\xff")
    return Memory(elements=((7, element),), log=memory)


class TestLogsOfBanks:
    """Element 7: each bank has a log of its own."""

    @given(st.lists(st.sampled_from([0x0004, SHA256, SHA384, 0x000D]), min_size=1, unique=True))
    def test_they_become_one_that_replays_as_each_of_them(self, banks: list[int]) -> None:
        sizes = {0x0004: 20, SHA256: 32, SHA384: 48, 0x000D: 64}
        digests = {bank: [bytes([n]) * sizes[bank] for n in (1, 2, 3)] for bank in banks}
        memory = of_banks(*((bank, bank_log(bank, *digests[bank])) for bank in banks))
        with tempfile.TemporaryDirectory() as directory:
            content = read(memory, Path(directory))

        events = eventlog.parse(content)

        for bank in banks:
            name = tpm2.HASHES[bank]
            value = bytes(sizes[bank])
            for digest in digests[bank]:
                value = hashlib.new(name, value + digest).digest()
            assert eventlog.replay(events, name, [17]) == {17: value}

    def test_a_bank_without_events_is_left_out(self, tmp_path: Path) -> None:
        memory = of_banks((0x0004, b""), (SHA256, bank_log(SHA256, bytes(32))))

        (event,) = eventlog.parse(read(memory, tmp_path))

        assert event.digests == {"sha256": bytes(32)}

    @pytest.mark.parametrize(
        ("memory", "reason"),
        [
            pytest.param(of_banks(), "tells of 0 event logs", id="none"),
            pytest.param(
                of_banks(*[(SHA256, bank_log(SHA256, bytes(32)))] * 2), "twice", id="a bank twice"
            ),
            pytest.param(of_banks((0x7777, b"x")), "hash 0x7777", id="an unknown hash"),
            pytest.param(of_banks((SHA256, b"")), "without an event", id="nothing in them"),
            pytest.param(
                of_banks((SHA256, bank_log(SHA256, bytes(32))[:-1])), "cut off", id="cut off"
            ),
            pytest.param(of_banks((SHA256, b"short")), "cut off", id="no head"),
        ],
    )
    def test_what_makes_no_sense_is_unknown(
        self, memory: Memory, reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(hook.Unknown, match=reason):
            read(memory, tmp_path)

    @given(st.binary(max_size=400), st.sampled_from([0x0004, SHA256]))
    def test_any_log_of_a_bank_is_read_or_unknown(self, content: bytes, bank: int) -> None:
        try:
            events = hook.agile_events(content, bank)
        except hook.Unknown:
            return
        assert len(events) <= 2 * len(content) + 64


@pytest.mark.parametrize(
    "state", ["none [integrity] confidentiality", "none integrity [confidentiality]"]
)
def test_a_kernel_that_is_locked_down_is_told_with_the_way_out(state: str, tmp_path: Path) -> None:
    (tmp_path / "lockdown").write_text(state + "\n")

    told = hook.keep_txt_log(tmp_path / "absent", tmp_path / "run" / "boot", tmp_path / "lockdown")

    assert "locked down" in told and "Secure Boot off" in told
    kept = tmp_path / "run" / "boot" / "txt_event_log.absent"
    assert kept.read_text() == f"locked_down\n{told}\n"


def test_a_log_that_comes_after_all_drops_why_there_was_none(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "boot"
    hook.keep_txt_log(tmp_path / "absent", directory, tmp_path / "lockdown")
    hook.keep_firmware_log(tmp_path / "absent", directory)
    assert sorted(path.name for path in directory.iterdir()) == ABSENCES

    (tmp_path / "firmware").write_bytes(b"log")
    hook.keep_txt_log(Memory().write(tmp_path / "mem"), directory, tmp_path / "lockdown")
    hook.keep_firmware_log(tmp_path / "firmware", directory)

    names = sorted(path.name for path in directory.iterdir())
    assert names == ["firmware_event_log", "txt_event_log"]


def test_a_kernel_that_is_not_locked_down_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "lockdown").write_text("[none] integrity confidentiality\n")

    assert "locked" not in hook.keep_txt_log(
        tmp_path / "absent", tmp_path / "run" / "boot", tmp_path / "lockdown"
    )


def test_keeps_the_log_for_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrgid(os.getegid())
    monkeypatch.setattr(hook, "GROUP", group.gr_name)
    directory = tmp_path / "run" / "boot"

    told = hook.keep_txt_log(Memory().write(tmp_path / "mem"), directory, tmp_path / "lockdown")

    kept = directory / "txt_event_log"
    assert told == f"kept the event log of the measured launch, {len(TXT_LOG)} bytes"
    assert kept.read_bytes() == TXT_LOG
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert kept.stat().st_gid == group.gr_gid
    assert [path.name for path in directory.iterdir()] == ["txt_event_log"]


def test_a_boot_without_launch_removes_an_older_log(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "boot"
    hook.keep_txt_log(Memory().write(tmp_path / "mem"), directory, tmp_path / "lockdown")

    told = hook.keep_txt_log(
        Memory(sts=0).write(tmp_path / "mem"), directory, tmp_path / "lockdown"
    )

    assert told == "no measured launch took place in this boot"
    (absence,) = directory.iterdir()
    assert absence.read_text() == f"no_launch\n{told}\n"


def test_unknown_is_not_told_as_no_launch(tmp_path: Path) -> None:
    told = hook.keep_txt_log(tmp_path / "absent", tmp_path / "run" / "boot", tmp_path / "lockdown")

    assert told.startswith("unknown whether a measured launch took place: ")
    (absence,) = (tmp_path / "run" / "boot").iterdir()
    assert absence.read_text() == f"unreadable\n{told}\n"


def test_does_not_write_where_others_may(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "boot"
    directory.mkdir(parents=True)
    (tmp_path / "run").chmod(0o777)

    told = hook.keep_txt_log(Memory().write(tmp_path / "mem"), directory, tmp_path / "lockdown")

    assert told.endswith("is not a directory of this user alone")
    assert list(directory.iterdir()) == []


def test_does_not_follow_a_link_in_the_place_of_its_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "boot").symlink_to(elsewhere)

    told = hook.keep_txt_log(
        Memory().write(tmp_path / "mem"), tmp_path / "run" / "boot", tmp_path / "lockdown"
    )

    assert told.endswith("is not a directory of this user alone")
    assert list(elsewhere.iterdir()) == []


def test_ends_in_time_and_well_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def hang(*_: object) -> None:
        hook.signal.pause()

    monkeypatch.setattr(hook, "WITHIN_S", 1)
    monkeypatch.setattr(hook, "run", hang)

    hook.main()

    assert (
        capsys.readouterr().err
        == "ovirt-tcp: the boot hook failed: OutOfTime: not done within 1 s\n"
    )


class Machine:
    """What a host shows to root, and its programs; the hook runs on it as VDSM runs it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.boot = directory, directory / "run" / "boot"
        self.memory = Memory().write(directory / "mem")
        self.firmware_log = directory / "binary_bios_measurements"
        self.firmware_log.write_bytes(b"firmware's log")
        self.tpm = directory / "tpm0"
        (self.tpm / "pcr-sha256").mkdir(parents=True)
        (self.tpm / "pcr-sha256" / "17").write_text("AB" * 32 + "\n")
        self.program("txt-stat", "echo TXT measured launch: TRUE")
        self.program("systemctl", f'echo "$@" > {directory}/told')

    def program(self, name: str, script: str) -> None:
        (self.directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.directory / name).chmod(0o755)

    def start_vdsm(self, **changes: object) -> list[str]:
        """Return what the hook told, line by line, once VDSM could start."""
        places = {
            "MEMORY": str(self.memory),
            "FIRMWARE_LOG": str(self.firmware_log),
            "TPM": str(self.tpm),
            "TXT_STAT": str(self.directory / "txt-stat"),
            "SYSTEMCTL": str(self.directory / "systemctl"),
            "DIRECTORY": str(self.boot),
            **changes,
        }
        script = vdsm.install(HOOK, self.directory / "hooks", "before_vdsm_start", **places)
        done = subprocess.run([script], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout) == (0, "")
        assert all(line.startswith("ovirt-tcp: ") for line in done.stderr.splitlines())
        return [line.removeprefix("ovirt-tcp: ") for line in done.stderr.splitlines()]

    def kept(self) -> dict[str, bytes]:
        return (
            {path.name: path.read_bytes() for path in self.boot.iterdir()}
            if self.boot.exists()
            else {}
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_with_nothing_at_all_starts_vdsm_and_tells_why_no_log_is_there(
    machine: Machine,
) -> None:
    nothing = "/no/such/place"
    places = {name: nothing for name in ("MEMORY", "FIRMWARE_LOG", "TPM", "TXT_STAT", "SYSTEMCTL")}

    told = machine.start_vdsm(**places)

    assert [line.split(":")[0] for line in told] == [
        "unknown whether a measured launch took place",
        "no event log of the firmware",
        "the agent was not woken",
        "the kernel shows no PCR",
        "no txt-stat",
    ]
    assert sorted(machine.kept()) == ABSENCES


def test_programs_that_fail_or_hang_hold_nothing_up(machine: Machine) -> None:
    machine.program("systemctl", "exec sleep 60")
    machine.program("txt-stat", "echo 'ERROR: cannot open /dev/mem'; exit 1")
    began = time.monotonic()

    told = machine.start_vdsm(COMMAND_WITHIN_S=1)

    assert time.monotonic() - began < 10
    assert "timed out" in told[2]
    assert told[4] == "no txt-stat: status 1, ERROR: cannot open /dev/mem"
    assert "txt_stat" not in machine.kept()


def test_all_of_it_is_bounded(machine: Machine) -> None:
    machine.program("systemctl", "exec sleep 60")

    told = machine.start_vdsm(WITHIN_S=1)

    assert told[-1] == "the boot hook failed: OutOfTime: not done within 1 s"
    assert {"txt_event_log", "firmware_event_log"} <= set(machine.kept())


def test_keeps_everything_for_the_agents_group_and_wakes_the_agent(machine: Machine) -> None:
    told = machine.start_vdsm(GROUP=grp.getgrgid(os.getegid()).gr_name)

    assert len(told) == 5
    assert machine.kept() == {
        "txt_event_log": TXT_LOG,
        "firmware_event_log": b"firmware's log",
        "pcrs": f"sha256 17 {'AB' * 32}\n".encode(),
        "txt_stat": b"TXT measured launch: TRUE\n",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in machine.boot.iterdir()} == {0o640}
    assert (
        machine.directory / "told"
    ).read_text() == "--no-block try-reload-or-restart ovirt-tcp-agent.service\n"


def test_what_a_boot_no_longer_has_is_removed(machine: Machine) -> None:
    machine.start_vdsm()
    machine.firmware_log.unlink()

    machine.start_vdsm()

    assert "firmware_event_log" not in machine.kept()


def test_the_longest_log_is_the_same_for_hook_agent_and_server() -> None:
    assert hook.MAX_LOG_SIZE == evidence.MAX_LOG_SIZE


def test_a_firmware_log_of_2_mib_is_handed_over(machine: Machine) -> None:
    machine.firmware_log.write_bytes(b"log." * (512 * 1024))

    machine.start_vdsm()

    kept = machine.boot / "firmware_event_log"
    assert kept.read_bytes() == machine.firmware_log.read_bytes()


def test_of_a_firmware_log_that_is_too_long_only_the_length_is_handed_over(
    machine: Machine,
) -> None:
    size = 3 * hook.MAX_LOG_SIZE + 5
    machine.firmware_log.write_bytes(bytes(size))

    told = machine.start_vdsm()

    kept = (machine.boot / "firmware_event_log").stat()
    assert kept.st_size == size
    assert kept.st_blocks == 0
    assert any(f"the event log of the firmware has {size} bytes" in line for line in told)


def test_the_list_of_a_tpm_12_is_kept_as_it_is(machine: Machine) -> None:
    (machine.tpm / "pcr-sha256" / "17").unlink()
    (machine.tpm / "device").mkdir()
    (machine.tpm / "device" / "pcrs").write_text("PCR-00: AA \n")

    machine.start_vdsm()

    assert machine.kept()["pcrs"] == b"PCR-00: AA \n"
