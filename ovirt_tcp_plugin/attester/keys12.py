# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The keys of an attester with a TPM 1.2: the certified EK, and the identity key (AIK) that quotes.

Source: "TCG PC Client Specific Implementation Specification" 1.21, 7.4.5 (the EK certificate's
place).
"""

from __future__ import annotations

import hmac
import logging
import struct
from typing import Optional

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.keys import KeyLost, cut_certificate
from ovirt_tcp_plugin.attester.tpm12 import (
    MAX_NV_SIZE,
    RC_BAD_INDEX,
    RC_BAD_ORDINAL,
    RC_INVALID_KEY_HANDLE,
    RC_KEY_LOST,
    WELL_KNOWN,
    Tpm12,
    Tpm12Error,
)
from ovirt_tcp_plugin.messages import tpm2, tpm12

log = logging.getLogger("attester.keys12")

CERTIFICATE_INDEX = 0x1000F000  # TPM_NV_INDEX_EKCert
TAG_STORED_CERTIFICATE = 0x1001  # TCG_PCCLIENT_STORED_CERT: tag, kind, size
TAG_FULL_CERTIFICATE = 0x1002  # TCG_FULL_CERT: tag, DER
_STORED_HEADER = struct.Struct(">HBHH")


def read_certificate(tpm: Tpm12, owner: bytes) -> bytes:
    """Return the DER of the EK certificate, empty if the TPM has none.

    Args:
        owner: the owner's secret; some makers let nobody else read it.

    Raises:
        Unavailable: the TPM refuses to give it.
        InvalidMessage: the area holds something else.
    """
    try:
        header = tpm.read_nv(owner, CERTIFICATE_INDEX, 0, _STORED_HEADER.size)
    except Tpm12Error as e:
        if e.code == RC_BAD_INDEX:
            return b""
        raise
    tag, kind, size, full_tag = _STORED_HEADER.unpack(header)
    if (tag, kind, full_tag) != (
        TAG_STORED_CERTIFICATE,
        0,
        TAG_FULL_CERTIFICATE,
    ) or not 2 < size <= MAX_NV_SIZE:
        raise errors.InvalidMessage("EK certificate", "the NV area holds no whole certificate")
    return cut_certificate(tpm.read_nv(owner, CERTIFICATE_INDEX, _STORED_HEADER.size, size - 2))


class IdentityKey:
    """An identity key, loaded when it is needed, and kept while the connection to the TPM lives.

    Args:
        area: TPM_KEY12 as the TPM made it.
        owner: the owner's secret, which `activate` needs.
    """

    def __init__(self, tpm: Tpm12, area: bytes, owner: bytes = WELL_KNOWN) -> None:
        self.area = area
        self._owner = owner
        self._tpm = tpm
        self._handle: Optional[int] = None
        self._generation = 0

    def quote(self, qualifying_data: bytes, selection: tpm2.Selection) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature); after a TPM reset the key is loaded again, once.

        In the form "QUT2", or "QUOT" where the chip knows no other.

        Raises:
            Unavailable: the TPM does not answer, or refuses.
        """
        external_data = tpm12.external_data(qualifying_data)
        indices = selection.get(tpm12.BANK, ())
        try:
            return self._quote(external_data, indices)
        except Tpm12Error as e:
            if e.code != RC_INVALID_KEY_HANDLE:
                raise
            log.info("reloading key=ak reason=%s", "the TPM no longer has it")
            self._handle = None
        return self._quote(external_data, indices)

    def fits(self, attest: bytes, pcrs: tpm2.PcrValues) -> bool:
        """Return whether the quote is one of these values."""
        quote = tpm12.parse_quote(attest)
        try:
            return hmac.compare_digest(
                tpm12.pcr_digest(quote.selection(pcrs), pcrs), quote.pcr_digest
            )
        except errors.InvalidMessage:
            return False

    def activate(self, attestation: bytes, contents: bytes) -> bytes:
        """Return the secret that a verifier protected for this key and the EK of its TPM.

        Args:
            attestation: TPM_SYM_CA_ATTESTATION.
            contents: TPM_ASYM_CA_CONTENTS, encrypted for the EK.

        Raises:
            Unavailable: the TPM refuses.
            InvalidMessage: what the verifier sent is not of this form.
        """
        initial, encrypted = tpm12.parse_attestation(attestation)
        aes_key = self._tpm.activate_identity(self._owner, self._load(), contents)
        decryptor = Cipher(algorithms.AES(aes_key), modes.CBC(initial)).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        try:
            padded = decryptor.update(encrypted) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as e:
            raise errors.InvalidMessage(
                "TPM_SYM_CA_ATTESTATION", "it does not open with the key that came with it"
            ) from e

    def unload(self) -> None:
        """Flush the key if it is loaded."""
        if self._handle is not None and self._generation == self._tpm.transport.generation:
            self._tpm.flush(self._handle)
        self._handle = None

    def _quote(self, external_data: bytes, indices: tuple[int, ...]) -> tuple[bytes, bytes]:
        try:
            return self._tpm.quote2(self._load(), external_data, indices)
        except Tpm12Error as e:
            if e.code != RC_BAD_ORDINAL:
                raise
        return self._tpm.quote(self._load(), external_data, indices)

    def _load(self) -> int:
        transport = self._tpm.transport
        transport.connect()
        if self._handle is None or self._generation != transport.generation:
            self._tpm.flush_leftovers()
            self._handle = self._load_area()
            self._generation = transport.generation
        return self._handle

    def _load_area(self) -> int:
        try:
            return self._tpm.load_key(self.area)
        except Tpm12Error as e:
            if e.code in RC_KEY_LOST:
                raise KeyLost(e) from e
            raise
