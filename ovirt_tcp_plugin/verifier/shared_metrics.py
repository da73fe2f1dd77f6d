# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What each process of a server tells the others.

It is the newest text of each, in memory that all of them share.

Made before they are forked. Nobody waits for anybody: a text that is read while it is written shows
by its checksum.
"""

from __future__ import annotations

import mmap
import struct
import zlib

# Of one process; memory that is not written costs nothing.
SLOT_SIZE = 256 * 1024
_HEADER = struct.Struct("<II")  # length, CRC-32
MAX_TEXT = SLOT_SIZE - _HEADER.size
_TRIES = 100


class SharedMetrics:
    """Room for the texts of `count` processes."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * SLOT_SIZE)
        self._count = count
        self._read: dict[int, bytes] = {}

    def write(self, number: int, text: bytes) -> None:
        """Replace the text of a process; only that process does.

        One longer than MAX_TEXT is not taken.
        """
        if len(text) <= MAX_TEXT:
            start = number * SLOT_SIZE
            self._memory[start + _HEADER.size : start + _HEADER.size + len(text)] = text
            self._memory[start : start + _HEADER.size] = _HEADER.pack(len(text), zlib.crc32(text))

    def others(self, number: int) -> list[bytes]:
        """Return the newest texts of all other processes, empty of those that wrote none yet."""
        return [self._newest(other) for other in range(self._count) if other != number]

    def _newest(self, number: int) -> bytes:
        start = number * SLOT_SIZE
        for _ in range(_TRIES):
            size, checksum = _HEADER.unpack(self._memory[start : start + _HEADER.size])
            text = self._memory[start + _HEADER.size : start + _HEADER.size + min(size, MAX_TEXT)]
            if zlib.crc32(text) == checksum:
                self._read[number] = text
                break
        return self._read.get(number, b"")
