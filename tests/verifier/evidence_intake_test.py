# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What evidence changes of what is kept, and which evidence proves nothing."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.verifier.settings import Appraisal
from tests.verifier.administrator import SETS, Administrator
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server, level_of
from tests.verifier.software_tpm import launch_events

pytestmark = pytest.mark.each_database

OTHER_BOOT = "99999999-2222-3333-4444-555555555555"


def test_what_new_evidence_failed_is_not_forgotten_while_there_are_no_values(
    server: Server,
    admin: Administrator,
    agent: Agent,
) -> None:
    server.choose_good_boot()
    agent.boot_evil()
    assert agent.report()["level"] == "untrusted"
    admin.ask("DELETE", f"{SETS}/golden")
    agent.tpm.boot(launch_events())
    agent.tpm.boot_id = OTHER_BOOT  # another kernel, but the TPM was not reset
    assert agent.report()["level"] == "untrusted"
    server.choose_good_boot()
    assert level_of(server) == "untrusted"


def test_evidence_for_the_profile_of_before_a_restart_proves_nothing(
    server: Server,
    agent: Agent,
) -> None:
    server.choose_good_boot()
    challenge = agent.challenge()
    changed = Appraisal(profile="txt+firmware")
    server.attestation._options = server.attestation._intake._options = changed
    answer = agent.answer(challenge)
    assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")


def test_no_verdict_is_signed_for_a_moment_that_is_still_to_come(
    server: Server,
    agent: Agent,
) -> None:
    hour_ms = 3_600_000
    server.choose_good_boot()
    assert agent.report()["level"] == "trusted"
    for _ in range(3):
        server.judge_all()
        agent.tpm.clock += 1000
        agent.tpm.boottime_ms += 1000 + hour_ms
        answer = agent.report()
        assert (answer["level"], answer["findings"][0]["code"]) == ("untrusted", "boot_time_ahead")
    server.judge_all()
    agent.tpm.boottime_ms -= 3 * hour_ms
    assert agent.report()["level"] == "trusted"
