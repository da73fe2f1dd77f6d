# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Genuine certificates in forms that are valid and odd, as makers of chips issue them."""

from __future__ import annotations

import dataclasses
from typing import Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ovirt_tcp_plugin.messages import der
from tests.verifier.vendor import Key

_CONSTRUCTED = 0x20
_EXTENSIONS = 0xA3
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_EXTENDED_USAGE = bytes.fromhex("0603551d25")
_SERVER_USAGE = bytes.fromhex("06082b06010505070301")
_CLIENT_USAGE = bytes.fromhex("06082b06010505070302")
_COMMON_NAME = bytes.fromhex("0603550403")


@dataclasses.dataclass(frozen=True)
class Oddity:
    """What is odd.

    Attributes:
        false_critical: `critical FALSE` is spelt out.
        false_authority: `cA FALSE` is spelt out.
        long_lengths: lengths have leading zeros.
        other_true: TRUE is another number than 255.
        reversed_extensions: they stand the other way round.
        critical_usage: the extended key usage is critical.
        more_usages: there are other ones before and behind that of an endorsement key.
        serial: another serial number, also zero or a negative one.
        extensions: further ones that nobody knows: the content of their identifier, and their
            value.
        subject: another Name; None leaves it.
        generalized_time: whether both ends of its life are in four digits of the year.
    """

    false_critical: bool = False
    false_authority: bool = False
    long_lengths: bool = False
    other_true: bool = False
    reversed_extensions: bool = False
    critical_usage: bool = False
    more_usages: bool = False
    serial: Optional[int] = None
    extensions: tuple[tuple[bytes, bytes], ...] = ()
    subject: Optional[bytes] = None
    generalized_time: bool = False


def encode(tag: int, content: bytes, long_length: bool = False) -> bytes:
    """Return an element."""
    size = len(content)
    if long_length:
        return bytes([tag, 0x84]) + size.to_bytes(4, "big") + content
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def issue(certificate: bytes, key: Key, oddity: Oddity) -> bytes:
    """Return a certificate like this one, odd, signed by this key of its issuer."""
    good = x509.load_der_x509_certificate(certificate)
    whole = der.read(certificate, "test")
    _, algorithm, _ = der.children(whole, der.SEQUENCE, "test")
    signed = _rewrite(_with_fields(good.tbs_certificate_bytes, oddity), oddity)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    body = signed + algorithm.encoded + encode(der.BIT_STRING, b"\0" + signature)
    return encode(der.SEQUENCE, body, oddity.long_lengths)


def name(tag: int, text: str) -> bytes:
    """Return a Name with one common name, a string of that type."""
    encodings = {
        0x0C: "utf-8",
        0x13: "ascii",
        0x14: "latin-1",
        0x1C: "utf-32-be",
        0x1E: "utf-16-be",
    }
    value = encode(tag, text.encode(encodings[tag], "replace"))
    attribute = encode(der.SEQUENCE, _COMMON_NAME + value)
    return encode(der.SEQUENCE, encode(der.SET, attribute))


def _with_fields(signed: bytes, oddity: Oddity) -> der.Element:
    """Return a TBSCertificate with the odd serial, life and subject."""
    version, serial, algorithm, issuer, validity, subject, *others = der.children(
        der.read(signed, "test"), der.SEQUENCE, "test"
    )
    encoded_serial = serial.encoded
    if oddity.serial is not None:
        size = oddity.serial.bit_length() // 8 + 1
        encoded_serial = encode(der.INTEGER, oddity.serial.to_bytes(size, "big", signed=True))
    parts = [version.encoded, encoded_serial, algorithm.encoded, issuer.encoded]
    parts.append(_life(validity) if oddity.generalized_time else validity.encoded)
    parts.append(subject.encoded if oddity.subject is None else oddity.subject)
    parts += [other.encoded for other in others]
    return der.read(encode(der.SEQUENCE, b"".join(parts)), "test")


def _life(validity: der.Element) -> bytes:
    ends = []
    for element in der.children(validity, der.SEQUENCE, "test"):
        time = der.time(element, "test")
        text = f"{time:%Y%m%d%H%M%SZ}".encode()
        ends.append(encode(der.GENERALIZED_TIME, text))
    return encode(der.SEQUENCE, b"".join(ends))


def _rewrite(element: der.Element, oddity: Oddity) -> bytes:
    if element.tag == _EXTENSIONS:
        (listed,) = der.elements(element.content, "test")
        parts = [_extension(one, oddity) for one in der.elements(listed.content, "test")]
        for identifier, value in oddity.extensions:
            kind = encode(der.OBJECT_IDENTIFIER, identifier)
            parts.append(encode(der.SEQUENCE, kind + encode(der.OCTET_STRING, value)))
        if oddity.reversed_extensions:
            parts.reverse()
        content = encode(der.SEQUENCE, b"".join(parts), oddity.long_lengths)
    elif element.tag & _CONSTRUCTED:
        parts = [_rewrite(one, oddity) for one in der.elements(element.content, "test")]
        content = b"".join(parts)
    else:
        content = element.content
    return encode(element.tag, content, oddity.long_lengths)


def _extension(element: der.Element, oddity: Oddity) -> bytes:
    kind, *others = der.elements(element.content, "test")
    value = others[-1].content
    critical = len(others) == 2
    if kind.encoded == _EXTENDED_USAGE:
        critical = critical or oddity.critical_usage
        if oddity.more_usages:
            usages = der.content(der.read(value, "test"), der.SEQUENCE, "test")
            value = encode(der.SEQUENCE, _CLIENT_USAGE + usages + _SERVER_USAGE)
    if kind.encoded == _BASIC_CONSTRAINTS and value == b"\x30\0" and oddity.false_authority:
        value = encode(der.SEQUENCE, encode(der.BOOLEAN, b"\0"))
    parts = kind.encoded
    if critical:
        parts += encode(der.BOOLEAN, b"\1" if oddity.other_true else b"\xff")
    elif oddity.false_critical:
        parts += encode(der.BOOLEAN, b"\0")
    return encode(der.SEQUENCE, parts + encode(der.OCTET_STRING, value), oddity.long_lengths)
