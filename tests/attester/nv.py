# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Fills NV indices of a software TPM as a maker does."""

from __future__ import annotations

import struct

from ovirt_tcp_plugin.attester.tpm import NV_CHUNK, RS_PW, Tpm
from ovirt_tcp_plugin.messages import tpm2

_RH_PLATFORM = 0x4000000C
# PPWRITE, AUTHREAD, PPREAD, NO_DA, and the platform's.
_ATTRIBUTES = 0x42050001


def define(tpm: Tpm, index: int, size: int) -> None:
    """Define an index, which nobody has written then."""
    area = struct.pack(">IHIHH", index, tpm2.HASH_IDS["sha256"], _ATTRIBUTES, 0, size)
    parameters = struct.pack(">H", 0) + struct.pack(">H", len(area)) + area
    tpm.execute("TPM2_NV_DefineSpace", 0x12A, [_RH_PLATFORM], [RS_PW], parameters)


def undefine(tpm: Tpm, index: int) -> None:
    """Remove an index of the platform."""
    tpm.execute("TPM2_NV_UndefineSpace", 0x122, [_RH_PLATFORM, index], [RS_PW])


def write(tpm: Tpm, index: int, content: bytes) -> None:
    """Define an index with this content."""
    define(tpm, index, len(content))
    for offset in range(0, len(content), NV_CHUNK):
        chunk = content[offset : offset + NV_CHUNK]
        parameters = struct.pack(">H", len(chunk)) + chunk + struct.pack(">H", offset)
        tpm.execute("TPM2_NV_Write", 0x137, [_RH_PLATFORM, index], [RS_PW], parameters)
