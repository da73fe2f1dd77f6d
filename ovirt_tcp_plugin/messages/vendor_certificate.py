# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a certificate of a TPM's maker says: of an endorsement key, or of an authority.

Read tolerantly, because genuine certificates have forms that strict readers refuse (Nuvoton's sets
out of order, Intel's defaults spelt out, keys marked rsaesOaep). What is read here is not proven:
OpenSSL checks signatures and paths on the original bytes.

Sources: RFC 5280, 4.1 and 4.2; RFC 3279, 2.2.1 and 2.3 (algorithms and keys); RFC 4055 (RSASSA-PSS,
rsaesOaep); RFC 5480, 2.1.1 (curves); TCG "EK Credential Profile" 2.5, 3.2.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import der
from ovirt_tcp_plugin.messages.public_keys import VerifyingKey

MAX_SIZE = 64 * 1024
# Of a chain that lies in a TPM: Intel's has four.
MAX_INTERMEDIATES = 8
MAX_CHAIN_SIZE = 16 * 1024
# Places where a certificate might begin.
MAX_SPLIT_TRIES = 500
MAX_URLS = 4
MAX_TEXT_LENGTH = 200

EK_USAGE = "2.23.133.8.1"  # tcg-kp-EKCertificate

_WHAT = "certificate"
# A sequence of 256 bytes or more, as every certificate is.
BEGIN = re.compile(rb"\x30[\x82-\x84]")
_VERSION_TAG = 0xA0
_EXTENSIONS_TAG = 0xA3
_URL_TAG = 0x86  # uniformResourceIdentifier of GeneralName
_PSS_HASH_TAG = 0xA0
_BMP_STRING = 0x1E
_LATEST_VERSION = 2  # v3

_RSA_KEYS = ("1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7")  # rsaEncryption, rsaesOaep
_EC_KEY = "1.2.840.10045.2.1"
_CURVES: Mapping[str, ec.EllipticCurve] = {
    "1.2.840.10045.3.1.7": ec.SECP256R1(),
    "1.3.132.0.34": ec.SECP384R1(),
    "1.3.132.0.35": ec.SECP521R1(),
}

_PSS = "1.2.840.113549.1.1.10"
_SIGNATURE_HASHES: Mapping[str, str] = {
    "1.2.840.113549.1.1.2": "md2",
    "1.2.840.113549.1.1.3": "md4",
    "1.2.840.113549.1.1.4": "md5",
    "1.2.840.113549.1.1.5": "sha1",
    "1.3.14.3.2.29": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_HASHES: Mapping[str, str] = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}

# Attributes of names, as people write them (RFC 4514, 3).
_NAMES: Mapping[str, str] = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
}

_KEY_USAGE = "2.5.29.15"
_BASIC_CONSTRAINTS = "2.5.29.19"
_EXTENDED_USAGE = "2.5.29.37"
_AUTHORITY_ACCESS = "1.3.6.1.5.5.7.1.1"
_ISSUERS_CERTIFICATE = "1.3.6.1.5.5.7.48.2"
# What may stand in single quotes in a command.
_URL = re.compile(rb"https?://[A-Za-z0-9._~:/?&=%+-]{1,500}")
_KEY_CERT_SIGN = 0x04  # bit 5 of KeyUsage


@dataclasses.dataclass(frozen=True)
class VendorCertificate:
    """The fields of a certificate that matter here; all of them are claims.

    Attributes:
        signed: TBSCertificate as it is encoded.
        signature: over `signed`.
        serial: by which its issuer knows it; makers have negative ones, too.
        signature_hash: name of its hash; empty if the algorithm is not known here.
        issuer, subject: Name as it is encoded.
        begin, end: of its life, UTC.
        usages: extended key usages, dotted; empty if it has no such extension.
        critical: kinds of its critical extensions, dotted.
        is_authority: whether it may sign certificates (RFC 5280, 6.1.4 k and n).
        issuer_urls: where it says that its issuer's certificate is.
        key_information: SubjectPublicKeyInfo as it is encoded.
    """

    signed: bytes
    signature: bytes
    serial: int
    signature_hash: str
    issuer: bytes
    subject: bytes
    begin: datetime.datetime
    end: datetime.datetime
    usages: frozenset[str]
    critical: frozenset[str]
    is_authority: bool
    issuer_urls: Sequence[str]
    key_information: bytes

    @property
    def issuer_text(self) -> str:
        """The issuer's name for people, at most MAX_TEXT_LENGTH characters."""
        return _name_text(self.issuer)

    @property
    def subject_text(self) -> str:
        """The subject's name for people; EK certificates often have none."""
        return _name_text(self.subject)

    @property
    def is_self_issued(self) -> bool:
        """Whether it is a root, as every authority without another above it."""
        return self.issuer == self.subject

    def key(self) -> VerifyingKey:
        """Return the certified key.

        Raises:
            InvalidMessage: it is none that a TPM or its maker may have.
        """
        return _key(der.read(self.key_information, _WHAT))


@dataclasses.dataclass(frozen=True)
class _Extension:
    critical: bool
    content: bytes


def split(untrusted: bytes) -> tuple[bytes, ...]:
    """Return the certificates in what the chain's NV indices of a TPM hold, one after the other.

    At most MAX_INTERMEDIATES, and as far as they can be read: what stands between them, such as
    padding or half of a certificate, is passed over.

    Source: TCG "EK Credential Profile" 2.6, 2.2.1.5.2 (NV indices 0x01C00100 to 0x01C001FF).
    """
    certificates: list[bytes] = []
    end = 0
    for match in itertools.islice(BEGIN.finditer(untrusted), MAX_SPLIT_TRIES):
        if match.start() < end:
            continue  # within the one before
        try:
            encoded = der.first(untrusted[match.start() :], _WHAT).encoded
            read(encoded)
        except errors.InvalidMessage:
            continue
        certificates.append(encoded)
        end = match.start() + len(encoded)
        if len(certificates) == MAX_INTERMEDIATES:
            break
    return tuple(certificates)


def read(untrusted: bytes) -> VendorCertificate:
    """Return the fields of a certificate (DER).

    Raises:
        InvalidMessage: it has another form, or an extension twice.
    """
    if len(untrusted) > MAX_SIZE:
        raise errors.InvalidMessage(_WHAT, f"longer than {MAX_SIZE} bytes")
    parts = der.children(der.read(untrusted, _WHAT), der.SEQUENCE, _WHAT)
    if len(parts) != 3:
        raise errors.InvalidMessage(_WHAT, f"{len(parts)} parts in the place of 3")
    signed, algorithm, signature = parts
    fields = _fields(signed)
    life = der.children(fields.validity, der.SEQUENCE, _WHAT)
    if len(life) != 2:
        raise errors.InvalidMessage(_WHAT, "no begin and end of its life")
    extensions = fields.extensions
    return VendorCertificate(
        signed=signed.encoded,
        signature=der.bits(signature, _WHAT),
        serial=der.integer(fields.serial, _WHAT),
        signature_hash=_signature_hash(algorithm),
        issuer=fields.issuer.encoded,
        subject=fields.subject.encoded,
        begin=der.time(life[0], _WHAT),
        end=der.time(life[1], _WHAT),
        usages=_usages(extensions.get(_EXTENDED_USAGE)),
        critical=frozenset(kind for kind, found in extensions.items() if found.critical),
        is_authority=_is_authority(extensions),
        issuer_urls=_issuer_urls(extensions.get(_AUTHORITY_ACCESS)),
        key_information=fields.key_information.encoded,
    )


def _name_text(name: bytes) -> str:
    """Return a Name as text without odd characters; empty if it has another form."""
    parts = []
    try:
        for names in der.children(der.read(name, _WHAT), der.SEQUENCE, _WHAT):
            for attribute in der.children(names, der.SET, _WHAT):
                kind, value, *_ = der.children(attribute, der.SEQUENCE, _WHAT)
                number = der.identifier(kind, _WHAT)
                encoding = "utf-16-be" if value.tag == _BMP_STRING else "utf-8"
                text = value.content.decode(encoding, "replace")
                printable = "".join(letter for letter in text if letter.isprintable())
                parts.append(f"{_NAMES.get(number, number)}={printable}")
    except (errors.InvalidMessage, ValueError):
        return ""
    return ", ".join(parts)[:MAX_TEXT_LENGTH]


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Fields of a TBSCertificate (RFC 5280, 4.1)."""

    serial: der.Element
    issuer: der.Element
    validity: der.Element
    subject: der.Element
    key_information: der.Element
    extensions: Mapping[str, _Extension]


def _fields(signed: der.Element) -> _Fields:
    elements = der.children(signed, der.SEQUENCE, _WHAT)
    if elements and elements[0].tag == _VERSION_TAG:
        version = der.integer(der.read(elements[0].content, _WHAT), _WHAT)
        if not 0 <= version <= _LATEST_VERSION:
            raise errors.InvalidMessage(_WHAT, f"version {version + 1}")
        elements = elements[1:]
    if len(elements) < 6:
        raise errors.InvalidMessage(_WHAT, f"{len(elements)} fields, at least 6 belong there")
    serial, _, issuer, validity, subject, key_information, *others = elements
    extensions: Mapping[str, _Extension] = {}
    for element in others:
        if element.tag == _EXTENSIONS_TAG:
            extensions = _extensions(element)
    return _Fields(serial, issuer, validity, subject, key_information, extensions)


def _extensions(element: der.Element) -> Mapping[str, _Extension]:
    extensions: dict[str, _Extension] = {}
    for sequence in der.children(der.read(element.content, _WHAT), der.SEQUENCE, _WHAT):
        parts = der.children(sequence, der.SEQUENCE, _WHAT)
        if len(parts) not in (2, 3):
            raise errors.InvalidMessage(_WHAT, f"an extension of {len(parts)} parts")
        kind = der.identifier(parts[0], _WHAT)
        if kind in extensions:
            raise errors.InvalidMessage(_WHAT, f"extension {kind} twice")
        critical = len(parts) == 3 and _is_true(parts[1])
        extensions[kind] = _Extension(critical, der.content(parts[-1], der.OCTET_STRING, _WHAT))
    return extensions


def _is_true(element: der.Element) -> bool:
    """Return the value of a BOOLEAN; whatever is not false is true (X.690, 8.2.2)."""
    return any(der.content(element, der.BOOLEAN, _WHAT))


def _usages(extension: Optional[_Extension]) -> frozenset[str]:
    if extension is None:
        return frozenset()
    sequence = der.read(extension.content, _WHAT)
    usages = [der.identifier(item, _WHAT) for item in der.children(sequence, der.SEQUENCE, _WHAT)]
    return frozenset(usages)


def _is_authority(extensions: Mapping[str, _Extension]) -> bool:
    constraints = extensions.get(_BASIC_CONSTRAINTS)
    if constraints is None:
        return False
    parts = der.children(der.read(constraints.content, _WHAT), der.SEQUENCE, _WHAT)
    if not parts or parts[0].tag != der.BOOLEAN or not _is_true(parts[0]):
        return False
    usage = extensions.get(_KEY_USAGE)
    if usage is None:
        return True
    named_bits = der.content(der.read(usage.content, _WHAT), der.BIT_STRING, _WHAT)
    return len(named_bits) > 1 and bool(named_bits[1] & _KEY_CERT_SIGN)


def _issuer_urls(extension: Optional[_Extension]) -> Sequence[str]:
    """Return the addresses of the issuer's certificate, at most MAX_URLS."""
    urls: list[str] = []
    if extension is None:
        return urls
    for access in der.children(der.read(extension.content, _WHAT), der.SEQUENCE, _WHAT):
        parts = der.children(access, der.SEQUENCE, _WHAT)
        if len(parts) != 2 or parts[1].tag != _URL_TAG:
            continue
        url = parts[1].content
        is_issuers = der.identifier(parts[0], _WHAT) == _ISSUERS_CERTIFICATE
        if is_issuers and _URL.fullmatch(url):
            urls.append(url.decode("ascii"))
    return urls[:MAX_URLS]


def _signature_hash(algorithm: der.Element) -> str:
    """Return the name of the hash of a signature's algorithm, empty if it is not known."""
    parts = der.children(algorithm, der.SEQUENCE, _WHAT)
    if not parts:
        raise errors.InvalidMessage(_WHAT, "no signature algorithm")
    kind = der.identifier(parts[0], _WHAT)
    if kind != _PSS:
        return _SIGNATURE_HASHES.get(kind, "")
    parameters = der.children(parts[1], der.SEQUENCE, _WHAT) if len(parts) > 1 else []
    for parameter in parameters:
        if parameter.tag == _PSS_HASH_TAG:
            chosen = der.children(der.read(parameter.content, _WHAT), der.SEQUENCE, _WHAT)
            return _HASHES.get(der.identifier(chosen[0], _WHAT), "") if chosen else ""
    return "sha1"  # RFC 4055, 3.1: the default


def _key(information: der.Element) -> VerifyingKey:
    parts = der.children(information, der.SEQUENCE, _WHAT)
    if len(parts) != 2:
        raise errors.InvalidMessage(_WHAT, "a key of another form")
    algorithm = der.children(parts[0], der.SEQUENCE, _WHAT)
    if not algorithm:
        raise errors.InvalidMessage(_WHAT, "a key without an algorithm")
    kind = der.identifier(algorithm[0], _WHAT)
    encoded = der.bits(parts[1], _WHAT)
    try:
        if kind in _RSA_KEYS:
            return _rsa_key(encoded)
        if kind == _EC_KEY and len(algorithm) == 2:
            return _ec_key(algorithm[1], encoded)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise errors.InvalidMessage(_WHAT, "its key is none") from e
    raise errors.InvalidMessage(_WHAT, f"a key of kind {kind}")


def _rsa_key(encoded: bytes) -> rsa.RSAPublicKey:
    numbers = der.children(der.read(encoded, _WHAT), der.SEQUENCE, _WHAT)
    if len(numbers) != 2:
        raise errors.InvalidMessage(_WHAT, "an RSA key of another form")
    # A modulus without the leading zero reads as a negative number.
    modulus = int.from_bytes(der.content(numbers[0], der.INTEGER, _WHAT), "big")
    exponent = int.from_bytes(der.content(numbers[1], der.INTEGER, _WHAT), "big")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec_key(curve: der.Element, point: bytes) -> ec.EllipticCurvePublicKey:
    name = der.identifier(curve, _WHAT)
    if name not in _CURVES:
        raise errors.InvalidMessage(_WHAT, f"a key on the curve {name}")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[name], point)
