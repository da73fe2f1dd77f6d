# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The largest and oddest inputs of each form, about 1 MiB each unless a size is given.

Nested, endless, repeated, in great numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from tests.messages.hostile import LARGE


def binary(good: bytes) -> Iterator[bytes]:
    """Inputs for a parser of a binary structure."""
    for filler in (b"\0", b"\xff", b"\x30\x80", good):
        yield _filled(b"", filler)
        yield _filled(good, filler)


def json_object(good: bytes, size: int = LARGE, only: str = "") -> Iterator[bytes]:
    """Inputs for a parser of a JSON object: odd as a whole, and odd in each member, or in one."""
    for filler in (b"\0", b" ", b"[", b'{"a":', b"[[],", b"9", b'"\\u0041'):
        yield _filled(b"", filler, size)
    yield _filled(b"[", b"9" * 4290 + b",", size)
    members = json.loads(good)
    more = {f"x{number}": number for number in range(60_000 * size // LARGE)}
    yield json.dumps({**members, **more}).encode()
    for name in [only] if only else members:
        for value in _values(size):
            yield json.dumps({**members, name: "VALUE"}).encode().replace(b'"VALUE"', value)
        again = b'"%b":0,' % name.encode()
        yield _filled(b"{", again, size - len(good))[: -len(again)] + good[1:]


def xml(good: bytes) -> Iterator[bytes]:
    """Inputs for a parser of XML-RPC."""
    yield from binary(good)
    start = b"<methodCall><methodName>"
    for unit in (b"<a>", b"<a/>", b"&lt;", b"&#65;", b"a", b"<!---->", b"<![CDATA[a]]>", b"<?a?>"):
        yield _filled(start, unit)
    start = b"<methodCall><methodName>a</methodName><params><param>"
    for unit in (
        b"<value>",
        b"<array><data>",
        b"<value/>",
        b"<struct><member><name>a</name>",
        b"<name>a</name>",
    ):
        yield _filled(start, unit)
    yield _filled(start + b"<value><array><data>", b"<value>a</value>") + b"</data></array></value>"
    yield b"<methodCall " + b" ".join(b'a%d=""' % number for number in range(90_000)) + b"/>"


def event_log(good: bytes) -> Iterator[bytes]:
    """Inputs for a parser of event logs; `good` ends after an event."""
    yield from binary(good)
    digest = struct.pack("<IIIH", 17, 0x402, 1, 0x000B) + bytes(32)
    yield _filled(good, digest + bytes(4))
    yield _filled(good, struct.pack("<II20sI", 17, 0x402, b"", 0))
    yield good + digest + struct.pack("<I", 250_000) + bytes(250_000)
    yield good + digest + struct.pack("<I", 2**32 - 1)


def pem(good: bytes) -> Iterator[bytes]:
    """Inputs for a parser of certificates in PEM."""
    yield from binary(good)
    begin = b"-----BEGIN CERTIFICATE-----"
    yield _filled(b"", begin)
    yield _filled(begin, b"\n") + b"-----END CERTIFICATE-----"
    yield begin + b"A" * LARGE + b"-----END CERTIFICATE-----"


def _filled(start: bytes, filler: bytes, size: int = LARGE) -> bytes:
    """Return `start` and as much filler as makes up the size."""
    return start + filler * ((size - len(start)) // len(filler))


def _values(whole: int) -> Iterator[bytes]:
    """JSON values of almost that size."""
    size = whole - 32_768
    yield b'"' + b"A" * size + b'"'
    yield b'"' + b"=" * size + b'"'
    yield b'"' + b"0-" * (size // 2) + b'"'
    yield b'"' + b"\\ud800" * (size // 6) + b'"'
    yield b"9" * size
    yield b"9" * 4000
    yield b"1e" + b"9" * size
    yield b"[" * (size // 2) + b"]" * (size // 2)
    yield b"[" * 400 + b"]" * 400
    for unit in (b"0", b'""', b"[]", b"{}", b"null"):
        yield b"[" + (unit + b",") * (size // (len(unit) + 1) - 1) + unit + b"]"
    count = 70_000 * whole // LARGE
    yield b"{" + b",".join(b'"%d":{}' % number for number in range(count)) + b"}"
    yield b"{" + b",".join(b'"%d":""' % number for number in range(count)) + b"}"
