# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the digest of a step proves about Secure Boot.

A variable that has two values has two digests, so the digest alone proves the value, whatever the
log says in words.

Sources: UEFI 2.10, 3.3 (SecureBoot); TCG "PC Client Platform Firmware Profile" 1.06, 3.3.4.8 (what
goes into PCR 7, and in which order) and 10.2.6 (UEFI_VARIABLE_DATA); shim's `mok.c` (MokSBState).
"""

from __future__ import annotations

import enum
import functools
import hashlib
import struct
import uuid
from collections.abc import Mapping
from typing import Optional

from ovirt_tcp_plugin.messages import tpm2

# EFI_GLOBAL_VARIABLE
GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
# EFI_IMAGE_SECURITY_DATABASE_GUID
IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
# shim's own variables
SHIM = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23")


class State(enum.Enum):
    """What a step of PCR 7 proves; the value is how a sentence says it."""

    ON = " (on)"
    OFF = " (off)"
    ABSENT = " (off: the firmware has no such variable)"
    # shim then lets every boot loader and kernel pass, and GRUB does not ask it.
    NOT_VALIDATED = " (on, but shim was told not to validate: MokSBState)"


def variable_data(owner: uuid.UUID, name: str, content: bytes) -> bytes:
    """Return a UEFI_VARIABLE_DATA: what is measured of a variable."""
    lengths = struct.pack("<QQ", len(name), len(content))
    return owner.bytes_le + lengths + name.encode("utf-16-le") + content


def state_of(digest: str) -> Optional[State]:
    """Return what the digest of a step proves about Secure Boot, None if nothing.

    Args:
        digest: lower-case hex.
    """
    return _states().get(digest)


def separator_digests() -> frozenset[str]:
    """Return the digests of the separator that ends the firmware's own part of PCR 7."""
    return frozenset(hashlib.new(bank, bytes(4)).hexdigest() for bank in tpm2.HASH_IDS)


@functools.lru_cache(1)
def _states() -> Mapping[str, State]:
    contents = {
        State.ON: variable_data(GLOBAL, "SecureBoot", b"\1"),
        State.OFF: variable_data(GLOBAL, "SecureBoot", b"\0"),
        State.ABSENT: variable_data(GLOBAL, "SecureBoot", b""),
        State.NOT_VALIDATED: variable_data(SHIM, "MokSBState", b"\1"),
    }
    states = {}
    for bank in tpm2.HASH_IDS:
        for state, content in contents.items():
            states[hashlib.new(bank, content).hexdigest()] = state
    return states
