# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""No text of a peer begins a line in a log of ours, nor changes one on a terminal."""

from __future__ import annotations

import logging
from typing import Optional

import pytest

from ovirt_tcp_plugin.command import OneLine
from tests.forged_lines import FORGED, SEPARATORS


def logged(message: str, *parts: object, fault: Optional[Exception] = None) -> str:
    record = logging.LogRecord("verifier", logging.INFO, "", 0, message, parts, None)
    if fault is not None:
        record.exc_info = (type(fault), fault, fault.__traceback__)
    return OneLine("%(levelname)s %(name)s %(message)s").format(record)


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_message_stays_on_its_line(separator: str) -> None:
    line = logged("host=%s", f"a{separator}{FORGED}")

    assert line.isprintable()
    assert line.startswith("INFO verifier host=a")


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_traceback_has_a_mark_on_every_line(separator: str) -> None:
    fault = ValueError(f"a{separator}{FORGED}")

    text = logged("failed", fault=fault)

    first, *others = text.split("\n")
    assert first == "INFO verifier failed"
    assert all(line.startswith("  | ") and line.isprintable() for line in others)
    assert any(FORGED in line for line in others)
