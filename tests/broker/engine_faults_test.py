# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The whole broker against an engine that loses, delays, refuses and garbles: nothing stays wrong
for good."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.engine.sdk import LogInGate
from ovirt_tcp_plugin.lab.engine import audit_log, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import EVERYBODY, PASSWORD, Site, until

# libcurl asks again by itself when a kept connection ends, so that one lost answer takes two.
LOST = 2


@pytest.fixture
def running(site: Site) -> Site:
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    return site


def turn(site: Site, host: str, level: Level) -> None:
    site.source.levels[f"{host}.lab"] = level
    site.service.attest_host(site.host(host).id)


class TestAnswers:
    def test_a_lost_answer_to_maintenance_leaves_no_host_behind(self, running: Site) -> None:
        running.engine.faults.answers = [
            AnswerFault(faults.LOST, "POST", "api/hosts/.*/deactivate", LOST)
        ]
        turn(running, "h1", Level.UNTRUSTED)
        until(lambda: running.statuses()["h1"] == "maintenance")
        turn(running, "h1", Level.TRUSTED)
        until(lambda: running.statuses()["h1"] == "up" and running.inside() == EVERYBODY)

    def test_a_lost_answer_to_activation_is_no_second_one(self, running: Site) -> None:
        turn(running, "h1", Level.UNTRUSTED)
        until(lambda: running.statuses()["h1"] == "maintenance")
        running.engine.faults.answers = [
            AnswerFault(faults.LOST, "POST", "api/hosts/.*/activate", LOST)
        ]
        turn(running, "h1", Level.TRUSTED)
        until(lambda: running.inside() == EVERYBODY)
        activated = [
            row for row in running.engine.model.events if row.code == audit_log.HOST_ACTIVATED
        ]
        assert len(activated) == 1

    def test_a_lost_answer_to_an_event_writes_it_once(self, running: Site) -> None:
        running.engine.faults.answers = [AnswerFault(faults.LOST, "POST", "api/events", LOST)]
        turn(running, "h1", Level.UNTRUSTED)
        until(lambda: running.statuses()["h1"] == "maintenance")
        until(lambda: len(running.told("Host h1 is untrusted")) == 1)
        turn(running, "h1", Level.TRUSTED)
        until(lambda: running.told("Host h1 attested well"))
        assert len(running.told("Host h1 is untrusted (pcr_differs)")) == 1

    @pytest.mark.parametrize(
        "kind", [faults.BROKEN, faults.LOST, faults.CUT, faults.HTML, faults.GARBAGE]
    )
    def test_a_wall_whose_edits_fail_is_built_all_the_same(self, site: Site, kind: str) -> None:
        site.engine.faults.answers = [AnswerFault(kind, "POST", "api/clusters/.*", 6)]
        site.start()
        until(lambda: site.inside() == EVERYBODY and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        assert len(site.engine.model.groups) == 1

    def test_lists_that_are_garbage_or_missing_remove_no_wall(self, running: Site) -> None:
        calls = running.engine.rest.calls
        paths = "api/(clusters|hosts|vms|schedulingpolicies|schedulingpolicyunits)"
        running.engine.faults.answers = [
            AnswerFault(kind, "GET", paths, 8) for kind in (faults.GARBAGE, faults.HTML)
        ]
        until(lambda: not any(one.times for one in running.engine.faults.answers))
        seen = calls["GET hosts"]
        until(lambda: calls["GET hosts"] > seen + 2)
        assert running.inside() == EVERYBODY
        assert set(running.statuses().values()) == {"up"}


class TestLogIn:
    def test_a_password_that_changed_at_the_engine_is_sent_once_and_locks_no_account(
        self,
        site: Site,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        file = tmp_path / "engine.password"
        file.write_text(PASSWORD)
        engine = dataclasses.replace(site.options.engine, password_file=file)
        site.options = dataclasses.replace(site.options, engine=engine)
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        tries: list[str] = []
        sent: list[str] = []
        gate_log_in = LogInGate.log_in
        sso_log_in = site.engine.sessions.log_in

        def count_try(*arguments: Any) -> str:
            tries.append("")
            return gate_log_in(*arguments)

        def count_password(name: str, password: str) -> Any:
            sent.append(password)
            return sso_log_in(name, password)

        monkeypatch.setattr(LogInGate, "log_in", count_try)
        monkeypatch.setattr(site.engine.sessions, "log_in", count_password)
        users = site.engine.model.users.values()
        user = next(one for one in users if one.name == "broker@internal")
        user.password = "another"
        site.engine.sessions.end_all()
        until(lambda: len(tries) > 20)
        assert sent == [PASSWORD]
        text = site.service.metrics.render([], [], True, site.service.ages()).decode()
        assert "ovirt_tcp_broker_engine_access_refused 1.0" in text
        told = [record for record in caplog.records if "refuses the log-in" in record.getMessage()]
        # Once by whoever logged in, and once by each loop that asks the engine.
        assert len(told) <= 5
        file.write_text("another")
        until(lambda: site.inside() == EVERYBODY)
        assert sent == [PASSWORD, *["another"] * (len(sent) - 1)]
        asked = site.engine.rest.calls["GET hosts"]
        until(lambda: site.engine.rest.calls["GET hosts"] > asked + 2)
        text = site.service.metrics.render([], [], True, site.service.ages()).decode()
        assert "ovirt_tcp_broker_engine_access_refused 0.0" in text


class TestMaintenance:
    def test_one_that_begins_in_spite_of_its_refusal_ends_like_any_other(
        self, running: Site
    ) -> None:
        """The engine refuses when a VM can go nowhere, yet the host is on its way to
        maintenance."""
        tables = running.engine.model
        tables.timings = dataclasses.replace(tables.timings, evacuation_retry=0.3)
        vm = next(one for one in tables.vms.values() if one.host == running.host("h1").id)
        rules = model.Rule(enabled=True, enforcing=True), model.Rule()
        group = model.AffinityGroup(model.new_id(), "an administrator's", running.cluster, *rules)
        group.hosts, group.vms = [running.host("h1").id], [vm.id]
        tables.groups[group.id] = group
        turn(running, "h1", Level.UNTRUSTED)
        until(lambda: running.statuses()["h1"] == "preparing_for_maintenance")
        until(lambda: running.told("maintenance was refused"))
        assert running.inside() == EVERYBODY - {"h1"}
        del tables.groups[group.id]
        until(lambda: running.statuses()["h1"] == "maintenance")
        turn(running, "h1", Level.TRUSTED)
        until(lambda: running.inside() == EVERYBODY)

    def test_one_that_hangs_is_not_asked_for_again(self, running: Site) -> None:
        running.engine.faults.hanging_maintenance = {"h1"}
        turn(running, "h1", Level.UNTRUSTED)
        until(lambda: running.statuses()["h1"] == "preparing_for_maintenance")
        asked = running.engine.rest.calls["GET hosts"]
        until(lambda: running.engine.rest.calls["GET hosts"] > asked + 5)
        actions = [
            count for call, count in running.engine.rest.calls.items() if "deactivate" in call
        ]
        assert actions == [1]
        assert running.inside() == EVERYBODY - {"h1"}
        running.engine.faults.hanging_maintenance = set()
        turn(running, "h1", Level.TRUSTED)
        until(lambda: running.inside() == EVERYBODY)


class TestEvents:
    def test_a_reboot_whose_events_are_lost_is_seen_in_the_list(self, running: Site) -> None:
        codes = {audit_log.HOST_CONNECTING, audit_log.HOST_NOT_RESPONDING, audit_log.HOST_DETECTED}
        running.engine.faults.lost_events = codes
        running.source.levels["h4.lab"] = Level.TIMEOUT
        running.engine.hosts.power(running.host("h4"), False)
        until(lambda: running.inside() == EVERYBODY - {"h4"})
        running.engine.hosts.power(running.host("h4"), True)
        until(lambda: running.statuses()["h4"] == "up")
        assert "h4" not in running.trusted_in_snapshot()

    def test_the_engines_start_counts_when_its_event_shows_late(self, running: Site) -> None:
        running.engine.faults.late_events = {audit_log.ENFORCEMENT_STARTED: 0.5}
        asked = len(running.source.asked)
        running.engine.restart(0.1)
        until(lambda: len(running.source.asked) >= asked + 2)
        until(lambda: running.inside() == EVERYBODY)
        assert set(running.statuses().values()) == {"up"}
