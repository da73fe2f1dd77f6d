# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM 1.2 whose keys the test holds, so that it can sign what no real TPM would."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ovirt_tcp_plugin.messages import tpm12
from ovirt_tcp_plugin.messages.octets import Octets

SHA1 = hashes.SHA1()  # noqa: S303 - TPM 1.2 has no other
LABEL = b"l" * 20

_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(4)]


def modulus(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_numbers().n.to_bytes(256, "big")


class SoftwareTpm12:
    """Change an attribute, and the next quote tells so."""

    def __init__(self, number: int = 0) -> None:
        self.ek_key, self.ak_key = _KEYS[2 * number], _KEYS[2 * number + 1]
        ek = tpm12.encode_public_key(tpm12.ES_RSAES_OAEP, tpm12.SS_NONE, modulus(self.ek_key))
        self.ek = tpm12.parse_public_key(ek)
        self.ak = self.identity().public
        self.pcrs = {index: bytes([index]) * 20 for index in range(24)}

    def identity(
        self, usage: int = tpm12.USAGE_IDENTITY, flags: int = 0, scheme: int = tpm12.SS_RSASSA_SHA1
    ) -> tpm12.Key:
        """Return the AK as TPM_MakeIdentity gives it, without the private part."""
        head = struct.pack(">HHHIB", tpm12.TAG_KEY12, 0, usage, flags, tpm12.AUTH_NEVER)
        area = head + tpm12.encode_rsa_parameters(tpm12.ES_NONE, scheme) + bytes(4)
        return tpm12.parse_key(area + struct.pack(">I", 256) + modulus(self.ak_key) + bytes(4))

    def bind(self, label_digest: bytes = LABEL) -> bytes:
        """Return the binding of TPM_MakeIdentity."""
        return self.sign(tpm12.identity_contents(label_digest, self.ak))

    def quote(self, external_data: bytes, indices: tuple[int, ...]) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature) in the form "QUOT"."""
        digest = tpm12.composite_digest({index: self.pcrs[index] for index in indices})
        attest = tpm12.encode_quote(external_data, digest)
        return attest, self.sign(attest)

    def quote2(self, external_data: bytes, indices: tuple[int, ...]) -> tuple[bytes, bytes]:
        """Return (signed bytes, signature) in the form "QUT2"."""
        digest = tpm12.composite_digest({index: self.pcrs[index] for index in indices})
        attest = tpm12.encode_quote2(external_data, tpm12.encode_selection(indices) + b"\1" + digest, b"")
        return attest, self.sign(attest)

    def sign(self, message: bytes) -> bytes:
        return self.ak_key.sign(message, padding.PKCS1v15(), SHA1)

    def activate(self, attestation: bytes, contents: bytes) -> bytes:
        """Return what a credential protects, as TPM_ActivateIdentity and the host do with this EK and AK."""
        opened = Octets(self.ek_key.decrypt(contents, padding.OAEP(padding.MGF1(SHA1), SHA1, b"TCPA")), "contents")
        aes_key, named = tpm12.take_symmetric_key(opened), opened.take(20)
        opened.end()
        if named != self.ak.digest:
            raise ValueError("TPM_BAD_PARAMETER")
        initial, encrypted = tpm12.parse_attestation(attestation)
        decryptor = Cipher(algorithms.AES(aes_key), modes.CBC(initial)).decryptor()
        unpadder = block_padding.PKCS7(128).unpadder()
        return unpadder.update(decryptor.update(encrypted) + decryptor.finalize()) + unpadder.finalize()
