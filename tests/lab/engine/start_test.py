# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is seen of an engine's start, and what a second one makes of external policy units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab.engine import audit_log
from tests.lab.engine.peers import TIMINGS, Lab, ScriptedScheduler


class TestEvents:
    def test_each_start_is_the_enforcers_event_and_none_of_the_engines_own(self, lab: Lab) -> None:
        lab.engine.restart(5)
        lab.pass_time(6)
        codes = [row.code for row in lab.engine.model.events]
        assert codes == [audit_log.ENFORCEMENT_STARTED] * 2
        assert (
            lab.engine.model.events[0].description == "Affinity Rules Enforcement Manager started."
        )

    @pytest.mark.parametrize(
        ("away_s", "codes"),
        [(5, []), (40, [audit_log.ENGINE_STOP, audit_log.ENGINE_START])],
        ids=["between two looks", "seen"],
    )
    def test_the_notifier_writes_late_what_it_saw(
        self, make_lab: Callable[..., Lab], away_s: float, codes: list[int]
    ) -> None:
        lab = make_lab(timings={**TIMINGS, "notifier": 30})
        lab.pass_time(31)
        lab.engine.restart(away_s)
        lab.pass_time(away_s + 1)
        assert audit_log.ENGINE_START not in [row.code for row in lab.engine.model.events]
        lab.pass_time(60)
        assert [row.code for row in lab.engine.model.events if row.code < 3] == codes

    def test_the_mark_is_there_while_the_engine_runs(
        self, make_lab: Callable[..., Lab], tmp_path: Path
    ) -> None:
        mark = tmp_path / "engine.up"
        lab = make_lab(up_mark=str(mark))
        first = mark.stat().st_mtime_ns
        lab.engine.restart(5)
        assert not mark.exists()
        lab.pass_time(6)
        assert mark.stat().st_mtime_ns > first


class TestSecondStart:
    def restart(self, lab: Lab) -> tuple[bool, bool]:
        """Restart the engine; return whether its filter is on, in memory and in the database."""
        lab.engine.restart(1)
        lab.pass_time(2)
        lab.engine.discovery.wait()
        unit = next(unit for unit in lab.engine.model.units.values() if unit.name == "TrustedHosts")
        assert lab.session.unit("TrustedHosts").enabled is unit.enabled
        return unit.enabled, unit.saved

    @pytest.mark.parametrize(("reload", "memory"), [("before", True), ("after", False)])
    def test_a_unit_that_is_told_as_it_was_ends_disabled_and_perhaps_in_force(
        self, filtered: Lab, reload: str, memory: bool
    ) -> None:
        filtered.engine.faults.units_reload = reload
        assert self.restart(filtered) == (memory, False)

    def test_while_it_is_off_nobody_is_asked_and_nobody_is_told(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        filtered.engine.faults.units_reload = "after"
        self.restart(filtered)
        asked, codes = len(proxy.asked), filtered.session.codes()
        filtered.session.vm_service("vm2").start()
        assert filtered.journal()["external"] == "not called"
        assert len(proxy.asked) == asked
        assert audit_log.SCHEDULER_UNREACHABLE not in codes

    def test_the_next_start_finds_it_disabled_and_writes_it(self, filtered: Lab) -> None:
        filtered.engine.faults.units_reload = "after"
        assert [self.restart(filtered) for _ in range(4)] == [(False, False), (True, True)] * 2

    def test_a_description_that_changes_keeps_it_enabled(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        filtered.engine.faults.units_reload = "after"
        for start in range(3):
            proxy.discovery = proxy.discovery.replace(b">trust", b">trust %d " % start, 1)
            assert self.restart(filtered) == (True, True)

    def test_chance_knows_both_outcomes(self, filtered: Lab) -> None:
        assert {self.restart(filtered)[0] for _ in range(12)} == {True, False}

    def test_an_answer_after_the_starts_end_finds_the_row_disabled_and_writes_it(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        filtered.engine.model.timings = dataclasses.replace(
            filtered.engine.model.timings, external_response=10
        )
        with proxy.silence():
            filtered.engine.restart(1)
            filtered.pass_time(2)
        filtered.engine.discovery.wait()
        unit = filtered.session.unit("TrustedHosts")
        assert (unit.enabled, filtered.engine.model.units[unit.id].saved) == (True, True)
