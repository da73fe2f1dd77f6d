#!/usr/bin/python3 -I
# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VDSM hook before_vdsm_start: give the agent what only root can read of this boot.

And wake the agent.

The event log of the measured launch (Intel TXT) lies in physical memory, that of the firmware in
securityfs; the agent is not root. This hook copies them and judges nothing: what a log says is
believed only if it replays to the PCRs that the TPM signs. PCR values and `txt-stat` are for
people.

Sources: Intel "TXT Software Development Guide", appendix B (registers), C (heap) and G (event log);
tboot's `include/txt/heap.h`. VDSM ignores how this hook ends, and it never keeps VDSM waiting for
long.
"""

from __future__ import annotations

import glob
import grp
import mmap
import os
import signal
import stat
import struct
import subprocess
import sys

# As in the gate: importing typing costs time, and type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any, Optional, Union

MEMORY = "/dev/mem"
FIRMWARE_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
LOCKDOWN = "/sys/kernel/security/lockdown"
TPM = "/sys/class/tpm/tpm0"
TXT_STAT = "/usr/sbin/txt-stat"
SYSTEMCTL = "/usr/bin/systemctl"
AGENT = "ovirt-tcp-agent.service"

DIRECTORY = "/run/ovirt-tcp/boot"
TXT_LOG_NAME = "txt_event_log"
FIRMWARE_LOG_NAME = "firmware_event_log"
PCRS_NAME = "pcrs"
TXT_STAT_NAME = "txt_stat"
GROUP = "ovirt-tcp-agent"
# Beside the place of a log that is not there: a word of these, and a sentence, a line each.
ABSENCE = ".absent"
ABSENT = "absent"
UNREADABLE = "unreadable"
NO_LAUNCH = "no_launch"
LOCKED_DOWN = "locked_down"
WAY_OUT = (
    "the kernel is locked down, as under Secure Boot, and closes /dev/mem: no log of a "
    "measured launch can be read. Boot with Secure Boot off, or choose another profile than txt"
)

WITHIN_S = 10
COMMAND_WITHIN_S = 3

# Public registers of TXT.
REGISTERS = 0xFED30000
STS = 0x000
DIDVID = 0x110
HEAP_BASE = 0x300
HEAP_SIZE = 0x308
SENTER_DONE = 1
INTEL = 0x8086

# Real heaps have 1 MiB or less, real logs 64 KiB or less.
MAX_HEAP_SIZE = 16 * 1024 * 1024
# `ovirt_tcp_plugin.messages.evidence` says why. Of a longer log only the length is told, which is
# counted up to the second number.
MAX_LOG_SIZE = 4 * 1024 * 1024
MAX_COUNTED_SIZE = 64 * 1024 * 1024
MAX_ELEMENTS = 64
# txt-stat prints 32 KiB of tboot's log at most; sysfs has one short line a PCR.
MAX_TEXT_SIZE = 256 * 1024

# OsSinitData: its extended elements begin behind 92 bytes, from version 6 on.
ELEMENTS = 92
ELEMENTS_SINCE = 6
END_ELEMENT = 0
# The log of a TPM 1.2; those of a TPM 2.0, one for each bank, by older SINITs; one for all banks.
SHA1_LOG_ELEMENT = 5
BANK_LOGS_ELEMENT = 7
AGILE_LOG_ELEMENT = 8

# event_log_container_t, which holds the log of a TPM 1.2: signature, 16 bytes, size, offsets of the
# first event and of the next one.
CONTAINER = "<20s16xIII"
CONTAINER_SIGNATURE = b"TXT Event Container\0"
# heap_event_log_descr_t: hash, address, size, offsets of the first event and of the next one.
BANK_LOG = "<HxxQIII"
MAX_BANKS = 8
# Numbers of the hashes (TCG Algorithm Registry) with the sizes of their digests.
DIGEST_SIZES = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
SHA1 = 0x0004
NO_ACTION = 3
SPEC_ID = b"Spec ID Event03\0"


class OutOfTime(BaseException):
    """The alarm. No part of the work may take it for a fault of its own."""


class Unknown(Exception):
    """Whether there was a launch, or what its log says, cannot be told.

    Says nothing about trust.
    """


def read_log(memory: IO[bytes]) -> Optional[bytes]:
    """Return the log of the measured launch in `memory`, None if there was no launch.

    Args:
        memory: the physical memory, an open file that can be mapped.

    Raises:
        Unknown: the memory cannot be read, or what it holds makes no sense.
    """
    if read_u64(memory, REGISTERS + DIDVID) & 0xFFFF != INTEL:
        return None  # no TXT in this chipset: nothing answers, and every bit reads as one
    if not read_u64(memory, REGISTERS + STS) & SENTER_DONE:
        return None
    base = read_u64(memory, REGISTERS + HEAP_BASE)
    size = read_u64(memory, REGISTERS + HEAP_SIZE)
    if not base or not 0 < size <= MAX_HEAP_SIZE:
        raise Unknown(f"the TXT heap has an impossible place or size ({base:#x}, {size:#x})")
    heap = read(memory, base, size)
    kind, position = find_log(heap)
    if kind == SHA1_LOG_ELEMENT:
        return read_container(memory, *unpack("<Q", heap, position))
    if kind == BANK_LOGS_ELEMENT:
        return read_bank_logs(memory, heap, position)
    address, allocated, first, following = unpack("<QIII", heap, position)
    return read_log_at(memory, *log_place(address, allocated, first, following))


def find_log(heap: bytes) -> tuple[int, int]:
    """Return (kind, position of its data) of the element that tells where the log is.

    Raises:
        Unknown: a size that leaves the heap, an old version, or no log.
    """
    position = 0
    # BiosData, OsMleData: each begins with its size, which includes the size field.
    for _ in range(2):
        position += table_size(heap, position)
    end = position + table_size(heap, position)
    (version,) = unpack("<I", heap, position + 8)
    if version < ELEMENTS_SINCE:
        raise Unknown(f"OsSinitData has version {version}, at least {ELEMENTS_SINCE} is needed")
    position += 8 + ELEMENTS
    for _ in range(MAX_ELEMENTS):
        kind, size = unpack("<II", heap, position)
        if kind == END_ELEMENT:
            break
        if size < 8 or position + size > end:
            raise Unknown("an element of OsSinitData leaves it")
        if kind in (SHA1_LOG_ELEMENT, BANK_LOGS_ELEMENT, AGILE_LOG_ELEMENT):
            return kind, position + 8
        position += size
    raise Unknown("the TXT heap tells of no event log")


def log_place(address: int, allocated: int, first: int, following: int) -> tuple[int, int]:
    """Return (address, size) from first to next record; what lies behind `next` is rubbish."""
    if not address or allocated > MAX_LOG_SIZE or not first < following <= allocated:
        raise Unknown(
            f"the event log has an impossible place or size ({address:#x}, {allocated:#x})"
        )
    return address + first, following - first


def read_log_at(memory: IO[bytes], address: int, size: int) -> bytes:
    """Return that memory if a crypto-agile log begins there. Raises Unknown."""
    content = read(memory, address, size)
    # TCG_PCR_EVENT: PCR, type EV_NO_ACTION, 20 bytes SHA-1, size, and the signature of the format.
    if content[4:8] != b"\x03\0\0\0" or content[32:48] != SPEC_ID:
        raise Unknown("what the TXT heap points to is no event log")
    return content


def read_container(memory: IO[bytes], address: int) -> bytes:
    """Return the events of a TPM 1.2, in TCG's older format. Raises Unknown."""
    head = read(memory, address, struct.calcsize(CONTAINER))
    signature, size, first, following = struct.unpack(CONTAINER, head)
    if signature != CONTAINER_SIGNATURE:
        raise Unknown("what the TXT heap points to is no event log of a TPM 1.2")
    return read(memory, *log_place(address, size, first, following))


def read_bank_logs(memory: IO[bytes], heap: bytes, position: int) -> bytes:
    """Return the logs of all banks as one crypto-agile log: their events one bank after the other.

    A bank's PCRs replay from its own events only, so their order among banks does not matter.

    Raises:
        Unknown: a log is cut off, none has an event, or a hash is not known.
    """
    (count,) = unpack("<I", heap, position)
    if not 1 <= count <= MAX_BANKS:
        raise Unknown(f"the TXT heap tells of {count} event logs")
    banks: list[int] = []
    events = b""
    for number in range(count):
        place = position + 4 + number * struct.calcsize(BANK_LOG)
        bank, address, size, first, following = unpack(BANK_LOG, heap, place)
        if bank not in DIGEST_SIZES or bank in banks:
            raise Unknown(f"the TXT heap tells of an event log with hash {bank:#06x}, or twice")
        if first != following:
            banks.append(bank)
            events += agile_events(read(memory, *log_place(address, size, first, following)), bank)
    if not banks:
        raise Unknown("the TXT heap tells of event logs without an event")
    algorithms = [struct.pack("<HH", bank, DIGEST_SIZES[bank]) for bank in banks]
    header = SPEC_ID + bytes(8) + struct.pack("<I", len(banks)) + b"".join(algorithms) + b"\0"
    return struct.pack("<II20xI", 0, NO_ACTION, len(header)) + header + events


def agile_events(content: bytes, bank: int) -> bytes:
    """Return the events of one bank's log as those of a crypto-agile log. Raises Unknown."""
    size = DIGEST_SIZES[bank]
    position = 0
    if bank != SHA1:
        # A record with the digest of SHA-1 tells what the log is.
        position = 32 + u32_of_log(content, 28)
    events = b""
    while position < len(content):
        digest_end = position + 8 + size
        head = content[position : position + 8]
        digest = content[position + 8 : digest_end]
        end = digest_end + 4 + u32_of_log(content, digest_end)
        if end > len(content):
            raise Unknown("an event log of the TXT heap is cut off")
        events += head + struct.pack("<IH", 1, bank) + digest + content[digest_end:end]
        position = end
    return events


def u32_of_log(content: bytes, position: int) -> int:
    """Return the number at a position of a log. Raises Unknown when it is cut off before."""
    if position + 4 > len(content):
        raise Unknown("an event log of the TXT heap is cut off")
    (number,) = struct.unpack_from("<I", content, position)
    return int(number)


def read(memory: IO[bytes], address: int, size: int) -> bytes:
    """Return `size` bytes of physical memory. Raises Unknown."""
    skipped = address % mmap.ALLOCATIONGRANULARITY
    try:
        # Registers of devices can be mapped, but not be read through the file.
        mapped = mmap.mmap(
            memory.fileno(),
            skipped + size,
            mmap.MAP_SHARED,
            mmap.PROT_READ,
            offset=address - skipped,
        )
    except (OSError, ValueError, OverflowError) as e:
        raise Unknown(f"memory at {address:#x} cannot be read: {e}") from e
    try:
        return mapped[skipped : skipped + size]
    finally:
        mapped.close()


def read_u64(memory: IO[bytes], address: int) -> int:
    """Return the little-endian number at a physical address. Raises Unknown."""
    (number,) = struct.unpack("<Q", read(memory, address, 8))
    return int(number)


def table_size(heap: bytes, position: int) -> int:
    """Return the size of the heap's table at `position`. Raises Unknown when it leaves the heap."""
    (size,) = unpack("<Q", heap, position)
    if not 8 <= size <= len(heap) - position:
        raise Unknown("a table leaves the TXT heap")
    return int(size)


def unpack(form: str, heap: bytes, position: int) -> tuple[Any, ...]:
    """Return numbers of the heap. Raises Unknown when they leave it."""
    if position + struct.calcsize(form) > len(heap):
        raise Unknown("a table leaves the TXT heap")
    return struct.unpack_from(form, heap, position)


def keep(directory: str, name: str, content: Optional[bytes], size: int = 0) -> None:
    """Write a file whole or not at all, readable by the agent's group; None removes it.

    Args:
        size: of the file, if it is to be longer than its content: the rest takes no room.

    Raises:
        OSError: the directory cannot be made or written, or is not ours alone: somebody who may
            write there could have a link wait for root.
    """
    if content is None and not os.path.lexists(directory):
        return
    parent = os.path.dirname(directory)
    for path in (parent, directory):
        if not os.path.isdir(path):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - the agent's user passes through; the umask may be stricter
        check_own(path)
    path = os.path.join(directory, name)
    fresh = path + ".new"
    for old in (fresh,) if content is not None else (fresh, path):
        if os.path.lexists(old):
            os.unlink(old)
    if content is None:
        return
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.ftruncate(descriptor, max(size, len(content)))
        give_to_agent(descriptor)
    os.replace(fresh, path)


def check_own(path: str) -> None:
    """Return if a directory is ours and nobody else may write there. Raises OSError."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not a directory of this user alone")


def give_to_agent(descriptor: int) -> None:
    """Let the agent's group read the file, if there is such a group."""
    try:
        os.fchown(descriptor, -1, grp.getgrnam(GROUP).gr_gid)
    except KeyError:
        return
    finally:
        os.fchmod(descriptor, 0o640)


def keep_txt_log(memory_path: str, directory: str, lockdown_path: str) -> str:
    """Copy the log of the measured launch, and return what to tell of it."""
    try:
        with open(memory_path, "rb") as memory:
            content = read_log(memory)
    except OSError as e:
        note = f"unknown whether a measured launch took place: {e}"
        if locked_down(lockdown_path):
            return keep_absence(directory, TXT_LOG_NAME, LOCKED_DOWN, f"{note}; {WAY_OUT}")
        return keep_absence(directory, TXT_LOG_NAME, UNREADABLE, note)
    except Unknown as e:
        note = f"unknown how the measured launch went: {e}"
        return keep_absence(directory, TXT_LOG_NAME, UNREADABLE, note)
    if content is None:
        note = "no measured launch took place in this boot"
        failure = keep_and_tell(directory, TXT_LOG_NAME, None)
        return failure or keep_absence(directory, TXT_LOG_NAME, NO_LAUNCH, note)
    note = f"kept the event log of the measured launch, {len(content)} bytes"
    return keep_log(directory, TXT_LOG_NAME, content) or note


def locked_down(path: str) -> bool:
    """Return whether the kernel is locked down, as far as it says so."""
    state = read_text(path)
    return bool(state) and "[none]" not in state


def keep_firmware_log(source: str, directory: str) -> str:
    """Copy the firmware's log, and return what to tell of it."""
    try:
        with open(source, "rb") as file:
            content = file.read(MAX_LOG_SIZE + 1)
            size = len(content) + count_rest(file)
    except OSError as e:
        failure = keep_and_tell(directory, FIRMWARE_LOG_NAME, None)
        reason = ABSENT if isinstance(e, FileNotFoundError) else UNREADABLE
        note = f"no event log of the firmware: {e}"
        return failure or keep_absence(directory, FIRMWARE_LOG_NAME, reason, note)
    if size > MAX_LOG_SIZE:
        note = f"the event log of the firmware has {size} bytes, at most {MAX_LOG_SIZE} can be sent"
        return keep_log(directory, FIRMWARE_LOG_NAME, b"", size) or note
    note = f"kept the event log of the firmware, {len(content)} bytes"
    return keep_log(directory, FIRMWARE_LOG_NAME, content) or note


def count_rest(file: IO[bytes]) -> int:
    """Return how many bytes follow in a file, or that there are more than MAX_COUNTED_SIZE."""
    count = 0
    while count <= MAX_COUNTED_SIZE:
        chunk = file.read(MAX_LOG_SIZE)
        if not chunk:
            break
        count += len(chunk)
    return count


def keep_log(directory: str, name: str, content: bytes, size: int = 0) -> str:
    """Keep a log, and drop why there was none; return why it could not be kept, or nothing."""
    failure = keep_and_tell(directory, name, content, size)
    return failure or keep_and_tell(directory, name + ABSENCE, None)


def keep_absence(directory: str, name: str, reason: str, note: str) -> str:
    """Keep why there is no log, for the agent to tell; return the note."""
    content = f"{reason}\n{note}\n".encode("ascii", "replace")
    failure = keep_and_tell(directory, name + ABSENCE, content)
    return f"{note}; {failure}" if failure else note


def keep_pcrs(tpm: str, directory: str) -> str:
    """Copy the PCR values that the kernel shows.

    `BANK INDEX VALUE` line by line, or its own list for a TPM 1.2.
    """
    lines = []
    for path in sorted(glob.glob(os.path.join(glob.escape(tpm), "pcr-*", "*"))):
        bank, index = path.split(os.sep)[-2:]
        lines.append(f"{bank[len('pcr-') :]} {index} {read_text(path).strip()}\n")
    text = "".join(lines) or read_text(os.path.join(tpm, "device", "pcrs"))
    if not text:
        return "the kernel shows no PCR"
    return (
        keep_and_tell(directory, PCRS_NAME, text[:MAX_TEXT_SIZE].encode("ascii", "replace"))
        or "kept the PCR values"
    )


def keep_txt_stat(program: str, directory: str) -> str:
    """Keep what txt-stat prints, and return what to tell of it."""
    done = command([program])
    if isinstance(done, str):
        return f"no txt-stat: {done}"
    return (
        keep_and_tell(directory, TXT_STAT_NAME, done.stdout[:MAX_TEXT_SIZE])
        or "kept what txt-stat prints"
    )


def wake_agent(systemctl: str) -> str:
    """Have the agent report before VDSM answers the engine.

    At the host's boot it starts later, and does so by itself.
    """
    done = command([systemctl, "--no-block", "try-reload-or-restart", AGENT])
    return f"the agent was not woken: {done}" if isinstance(done, str) else "woke the agent"


def command(words: Sequence[str]) -> Union[str, subprocess.CompletedProcess[bytes]]:
    """Return a program that ended well, or why it did not."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_WITHIN_S,
            env={},
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as e:
        return str(e)
    if done.returncode:
        output = (done.stderr or done.stdout).decode("utf-8", "replace").split("\n")[0]
        return f"status {done.returncode}, {output[:200]}"
    return done


def keep_and_tell(directory: str, name: str, content: Optional[bytes], size: int = 0) -> str:
    """Keep a file; return why it could not be kept, or nothing."""
    try:
        keep(directory, name, content, size)
    except OSError as e:
        return f"{name} was not kept: {e}"
    return ""


def read_text(path: str) -> str:
    """Return a file of sysfs, or nothing."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(MAX_TEXT_SIZE)
    except OSError:
        return ""


def run() -> Iterator[str]:
    """Yield what to tell of each part; the logs come first, for the agent sends them."""
    yield keep_txt_log(MEMORY, DIRECTORY, LOCKDOWN)
    yield keep_firmware_log(FIRMWARE_LOG, DIRECTORY)
    yield wake_agent(SYSTEMCTL)
    yield keep_pcrs(TPM, DIRECTORY)
    yield keep_txt_stat(TXT_STAT, DIRECTORY)


def on_alarm(number: int, frame: object) -> None:
    """End the work: VDSM waits."""
    raise OutOfTime(f"not done within {WITHIN_S} s")


def main() -> None:
    """Do it in bounded time, and tell the journal."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(WITHIN_S)
    try:
        for note in run():
            print(f"ovirt-tcp: {note}", file=sys.stderr)
    except (Exception, OutOfTime) as e:  # noqa: BLE001 - the outermost edge: VDSM starts, whatever happens here
        print(f"ovirt-tcp: the boot hook failed: {type(e).__name__}: {e}", file=sys.stderr)
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
