# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The physical memory of a host after a measured launch, as far as its boot hook looks at it.

TXT's registers, the heap that BIOS and SINIT filled, and the event log to which it points: a sparse
file of 4 GiB.

Sources: Intel "TXT Software Development Guide", appendix B (registers), C (heap) and G (event log);
tboot's `include/txt/heap.h`.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import boot_hook
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.messages import eventlog, tpm2

# Which element of the heap tells where the log is.
SHA1_LOG = boot_hook.SHA1_LOG_ELEMENT
BANK_LOGS = boot_hook.BANK_LOGS_ELEMENT
AGILE_LOG = boot_hook.AGILE_LOG_ELEMENT

_SIZE = 1 << 32
_HEAP = 0x10020000
_HEAP_SIZE = 0x20000
_LOGS = 0x20001000
# As tboot sets aside for each log; the rest of it is rubbish.
_ALLOCATED = 0x8000
_RUBBISH = b"\xff"
_CHIPSET = 0xB00600008086
_OPEN = 0x1C090
_BIOS_DATA = 0x40
_OS_MLE_DATA = 0x100
_SINIT_MLE_DATA = 0x80
_VERSION = 7
# acm_version and flags, an element that nobody looks for.
_OTHER_ELEMENT = (1, bytes(8))


@dataclasses.dataclass(frozen=True)
class _Placed:
    """An element's content, and what lies where it points."""

    element: bytes
    logs: bytes


def write(
    path: Path, events: Optional[Sequence[eventlog.Event]], banks: Sequence[str], element: int
) -> None:
    """Write the memory of a host.

    Args:
        events: of its launch; None if none took place.
        element: kind of the heap's element that points to the log; 0 for none.
    """
    placed = _Placed(b"", b"")
    if events is not None and element:
        placed = _place(events, banks, element)
    with path.open("wb") as file:
        file.truncate(_SIZE)
        _put(file.fileno(), boot_hook.REGISTERS + boot_hook.DIDVID, _u64(_CHIPSET))
        done = boot_hook.SENTER_DONE if events is not None else 0
        _put(file.fileno(), boot_hook.REGISTERS + boot_hook.STS, _u64(_OPEN | done))
        heap = _u64(_HEAP) + _u64(_HEAP_SIZE)
        _put(file.fileno(), boot_hook.REGISTERS + boot_hook.HEAP_BASE, heap)
        _put(file.fileno(), _HEAP, _heap(element, placed.element))
        _put(file.fileno(), _LOGS, placed.logs)


def _put(descriptor: int, address: int, content: bytes) -> None:
    os.pwrite(descriptor, content, address)


def _heap(kind: int, place: bytes) -> bytes:
    elements = [_OTHER_ELEMENT, (kind, place), (boot_hook.END_ELEMENT, b"")]
    body = b""
    for number, content in elements:
        body += struct.pack("<II", number, 8 + len(content)) + content
    head = struct.pack("<QI", 8 + boot_hook.ELEMENTS + len(body), _VERSION)
    os_sinit = head.ljust(8 + boot_hook.ELEMENTS, b"\0") + body
    return _table(_BIOS_DATA) + _table(_OS_MLE_DATA) + os_sinit + _table(_SINIT_MLE_DATA)


def _table(size: int) -> bytes:
    return _u64(size).ljust(size, b"\0")


def _place(events: Sequence[eventlog.Event], banks: Sequence[str], element: int) -> _Placed:
    if element == SHA1_LOG:
        return _Placed(_u64(_LOGS), _container(eventlog.encode_sha1(events)))
    if element == BANK_LOGS:
        return _logs_of_banks(events, banks)
    log = launch.log_of(events, banks)
    place = struct.pack("<QIII", _LOGS, _ALLOCATED, 0, len(log))
    return _Placed(place, log.ljust(_ALLOCATED, _RUBBISH))


def _container(log: bytes) -> bytes:
    """Return a log within an event_log_container_t."""
    first = struct.calcsize(boot_hook.CONTAINER)
    signature = boot_hook.CONTAINER_SIGNATURE
    head = struct.pack(boot_hook.CONTAINER, signature, _ALLOCATED, first, first + len(log))
    return (head + log).ljust(_ALLOCATED, _RUBBISH)


def _logs_of_banks(events: Sequence[eventlog.Event], banks: Sequence[str]) -> _Placed:
    """Return a heap_event_log_ptr_elt2_t, and a log for each bank."""
    element = struct.pack("<I", len(banks))
    logs = b""
    for bank in banks:
        log = _log_of_bank(events, bank)
        place = (tpm2.HASH_IDS[bank], _LOGS + len(logs), _ALLOCATED, 0, len(log))
        element += struct.pack(boot_hook.BANK_LOG, *place)
        logs += log.ljust(_ALLOCATED, _RUBBISH)
    return _Placed(element, logs)


def _log_of_bank(events: Sequence[eventlog.Event], bank: str) -> bytes:
    log = b""
    if bank != "sha1":
        # What the log is, in a record with the digest of SHA-1.
        log = struct.pack("<II20sI", 0, eventlog.NO_ACTION, b"", 28) + bytes(28)
    for event in events:
        if bank in event.digests:
            log += struct.pack("<II", event.pcr, event.type) + event.digests[bank]
            log += struct.pack("<I", len(event.data)) + event.data
    return log


def _u64(number: int) -> bytes:
    return struct.pack("<Q", number)
