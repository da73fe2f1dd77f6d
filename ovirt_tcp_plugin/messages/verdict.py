# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Signed verdicts (verifier -> agent -> gate): what the verifier says of one boot of a host, for whoever holds its key.

Compact JWT (RFC 7519, RFC 7515) signed with ES256; the claims are an EAT Attestation Result (draft-ietf-rats-ear) with
one submodule, `host`. `iat` and `exp` are for other readers: the gate goes by boot id and CLOCK_BOOTTIME of the host.
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
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

import ovirt_tcp_plugin
from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.messages.result import Level

# One has some 800 bytes.
MAX_SIZE = 4096

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
_STATUS = {Level.TRUSTED: "affirming", Level.UNTRUSTED: "contraindicated"}
_PRIVATE = "ovirt-tcp."
_COORDINATE_SIZE = 32
_COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the verifier says of one boot of a host.

    Attributes:
        host_name: name as enrolled, lower case.
        ek_digest: SHA-256 of its TPM's endorsement key, hex.
        level: trust level.
        boot_id: the kernel's id of the boot that was appraised.
        boottime_ms: the host's CLOCK_BOOTTIME at the quote.
        lifetime_ms: how long from then on the verdict may be relied on.
    """

    host_name: str
    ek_digest: str
    level: Level
    boot_id: str
    boottime_ms: int
    lifetime_ms: int


@dataclasses.dataclass(frozen=True)
class Signed:
    """A verdict whose signature is good: the key that made it (`key_id`), and when (seconds of the UTC epoch)."""

    verdict: Verdict
    key_id: str
    issued_s: int


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return what a key is called: the first 16 hex digits of the SHA-256 of its SubjectPublicKeyInfo."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()[:16]


def sign(verdict: Verdict, key: ec.EllipticCurvePrivateKey, now_s: int) -> str:
    """Return the signed verdict.

    Args:
        key: on P-256.
        now_s: seconds of the UTC epoch.
    """
    signed = f"{_header(key)}.{_encode(_json(_claims(verdict, now_s)))}"
    r, s = decode_dss_signature(key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encode(r.to_bytes(_COORDINATE_SIZE, 'big') + s.to_bytes(_COORDINATE_SIZE, 'big'))}"


def verify(untrusted: bytes, keys: Sequence[ec.EllipticCurvePublicKey]) -> Signed:
    """Return the verdict in a compact JWT of at most MAX_SIZE bytes, if one of the keys signed it.

    Whether it still holds is another question: that depends on the host's boot and clock.

    Raises:
        InvalidMessage: not a signed verdict.
        Refused: bad_signature.
    """
    parts = untrusted.strip().split(b".")
    if len(untrusted) > MAX_SIZE or len(parts) != 3:
        raise errors.InvalidMessage("verdict", f"not a compact JWT of at most {MAX_SIZE} bytes")
    header = _object(parts[0], "header")
    if header.get("alg") != "ES256":
        raise errors.InvalidMessage("verdict", "not signed with ES256")
    signature = _decode(parts[2])
    if len(signature) != 2 * _COORDINATE_SIZE:
        raise errors.InvalidMessage("verdict", "the signature has not 64 bytes")
    der = encode_dss_signature(
        int.from_bytes(signature[:_COORDINATE_SIZE], "big"), int.from_bytes(signature[_COORDINATE_SIZE:], "big")
    )
    signer = next((key for key in keys if _signed_by(key, der, parts[0] + b"." + parts[1])), None)
    if signer is None:
        raise errors.Refused("bad_signature", "none of the verdict keys made the signature")
    claims = _object(parts[1], "claims")
    return Signed(_verdict(claims), key_id(signer), json_fields.integer(claims, "iat", 0, 2**53))


@functools.lru_cache(1)
def _header(key: ec.EllipticCurvePrivateKey) -> str:
    return _encode(_json({"alg": "ES256", "typ": "JWT", "kid": key_id(key.public_key())}))


def _claims(verdict: Verdict, now_s: int) -> Mapping[str, Any]:
    told = {
        "host": verdict.host_name,
        "ek": verdict.ek_digest,
        "level": verdict.level.value,
        "boot_id": verdict.boot_id,
        "boottime_ms": verdict.boottime_ms,
        "lifetime_ms": verdict.lifetime_ms,
    }
    private = {_PRIVATE + name: value for name, value in told.items()}
    return {
        "eat_profile": EAR_PROFILE,
        "iat": now_s,
        "exp": now_s + verdict.lifetime_ms // 1000,
        "ear.verifier-id": {"developer": "ovirt_tcp_plugin", "build": ovirt_tcp_plugin.__version__},
        "submods": {"host": {"ear.status": _STATUS.get(verdict.level, "none"), **private}},
    }


def _verdict(claims: Mapping[str, object]) -> Verdict:
    host = json_fields.members(json_fields.members(claims.get("submods"), "submods").get("host"), "submodule host")
    try:
        level = Level(json_fields.text(host, _PRIVATE + "level", 20))
    except ValueError:
        raise errors.InvalidMessage("verdict", "unknown level") from None
    return Verdict(
        host_name=json_fields.text(host, _PRIVATE + "host", 255),
        ek_digest=json_fields.text(host, _PRIVATE + "ek", 64),
        level=level,
        boot_id=json_fields.text(host, _PRIVATE + "boot_id", 36),
        boottime_ms=json_fields.integer(host, _PRIVATE + "boottime_ms", 0, 2**53),
        lifetime_ms=json_fields.integer(host, _PRIVATE + "lifetime_ms", 0, 2**53),
    )


def _signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _json(value: object) -> bytes:
    return _COMPACT.encode(value).encode("ascii")


def _object(part: bytes, what: str) -> Mapping[str, object]:
    return json_fields.members(json_fields.parse(_decode(part), f"verdict {what}", MAX_SIZE), f"verdict {what}")


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")


def _decode(part: bytes) -> bytes:
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise errors.InvalidMessage("verdict", "not base64url") from None
