# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Software TPMs of family 1.2, as an administrator hands them to a host.

Certified by their vendor, and owned.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN, Tpm12
from ovirt_tcp_plugin.lab.swtpm import COMMAND_WITHIN_S, Chip, Vendor
from ovirt_tcp_plugin.messages import tpm12

BANKS = (tpm12.BANK,)
STATE_FILE = "tpm-00.permall"

_PID_OWNER = 5  # TPM_PROTOCOL_ID ("TPM Main Specification" 1.2, Part 2, 4.3)


class Swtpm12(Chip):
    """A running TPM 1.2."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, [])

    def connect(self, timeout_s: float = COMMAND_WITHIN_S) -> Tpm12:
        """Return a TPM connected to it. It serves one connection at a time; close it when done."""
        return Tpm12(self.dial(timeout_s))


def manufacture(vendor: Vendor, state: Path, owner: bytes = WELL_KNOWN) -> None:
    """Make a TPM 1.2 with EK certificate, and take its ownership as `tpm_takeownership` does.

    Args:
        owner: the owner's secret, 20 bytes; the SRK's is well known.

    Raises:
        Unavailable: swtpm_setup failed; with its output.
    """
    vendor.set_up(state, [])
    with Swtpm12(state) as chip:
        tpm = chip.connect()
        try:
            take_ownership(tpm, owner)
        finally:
            tpm.close()


def take_ownership(tpm: Tpm12, owner: bytes) -> None:
    """Give the TPM an owner and a new SRK (TPM_TakeOwnership, Part 3, 6.1). Raises Unavailable."""
    key = _read_endorsement_key(tpm)
    # SHA-1: a TPM 1.2 has no other.
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), b"TCPA")  # noqa: S303
    parameters = struct.pack(">H", _PID_OWNER)
    for secret in (owner, WELL_KNOWN):
        encrypted = key.encrypt(secret, oaep)
        parameters += struct.pack(">I", len(encrypted)) + encrypted
    parameters += tpm12.encode_key(
        tpm12.USAGE_STORAGE, tpm12.ES_RSAES_OAEP, tpm12.SS_NONE, tpm12.AUTH_ALWAYS
    )
    tpm.execute("TPM_TakeOwnership", 0x0D, (), parameters, [tpm.plain_session(owner)])


def _read_endorsement_key(tpm: Tpm12) -> rsa.RSAPublicKey:
    nonce = os.urandom(tpm12.DIGEST_SIZE)
    answer = tpm.execute("TPM_ReadPubek", 0x7C, parameters=nonce)
    # A checksum over key and nonce follows.
    ek = tpm12.parse_public_key(answer.take(answer.left - tpm12.DIGEST_SIZE)).key
    return rsa.RSAPublicNumbers(ek.exponent, ek.modulus).public_key()
