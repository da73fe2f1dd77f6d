# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A broker's database that an earlier release left opens with all that is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.state.vm_records import Record
from ovirt_tcp_plugin.broker.store.database import FILE_NAME, Database
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.tokens import Tokens
from ovirt_tcp_plugin.broker.workers import vm_monitor

WRITTEN = Path(__file__).with_name("data") / "broker.sql"
NOW_MS = 1_800_000_003_000


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Database]:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.executescript(WRITTEN.read_text(encoding="utf-8"))
    connection.close()
    opened = Database(tmp_path)
    yield opened
    opened.close()


def test_its_history_is_shown_and_what_waited_becomes_an_event(earlier: Database) -> None:
    history = History(earlier, 1000, 90)
    codes = [entry["code"] for entry in history.find()]
    assert codes == ["pcr_differs", "pool_end", "vm_lost_trust"]
    ((number, notice),) = history.waiting(5)
    assert number == 1_800_000_002
    assert notice.text == "VM web runs on a host that is not trusted any more."
    assert history.record([notice], NOW_MS) == 0
    assert [number for number, _ in history.waiting(5)][0] == 1_800_000_002


def test_its_tokens_open_what_they_opened(earlier: Database) -> None:
    tokens = Tokens(earlier)
    roles = [token.role for token in tokens.every()]
    assert sorted(roles) == ["operator", "viewer"]
    assert tokens.find("of the viewer", NOW_MS / 1000) is not None
    assert tokens.find("of nobody", NOW_MS / 1000) is None


def test_the_vms_that_it_remembers_are_known(earlier: Database) -> None:
    assert vm_monitor._load(earlier) == {
        "v1": Record("pool", "Trusted", marked=True, needs_trust=True, warned="vm_untrusted"),
        "v2": Record("pool", "Trusted", marked=False, needs_trust=False, gone=True),
    }
