# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whom the attestation challenges."""

from __future__ import annotations

from tests.verifier.administrator import SETS, Administrator
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server

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
