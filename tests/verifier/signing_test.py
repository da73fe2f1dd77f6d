# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The verdicts that the server signs for gates.

The change of its key, and the end of earlier results.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import ear
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier import signing
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.signing import Signer
from ovirt_tcp_plugin.verifier.store import hosts, verdict_keys
from ovirt_tcp_plugin.verifier.store.database import Database
from tests.fake_clock import FakeClock
from tests.verifier.administrator import Run
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.vendor import NOW, Vendor
from tests.verifier.verdict_keys import keys

pytestmark = pytest.mark.each_database

LIFETIME_MS = 600_000


@pytest.fixture
def server(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[Server]:
    running = Server(tmp_path, database, authority, vendor)
    running.choose_good_boot()
    yield running
    running.stop()


@pytest.fixture
def agent(server: Server, vendor: Vendor) -> Agent:
    return Agent(server, vendor).enrol()


def reported(agent: Agent) -> bytes:
    answer = agent.answer(agent.challenge())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["verdict"]).encode()


class TestSigning:
    def test_an_untrusted_host_gets_a_verdict_that_says_so(
        self, server: Server, agent: Agent
    ) -> None:
        agent.tpm.never_launch()
        signed = ear.verify(reported(agent), keys(server.database, "active"))
        assert signed.result.level is Level.UNTRUSTED

    def test_a_trusted_hosts_verdict_is_of_its_boot_and_ends_no_later_than_the_result(
        self, server: Server, agent: Agent
    ) -> None:
        challenge = agent.challenge()
        time.sleep(0.05)  # the nonce grows old before the quote is sent
        answer = agent.answer(challenge).json()
        said = ear.verify(answer["verdict"].encode(), keys(server.database, "active")).result
        ek_digest = server.database.transact(lambda c: hosts.find(c, "host-1")).ek_digest  # type: ignore[union-attr]
        assert (said.host_name, said.ek_digest, said.level) == ("host-1", ek_digest, Level.TRUSTED)
        assert (said.boot_id, said.boottime_ms) == (agent.tpm.boot_id, 7)
        assert LIFETIME_MS - 20_000 < said.lifetime_ms <= LIFETIME_MS - 50

    def test_an_agent_that_offers_is_challenged_though_nobody_asks(
        self, server: Server, agent: Agent
    ) -> None:
        agent.answer(agent.challenge())
        assert agent.challenge(wait_ms=0) is None
        message = {"boot_id": agent.tpm.boot_id, "wait_ms": 5000, "offer": True}
        assert (
            server.call("POST", "/v1/challenge", message, cert=agent.certificate).status_code == 200
        )


class TestKeys:
    def test_servers_on_one_database_sign_with_one_key(
        self, database: Database, authority: Authority
    ) -> None:
        clock = FakeClock()
        Signer(database, authority, clock)
        (first,) = keys(database, "active")
        Signer(database, authority, clock)
        assert [ear.key_id(key) for key in keys(database, "active")] == [ear.key_id(first)]

    def test_servers_that_start_at_once_agree_on_a_key(
        self, database_url: str, authority: Authority
    ) -> None:
        databases = [Database(database_url) for _ in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: signing.ensure_key(one, authority), databases))
        assert len({keys(one, "active")[0].public_numbers() for one in databases}) == 1
        for one in databases:
            one.close()

    def test_a_server_with_another_authority_cannot_read_the_key(
        self, database: Database, authority: Authority, tmp_path: Path
    ) -> None:
        signing.ensure_key(database, authority)
        stranger = Authority.create(tmp_path, NOW)
        with pytest.raises(errors.InvalidConfig, match="cannot be read with this ca.key"):
            Signer(database, stranger, FakeClock())

    def test_the_store_alone_does_not_give_the_private_key(
        self, database: Database, authority: Authority
    ) -> None:
        signing.ensure_key(database, authority)
        stored = database.transact(verdict_keys.active)
        assert stored is not None
        assert "ENCRYPTED PRIVATE KEY" in stored.private
        with pytest.raises(TypeError):
            serialization.load_pem_private_key(stored.private.encode(), None)

    def test_nothing_can_be_activated_that_was_not_prepared(
        self, database: Database, authority: Authority
    ) -> None:
        signing.ensure_key(database, authority)
        with pytest.raises(errors.NotFound):
            database.transact(verdict_keys.activate)

    def test_a_second_key_is_not_prepared(self, database: Database, authority: Authority) -> None:
        first, second = signing.new_key(authority), signing.new_key(authority)
        database.transact(lambda c: verdict_keys.prepare(c, first))
        with pytest.raises(errors.Conflict):
            database.transact(lambda c: verdict_keys.prepare(c, second))

    def test_no_good_verdict_is_refused_while_the_key_changes(
        self, server: Server, agent: Agent, authority: Authority
    ) -> None:
        """At each step every verdict that still lives is good by the keys that the hosts have."""
        database = server.database
        live = [reported(agent)]
        fresh = signing.new_key(authority)
        database.transact(lambda c: verdict_keys.prepare(c, fresh))
        held_by_hosts = keys(database, "active", "next")
        live.append(again(agent))
        database.transact(verdict_keys.activate)
        live.append(again(agent))  # the server has not noticed yet
        asyncio.run_coroutine_threadsafe(server.signer.refresh(), server._loop).result(5)
        live.append(again(agent))
        signers = [ear.verify(one, held_by_hosts).key_id for one in live]
        assert signers == [ear.key_id(held_by_hosts[0])] * 3 + [fresh.key_id]
        assert database.transact(verdict_keys.every)["former"].private == ""

    def test_the_commands_lead_through_the_change(self, run: Run, tmp_path: Path) -> None:
        exported = tmp_path / "verdict-keys"
        exported.mkdir()
        assert run("verdict-key", "activate").exit_code == 1
        assert run("verdict-key", "prepare").exit_code == 0
        assert run("verdict-key", "export", str(exported)).exit_code == 0
        assert len(list(exported.glob("*.pem"))) == 2
        assert run("verdict-key", "activate").exit_code == 0
        listed = [line.split() for line in run("verdict-key", "list").output.splitlines()]
        assert [state for state, _ in listed] == ["active", "former"]
        assert {key_id for _, key_id in listed} == {path.stem for path in exported.glob("*.pem")}


def again(agent: Agent) -> bytes:
    """Report once more, of another boot: such a one is challenged at once."""
    agent.tpm.reset_count += 1
    agent.tpm.boot_id = agent.tpm.boot_id[:-1] + "0123456789"[agent.tpm.reset_count % 10]
    return reported(agent)


class TestVoid:
    def void(self, server: Server, older_than_ms: int = 0) -> list[str]:
        request = {"older_than_ms": older_than_ms}
        answer = server.call("POST", "/v1/results/void", request, token=server.token("operator"))
        assert answer.status_code == 200, answer.text
        voided: list[str] = answer.json()["hosts"]
        return voided

    def ask(self, server: Server, wait_ms: int = 0) -> str:
        message = {"hosts": ["host-1"], "max_age_ms": 60_000, "wait_ms": wait_ms}
        (one,) = server.call("POST", "/v1/results", message, token=server.token("viewer")).json()[
            "hosts"
        ]
        return str(one["level"])

    def test_a_void_result_is_not_relied_on_however_young(
        self, server: Server, agent: Agent
    ) -> None:
        reported(agent)
        assert self.ask(server) == "trusted"
        assert self.void(server) == ["host-1"]
        assert self.ask(server) == "timeout"
        assert self.void(server) == []

    def test_younger_results_stay(self, server: Server, agent: Agent) -> None:
        reported(agent)
        assert self.void(server, 60_000) == []
        assert self.ask(server) == "trusted"

    def test_what_was_untrusted_stays_so(self, server: Server, agent: Agent) -> None:
        agent.tpm.never_launch()
        reported(agent)
        assert self.void(server) == []
        assert self.ask(server) == "untrusted"

    def test_a_nonce_of_before_is_void_too_and_all_hosts_are_asked_at_once(
        self, server: Server, agent: Agent
    ) -> None:
        stale = agent.challenge()
        self.void(server)
        assert agent.answer(stale).json()["code"] == "nonce_unknown"
        assert agent.answer(agent.challenge()).status_code == 200
        assert self.ask(server) == "trusted"
