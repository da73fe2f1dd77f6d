# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Genuine certificates in forms that are valid and odd, as makers of chips issue them."""

from __future__ import annotations

import dataclasses

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ovirt_tcp_plugin.messages import der
from tests.verifier.vendor import Key

_CONSTRUCTED = 0x20
_EXTENSIONS = 0xA3
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")


@dataclasses.dataclass(frozen=True)
class Oddity:
    """What is odd.

    Attributes:
        false_critical: `critical FALSE` is spelt out.
        false_authority: `cA FALSE` is spelt out.
        long_lengths: lengths have leading zeros.
        other_true: TRUE is another number than 255.
    """

    false_critical: bool = False
    false_authority: bool = False
    long_lengths: bool = False
    other_true: bool = False


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
    signed = _rewrite(der.read(good.tbs_certificate_bytes, "test"), oddity)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    body = signed + algorithm.encoded + encode(der.BIT_STRING, b"\0" + signature)
    return encode(der.SEQUENCE, body, oddity.long_lengths)


def _rewrite(element: der.Element, oddity: Oddity) -> bytes:
    if element.tag == _EXTENSIONS:
        (listed,) = der.elements(element.content, "test")
        parts = [_extension(one, oddity) for one in der.elements(listed.content, "test")]
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
    if kind.encoded == _BASIC_CONSTRAINTS and value == b"\x30\0" and oddity.false_authority:
        value = encode(der.SEQUENCE, encode(der.BOOLEAN, b"\0"))
    parts = kind.encoded
    if critical:
        parts += encode(der.BOOLEAN, b"\1" if oddity.other_true else b"\xff")
    elif oddity.false_critical:
        parts += encode(der.BOOLEAN, b"\0")
    return encode(der.SEQUENCE, parts + encode(der.OCTET_STRING, value), oddity.long_lengths)
