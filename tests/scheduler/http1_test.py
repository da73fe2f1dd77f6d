# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Heads of requests: the engine's, others that can be answered, and those of which nobody can tell
where they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.scheduler import http1

ENGINE = (
    b"POST / HTTP/1.1\r\nContent-Type: text/xml\r\nUser-Agent: Apache XML RPC 3.1.3 (Sun HTTP "
    b"Transport)\r\n"
    b"Cache-Control: no-cache\r\nHost: localhost:18781\r\nConnection: keep-alive\r\n"
    b"Content-Length: 51400"
)


def test_the_engines() -> None:
    assert http1.parse_head(ENGINE) == http1.Head(51400, keeps_open=True)


@pytest.mark.parametrize(
    ("untrusted", "head"),
    [
        (b"POST / HTTP/1.1", http1.Head(0, keeps_open=True)),
        (b"POST / HTTP/1.0", http1.Head(0, keeps_open=False)),
        (b"POST / HTTP/1.0\r\nConnection: Keep-Alive", http1.Head(0, keeps_open=True)),
        (
            b"POST / HTTP/1.1\r\nCONNECTION: close\r\ncontent-length:\t7 ",
            http1.Head(7, keeps_open=False),
        ),
        (b"HEAD /x HTTP/1.1", http1.Head(0, keeps_open=True, has_answer_body=False)),
    ],
)
def test_others(untrusted: bytes, head: http1.Head) -> None:
    assert http1.parse_head(untrusted) == head


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"rubbish",
        b"POST /",
        b"POST / HTTP/2.0",
        b"POST  / HTTP/1.1",
        b"POST / HTTP/1.1\r\nno field",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5",
        b"POST / HTTP/1.1\r\nContent-Length: 5, 6",
        b"POST / HTTP/1.1\r\nContent-Length: -5",
        b"POST / HTTP/1.1\r\nContent-Length: +5",
        b"POST / HTTP/1.1\r\nContent-Length: 0x5",
        b"POST / HTTP/1.1\r\nContent-Length: ",
        "POST / HTTP/1.1\r\nContent-Length: ²".encode("latin-1"),
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    ],
)
def test_where_nobody_can_tell_where_it_ends(untrusted: bytes) -> None:
    head = http1.parse_head(untrusted)
    assert head.fault
    assert not head.keeps_open


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_have_a_fault(untrusted: bytes) -> None:
    head = http1.parse_head(untrusted)
    assert head.body_length >= 0
    assert head.fault == "" or not head.keeps_open


def test_an_answer_has_status_200_and_says_where_it_ends() -> None:
    answer = http1.encode_answer(b"<x/>", http1.Head(5, keeps_open=True))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Content-Length: 4\r\nConnection: keep-alive\r\n\r\n<x/>")


def test_an_answer_to_head_has_no_body() -> None:
    answer = http1.encode_answer(b"<x/>", http1.Head(has_answer_body=False))
    assert answer.endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\n")
