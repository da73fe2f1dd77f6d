# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts report in time though nobody asks, so that their gates do not depend on a broker."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import gate
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.refresh import RETRY_MS, RefreshTimes
from ovirt_tcp_plugin.verifier.result_ages import ResultAges
from ovirt_tcp_plugin.verifier.settings import Appraisal
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.results import Result
from tests.fake_clock import FakeClock
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor
from tests.verifier.verdict_keys import keys

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
STEP_MS = 30 * SECOND_MS
LIFETIME_MS = Appraisal().lifetime_ms
REFRESH_MS = Appraisal().refresh_ms
BOOT_ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def server(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[Server]:
    running = Server(tmp_path, database, authority, vendor)
    running.choose_good_boot()
    yield running
    running.stop()


class GuardedHost:
    """A host whose agent polls, and whose gate goes by the verdict that the agent got last."""

    def __init__(self, agent: Agent, server: Server, directory: Path) -> None:
        self.agent = agent
        self.server = server
        self.reports = 0
        self._verdict: dict[str, Any] = {}
        self._boot_id_file = directory / f"boot_id of {agent.name}"
        self._boot_id_file.write_text(agent.tpm.boot_id)

    def poll(self) -> None:
        """Poll once, and report if the server wants it."""
        challenge = self.agent.challenge(wait_ms=0)
        if challenge is not None:
            self.report(challenge)

    def report(self, challenge: Any) -> None:
        reply = self.agent.answer(challenge).json()
        self.reports += 1
        signed = ear.verify(reply["verdict"].encode(), keys(self.server.database, "active"))
        self._verdict = {**vars(signed.result), "level": signed.result.level.value}

    def sleep(self, duration_ms: int) -> None:
        """Let time pass on the host."""
        self.agent.tpm.clock += duration_ms
        self.agent.tpm.boottime_ms += duration_ms

    def refusal(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Return the code by which the gate refuses a VM now; empty if it may run."""
        now_ns = self.agent.tpm.boottime_ms * 1_000_000
        clock = types.SimpleNamespace(CLOCK_BOOTTIME=7, clock_gettime_ns=lambda _: now_ns)
        monkeypatch.setattr(gate, "time", clock)
        monkeypatch.setattr(gate, "BOOT_ID", str(self._boot_id_file))
        try:
            gate.check(self._verdict, "")
        except gate.StartRefused as e:
            return e.code
        return ""


class Site:
    """Hosts and their server, and nobody else: no broker asks."""

    def __init__(self, server: Server, hosts: list[GuardedHost]) -> None:
        self.server = server
        self.hosts = hosts

    def sleep(self, duration_ms: int) -> None:
        self.server.clock.offset_ms += duration_ms
        self.server.clock.wall_offset_ms += duration_ms
        for host in self.hosts:
            host.sleep(duration_ms)


@pytest.fixture
def site(server: Server, vendor: Vendor, tmp_path: Path) -> Site:
    hosts = []
    for name in ("host-1", "host-2"):
        agent = Agent(server, vendor, name, SoftwareTpm(len(hosts))).enrol()
        hosts.append(GuardedHost(agent, server, tmp_path))
    return Site(server, hosts)


def test_a_host_that_turned_bad_has_its_gate_closed_within_a_lifetime_of_its_verdict(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, _ = site.hosts
    bad.poll()
    assert bad.refusal(monkeypatch) == ""
    bad.agent.tpm.never_launch()
    for _ in range(LIFETIME_MS // STEP_MS):
        site.sleep(STEP_MS)
        bad.poll()
    assert bad.refusal(monkeypatch) == "not_trusted"


def test_a_host_whose_agent_is_silent_has_its_gate_closed_within_a_lifetime(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, _ = site.hosts
    silent.poll()
    site.sleep(LIFETIME_MS + SECOND_MS)
    assert silent.refusal(monkeypatch) == "verdict_ended"


def test_a_host_whose_reference_values_are_withdrawn_has_its_gate_closed_within_a_lifetime(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = site.hosts
    host.poll()
    policy = site.server.token("policy")
    site.server.call("DELETE", "/v1/reference-values/golden", token=policy)
    for _ in range(LIFETIME_MS // STEP_MS):
        site.sleep(STEP_MS)
        host.poll()
    assert host.refusal(monkeypatch) == "not_trusted"


def test_the_gates_of_good_hosts_stay_open_for_an_hour_without_a_broker(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(HOUR_MS // STEP_MS):
        for host in site.hosts:
            host.poll()
            assert host.refusal(monkeypatch) == ""
        site.sleep(STEP_MS)
    longest = HOUR_MS // REFRESH_MS
    for host in site.hosts:
        assert longest <= host.reports <= 1.5 * longest


def test_a_poll_within_the_age_goes_by_the_answers_that_are_there(site: Site) -> None:
    viewer = site.server.token("viewer")
    question = {"hosts": ["host-1"], "max_age_ms": REFRESH_MS, "wait_ms": 0}
    host, _ = site.hosts
    for _ in range(20):
        host.poll()
        answer = site.server.call("POST", "/v1/results", question, token=viewer).json()
        assert answer["hosts"][0]["level"] == Level.TRUSTED.value
        site.sleep(STEP_MS)
    assert host.reports <= 5


def test_a_host_that_takes_challenges_and_never_answers_is_not_challenged_without_end(
    site: Site,
) -> None:
    host, _ = site.hosts
    host.poll()
    host.poll()
    site.sleep(REFRESH_MS)
    taken = 0
    for _ in range(60):
        taken += host.agent.challenge(wait_ms=0) is not None
        site.sleep(SECOND_MS)
    assert 2 <= taken <= 1 + 60 * SECOND_MS // RETRY_MS


def test_an_agent_in_a_long_poll_is_challenged_when_it_is_time(site: Site) -> None:
    host, _ = site.hosts
    host.poll()
    host.poll()
    due_ms = site.server.attestation._refresh_times._due["host-1"].at_ms
    site.sleep(due_ms - site.server.clock.now_ms() - 300)
    assert host.agent.challenge(wait_ms=0) is None
    assert host.agent.challenge(wait_ms=5000) is not None


@pytest.mark.parametrize("refresh", [0, -1, float("nan")])
def test_refuses_an_interval_that_is_none(refresh: float) -> None:
    with pytest.raises(ValueError, match="refresh must be above 0"):
        Appraisal(refresh=refresh)


def test_a_short_life_brings_the_questions_closer() -> None:
    assert Appraisal(lifetime=60).refresh_ms == 30_000
    assert Appraisal(refresh=20).refresh_ms == 20_000


class Hosts:
    """When ten thousand hosts are asked again by a server that starts now."""

    COUNT = 10_000

    def __init__(self) -> None:
        self.clock = FakeClock()
        draw = random.Random(1).random
        self.times = RefreshTimes(Appraisal(), ResultAges(self.clock), self.clock, draw)

    def due_s(self, ages_ms: list[int], clock_id: str = "") -> list[float]:
        """Return after how many seconds each is asked, sorted."""
        now_ms = self.clock.now_ms()
        due = []
        for number, age_ms in enumerate(ages_ms):
            result = born(now_ms - age_ms, clock_id or self.clock.boot_id)
            due.append((self.times.next_ms(f"host-{number}", result) - now_ms) / 1000)
        return sorted(due)


def born(born_ms: int, clock_id: str) -> Result:
    boot = BootCounters(BOOT_ID, 1, 0, 0)
    return Result(Level.TRUSTED, (), clock_id, born_ms, boot, BOOT_ID, 1, "2.0", {}, "17,18")


def busiest(due_s: list[float]) -> int:
    """Return how many of them fall into one second at most."""
    seconds = [int(moment) for moment in due_s]
    return max(seconds.count(second) for second in set(seconds))


@pytest.mark.parametrize("outage_s", [0, 30, 200, 3600, 86_400])
def test_after_a_restart_the_hosts_do_not_come_all_at_once(outage_s: int) -> None:
    hosts = Hosts()
    even = [REFRESH_MS * number // hosts.COUNT for number in range(hosts.COUNT)]
    due_s = hosts.due_s([age_ms + outage_s * 1000 for age_ms in even])
    assert due_s[0] >= 0
    assert due_s[-1] <= REFRESH_MS / 1000
    assert busiest(due_s) <= 5 * hosts.COUNT * 1000 / REFRESH_MS


def test_hosts_that_come_from_a_server_with_another_clock_are_spread() -> None:
    hosts = Hosts()
    due_s = hosts.due_s([0] * hosts.COUNT, "another machine")
    assert due_s[-1] <= 50
    assert busiest(due_s) <= 5 * hosts.COUNT * 1000 / REFRESH_MS


def test_hosts_that_reported_at_once_drift_apart() -> None:
    hosts = Hosts()
    due_s = hosts.due_s([0] * hosts.COUNT)
    assert (due_s[0] >= 160, due_s[-1] <= 200) == (True, True)
    assert busiest(due_s) <= 2 * hosts.COUNT / 40


def test_a_host_keeps_its_time_however_often_it_polls() -> None:
    hosts = Hosts()
    first = hosts.due_s([1000])
    assert [hosts.due_s([1000]) for _ in range(5)] == [first] * 5


def test_after_a_pause_of_the_server_the_hosts_are_asked_soon() -> None:
    hosts = Hosts()
    (before,) = hosts.due_s([1000])
    hosts.clock.utc_ms += HOUR_MS
    (after,) = hosts.due_s([1000])
    assert after <= 50 < before
