# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reads members of untrusted JSON objects: each with its type and its bound, or InvalidMessage."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence, Set
from typing import Optional

from ovirt_tcp_plugin import errors

# An empty array takes two bytes to send, but a hundred to hold, and the garbage collector's time.
# Beyond this many values an honest message has so many bytes for each: the shortest are short names
# of hosts. What is no longer than that cannot have more, and need not be counted.
MANY_VALUES = 10_000
BYTES_PER_VALUE = 10
# A sign and the digits of 64 bits. What it takes to read a number grows with the square of its
# digits: in 4 MiB of numbers of 4,300 digits, more than a tenth of a second.
MAX_DIGITS = 20

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(untrusted: bytes, what: str, max_size: int, max_values: Optional[int] = None) -> object:
    """Return the JSON value in `untrusted`.

    Args:
        what: the message's name in errors.
        max_size: in bytes.
        max_values: number of values, for a message that never has many; None: as many as an honest
            message of its length may have.

    Raises:
        InvalidMessage: too long, not UTF-8, not JSON, nested too deeply, with too many values, with
            a number that is not finite, or with a whole number of more than MAX_DIGITS digits.
    """
    size = len(untrusted)
    if size > max_size:
        raise errors.InvalidMessage(what, f"longer than {max_size} bytes")
    if max_values is None:
        max_values = MANY_VALUES + size // BYTES_PER_VALUE
    # Before they are made: a thousand times cheaper than to make and refuse them.
    if size > max_values and _count_values(untrusted) > max_values:
        raise errors.InvalidMessage(what, "too many values")
    try:
        return json.loads(
            untrusted.decode("utf-8"), parse_int=_parse_integer, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise errors.InvalidMessage(what, "not JSON") from None


def members(untrusted: object, what: str) -> Mapping[str, object]:
    """Return `untrusted` as a JSON object. Raises InvalidMessage when it is something else."""
    if not isinstance(untrusted, dict):
        raise errors.InvalidMessage(what, "not a JSON object")
    return untrusted


def parse_members(
    untrusted: bytes, what: str, max_size: int, max_values: Optional[int] = None
) -> Mapping[str, object]:
    """Return the JSON object in `untrusted`. Raises InvalidMessage as `parse` and `members` do."""
    return members(parse(untrusted, what, max_size, max_values), what)


def refuse_unknown(members: Mapping[str, object], known: Set[str], what: str) -> None:
    """Return if each member has a name that is known.

    Raises:
        InvalidMessage: `what` has another one; the first is named.
    """
    for name in members:
        if name not in known:
            raise errors.InvalidMessage(what, f"unknown member {name[:20]!r}")


def text(members: Mapping[str, object], name: str, max_length: int) -> str:
    """Return the text member `name`, at most `max_length` characters. Raises InvalidMessage."""
    value = members.get(name)
    if not isinstance(value, str):
        raise errors.InvalidMessage(name, "not a text")
    if len(value) > max_length:
        raise errors.InvalidMessage(name, f"longer than {max_length} characters")
    if not encodable(value):
        raise errors.InvalidMessage(name, "a half of a character, or NUL")
    return value


def encodable(value: str) -> bool:
    """Return whether a text can be stored and sent.

    JSON may hold a lone surrogate, which is no character, and NUL, which PostgreSQL does not keep.
    """
    return "\0" not in value and (value.isascii() or _SURROGATE.search(value) is None)


def integer(members: Mapping[str, object], name: str, least: int, most: int) -> int:
    """Return the whole-number member `name` between `least` and `most`. Raises InvalidMessage."""
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.InvalidMessage(name, "not a whole number")
    if not least <= value <= most:
        raise errors.InvalidMessage(name, f"not between {least} and {most}")
    return value


def items(members: Mapping[str, object], name: str, max_items: int) -> Sequence[object]:
    """Return the array member `name`, at most `max_items` long. Raises InvalidMessage."""
    value = members.get(name)
    if not isinstance(value, list):
        raise errors.InvalidMessage(name, "not an array")
    if len(value) > max_items:
        raise errors.InvalidMessage(name, f"more than {max_items} items")
    return value


def blob(members: Mapping[str, object], name: str, max_size: int) -> bytes:
    """Return the base64 member `name`, at most `max_size` bytes when decoded.

    Raises InvalidMessage.
    """
    encoded = text(members, name, (max_size + 2) // 3 * 4)
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise errors.InvalidMessage(name, "not base64") from None


def encode_blob(value: bytes) -> str:
    """Return `value` as base64 text, as `blob` reads it."""
    return base64.b64encode(value).decode("ascii")


def _count_values(untrusted: bytes) -> int:
    """Return a number that is at least that of the values in a JSON text."""
    return untrusted.count(b",") + untrusted.count(b"[") + untrusted.count(b"{")


def _parse_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a whole number is too long")
    return int(digits)


def _refuse_constant(name: str) -> object:
    raise ValueError(name)
