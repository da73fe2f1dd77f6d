# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TPM public areas as keys of `cryptography`.

And what its versions read differently in certificates.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from typing import Union

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm2, tpm12

# What `cryptography` raises on a certificate or a request that it cannot read.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

TpmKey = Union[tpm2.Public, tpm12.PublicKey]
VerifyingKey = Union[rsa.RSAPublicKey, ec.EllipticCurvePublicKey]

CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}


def load(public: TpmKey) -> VerifyingKey:
    """Return the public key in a TPMT_PUBLIC or TPM_PUBKEY.

    Raises:
        InvalidMessage: the point is not on its curve, or the RSA numbers cannot be a key.
    """
    key = public.key
    if isinstance(key, tpm2.RsaKey):
        return load_rsa(key)
    try:
        return ec.EllipticCurvePublicNumbers(key.x, key.y, CURVES[key.curve]).public_key()
    except ValueError as e:
        raise errors.InvalidMessage("TPMT_PUBLIC", "not a valid public key") from e


def load_rsa(key: tpm2.RsaKey) -> rsa.RSAPublicKey:
    """Return the public key of RSA numbers, of either family.

    Raises InvalidMessage when they cannot be a key.
    """
    try:
        return rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    except ValueError as e:
        raise errors.InvalidMessage("RSA key", "not a valid public key") from e


def encode(key: object) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a key of `cryptography`."""
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def digest(public: TpmKey) -> str:
    """Return the identity of a key, and by its EK of a chip.

    SHA-256 over the SubjectPublicKeyInfo, lower-case hex.
    """
    return hashlib.sha256(encode(load(public))).hexdigest()


def life(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """Return begin and end of a certificate's life.

    EL9's cryptography knows only the forms without a zone, in UTC.
    """
    try:
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except AttributeError:
        utc = datetime.timezone.utc
        begin = certificate.not_valid_before.replace(tzinfo=utc)
        end = certificate.not_valid_after.replace(tzinfo=utc)
        return begin, end
