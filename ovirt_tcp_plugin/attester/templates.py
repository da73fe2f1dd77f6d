# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Templates (TPMT_PUBLIC) of the attester's keys.

From one of these a TPM makes the same EK again, or a new AK.

Source: TCG "EK Credential Profile for TPM Family 2.0" 2.5, B.3 (templates L-1, L-2), B.4 (templates
H-3, H-6) and B.6 (policies).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping

from ovirt_tcp_plugin.messages import tpm2

_POLICY_A_SHA256 = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
# Policy B is the choice between policy A and policy C, which is for owners who delegate the EK.
POLICY_A_SHA384 = bytes.fromhex(
    "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53"
)
POLICY_C_SHA384 = bytes.fromhex(
    "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165"
)
POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_STORAGE = (
    tpm2.FIXED_TPM
    | tpm2.FIXED_PARENT
    | tpm2.SENSITIVE_DATA_ORIGIN
    | tpm2.ADMIN_WITH_POLICY
    | tpm2.RESTRICTED
    | tpm2.DECRYPT
)
# Without NO_DA each crash of the host would count as a wrong authorization, and some in a row lock
# the TPM out (Part 1, dictionary attack protection: the password of a key was used, and no orderly
# shutdown followed).
_SIGNING = (
    tpm2.FIXED_TPM
    | tpm2.FIXED_PARENT
    | tpm2.SENSITIVE_DATA_ORIGIN
    | tpm2.USER_WITH_AUTH
    | tpm2.NO_DA
    | tpm2.RESTRICTED
    | tpm2.SIGN
)


def _sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _template(kind: int, name_hash: str, attributes: int, policy: bytes, rest: bytes) -> bytes:
    return struct.pack(">HHI", kind, tpm2.HASH_IDS[name_hash], attributes) + _sized(policy) + rest


def _aes(bits: int) -> bytes:
    return struct.pack(">HHH", tpm2.ALG_AES, bits, tpm2.ALG_CFB)


_P256, _P384 = (number for number, _ in sorted(tpm2.CURVES.items()))
_SHA256 = tpm2.HASH_IDS["sha256"]
_RSA_2048 = struct.pack(">HI", 2048, 0)


@dataclasses.dataclass(frozen=True)
class EndorsementKind:
    """One kind of EK.

    Where its certificate is, where it may be persistent, and how to make it again.

    Attributes:
        template: the specification's.
        template_index: where a TPM may keep another one.
        nonce_index: where a TPM may keep a nonce that goes into it; 0 for kinds without one.
    """

    certificate_index: int
    persistent: int
    template: bytes
    template_index: int
    nonce_index: int = 0


# Where a TPM keeps the authorities between its EKs' certificates and their maker's root (TCG "EK
# Credential Profile" 2.6, 2.2.1.5.2): Intel's on-die authorities are another for each chip.
CHAIN_INDICES = range(0x01C00100, 0x01C00200)

# In the order of preference. TCG "PC Client Platform TPM Profile", 4.6.3, reserves the indices and
# handles.
ENDORSEMENT_KINDS: Mapping[str, EndorsementKind] = {
    "rsa-2048": EndorsementKind(
        0x01C00002,
        0x81010001,
        _template(
            tpm2.ALG_RSA,
            "sha256",
            _STORAGE,
            _POLICY_A_SHA256,
            _aes(128) + struct.pack(">H", tpm2.ALG_NULL) + _RSA_2048 + _sized(bytes(256)),
        ),
        0x01C00004,
        0x01C00003,
    ),
    "ecc-p256": EndorsementKind(
        0x01C0000A,
        0x81010002,
        _template(
            tpm2.ALG_ECC,
            "sha256",
            _STORAGE,
            _POLICY_A_SHA256,
            _aes(128)
            + struct.pack(">HHH", tpm2.ALG_NULL, _P256, tpm2.ALG_NULL)
            + _sized(bytes(32)) * 2,
        ),
        0x01C0000C,
        0x01C0000B,
    ),
    "ecc-p384": EndorsementKind(
        0x01C00016,
        0x81010016,
        _template(
            tpm2.ALG_ECC,
            "sha384",
            _STORAGE | tpm2.USER_WITH_AUTH,
            POLICY_B_SHA384,
            _aes(256) + struct.pack(">HHH", tpm2.ALG_NULL, _P384, tpm2.ALG_NULL) + _sized(b"") * 2,
        ),
        0x01C00017,
    ),
    "rsa-3072": EndorsementKind(
        0x01C0001C,
        0x8101001C,
        _template(
            tpm2.ALG_RSA,
            "sha384",
            _STORAGE | tpm2.USER_WITH_AUTH,
            POLICY_B_SHA384,
            _aes(256) + struct.pack(">HHI", tpm2.ALG_NULL, 3072, 0) + _sized(b""),
        ),
        0x01C0001D,
    ),
}

# The AK signs by one scheme with SHA-256 only, so that no caller can ask for a weaker one.
ATTESTATION_TEMPLATES: Mapping[str, bytes] = {
    "ecc-p256": _template(
        tpm2.ALG_ECC,
        "sha256",
        _SIGNING,
        b"",
        struct.pack(">HHHHH", tpm2.ALG_NULL, tpm2.ALG_ECDSA, _SHA256, _P256, tpm2.ALG_NULL)
        + _sized(b"") * 2,
    ),
    "rsa-2048": _template(
        tpm2.ALG_RSA,
        "sha256",
        _SIGNING,
        b"",
        struct.pack(">HHH", tpm2.ALG_NULL, tpm2.ALG_RSASSA, _SHA256) + _RSA_2048 + _sized(b""),
    ),
}
