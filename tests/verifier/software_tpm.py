# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A TPM whose keys the test holds, so that it can sign what no real TPM would.

`tests/verifier/real_tpm_test.py` runs the same appraisal on real software TPMs, to prove that this
one tells the truth where it does not lie on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.quote20 import EnrolledTpm20
from ovirt_tcp_plugin.verifier.endorsement import CFB

BOOT_ID = "11111111-2222-3333-4444-555555555555"
REQUIRED = {"sha256": (17, 18)}
AK_ATTRIBUTES = (
    tpm2.FIXED_TPM
    | tpm2.FIXED_PARENT
    | tpm2.SENSITIVE_DATA_ORIGIN
    | tpm2.USER_WITH_AUTH
    | tpm2.RESTRICTED
    | tpm2.SIGN
)
EK_ATTRIBUTES = (
    tpm2.FIXED_TPM
    | tpm2.FIXED_PARENT
    | tpm2.SENSITIVE_DATA_ORIGIN
    | tpm2.ADMIN_WITH_POLICY
    | tpm2.RESTRICTED
    | tpm2.DECRYPT
)

_KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]


def sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def ecc_public(
    key: ec.EllipticCurvePrivateKey,
    attributes: int,
    scheme: int = tpm2.ALG_NULL,
    scheme_hash: int = 0x000B,
    symmetric_bits: int = 0,
    name_hash: int = 0x000B,
) -> tpm2.Public:
    """Return a TPMT_PUBLIC of a P-256 key."""
    symmetric = struct.pack(">H", tpm2.ALG_NULL)
    if symmetric_bits:
        symmetric = struct.pack(">HHH", tpm2.ALG_AES, symmetric_bits, tpm2.ALG_CFB)
    point = key.public_key().public_numbers()
    area = struct.pack(">HHI", tpm2.ALG_ECC, name_hash, attributes) + sized(b"") + symmetric
    area += struct.pack(">H", scheme) + (
        b"" if scheme == tpm2.ALG_NULL else struct.pack(">H", scheme_hash)
    )
    area += struct.pack(">HH", 0x0003, tpm2.ALG_NULL)
    return tpm2.parse_public(
        area + sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))
    )


class SoftwareTpm:
    """A host's TPM after a measured launch. Change an attribute, and the next evidence tells so."""

    def __init__(self, number: int = 0) -> None:
        self.ek_key, self.ak_key = _KEYS[2 * number], _KEYS[2 * number + 1]
        self.ek = ecc_public(self.ek_key, EK_ATTRIBUTES, symmetric_bits=128)
        self.ak = ecc_public(self.ak_key, AK_ATTRIBUTES, tpm2.ALG_ECDSA)
        self.magic, self.type = tpm2.GENERATED_VALUE, tpm2.ST_ATTEST_QUOTE
        self.hash_name, self.hash = "sha256", hashes.SHA256()
        self.clock, self.reset_count, self.restart_count = 1000, 5, 0
        self.safe = True
        self.boot_id, self.boottime_ms = BOOT_ID, 7
        self.signer: bytes | None = None
        self.events = launch_events()
        self.log: bytes | None = eventlog.encode(self.events, ["sha256"])
        self.pcrs = {
            **eventlog.replay(self.events, "sha256", range(24)),
        }

    def host(self, name: str = "host-1") -> EnrolledTpm20:
        return EnrolledTpm20(name, self.ek, self.ak)

    def quote(self, qualifying_data: bytes, selection: tpm2.Selection) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE)."""
        values = b"".join(self.pcrs[index] for indices in selection.values() for index in indices)
        signer = tpm2.qualified_name(self.ek, self.ak) if self.signer is None else self.signer
        attest = struct.pack(">IH", self.magic, self.type) + sized(signer) + sized(qualifying_data)
        counters = (self.clock, self.reset_count, self.restart_count, self.safe)
        attest += struct.pack(">QIIBQ", *counters, 1)
        attest += tpm2.encode_selection(selection) + sized(hashlib.sha256(values).digest())
        return attest, self.sign(attest)

    def sign(self, attest: bytes) -> bytes:
        r, s = decode_dss_signature(self.ak_key.sign(attest, ec.ECDSA(self.hash)))
        header = struct.pack(">HH", tpm2.ALG_ECDSA, tpm2.HASH_IDS[self.hash_name])
        return header + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))

    def activate(self, credential: bytes, encrypted_secret: bytes) -> bytes:
        """Return what a credential protects.

        As TPM2_ActivateCredential does with this EK and AK.
        """
        x, y = _fields(encrypted_secret)
        point = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
        )
        shared = self.ek_key.exchange(ec.ECDH(), point.public_key())
        own = self.ek_key.public_key().public_numbers().x.to_bytes(32, "big")
        seed = hashlib.sha256(struct.pack(">I", 1) + shared + b"IDENTITY\0" + x + own).digest()
        integrity, identity = credential[2:34], credential[34:]
        name = tpm2.name(self.ak)
        hmac_key = hmac.new(
            seed, struct.pack(">I", 1) + b"INTEGRITY\0" + struct.pack(">I", 256), "sha256"
        ).digest()
        if not hmac.compare_digest(
            hmac.new(hmac_key, identity + name, "sha256").digest(), integrity
        ):
            raise ValueError("TPM_RC_INTEGRITY")
        label = struct.pack(">I", 1) + b"STORAGE\0" + name + struct.pack(">I", 128)
        decryptor = Cipher(
            algorithms.AES(hmac.new(seed, label, "sha256").digest()[:16]), CFB(bytes(16))
        ).decryptor()
        (secret,) = _fields(decryptor.update(identity) + decryptor.finalize())
        return secret

    def report(
        self, issued: IssuedNonce, selection: tpm2.Selection | None = None, **changes: object
    ) -> evidence.Evidence:
        """Return evidence for a nonce.

        `selection` is what is quoted instead of what was asked for.
        """
        quoted = issued.challenge.selection if selection is None else selection
        nonce = issued.challenge.nonce
        bound = evidence.qualifying_data(nonce, self.boot_id, self.boottime_ms)
        attest, signature = self.quote(bound, quoted)
        reported = {
            "nonce": nonce,
            "attest": attest,
            "signature": signature,
            "pcrs": {
                bank: {index: self.pcrs[index] for index in indices}
                for bank, indices in quoted.items()
            },
            "logs": {} if self.log is None else {"txt": self.log},
            "boot_id": self.boot_id,
            "boottime_ms": self.boottime_ms,
            "agent_version": "test",
        }
        return evidence.Evidence(**{**reported, **changes})  # type: ignore[arg-type]

    def boot(self, events: list[eventlog.Event], log: bytes | None = None) -> None:
        """Go through a launch with these events; `log` is shown instead of the true one."""
        self.events = events
        self.pcrs = eventlog.replay(events, "sha256", range(24))
        self.log = eventlog.encode(events, ["sha256"]) if log is None else log

    def never_launch(self) -> None:
        """Start without TXT: the D-RTM PCRs stay all ones. The log stays as it is."""
        for index in eventlog.DRTM_PCRS:
            self.pcrs[index] = b"\xff" * 32


def _fields(sized_fields: bytes) -> list[bytes]:
    reader, found = TpmReader(sized_fields, "fields"), []
    while reader.left:
        found.append(reader.sized(1024))
    return found


def launch_events(tboot: bytes = b"tboot", kernel: bytes = b"kernel") -> list[eventlog.Event]:
    """Return a short launch.

    SINIT, tboot, its policy and the kernel in PCR 17, SINIT's key and tboot's policy in 18.
    """

    def event(pcr: int, kind: int, measured: bytes) -> eventlog.Event:
        return eventlog.Event(pcr, kind, {"sha256": hashlib.sha256(measured).digest()}, b"")

    return [
        event(17, eventlog.HASH_START, b"sinit"),
        event(17, eventlog.MLE_HASH, tboot),
        event(17, eventlog.TBOOT_MODULE, b"policy"),
        event(17, eventlog.TBOOT_MODULE, kernel),
        event(18, 0x410, b"sinit key"),
        event(18, eventlog.TBOOT_MODULE, b"policy"),
    ]


def firmware_events() -> list[eventlog.Event]:
    """Return 120 events of some 250 bytes.

    Spread over the PCRs as a server's firmware and boot loader do.
    """
    spread = {0: 8, 1: 36, 2: 6, 3: 1, 4: 9, 5: 8, 6: 1, 7: 11, 8: 30, 9: 10}

    def event(pcr: int, number: int) -> eventlog.Event:
        data = (b"event %d of PCR %d" % (number, pcr)).ljust(200)
        return eventlog.Event(pcr, 0x80000008, {"sha256": hashlib.sha256(data).digest()}, data)

    return [event(pcr, number) for pcr, count in spread.items() for number in range(count)]
