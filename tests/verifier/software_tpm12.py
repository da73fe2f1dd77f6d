# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM 1.2 whose keys the test holds, so that it can sign what no real TPM would."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2, tpm12
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.quote12 import EnrolledTpm12
from tests.verifier.software_tpm import BOOT_ID

SHA1 = hashes.SHA1()  # noqa: S303 - TPM 1.2 has no other
LABEL = b"l" * 20

_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(4)]


def modulus(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_numbers().n.to_bytes(256, "big")


def launch_events(kernel: bytes = b"kernel") -> list[eventlog.Event]:
    """Return a short launch in the one bank that there is."""

    def event(pcr: int, kind: int, measured: bytes) -> eventlog.Event:
        return eventlog.Event(pcr, kind, {"sha1": tpm12.sha1(measured)}, b"")

    return [
        event(17, eventlog.HASH_START, b"sinit"),
        event(17, eventlog.MLE_HASH, b"tboot"),
        event(17, eventlog.TBOOT_MODULE, b"policy"),
        event(17, eventlog.TBOOT_MODULE, kernel),
        event(18, 0x410, b"sinit key"),
        event(18, eventlog.TBOOT_MODULE, b"policy"),
    ]


class SoftwareTpm12:
    """A host's TPM after a measured launch. Change an attribute, and the next evidence tells so."""

    def __init__(self, number: int = 0) -> None:
        self.ek_key, self.ak_key = _KEYS[2 * number], _KEYS[2 * number + 1]
        ek = tpm12.encode_public_key(tpm12.ES_RSAES_OAEP, tpm12.SS_NONE, modulus(self.ek_key))
        self.ek = tpm12.parse_public_key(ek)
        self.ak = self.identity().public
        self.boot_id, self.form = BOOT_ID, "quote2"
        self.boot(launch_events())

    def boot(self, events: list[eventlog.Event]) -> None:
        """Go through a launch with these events."""
        self.log = eventlog.encode(events, ["sha1"])
        self.pcrs = eventlog.replay(events, "sha1", range(24))

    def host(self, name: str = "host-1") -> EnrolledTpm12:
        return EnrolledTpm12(name, self.ek, self.ak)

    def report(
        self, issued: IssuedNonce, selection: tpm2.Selection | None = None, **changes: object
    ) -> evidence.Evidence:
        """Return evidence for a nonce.

        `selection` is what is quoted instead of what was asked for.
        """
        indices = (issued.challenge.selection if selection is None else selection).get("sha1", ())
        data = evidence.qualifying_data(issued.challenge.nonce, self.boot_id, 7)
        attest, signature = getattr(self, self.form)(data[:20], indices)
        reported = {
            "nonce": issued.challenge.nonce,
            "attest": attest,
            "signature": signature,
            "pcrs": {"sha1": {index: self.pcrs[index] for index in indices}},
            "logs": {"txt": self.log},
            "boot_id": self.boot_id,
            "boottime_ms": 7,
            "agent_version": "test",
        }
        return evidence.Evidence(**{**reported, **changes})  # type: ignore[arg-type]

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
        attest = tpm12.encode_quote2(
            external_data, tpm12.encode_selection(indices) + b"\1" + digest, b""
        )
        return attest, self.sign(attest)

    def sign(self, message: bytes) -> bytes:
        return self.ak_key.sign(message, padding.PKCS1v15(), SHA1)

    def activate(self, attestation: bytes, contents: bytes) -> bytes:
        """Return what a credential protects.

        As TPM_ActivateIdentity and the host do with this EK and AK.
        """
        opened = TpmReader(
            self.ek_key.decrypt(contents, padding.OAEP(padding.MGF1(SHA1), SHA1, b"TCPA")),
            "contents",
        )
        aes_key, named = tpm12.take_symmetric_key(opened), opened.take(20)
        opened.end()
        if named != self.ak.digest:
            raise ValueError("TPM_BAD_PARAMETER")
        initial, encrypted = tpm12.parse_attestation(attestation)
        decryptor = Cipher(algorithms.AES(aes_key), modes.CBC(initial)).decryptor()
        unpadder = block_padding.PKCS7(128).unpadder()
        return (
            unpadder.update(decryptor.update(encrypted) + decryptor.finalize())
            + unpadder.finalize()
        )
