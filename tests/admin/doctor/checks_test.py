# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The doctor as a whole: what it says of an installation that is well, of silence, and of its own
faults."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.doctor import collector, scheduling_policies
from ovirt_tcp_plugin.admin.doctor.collector import Collector, settle
from ovirt_tcp_plugin.admin.doctor.findings import named
from ovirt_tcp_plugin.lab.engine import faults
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from tests.admin.doctor.conftest import Installation

# What can be told without the engine.
ELSEWHERE = {
    "scheduler",
    "broker",
    "charge",
    "filterd",
    "servers",
    "records",
    "clocks",
    "lockdown",
    "quarantine",
    "guard",
    "secrets",
}


@pytest.fixture
def engine_faults(installation: Installation) -> Iterator[list[AnswerFault]]:
    switches = installation.site.engine.faults
    yield switches.answers
    switches.answers = []


class TestSilence:
    @pytest.mark.parametrize("kind", [faults.HTML, faults.GARBAGE, faults.BROKEN])
    def test_an_engine_that_gives_no_answer_leaves_the_rest_checked(
        self, installation: Installation, engine_faults: list[AnswerFault], kind: str
    ) -> None:
        engine_faults.append(AnswerFault(kind, "GET", times=1000))
        look = installation.look()
        assert (look.bad, look.status) == (
            {"engine_silent": "FAIL", "not_checked": "not checked"},
            1,
        )
        assert {one["check"] for one in look.found if one["state"] == "ok"} == ELSEWHERE
        assert "The engine is unavailable" in look.by_code["engine_silent"]["text"]
        lines = installation.run().output.splitlines()
        assert "not checked  wall             The engine is unavailable" in "\n".join(lines)

    def test_an_engine_that_hangs_costs_no_more_than_the_time_given(
        self, installation: Installation, engine_faults: list[AnswerFault]
    ) -> None:
        engine_faults.append(AnswerFault(faults.SILENT, "GET", times=1000))
        look = installation.look({"engine": {"timeout_s": 30.0}}, within=1)
        assert look.took_s < 5
        assert look.bad == {"engine_silent": "FAIL", "not_checked": "not checked"}
        assert "no answer within 1 s" in look.by_code["engine_silent"]["text"]

    def test_one_list_that_fails_leaves_one_check_out(
        self, installation: Installation, engine_faults: list[AnswerFault]
    ) -> None:
        engine_faults.append(AnswerFault(faults.BROKEN, "GET", "api/options/.*", times=1000))
        look = installation.look()
        assert look.bad == {"not_checked": "not checked"}
        assert look.status == 1
        assert [one["check"] for one in look.found if one["state"] == "not checked"] == ["property"]

    def test_an_engine_without_the_option_is_said(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rest = installation.site.engine.rest
        routes = [route for route in rest._routes if route.path != "options/{}"]
        monkeypatch.setattr(rest, "_routes", routes)
        findings = installation.look().found
        unchecked = [row["check"] for row in findings if row["state"] == "not checked"]
        assert unchecked == ["property"]


class TestRefusals:
    def test_a_refused_password_is_no_dead_engine_and_is_sent_once(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[str] = []
        sessions = installation.site.engine.sessions
        log_in = sessions.log_in

        def counted(name: str, password: str) -> object:
            sent.append(password)
            return log_in(name, password)

        monkeypatch.setattr(sessions, "log_in", counted)
        wrong = installation.directory / "wrong.password"
        wrong.write_text("mistaken")
        wrong.chmod(0o600)
        look = installation.look({"engine": {"password_file": str(wrong)}})
        assert look.bad == {"login_refused": "FAIL", "not_checked": "not checked"}
        refusal = look.by_code["login_refused"]
        assert "refuses the log-in of broker@internal" in refusal["text"]
        assert str(wrong) in refusal["next"]
        assert "ovirt-aaa-jdbc-tool user unlock broker" in refusal["next"]
        assert sent == ["mistaken"]
        assert {one["check"] for one in look.found if one["state"] == "ok"} == ELSEWHERE

    def test_a_user_without_a_role_is_sent_to_setup(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = installation.tables.users.values()
        user = next(one for one in users if one.name == "broker@internal")
        monkeypatch.setattr(user, "roles", set())
        installation.site.engine.sessions.end_all()
        look = installation.look()
        assert look.bad == {"login_permit_missing": "FAIL", "not_checked": "not checked"}
        assert "ovirt-tcp setup" in look.by_code["login_permit_missing"]["next"]


class TestOwnFaults:
    def test_a_check_that_breaks_is_not_ok_and_the_others_are_made(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def breaks(*_: object) -> None:
            raise KeyError("surprise")

        monkeypatch.setattr(scheduling_policies, "unit", breaks)
        look = installation.look()
        assert look.bad == {"not_checked": "not checked"}
        assert (
            "The check itself failed (KeyError: 'surprise')" in look.by_code["not_checked"]["text"]
        )

    def test_without_a_configuration_it_says_so(self, installation: Installation) -> None:
        missing = "broker.yaml"
        installation.look()
        kept = (installation.directory / missing).rename(installation.directory / "kept")
        done = installation.run()
        kept.rename(installation.directory / missing)
        assert (done.exit_code, "does not exist" in done.output) == (1, True)


class TestCollector:
    def test_what_is_not_there_in_time_is_unavailable(self) -> None:
        collector = Collector(0.05)
        collector.start("never", lambda: time.sleep(1))
        with pytest.raises(errors.Unavailable, match="no answer within 0 s"):
            collector.value("never")

    def test_what_needs_a_value_that_fails_fails_alike(self) -> None:
        def fail() -> None:
            raise errors.NotFound("thing", "x")

        collector = Collector(5)
        collector.start("one", fail)
        collector.start("two", lambda one: one, "one")
        with pytest.raises(errors.NotFound):
            collector.value("two")

    def test_a_difference_that_passes_is_none(self) -> None:
        looks = [["differs"], [], ["again"]]
        assert settle(lambda: looks.pop(0)) == []
        assert looks == [["again"]]

    def test_a_difference_that_stays_is_looked_at_so_often(self) -> None:
        looks: list[int] = []

        def look() -> list[str]:
            looks.append(1)
            return ["differs"]

        assert settle(look) == ["differs"]
        assert len(looks) == collector.LOOKS


class TestPrinted:
    def test_a_good_installation_is_good_and_left_alone(self, installation: Installation) -> None:
        calls = installation.site.engine.rest.calls
        calls.clear()
        look = installation.look()
        assert (look.bad, look.status) == ({}, 0)
        assert {call.partition(" ")[0] for call in calls} == {"GET"}

    def test_lines_are_aligned_with_state_code_and_next_step(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(installation.policy, "balances", [])
        installation.look()
        done = installation.run()
        assert done.exit_code == 1
        lines = done.output.splitlines()
        assert (
            lines[0]
            == "ok    engine           The engine answers, and lets the broker's user log in."
        )
        (position,) = [n for n, line in enumerate(lines) if line.startswith("FAIL")]
        assert lines[position].startswith(
            "FAIL  no_balance       Policy trusted of cluster Trusted has no balance unit"
        )
        assert lines[position + 1].startswith("                 next  choose a load balancer")

    def test_long_lists_of_names_are_cut(self) -> None:
        assert named(f"h{n}" for n in range(9)).count("h") == 9
        assert named(f"h{n:02}" for n in range(12)).endswith("h09 and 2 more")


def test_every_finding_says_what_to_do_and_no_secret(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.wall.vms, kept = [], installation.wall.vms
    look = installation.look(
        {"verifier": {"urls": ["https://127.0.0.1:1"]}}, {"server": {"port": 1}}
    )
    installation.wall.vms = kept
    said = str(look.found)
    assert all(one["next"] for one in look.found if one["state"] in ("FAIL", "warning"))
    assert "of the engine" not in said.replace("of the engine's", "")
    assert "of the API" not in said
