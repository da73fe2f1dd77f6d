# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads ASN.1 elements as makers of chips encode them, which is not always as DER demands.

A strict reader refuses genuine certificates: sets out of order, defaults that are spelt out,
lengths with leading zeros. Nothing here depends on such things. Whether the bytes are signed is
asked of the original ones, elsewhere.

Sources: ITU-T X.690 (8.1, 8.19); RFC 5280, 4.1.2.5 (times).
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from ovirt_tcp_plugin import errors

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

MAX_ELEMENTS = 1000
MAX_IDENTIFIER_SIZE = 64

_MULTI_BYTE_TAG = 0x1F
_LONG_LENGTH = 0x80
_TIME = re.compile(rb"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})?(?:[.,]\d{1,9})?Z")
# Two-digit years from here on are of the last century (RFC 5280, 4.1.2.5.1).
_LAST_CENTURY_FROM = 50


class Element(NamedTuple):
    """An element: its tag, its content, and the bytes that both were read from."""

    tag: int
    content: bytes
    encoded: bytes


def read(untrusted: bytes, what: str) -> Element:
    """Return the only element in some bytes.

    Args:
        what: what the bytes are, for the error.

    Raises:
        InvalidMessage: there is none, or more.
    """
    found = elements(untrusted, what)
    if len(found) != 1:
        raise errors.InvalidMessage(what, f"{len(found)} elements in the place of one")
    return found[0]


def first(untrusted: bytes, what: str) -> Element:
    """Return the element that some bytes begin with, whatever follows. Raises InvalidMessage."""
    return _element(untrusted, 0, what)


def elements(untrusted: bytes, what: str) -> list[Element]:
    """Return the elements in some bytes, such as the content of a sequence.

    Raises:
        InvalidMessage: an element is cut off or has no definite length, or there are too many.
    """
    found: list[Element] = []
    position = 0
    while position < len(untrusted):
        element = _element(untrusted, position, what)
        position += len(element.encoded)
        found.append(element)
        if len(found) > MAX_ELEMENTS:
            raise errors.InvalidMessage(what, f"more than {MAX_ELEMENTS} elements")
    return found


def children(element: Element, tag: int, what: str) -> list[Element]:
    """Return the elements in an element, which must have that tag. Raises InvalidMessage."""
    return elements(content(element, tag, what), what)


def content(element: Element, tag: int, what: str) -> bytes:
    """Return the content of an element, which must have that tag. Raises InvalidMessage."""
    if element.tag != tag:
        raise errors.InvalidMessage(what, f"tag {element.tag:#04x} in the place of {tag:#04x}")
    return element.content


def identifier(element: Element, what: str) -> str:
    """Return an object identifier in dotted form. Raises InvalidMessage."""
    encoded = content(element, OBJECT_IDENTIFIER, what)
    if not encoded or len(encoded) > MAX_IDENTIFIER_SIZE or encoded[-1] & 0x80:
        raise errors.InvalidMessage(what, "an object identifier of another form")
    numbers: list[int] = []
    number = 0
    for byte in encoded:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    second = numbers[0] - 40 * first
    return ".".join(str(part) for part in (first, second, *numbers[1:]))


def integer(element: Element, what: str) -> int:
    """Return a whole number. Raises InvalidMessage."""
    return int.from_bytes(content(element, INTEGER, what), "big", signed=True)


def bits(element: Element, what: str) -> bytes:
    """Return a bit string of whole bytes. Raises InvalidMessage."""
    encoded = content(element, BIT_STRING, what)
    if encoded[:1] != b"\0":
        raise errors.InvalidMessage(what, "a bit string that is not of whole bytes")
    return encoded[1:]


def time(element: Element, what: str) -> datetime.datetime:
    """Return a time in UTC, by the second. Raises InvalidMessage."""
    text = element.content
    if element.tag == UTC_TIME and text[:2].isdigit():
        century = b"19" if int(text[:2]) >= _LAST_CENTURY_FROM else b"20"
        text = century + text
    parts = _TIME.fullmatch(text)
    if element.tag not in (UTC_TIME, GENERALIZED_TIME) or not parts:
        raise errors.InvalidMessage(what, "a time of another form")
    year, month, day, hour, minute, second = (int(part or 0) for part in parts.groups())
    try:
        return datetime.datetime(
            year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc
        )
    except ValueError as e:
        raise errors.InvalidMessage(what, "a time that does not exist") from e


def _element(untrusted: bytes, position: int, what: str) -> Element:
    head = untrusted[position : position + 2]
    if len(head) < 2 or head[0] & _MULTI_BYTE_TAG == _MULTI_BYTE_TAG:
        raise errors.InvalidMessage(what, f"no element at byte {position}")
    start = position + 2
    size = head[1]
    if size & _LONG_LENGTH:
        count = size & ~_LONG_LENGTH
        digits = untrusted[start : start + count]
        if not count or len(digits) < count:
            raise errors.InvalidMessage(what, f"no definite length at byte {position}")
        size = int.from_bytes(digits, "big")
        start += count
    end = start + size
    if end > len(untrusted):
        raise errors.InvalidMessage(what, f"ends at byte {len(untrusted)}, {end} were announced")
    return Element(head[0], untrusted[start:end], untrusted[position:end])
