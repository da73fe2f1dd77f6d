# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Ages of results, when a result was made void or the machine was paused."""

from __future__ import annotations

import concurrent.futures
import re
from typing import Any

import pytest

from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier import attestation
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.result_ages import ResultAges
from ovirt_tcp_plugin.verifier.store import results
from ovirt_tcp_plugin.verifier.store.results import Result
from tests.fake_clock import FakeClock
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


def shown(server: Server) -> tuple[str, str, float]:
    """Return level and first code of the list of hosts, and the metric's trusted hosts."""
    token = server.token("viewer")
    (known,) = server.call("GET", "/v1/hosts", token=token).json()["hosts"]
    code = known["findings"][0]["code"] if known["findings"] else ""
    text = server.call("GET", "/metrics", token=token).text
    (trusted,) = re.findall(r'ovirt_tcp_verifier_hosts{level="trusted"} (\S+)', text)
    return known["level"], code, float(trusted)


def test_a_trusted_result_that_ended_is_shown_nowhere_as_trusted(
    server: Server, agent: Agent
) -> None:
    server.choose_good_boot()
    agent.report()
    assert shown(server) == ("trusted", "", 1.0)
    server.clock.offset_ms = server.clock.wall_offset_ms = 3600_000
    assert shown(server) == ("unknown", "result_ended", 0.0)
    assert ask(server, 0, 2**50)["level"] != "trusted"


def test_an_untrusted_result_is_shown_as_such_however_old(server: Server, agent: Agent) -> None:
    server.choose_good_boot()
    agent.tpm.never_launch()
    agent.report()
    server.clock.offset_ms = server.clock.wall_offset_ms = 3600_000
    assert shown(server)[0] == "untrusted"


class TestOutlived:
    """A result ends by its own clock, or by how long it has been seen here."""

    LIFE_MS = 600_000

    def result(self, clock_id: str, born_ms: int) -> Result:
        boot = BootCounters("boot", 1, 0, 1)
        return Result(Level.TRUSTED, (), clock_id, born_ms, boot, "boot", 1, "2.0", {}, "")

    def test_one_of_this_clock_ends_with_its_life(self) -> None:
        clock = FakeClock()
        ages = ResultAges(clock)
        fresh = self.result(clock.boot_id, clock.ms)
        clock.pass_ms(self.LIFE_MS)
        assert not ages.outlived("host-1", fresh, self.LIFE_MS)
        clock.pass_ms(1)
        assert ages.outlived("host-1", fresh, self.LIFE_MS)

    def test_a_void_one_and_one_from_before_a_pause_have_ended(self) -> None:
        clock = FakeClock()
        ages = ResultAges(clock)
        assert ages.outlived("host-1", self.result(results.VOID, clock.ms), self.LIFE_MS)
        of_here = self.result(clock.boot_id, clock.ms)
        clock.utc_ms += 3600_000
        clock.pass_ms(1)
        ages.watch_for_pause()
        assert ages.outlived("host-1", of_here, self.LIFE_MS)

    def test_one_of_another_server_counts_while_newer_ones_come(self) -> None:
        clock = FakeClock()
        ages = ResultAges(clock)
        for born_ms in range(5):
            assert not ages.outlived("host-1", self.result("other", born_ms), self.LIFE_MS)
            clock.pass_ms(self.LIFE_MS)
            assert not ages.outlived("host-1", self.result("other", born_ms), self.LIFE_MS)
        clock.pass_ms(1)
        assert ages.outlived("host-1", self.result("other", 4), self.LIFE_MS)
        assert not ages.outlived("host-1", self.result("other", 5), self.LIFE_MS)


def test_the_boot_of_a_trusted_host_is_told_step_by_step(server: Server, agent: Agent) -> None:
    server.choose_good_boot()
    agent.report()
    token = server.token("viewer")
    boot = server.call("GET", "/v1/hosts/host-1/boot", token=token).json()
    assert boot["bank"] == "sha256"
    assert list(boot["values"]) == ["17", "18"]
    assert [step["pcr"] for step in boot["steps"]] == [17, 17, 17, 17, 18, 18]
    assert all(step["text"] and len(step["digest"]) == 64 for step in boot["steps"])


def test_the_boot_of_a_host_without_evidence_has_no_step(server: Server) -> None:
    boot = server.call("GET", "/v1/hosts/nobody/boot", token=server.token("viewer")).json()
    assert (boot["values"], boot["steps"]) == ({}, [])
