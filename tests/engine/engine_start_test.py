# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When the engine started, by the file of its service or by systemd, and what setup makes of it."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.journal import Journal
from ovirt_tcp_plugin.admin.setup.phases import check_start
from ovirt_tcp_plugin.engine import engine_start as module
from ovirt_tcp_plugin.engine.engine_start import engine_start, started_at

UTC = datetime.timezone.utc


def seconds(count: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=count)


@pytest.fixture
def answer(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """Make a systemctl that runs this."""

    def make(script: str) -> tuple[str, ...]:
        command = tmp_path / "systemctl"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        return (str(command),)

    return make


def shown(load: str, active: str, started: object) -> str:
    lines = f"LoadState={load}\\nActiveState={active}\\nExecMainStartTimestampMonotonic={started}"
    return f"printf '{lines}\\n'"


class TestKnown:
    def test_the_file_of_the_service_tells_it(self, tmp_path: Path) -> None:
        mark = tmp_path / "engine.up"
        mark.write_text("1234\n")
        os.utime(mark, (1_700_000_000, 1_700_000_000))
        assert engine_start(mark) == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    @pytest.mark.parametrize("state", ["active", "activating"])
    def test_without_the_file_systemd_tells_it(
        self, tmp_path: Path, answer: Callable[[str], tuple[str, ...]], state: str
    ) -> None:
        age_us = int((time.clock_gettime(time.CLOCK_MONOTONIC) - 60) * 1_000_000)
        found = engine_start(tmp_path / "none", answer(shown("loaded", state, age_us)))
        assert abs(datetime.datetime.now(UTC) - seconds(60) - found) < seconds(2)


class TestStartFile:
    def test_a_file_that_is_missing_tells_nothing(self, tmp_path: Path) -> None:
        assert started_at(tmp_path / "no" / "engine.up") is None

    def test_its_time_is_that_of_the_start(self, tmp_path: Path) -> None:
        start_file = tmp_path / "engine.up"
        start_file.touch()
        os.utime(start_file, (1_700_000_000, 1_700_000_000))
        assert started_at(start_file) == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


class TestUnknown:
    @pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
    def test_an_engine_that_does_not_run_is_to_be_started(
        self, tmp_path: Path, answer: Callable[[str], tuple[str, ...]], state: str
    ) -> None:
        with pytest.raises(errors.Conflict, match="does not run: systemctl start ovirt-engine"):
            engine_start(tmp_path / "none", answer(shown("loaded", state, 5)))

    @pytest.mark.parametrize(
        "script",
        [
            shown("not-found", "inactive", 0),
            shown("loaded", "active", 0),
            shown("loaded", "active", "soon"),
            "exit 0",
            "echo System has not been booted with systemd >&2; exit 1",
        ],
    )
    def test_where_nothing_tells_it_the_option_is_named(
        self, tmp_path: Path, answer: Callable[[str], tuple[str, ...]], script: str
    ) -> None:
        with pytest.raises(
            errors.Conflict, match="cannot be told.*or set engine.start_file in broker.yaml"
        ):
            engine_start(tmp_path / "none", answer(script))

    def test_without_systemd_it_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(errors.Conflict, match="No such file"):
            engine_start(tmp_path / "none", (str(tmp_path / "systemctl"),))

    def test_a_systemctl_that_hangs_is_not_waited_for(
        self,
        tmp_path: Path,
        answer: Callable[[str], tuple[str, ...]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.2)
        with pytest.raises(errors.Conflict, match="no answer within 0 s"):
            engine_start(tmp_path / "none", answer("exec sleep 20"))


class TestComparison:
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        made = Journal(tmp_path)
        made.intend("option", "ExternalSchedulerEnabled", "false", "true")
        made.done("option", "ExternalSchedulerEnabled", "true")
        return made

    @staticmethod
    def changed(journal: Journal) -> datetime.datetime:
        return datetime.datetime.fromisoformat(journal.entries[0].at)

    @pytest.mark.parametrize("later_s", [-3600, -0.001, 0, 0.0009])
    def test_a_start_before_or_within_the_same_moment_does_not_count(
        self, journal: Journal, later_s: float
    ) -> None:
        time.sleep(0.002)
        started = self.changed(journal) + seconds(later_s)
        with pytest.raises(errors.Conflict, match="not been started since phase 1: systemctl"):
            check_start(journal, lambda: started, dry_run=False)

    def test_a_start_after_it_counts(self, journal: Journal) -> None:
        time.sleep(0.002)
        started = self.changed(journal) + seconds(0.001)
        check_start(journal, lambda: started, dry_run=False)

    def test_without_phase_1_nobody_asks(self, tmp_path: Path) -> None:
        def unknown() -> datetime.datetime:
            raise errors.Conflict("asked")

        check_start(Journal(tmp_path), unknown, dry_run=False)

    def test_a_start_of_the_future_does_not_count(self, journal: Journal) -> None:
        """The engine started by a clock that was ahead and has been set right since."""
        started = datetime.datetime.now(UTC) + seconds(3600)
        with pytest.raises(errors.Conflict, match="since the engine started: systemctl restart"):
            check_start(journal, lambda: started, dry_run=False)

    def test_after_a_clock_that_was_set_back_one_more_start_counts(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ahead = (datetime.datetime.now(UTC) + seconds(3600)).isoformat(timespec="milliseconds")
        with monkeypatch.context() as patch:
            patch.setattr("ovirt_tcp_plugin.admin.setup.journal._now", lambda: ahead)
            journal.done("option", "ExternalSchedulerEnabled", "true")
        before = datetime.datetime.now(UTC)
        with pytest.raises(errors.Conflict, match="set back since phase 1"):
            check_start(journal, lambda: before, dry_run=True)
        assert journal.entries[0].at == ahead
        with pytest.raises(errors.Conflict, match="back since phase 1: once more systemctl"):
            check_start(journal, lambda: before, dry_run=False)
        time.sleep(0.01)
        restarted = datetime.datetime.now(UTC)
        check_start(journal, lambda: restarted, dry_run=False)
        with pytest.raises(errors.Conflict, match="has not been started since phase 1"):
            check_start(journal, lambda: before, dry_run=False)
