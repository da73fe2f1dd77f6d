# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The log of a boot travels once; who only names it gets no more than who sends it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from ovirt_tcp_plugin.messages import eventlog, evidence
from ovirt_tcp_plugin.verifier.store import hosts, results
from tests.verifier.administrator import SETS, Administrator
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.software_tpm import SoftwareTpm, launch_events
from tests.verifier.vendor import Vendor

OTHER_BOOT = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
def agent(server: Server, vendor: Vendor) -> Agent:
    server.choose_good_boot()
    enrolled = Agent(server, vendor).enrol()
    enrolled.names_logs = True
    return enrolled


def asked(agent: Agent) -> evidence.Challenge:
    """Return the challenge to an agent that somebody asks."""
    agent.server.judge_all()
    challenge = agent.challenge()
    assert challenge is not None
    return challenge


def named(agent: Agent, challenge: evidence.Challenge, digests: dict[str, str]) -> dict[str, Any]:
    """Return evidence that names these logs."""
    members = agent.evidence(challenge)
    members["logs"] = {}
    members["log_digests"] = digests
    return members


def refusal(agent: Agent, message: dict[str, Any]) -> tuple[int, str]:
    answer = agent.send(message)
    return answer.status_code, answer.json()["code"]


def spoil(server: Server, column: str, value: object) -> None:
    statement = sa.text(f"UPDATE results SET {column} = :value")  # noqa: S608
    server.database.transact(lambda c: c.execute(statement, {"value": value}))


class TestRefused:
    def test_the_name_of_a_log_that_was_never_sent(self, agent: Agent) -> None:
        agent.report()
        challenge = asked(agent)
        assert refusal(agent, named(agent, challenge, {"txt": "a" * 64})) == (403, "log_unknown")
        again = asked(agent)
        assert agent.answer(again).json()["level"] == "trusted"

    def test_the_name_of_a_log_before_any_was_sent(self, agent: Agent) -> None:
        challenge = agent.challenge()
        assert challenge is not None
        assert challenge.known_logs == {}
        digest = evidence.log_digest(agent.tpm.log or b"")
        assert refusal(agent, named(agent, challenge, {"txt": digest})) == (403, "log_unknown")

    def test_the_name_of_another_hosts_log(
        self, server: Server, vendor: Vendor, agent: Agent
    ) -> None:
        agent.report()
        known = asked(agent).known_logs
        evil = Agent(server, vendor, "host-2", SoftwareTpm(1)).enrol()
        evil.boot_evil()
        assert evil.report()["level"] == "untrusted"
        evil.tpm.boot_id = agent.tpm.boot_id
        message = named(evil, asked(evil), dict(known))
        assert refusal(evil, message) == (403, "log_unknown")

    def test_the_name_of_a_log_of_the_boot_before(self, agent: Agent) -> None:
        agent.report()
        known = dict(asked(agent).known_logs)
        agent.tpm.boot_id = OTHER_BOOT
        agent.tpm.reset_count += 1
        challenge = agent.challenge()
        assert challenge is not None
        assert challenge.known_logs == {}
        assert refusal(agent, named(agent, challenge, known)) == (403, "log_unknown")

    def test_a_log_both_sent_and_named(self, agent: Agent) -> None:
        agent.report()
        challenge = asked(agent)
        agent.names_logs = False
        both = {**agent.evidence(challenge), "log_digests": dict(challenge.known_logs)}
        assert agent.send(both).status_code == 400

    def test_a_nonce_that_was_used_with_a_name(self, agent: Agent) -> None:
        agent.report()
        message = agent.evidence(asked(agent))
        assert agent.send(message).status_code == 200
        assert refusal(agent, message) == (403, "nonce_unknown")


class TestUntrusted:
    def test_another_kernel_under_the_name_of_the_good_log(self, agent: Agent) -> None:
        agent.report()
        known = dict(asked(agent).known_logs)
        agent.tpm.boot(launch_events(kernel=b"evil"))
        answer = agent.send(named(agent, asked(agent), known)).json()
        codes = [finding["code"] for finding in answer["findings"]]
        assert (answer["level"], codes[0]) == ("untrusted", "log_differs")
        assert asked(agent).known_logs == {}

    def test_values_that_were_withdrawn_count_for_a_named_log(
        self, agent: Agent, admin: Administrator
    ) -> None:
        agent.report()
        admin.ask("DELETE", f"{SETS}/golden")
        message = agent.evidence(asked(agent))
        assert message["logs"] == {}
        answer = agent.send(message).json()
        assert answer["level"] == "unknown"


@pytest.mark.each_database
class TestTrusted:
    def test_a_log_travels_once_in_a_boot(self, agent: Agent) -> None:
        sizes = []
        for _ in range(3):
            message = agent.evidence(asked(agent))
            sizes.append(len(message["logs"]))
            assert agent.send(message).json()["level"] == "trusted"
        assert sizes == [1, 0, 0]

    def test_a_named_report_is_short_and_keeps_what_was_measured(
        self, server: Server, agent: Agent
    ) -> None:
        agent.report()
        before = server.database.transact(lambda c: results.measured(c, ["host-1"]))
        message = agent.evidence(asked(agent))
        assert len(json.dumps(message)) <= 4096
        assert agent.send(message).status_code == 200
        assert server.database.transact(lambda c: results.measured(c, ["host-1"])) == before

    def test_an_agent_of_an_older_release_sends_its_log_each_time(self, agent: Agent) -> None:
        agent.names_logs = False
        for _ in range(2):
            message = agent.evidence(asked(agent))
            assert list(message["logs"]) == ["txt"]
            assert agent.send(message).json()["level"] == "trusted"

    def test_an_untrusted_host_whose_log_is_in_order_names_it_too(
        self, agent: Agent, admin: Administrator
    ) -> None:
        agent.boot_evil()
        assert agent.report()["level"] == "untrusted"
        message = agent.evidence(asked(agent))
        assert message["logs"] == {}
        assert agent.send(message).json()["level"] == "untrusted"
        status, _ = admin.import_from(agent, "evil")
        assert status == 200
        assert agent.send(agent.evidence(asked(agent))).json()["level"] == "trusted"

    @pytest.mark.parametrize("column", ["logs", "measured"])
    @pytest.mark.parametrize("rubbish", ["", "x", "0.1.0 txt", "{}"])
    def test_a_spoilt_record_has_the_log_sent_again(
        self, server: Server, agent: Agent, column: str, rubbish: str
    ) -> None:
        agent.report()
        spoil(server, column, rubbish)
        for _ in range(2):
            answer = agent.answer(asked(agent))
            agent.names_logs = answer.json().get("code") != "log_unknown"
        assert answer.json()["level"] == "trusted"

    def test_another_release_reads_the_log_again(
        self, server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent.report()
        monkeypatch.setattr(results, "_RELEASE", "99.0")
        challenge = asked(agent)
        assert challenge.known_logs == {}
        agent.answer(challenge)
        assert asked(agent).known_logs != {}

    def test_a_host_that_is_enrolled_again_sends_its_log_again(
        self, server: Server, agent: Agent
    ) -> None:
        agent.report()
        server.database.transact(lambda c: hosts.remove(c, "host-1"))
        agent.enrol()
        assert asked(agent).known_logs == {}


def test_what_the_log_has_that_nothing_depends_on_is_shown_also_when_it_is_only_named(
    agent: Agent,
) -> None:
    odd = eventlog.Event(0x01C40200, 0x800000F7, {"sha256": b"o" * 32}, b"")
    agent.tpm.log = eventlog.encode([*agent.tpm.events, odd], ["sha256"])
    token = agent.server.token("viewer")
    for _ in range(2):
        message = agent.evidence(asked(agent))
        assert agent.send(message).json()["level"] == "trusted"
        boot = agent.server.call("GET", "/v1/hosts/host-1/boot", token=token).json()
        assert boot["notes"] == [
            "the txt log has 1 events of the index 0x1c40200, which no PCR has: "
            "they concern no judged PCR"
        ]
