# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The little of HTTP/1.1 that the engine's Java client needs (RFC 9112). Pure.

A request has a head and a body of a declared length. Method, path and type do not matter: every
answer has status 200, because the engine takes any other as no answer and keeps all hosts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

MAX_HEAD_SIZE = 8192
HEAD_END = b"\r\n\r\n"
# The digits of a number that no body is as long as.
MAX_DIGITS = 19
_ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n"
)


@dataclasses.dataclass(frozen=True)
class Head:
    """What matters of the head of a request.

    Attributes:
        body_length: in bytes.
        keeps_open: whether the peer wants to go on with the connection after the answer.
        has_answer_body: False for HEAD: a body would be taken for the next answer.
        fault: why nobody can tell where the request ends; empty if it can be told.
    """

    body_length: int = 0
    keeps_open: bool = False
    has_answer_body: bool = True
    fault: str = ""


def parse_head(untrusted: bytes) -> Head:
    """Return the head of a request, given without the empty line that ends it."""
    start_line, *lines = untrusted.decode("latin-1").split("\r\n")
    words = start_line.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return Head(fault="this is no request of HTTP/1.0 or HTTP/1.1")
    method, _, version = words
    fields = _fields(lines)
    if fields is None:
        return Head(fault="its head has a line that is no field, or two lengths")
    if "transfer-encoding" in fields:
        return Head(fault="a body is only read if its length is declared")
    length = _length(fields.get("content-length", "0"))
    if length is None:
        return Head(fault="its Content-Length is no length")
    keeps_open = _keeps_open(version, fields.get("connection", ""))
    return Head(length, keeps_open, has_answer_body=method != "HEAD")


def _keeps_open(version: str, connection: str) -> bool:
    """Return whether the peer wants to go on (RFC 9112, 9.3)."""
    if version == "HTTP/1.0":
        return connection.lower() == "keep-alive"
    return connection.lower() != "close"


def _fields(lines: Sequence[str]) -> Optional[dict[str, str]]:
    """Return the fields by name; None if a line is none, or there are two lengths."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or (name == "content-length" and name in fields):
            return None
        fields[name] = value.strip(" \t")
    return fields


def encode_answer(content: bytes, head: Head) -> bytes:
    """Return an answer to a request with that head."""
    connection = b"keep-alive" if head.keeps_open else b"close"
    answer_head = _ANSWER_HEAD % (len(content), connection)
    return answer_head + content if head.has_answer_body else answer_head


def _length(untrusted: str) -> Optional[int]:
    if not untrusted.isascii() or not untrusted.isdecimal():
        return None
    return int(untrusted) if len(untrusted) <= MAX_DIGITS else None
