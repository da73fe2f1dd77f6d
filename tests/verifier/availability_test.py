# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Two servers on one PostgreSQL: agents and pollers use any, and either may die at any moment."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import database, references, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.verifier.agent import Agent
from tests.verifier.enrolled import good_boot
from tests.verifier.live_server import POLL, Server
from tests.verifier.postgresql import PostgreSql
from tests.verifier.vendor import Vendor

OTHER_BOOT_ID = "00000000-0000-0000-0000-00000000000b"


class Pair:
    """Server A, and server B on another machine: with another clock."""

    def __init__(self, directory: Path, url: str, authority: Authority, vendor: Vendor) -> None:
        self.servers = []
        for name in "ab":
            (directory / name).mkdir()
            # A question travels for up to half a second between servers.
            self.servers.append(
                Server(directory / name, Database(url), authority, vendor, poll_deadline=1.5)
            )
        self.a, self.b = self.servers
        self.b.clock.boot_id, self.b.clock.offset_ms = OTHER_BOOT_ID, 7_000_000
        self.a.database.transact(lambda c: references.put(c, good_boot()))

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
            server.database.close()


@pytest.fixture
def pair(
    tmp_path: Path, postgresql: PostgreSql, authority: Authority, vendor: Vendor
) -> Iterator[Pair]:
    running = Pair(tmp_path, postgresql.new_database(), authority, vendor)
    yield running
    running.stop()
    postgresql.drop_databases()


@pytest.fixture
def agent(pair: Pair, vendor: Vendor) -> Agent:
    return Agent(pair.a, vendor).enrol()


def poll(server: Server, threshold_ms: int = 0) -> str:
    message = {"hosts": ["host-1"], "timeThreshold": threshold_ms}
    return str(
        server.call("POST", POLL, message, token=server.token("viewer")).json()["hosts"][0][
            "trust_lvl"
        ]
    )


def test_evidence_is_not_taken_under_a_clock_that_did_not_issue_its_nonce(
    pair: Pair, agent: Agent
) -> None:
    challenge = agent.challenge()
    agent.server = pair.b
    answer = agent.answer(challenge)
    assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")


def test_evidence_sent_to_both_is_taken_once(pair: Pair, agent: Agent) -> None:
    pair.b.clock.boot_id, pair.b.clock.offset_ms = pair.a.clock.boot_id, 0  # both on one machine
    challenge = agent.challenge()
    assert challenge is not None
    message = agent.evidence(challenge)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sent = [
            pool.submit(server.call, "POST", "/v1/evidence", message, cert=agent.certificate)
            for server in pair.servers * 4
        ]
        codes = sorted(one.result().status_code for one in sent)
    assert codes == [200] + [403] * 7


def test_a_question_to_one_server_reaches_the_agent_at_the_other(pair: Pair, agent: Agent) -> None:
    agent.answer(agent.challenge())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        polled = pool.submit(poll, pair.b)
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"
        assert polled.result() == "trusted"


def test_a_result_of_the_others_clock_is_as_old_as_the_question_that_it_answered(
    pair: Pair, agent: Agent
) -> None:
    agent.answer(agent.challenge())
    token = pair.b.token("viewer")
    message = {"hosts": ["host-1"], "max_age_ms": 60_000, "wait_ms": 3000}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pair.b.call, "POST", "/v1/results", message, token=token)
        agent.answer(agent.challenge())
        (fresh,) = asked.result().json()["hosts"]
    assert fresh["level"] == "trusted"
    assert 0 <= fresh["age_ms"] < 3000
    began = time.monotonic()
    (again,) = pair.b.call("POST", "/v1/results", message, token=token).json()["hosts"]
    assert (again["level"], time.monotonic() - began < 1) == ("trusted", True)


def test_a_result_of_unknown_age_is_not_given_out_as_fresh(pair: Pair, agent: Agent) -> None:
    agent.answer(agent.challenge())
    assert poll(pair.a, 60_000) == "trusted"
    assert poll(pair.b, 60_000) == "timeout"
    (known,) = pair.b.call("GET", "/v1/hosts", token=pair.b.token("viewer")).json()["hosts"]
    assert (known["level"], known["age_ms"]) == ("trusted", None)


def test_untrusted_stays_untrusted_at_the_other_server(pair: Pair, agent: Agent) -> None:
    agent.tpm.never_launch()
    agent.answer(agent.challenge())
    assert poll(pair.b) == "untrusted"


def test_when_one_server_dies_the_agent_goes_on_at_the_other(pair: Pair, agent: Agent) -> None:
    agent.answer(agent.challenge())
    agent.challenge(0)
    pair.a.stop()
    agent.server = pair.b
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        polled = pool.submit(poll, pair.b)
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"
        assert polled.result() == "trusted"
    agent.tpm.clock -= 500
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        polled = pool.submit(poll, pair.b)
        answer = agent.answer(agent.challenge()).json()
        assert (answer["level"], answer["findings"][0]["code"]) == ("untrusted", "clock_back")
        assert polled.result() == "untrusted"


def test_values_withdrawn_at_one_server_count_at_the_other_at_once(
    pair: Pair, agent: Agent
) -> None:
    agent.answer(agent.challenge())
    pair.b.call("DELETE", "/v1/reference-values/golden", token=pair.b.token("policy"))
    assert poll(pair.a, 60_000) != "trusted"


def test_a_database_that_is_away_loses_nothing_and_says_so(
    pair: Pair, agent: Agent, postgresql: PostgreSql
) -> None:
    agent.answer(agent.challenge())
    viewer = pair.a.token("viewer")
    postgresql.stop()
    try:
        answer = pair.a.call("POST", POLL, {"hosts": ["host-1"]}, token=viewer)
        assert answer.status_code == 503
        assert pair.a.call("GET", "/v1/health").status_code == 200
    finally:
        postgresql.start()
    assert poll(pair.a, 60_000) == "trusted"


def test_a_database_that_hangs_is_given_up_and_found_again(
    pair: Pair, agent: Agent, postgresql: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_WITHIN_S", 0.5)
    agent.answer(agent.challenge())
    viewer, enroller = pair.a.token("viewer"), pair.a.token("enrolment")
    asked = [
        (POLL, {"hosts": ["host-1"]}, viewer),
        ("/v1/enrolment/tokens", {"host": "host-7"}, enroller),
    ]
    postgresql.freeze()
    try:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = [
                pool.submit(pair.a.call, "POST", path, told, token=token)
                for path, told, token in asked * 10
            ]
            assert {one.result().status_code for one in answers} == {503}
        assert pair.a.call("GET", "/v1/health").status_code == 200
    finally:
        postgresql.thaw()
    assert poll(pair.a, 60_000) == "trusted"
    agent.tpm.boot_id, agent.tpm.reset_count = (
        agent.tpm.boot_id.replace("1", "2"),
        agent.tpm.reset_count + 1,
    )
    assert agent.answer(agent.challenge()).json()["level"] == "trusted"


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(
    tmp_path: Path, authority: Authority, vendor: Vendor
) -> None:
    sqlite, full = Database(f"sqlite:///{tmp_path / 'verifier.db'}"), [False]

    def limit(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(
            f"PRAGMA max_page_count = {1 if full[0] else 2**30}"
        )  # 1: as many as there are
        cursor.close()

    sa.event.listen(sqlite._engine, "checkout", limit)
    server = Server(tmp_path, sqlite, authority, vendor)
    server.choose_good_boot()
    agent, enroller = Agent(server, vendor).enrol(), server.token("enrolment")
    agent.answer(agent.challenge())
    full[0] = True
    made = [
        server.call("POST", "/v1/enrolment/tokens", {"host": "h" * 200}, token=enroller)
        for _ in range(40)
    ]
    assert {one.status_code for one in made} == {200, 503}
    assert made[-1].json()["code"] == "Unavailable"
    assert poll(server, 60_000) == "trusted"
    full[0] = False
    kept = [one.json()["token"] for one in made if one.status_code == 200]
    assert all(sqlite.transact(lambda c, secret=secret: tokens.find(c, secret)) for secret in kept)
    assert (
        server.call("POST", "/v1/enrolment/tokens", {"host": "host-2"}, token=enroller).status_code
        == 200
    )
    server.stop()
    sqlite.close()
