# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker noticed and did: bounded, kept over kill -9, and turned into each event once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state import outbox
from ovirt_tcp_plugin.broker.store import database
from ovirt_tcp_plugin.broker.store import history as history_module
from ovirt_tcp_plugin.broker.store.database import Database
from ovirt_tcp_plugin.broker.store.history import MAX_EVENT_NUMBER, History
from ovirt_tcp_plugin.broker.store.tokens import Tokens
from ovirt_tcp_plugin.broker.workers.events import GIVE_UP_AFTER_MS, RETRY_MS, EventWriter
from ovirt_tcp_plugin.placement.inventory import Notice
from tests.broker.state.world import World

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


def notice(n: int, event: bool = True, at_ms: int = NOW_MS, **links: str) -> Notice:
    return Notice(f"code {n}", "normal", f"text {n}", at_ms=at_ms, event=event, **links)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def history(stored: Database) -> History:
    return History(stored, 1000, 90)


def texts(history: History, **how: Any) -> list[str]:
    return [one["text"] for one in history.find(**how)]


class TestBounds:
    def test_the_oldest_fall_out_by_number_and_what_was_no_event_yet_is_told(
        self, stored: Database
    ) -> None:
        history = History(stored, 10, 90)
        assert history.record([notice(n, event=n % 2 == 0) for n in range(8)], NOW_MS) == 0
        history.settle(history.waiting(1)[0][0])
        assert history.record([notice(n) for n in range(8, 14)], NOW_MS) == 1
        assert texts(history) == [f"text {n}" for n in range(4, 14)]

    def test_the_oldest_fall_out_by_age(
        self, history: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history_module, "LEAST_ENTRIES", 1)
        history.record(
            [notice(0, event=False), notice(1, event=False, at_ms=NOW_MS + DAY_MS)], NOW_MS
        )
        history.record(
            [notice(2, event=False, at_ms=NOW_MS + 91 * DAY_MS)], NOW_MS + 91 * DAY_MS - 1
        )
        assert texts(history) == ["text 1", "text 2"]

    def test_a_clock_that_jumps_takes_not_everything(self, history: History) -> None:
        history.record([notice(n) for n in range(5)], NOW_MS)
        assert history.record([notice(5)], NOW_MS + 10_000 * DAY_MS) == 0
        assert len(texts(history)) == 6

    def test_an_answer_holds_the_newest(self, history: History) -> None:
        history.record([notice(n) for n in range(20)], NOW_MS)
        assert texts(history, most=3) == ["text 17", "text 18", "text 19"]


class TestQuestions:
    def test_by_host_by_vm_and_since(self, history: History) -> None:
        history.record(
            [
                notice(0, host_id="h0", host="host-0"),
                notice(1, host_id="h1", host="host-1", vm_id="v0", vm="vm-0", at_ms=NOW_MS + 1),
                notice(2, vm_id="v0", vm="vm-0", at_ms=NOW_MS + 2),
            ],
            NOW_MS,
        )
        assert texts(history, host="host-1") == texts(history, host="h1") == ["text 1"]
        assert texts(history, vm="vm-0", since_ms=NOW_MS + 2) == ["text 2"]
        assert texts(history, host="' OR 1=1 --") == []

    def test_an_entry_says_when(self, history: History) -> None:
        history.record([notice(0)], NOW_MS)
        assert history.find()[0]["at"] == "2027-01-15T08:00:00.000Z"


class TestNumbers:
    def test_no_number_comes_twice_with_another_file_in_the_same_second(
        self, tmp_path: Path
    ) -> None:
        """Another broker has one, and so has this one after its file was lost: the engine would
        take the other's event for a second try of this one's."""
        numbers: list[int] = []
        for name in ("one", "another"):
            stored = Database(tmp_path / name)
            history = History(stored, 1000, 90)
            history.record([notice(n) for n in range(5)], NOW_MS)
            history.record([notice(n) for n in range(5)], NOW_MS)
            numbers += [number for number, _ in history.waiting(100)]
            stored.close()
        assert len(set(numbers)) == 20
        assert all(0 < number <= MAX_EVENT_NUMBER for number in numbers)


class FakeEngine:
    """Takes events, or does not."""

    def __init__(self) -> None:
        self.away = False
        self.gone = {"h9"}
        self.bad_texts: set[str] = set()
        self.events: dict[int, Notice] = {}

    def add_event(self, told: Notice, number: int) -> None:
        if self.away:
            raise errors.Unavailable("the engine", "it restarts")
        if told.text in self.bad_texts:
            raise errors.RequestFailed("the engine", "HTTP response code is 500")
        if told.host_id in self.gone:
            raise errors.NotFound("object at the engine", told.host_id)
        self.events[number] = told


class TestEvents:
    @pytest.fixture(autouse=True)
    def _writer(self, history: History) -> None:
        self.world, self.history, self.engine = World(), history, FakeEngine()
        self.world.clock.utc_ms = NOW_MS
        self.metrics = Metrics()
        engine, clock = self.engine, self.world.clock
        self.writer = EventWriter(self.world.state.outbox, history, engine, self.metrics, clock)
        self.writer.step()

    def test_an_event_for_an_engine_that_is_away_is_written_later_under_the_same_number(
        self,
    ) -> None:
        self.world.attest(good=self.world.ids())
        self.engine.away = True
        self.world.attest(bad=["h0"])
        with pytest.raises(errors.Unavailable):
            self.writer.step()
        ((number, _),) = self.history.waiting(5)
        self.engine.away = False
        self.writer.step()
        assert self.engine.events == {}, "an engine that was away is asked again after a while"
        self.world.clock.pass_ms(RETRY_MS)
        self.writer.step()
        assert list(self.engine.events) == [number]
        assert "host-0 is untrusted" in self.engine.events[number].text
        assert self.history.waiting(5) == []

    def test_one_that_the_engine_fails_at_keeps_no_other_waiting(self) -> None:
        self.engine.bad_texts = {"bad"}
        for text in ("bad", "good"):
            self.world.state.tell(Notice("code", "normal", text))
        self.writer.step()
        assert [event.text for event in self.engine.events.values()] == ["good"]
        self.engine.bad_texts.clear()
        self.world.clock.pass_ms(RETRY_MS)
        self.writer.step()
        assert [event.text for event in self.engine.events.values()] == ["good", "bad"]

    def test_one_that_the_engine_always_fails_at_is_lost_and_counted(self) -> None:
        self.engine.bad_texts = {"bad"}
        self.world.state.tell(Notice("code", "normal", "bad"))
        self.writer.step()
        self.world.clock.pass_ms(GIVE_UP_AFTER_MS - 1)
        self.writer.step()
        assert len(self.history.waiting(5)) == 1
        self.world.clock.pass_ms(RETRY_MS)
        self.writer.step()
        assert self.history.waiting(5) == []
        assert self.metrics._events.labels("lost")._value.get() == 1

    def test_one_about_something_that_is_gone_is_written_without_the_link(self) -> None:
        self.world.state.tell(Notice("gone", "warning", "it was here", host_id="h9"))
        self.writer.step()
        assert [(one.text, one.host_id) for one in self.engine.events.values()] == [
            ("it was here", "")
        ]

    def test_what_is_for_the_history_only_is_no_event(self) -> None:
        self.world.status("h0", "maintenance")
        self.writer.step()
        assert texts(self.history, host="host-0")[-1] == "Host host-0 is not Up any more."
        assert self.engine.events == {}

    def test_what_cannot_be_kept_now_is_kept_later(self, stored: Database) -> None:
        self.world.attest(bad=["h0"])
        with stored.transaction() as connection:
            connection.execute("ALTER TABLE history RENAME TO away")
        with pytest.raises(errors.Unavailable):
            self.writer.record()
        with stored.transaction() as connection:
            connection.execute("ALTER TABLE away RENAME TO history")
        self.writer.record()
        assert any("host-0 is untrusted" in text for text in texts(self.history))

    def test_more_than_can_be_held_meanwhile_is_counted_as_lost(self) -> None:
        state = self.world.state
        for _ in range(outbox.SIZE + 3):
            state.tell(Notice("many", "normal", "again", event=False))
        self.writer.record()
        assert self.metrics._events.labels("lost")._value.get() == 3


class TestDatabase:
    @pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_broken_one_is_set_aside_and_the_service_starts(
        self, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / database.FILE_NAME).write_bytes(content)
        with pytest.raises(errors.InvalidConfig):
            Database(tmp_path)
        opened = database.open_anyway(tmp_path)
        History(opened, 1000, 90).record([notice(0)], NOW_MS)
        opened.close()
        assert (tmp_path / f"{database.FILE_NAME}.broken").read_bytes() == content

    def test_one_that_is_locked_or_out_of_reach_is_left_alone_and_the_service_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "WITHIN_S", 0.05)
        opened = Database(tmp_path)
        History(opened, 1000, 90).record([notice(0)], NOW_MS)
        with opened.transaction():
            instead = database.open_anyway(tmp_path)
        History(instead, 1000, 90).record([notice(1)], NOW_MS)
        assert texts(History(opened, 1000, 90)) == ["text 0"]
        instead.close()
        opened.close()
        assert not list(tmp_path.glob("*.broken"))
        (tmp_path / "file").touch()
        database.open_anyway(tmp_path / "file").close()

    def test_one_with_a_torn_page_is_set_aside(self, tmp_path: Path) -> None:
        opened = Database(tmp_path)
        History(opened, 1000, 90).record([notice(n) for n in range(200)], NOW_MS)
        opened.close()
        content = bytearray((tmp_path / database.FILE_NAME).read_bytes())
        content[len(content) // 2 :] = b"\xee" * (len(content) - len(content) // 2)
        (tmp_path / database.FILE_NAME).write_bytes(content)
        database.open_anyway(tmp_path).close()
        assert (tmp_path / f"{database.FILE_NAME}.broken").exists()

    def test_one_of_a_newer_release_is_refused(self, tmp_path: Path) -> None:
        opened = Database(tmp_path)
        with opened.transaction() as connection:
            connection.execute(f"PRAGMA user_version = {database.VERSION + 1}")
        opened.close()
        for open_it in (Database, database.open_anyway):
            with pytest.raises(errors.InvalidConfig, match="newer release"):
                open_it(tmp_path)

    def test_nobody_else_may_read_it(self, stored: Database, tmp_path: Path) -> None:
        assert (tmp_path / database.FILE_NAME).stat().st_mode & 0o077 == 0

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
    def test_what_root_makes_by_a_command_the_service_can_use(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 65534, 65534)
        opened = Database(tmp_path)
        Tokens(opened).add("secret", "viewer", "", 2**62)
        assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}
        opened.close()

    def test_threads_take_turns(self, stored: Database, history: History) -> None:
        def work() -> None:
            for n in range(20):
                history.record([notice(n)], NOW_MS)
                history.find(most=5)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(history.find()) == 80
        assert len({number for number, _ in history.waiting(100)}) == 80

    def test_what_was_acknowledged_survives_kill_9(self, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from tests.broker.store.history_test import *\n"
            "history, n = History(Database(Path(sys.argv[1])), 100000, 90), 0\n"
            "while True:\n"
            "    history.record([notice(n)], NOW_MS); print(n, flush=True); n += 1\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(50):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            acknowledged = 50 + len(process.stdout.read().splitlines())
        opened = Database(tmp_path)
        kept = texts(History(opened, 100_000, 90))
        opened.close()
        assert kept[:acknowledged] == [f"text {n}" for n in range(acknowledged)]
        assert len(kept) <= acknowledged + 1
