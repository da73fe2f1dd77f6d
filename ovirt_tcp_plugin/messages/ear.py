# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Signed results (verifier -> agent -> gate): what the verifier says of one boot of a host.

Users know them as signed verdicts. Whoever holds the verifier's public key can check one.

Compact JWT (RFC 7519, RFC 7515) signed with ES256; the claims are an EAT Attestation Result
(draft-ietf-rats-ear) with one submodule, `host`. `iat` and `exp` are for other readers: the gate
goes by boot id and CLOCK_BOOTTIME of the host.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

import ovirt_tcp_plugin
from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, public_keys
from ovirt_tcp_plugin.messages.result import Level

# A real token has some 800 bytes.
MAX_SIZE = 4096

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
_STATUS = {Level.TRUSTED: "affirming", Level.UNTRUSTED: "contraindicated"}
# Of r and s on P-256.
_NUMBER_SIZE = 32
_COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class SignedResult:
    """What the verifier says of one boot of a host.

    Attributes:
        host_name: name as enrolled, lower case.
        ek_digest: SHA-256 of its TPM's endorsement key, hex.
        level: trust level.
        boot_id: the kernel's id of the boot that was appraised.
        boottime_ms: the host's CLOCK_BOOTTIME at the quote.
        lifetime_ms: how long from then on the result may be relied on.
    """

    host_name: str
    ek_digest: str
    level: Level
    boot_id: str
    boottime_ms: int
    lifetime_ms: int


@dataclasses.dataclass(frozen=True)
class VerifiedResult:
    """A result whose signature is good.

    Attributes:
        result: what was signed.
        key_id: the key that signed it.
        issued_s: when it was signed, seconds of the UTC epoch.
    """

    result: SignedResult
    key_id: str
    issued_s: int


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return the id of a key: the first 16 hex digits of its SubjectPublicKeyInfo's SHA-256."""
    return hashlib.sha256(public_keys.encode(key)).hexdigest()[:16]


def sign(result: SignedResult, key: ec.EllipticCurvePrivateKey, now_s: int) -> str:
    """Return the signed result, a compact JWT.

    Args:
        key: on P-256.
        now_s: seconds of the UTC epoch.
    """
    claims = _base64url(_json(_claims(result, now_s)))
    content = f"{_header(key)}.{claims}"
    signature = key.sign(content.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    return f"{content}.{_base64url(_encode_signature(signature))}"


def verify(untrusted: bytes, keys: Sequence[ec.EllipticCurvePublicKey]) -> VerifiedResult:
    """Return the result in a compact JWT of at most MAX_SIZE bytes, if one of the keys signed it.

    Whether it still holds is another question: that depends on the host's boot and clock.

    Raises:
        InvalidMessage: not a signed result.
        Refused: bad_signature.
    """
    parts = untrusted.strip().split(b".")
    if len(untrusted) > MAX_SIZE or len(parts) != 3:
        raise errors.InvalidMessage("verdict", f"not a compact JWT of at most {MAX_SIZE} bytes")
    header, payload, encoded_signature = parts
    if _object(header, "header").get("alg") != "ES256":
        raise errors.InvalidMessage("verdict", "not signed with ES256")
    signature = _decode_signature(encoded_signature)
    signer = _signer(keys, signature, header + b"." + payload)
    claims = _object(payload, "claims")
    issued_s = json_fields.integer(claims, "iat", 0, 2**53)
    return VerifiedResult(_decode(claims), key_id(signer), issued_s)


@functools.lru_cache(1)
def _header(key: ec.EllipticCurvePrivateKey) -> str:
    header = {"alg": "ES256", "typ": "JWT", "kid": key_id(key.public_key())}
    return _base64url(_json(header))


def _claims(result: SignedResult, now_s: int) -> Mapping[str, Any]:
    return {
        "eat_profile": EAR_PROFILE,
        "iat": now_s,
        "exp": now_s + result.lifetime_ms // 1000,
        "ear.verifier-id": {
            "developer": "ovirt_tcp_plugin",
            "build": ovirt_tcp_plugin.__version__,
        },
        "submods": {
            "host": {
                "ear.status": _STATUS.get(result.level, "none"),
                "ovirt-tcp.host": result.host_name,
                "ovirt-tcp.ek": result.ek_digest,
                "ovirt-tcp.level": result.level.value,
                "ovirt-tcp.boot_id": result.boot_id,
                "ovirt-tcp.boottime_ms": result.boottime_ms,
                "ovirt-tcp.lifetime_ms": result.lifetime_ms,
            }
        },
    }


def _decode(claims: Mapping[str, object]) -> SignedResult:
    submodules = json_fields.members(claims.get("submods"), "submods")
    host = json_fields.members(submodules.get("host"), "submodule host")
    try:
        level = Level(json_fields.text(host, "ovirt-tcp.level", 20))
    except ValueError:
        raise errors.InvalidMessage("verdict", "unknown level") from None
    return SignedResult(
        host_name=json_fields.text(host, "ovirt-tcp.host", 255),
        ek_digest=json_fields.text(host, "ovirt-tcp.ek", 64),
        level=level,
        boot_id=json_fields.text(host, "ovirt-tcp.boot_id", 36),
        boottime_ms=json_fields.integer(host, "ovirt-tcp.boottime_ms", 0, 2**53),
        lifetime_ms=json_fields.integer(host, "ovirt-tcp.lifetime_ms", 0, 2**53),
    )


def _encode_signature(der: bytes) -> bytes:
    """Return a signature in the form of ES256: r and s, each in 32 bytes (RFC 7518, 3.4)."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(_NUMBER_SIZE, "big") + s.to_bytes(_NUMBER_SIZE, "big")


def _decode_signature(encoded: bytes) -> bytes:
    """Return the DER form of a signature of ES256. Raises InvalidMessage."""
    signature = _from_base64url(encoded)
    if len(signature) != 2 * _NUMBER_SIZE:
        raise errors.InvalidMessage("verdict", "the signature has not 64 bytes")
    r = int.from_bytes(signature[:_NUMBER_SIZE], "big")
    s = int.from_bytes(signature[_NUMBER_SIZE:], "big")
    return encode_dss_signature(r, s)


def _signer(
    keys: Sequence[ec.EllipticCurvePublicKey], signature: bytes, content: bytes
) -> ec.EllipticCurvePublicKey:
    for key in keys:
        try:
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
            return key
        except InvalidSignature:
            continue
    raise errors.Refused("bad_signature", "none of the verdict keys made the signature")


def _json(value: object) -> bytes:
    return _COMPACT.encode(value).encode("ascii")


def _object(part: bytes, name: str) -> Mapping[str, object]:
    what = f"verdict {name}"
    return json_fields.parse_members(_from_base64url(part), what, MAX_SIZE)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")


def _from_base64url(part: bytes) -> bytes:
    padded = part + b"=" * (-len(part) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except binascii.Error:
        raise errors.InvalidMessage("verdict", "not base64url") from None
