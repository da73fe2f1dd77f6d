# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Strangers cannot fill the log, and what is left out is told."""

from __future__ import annotations

import logging

import pytest

from ovirt_tcp_plugin.verifier.web.limits import BURST_S
from ovirt_tcp_plugin.verifier.web.refusal_log import (
    LINES_OF_STRANGERS,
    MAX_LINE,
    LibraryLog,
    RefusalLog,
)
from tests.verifier.live_server import Server

A_DAY_S = 24 * 3600


@pytest.fixture
def now() -> list[int]:
    return [0]


@pytest.fixture
def refusals(now: list[int]) -> RefusalLog:
    return RefusalLog(lambda: now[0])


def test_a_thousand_strangers_write_no_more_than_their_lines(
    refusals: RefusalLog, now: list[int]
) -> None:
    written = 0
    for second in range(600):
        now[0] = 1000 * second
        for number in range(100):
            written += refusals.admits(f"198.51.100.{number}", known=False)
    assert written <= LINES_OF_STRANGERS * (600 + BURST_S)
    assert refusals.left_out() == 600 * 100 - written
    assert refusals.left_out() == 0


def test_a_known_peers_refusals_are_written_however_many_strangers_there_are(
    refusals: RefusalLog,
) -> None:
    for number in range(100):
        refusals.admits(f"198.51.100.{number}", known=False)
    assert refusals.admits("host-1", known=True)


def test_a_line_of_the_library_is_cut_and_its_errors_are_all_written(refusals: RefusalLog) -> None:
    library = LibraryLog(refusals)
    long = logging.LogRecord("x", logging.INFO, "", 0, "Malformed %s", ("A" * 15_000,), None)
    assert library.filter(long)
    assert len(long.getMessage()) == MAX_LINE
    lines = [
        logging.LogRecord("x", logging.WARNING, "", 0, "SSL 100%", (), None) for _ in range(50)
    ]
    assert sum(map(library.filter, lines)) < 10
    fault = logging.LogRecord("x", logging.ERROR, "", 0, "Uncaught exception", (), None)
    assert library.filter(fault)


def test_unknown_methods_and_paths_write_little(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for number in range(15):
            long = b"A" * 15_000
            server.send(b"FOO /" + long + b"%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            server.send(b"GET /v1/hosts/%ff%fe" + long + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            server.send(b"GET /v1/\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n")
            server.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: \x01" + long + b"\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert 1 < len(lines) < 30
    assert max(map(len, lines)) < 500
    assert all(line.isprintable() for line in lines)
