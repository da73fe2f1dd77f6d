# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Ages of results, when a result was made void or the machine was paused."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from ovirt_tcp_plugin.verifier import attestation
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server

pytestmark = pytest.mark.each_database


def ask(server: Server, wait_ms: int, max_age_ms: int = 600_000) -> Any:
    message = {"hosts": ["host-1"], "max_age_ms": max_age_ms, "wait_ms": wait_ms}
    return server.call("POST", "/v1/results", message, token=server.token("viewer")).json()[
        "hosts"
    ][0]


def test_a_void_result_gets_no_age_again(
    server: Server,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.choose_good_boot()
    agent.report()
    honest, looks = attestation.Attestation._last, []

    async def judged(self: attestation.Attestation, names: Any, turn: Any) -> Any:
        looks.append(names)
        if len(looks) == 2:
            await self.void(0)
        return await honest(self, names, turn)

    monkeypatch.setattr(attestation.Attestation, "_last", judged)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, server, 4000, 0)
        agent.report()
        assert asked.result()["age_ms"] is None
    assert ask(server, 100)["age_ms"] is None


def test_a_machine_that_was_paused_tells_no_ages(server: Server, agent: Agent) -> None:
    server.choose_good_boot()
    agent.report()
    assert ask(server, 100)["level"] == "trusted"
    server.clock.wall_offset_ms = 3600_000
    assert ask(server, 100)["level"] == "timeout"
