# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads numbers and byte strings from an untrusted buffer, never past its end."""

from __future__ import annotations

import struct
from typing import Any, Literal

from ovirt_tcp_plugin import errors


class TpmReader:
    """A cursor over bytes of one byte order.

    Args:
        untrusted: the bytes.
        what: the message's name, for the error.
        order: ">" for TPM structures, "<" for TCG event logs.
    """

    def __init__(self, untrusted: bytes, what: str, order: str = ">") -> None:
        self._bytes = untrusted
        self._what = what
        self._order: Literal["big", "little"] = "big" if order == ">" else "little"
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises InvalidMessage when there are fewer, or for a negative size.
        """
        end = self.position + size
        if size < 0 or end > len(self._bytes):
            raise self.invalid(f"ends at byte {len(self._bytes)}, {end} were announced")
        taken = self._bytes[self.position : end]
        self.position = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), self._order)

    def u32(self) -> int:
        return int.from_bytes(self.take(4), self._order)

    def u64(self) -> int:
        return int.from_bytes(self.take(8), self._order)

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return several numbers at once. Raises InvalidMessage when they are not all there."""
        return layout.unpack(self.take(layout.size))

    def sized(self, most: int) -> bytes:
        """Return a byte string with a two-byte length before it (TPM2B_*), at most `most` bytes."""
        size = self.u16()
        if size > most:
            raise self.invalid(f"a field of {size} bytes, at most {most} are allowed")
        return self.take(size)

    def since(self, start: int) -> bytes:
        """Return the bytes read from position `start` on."""
        return self._bytes[start : self.position]

    @property
    def left(self) -> int:
        """Number of bytes not read yet."""
        return len(self._bytes) - self.position

    def end(self) -> None:
        """Raise InvalidMessage when bytes are left."""
        if self.left:
            raise self.invalid(f"{self.left} bytes too many")

    def invalid(self, reason: str) -> errors.InvalidMessage:
        """Return the error of this message with that reason."""
        return errors.InvalidMessage(self._what, reason)
