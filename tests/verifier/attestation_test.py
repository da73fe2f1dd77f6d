# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whom the attestation challenges, and which results count."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from ovirt_tcp_plugin.messages.result import AttestationResult, Level
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import results, schema
from tests.verifier.administrator import SETS, Administrator
from tests.verifier.agent import Agent
from tests.verifier.live_server import POLL, Server, level_of
from tests.verifier.vendor import Vendor

pytestmark = pytest.mark.each_database

OTHER_BOOT = "99999999-2222-3333-4444-555555555555"


def test_who_stays_untrusted_is_not_challenged_without_end(
    server: Server,
    admin: Administrator,
    agent: Agent,
) -> None:
    server.choose_good_boot()
    agent.boot_evil()
    agent.report()
    admin.ask("DELETE", f"{SETS}/golden")
    agent.tpm.boot_id = OTHER_BOOT
    agent.tpm.reset_count += 1
    agent.report()
    agent.challenge(wait_ms=0)  # what was asked when the set was removed
    assert agent.challenge(wait_ms=400) is None


@pytest.mark.parametrize("profile", ["txt+firmware", "txt-legacy", "uefi"])
def test_a_stricter_profile_counts_at_once_for_results_of_before(
    server: Server, agent: Agent, authority: Authority, vendor: Vendor, tmp_path: Path, profile: str
) -> None:
    """A host that did not show what is required now is unknown, and not taken out for it."""
    server.choose_good_boot()
    assert agent.report()["level"] == "trusted"
    server.stop()
    restarted = Server(
        tmp_path, server.database, authority, vendor, profile=profile, poll_deadline=0.01
    )
    viewer = restarted.token("viewer")
    young = {"hosts": ["host-1"], "timeThreshold": 600_000}
    question = {"hosts": ["host-1"], "max_age_ms": 600_000, "wait_ms": 0}

    listed = level_of(restarted)
    (polled,) = restarted.call("POST", POLL, young, token=viewer).json()["hosts"]
    (result,) = restarted.call("POST", "/v1/results", question, token=viewer).json()["hosts"]
    restarted.stop()

    assert (listed, polled["trust_lvl"], result["level"]) == ("unknown",) * 3
    assert {finding["code"] for finding in result["findings"]} == {"no_reference_values"}


def test_the_same_profile_keeps_results_over_a_restart(
    server: Server, agent: Agent, authority: Authority, vendor: Vendor, tmp_path: Path
) -> None:
    server.choose_good_boot()
    assert agent.report()["level"] == "trusted"
    server.stop()
    restarted = Server(tmp_path, server.database, authority, vendor)

    level = level_of(restarted)
    restarted.stop()

    assert level == "trusted"


def test_a_result_of_a_release_that_did_not_keep_the_profile_is_judged_again(
    server: Server, agent: Agent
) -> None:
    server.choose_good_boot()
    assert agent.report()["level"] == "trusted"
    forget = sa.update(schema.results).values(profile="")
    server.database.transact(lambda connection: connection.execute(forget))

    assert level_of(server) == "trusted"
    kept = server.database.transact(lambda connection: results.find(connection, "host-1"))
    assert isinstance(kept, results.Result)
    assert kept.profile == "17,18"


def test_a_result_that_was_voided_while_it_was_asked_for_is_unknown_to_openattestations_clients(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take `vtime` for the moment at which it was born."""

    async def voided(*question: object) -> list[AttestationResult]:
        return [AttestationResult("host-1", Level.TRUSTED), AttestationResult("h", Level.UNTRUSTED)]

    monkeypatch.setattr(server.attestation, "results", voided)
    viewer = server.token("viewer")

    polled = server.call("POST", POLL, {"hosts": ["host-1", "h"]}, token=viewer).json()["hosts"]

    assert [host["trust_lvl"] for host in polled] == ["unknown", "untrusted"]


def test_a_host_whose_result_was_voided_is_not_trusted_by_the_single_question_of_2x(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def voided(*question: object) -> list[AttestationResult]:
        return [AttestationResult("host-1", Level.TRUSTED)]

    monkeypatch.setattr(server.attestation, "results", voided)
    path = "/AttestationService/resources/hosts/trust?hostName=host-1"

    answer = server.call("GET", path, token=server.token("viewer"))

    assert (answer.status_code, answer.json()["error_code"]) == (
        400,
        "AS_HOST_COMMUNICATION_ERROR",
    )


def test_silence_leaves_no_result_that_a_later_question_could_be_answered_by(
    server: Server, agent: Agent
) -> None:
    server.choose_good_boot()
    assert agent.report()["level"] == "trusted"
    viewer = server.token("viewer")

    (silent,) = server.call("POST", POLL, {"hosts": ["host-1"]}, token=viewer).json()["hosts"]
    young = {"hosts": ["host-1"], "timeThreshold": 600_000}
    (later,) = server.call("POST", POLL, young, token=viewer).json()["hosts"]

    assert (silent["trust_lvl"], later["trust_lvl"]) == ("timeout", "trusted")
