# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the server at any moment: what was acknowledged is there, and nothing counts twice.

Agents report and an administrator makes tokens and reference values while real server processes are
killed and started again; one on SQLite, one of two processes, two on one PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.lab.processes import Processes, listens
from ovirt_tcp_plugin.messages import evidence, reference_values
from ovirt_tcp_plugin.messages.reference_values import Value
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.store import references, results, tokens
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.results import Result
from tests import soak
from tests.verifier.fleet import Agent, Caller, Fleet
from tests.verifier.postgresql import PostgreSql

AGENTS = 10
KILLS = soak.part(200, least=3)
# How long a server lives, at most.
LIFE_S = 0.6
# What ends a conversation when its server dies.
CUT = (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError)


class Campaign:
    """Servers, agents that go to any of them, and what was acknowledged to whom."""

    def __init__(
        self,
        directory: Path,
        processes: Processes,
        database_url: str,
        servers: int,
        of_each: int = 1,
    ) -> None:
        self.fleet = Fleet(
            directory, AGENTS, servers=servers, database_url=database_url, processes=of_each
        )
        self.of_each = of_each
        self.processes, self.random = processes, soak.randomness(f"kill {servers} {of_each}")
        self.servers = [f"verifier-{number}" for number in range(servers)]
        for number in range(servers):
            self.fleet.start(processes, number=number)
        self.over = False
        self.booted: dict[str, int] = {}  # reset counter of the last acknowledged report by host
        self.tokens: list[str] = []
        self.values: list[str] = []
        self.used: list[tuple[Agent, bytes]] = []
        self.twice = 0

    async def run(self) -> None:
        """Kill until enough were killed."""
        workers = [asyncio.ensure_future(self._report(agent)) for agent in self.fleet.agents]
        workers += [asyncio.ensure_future(self._administer(self.fleet.enroller, self._make_token))]
        workers += [asyncio.ensure_future(self._administer(self.fleet.chooser, self._add_value))]
        for _ in range(KILLS):
            await asyncio.sleep(self.random.uniform(0, LIFE_S))
            number = self.random.randrange(len(self.servers))
            os.kill(
                self.random.choice(_family(self.processes.pid(self.servers[number]))),
                signal.SIGKILL,
            )
            await asyncio.sleep(self.random.uniform(0, 0.2))
            await asyncio.to_thread(self._start_again, number)
        await asyncio.sleep(LIFE_S)
        self.over = True
        await asyncio.gather(*workers)

    def _start_again(self, number: int) -> None:
        self.processes.stop(self.servers[number], signal.SIGKILL)
        while listens(self.fleet.ports[number]):
            time.sleep(0.01)  # its children die after it
        self.fleet.start(self.processes, number=number)

    async def _report(self, agent: Agent) -> None:
        numbers = random.Random(f"{soak.SEED} {agent.name}")
        while not self.over:
            agent.go_to(self.fleet.ports[numbers.randrange(len(self.servers))])
            try:
                await self._report_once(agent)
            except CUT:
                await asyncio.sleep(0.05)
            agent.caller.close()

    async def _report_once(self, agent: Agent) -> None:
        agent.reboot()
        status, content = await agent.caller.post("/v1/challenge", agent.listening())
        if status != 200:
            return
        message = agent.report(evidence.decode_challenge(json.loads(content)))
        status, content = await agent.caller.post("/v1/evidence", message)
        if status == 200:
            assert json.loads(content)["level"] == "trusted"
            self.booted[agent.name] = agent.tpm.reset_count
            self.used.append((agent, message))
        status, _ = await agent.caller.post("/v1/evidence", message)
        self.twice += status == 200

    async def _administer(self, token: str, act: Callable[[Caller], Awaitable[None]]) -> None:
        while not self.over:
            caller = Caller(
                self.fleet.ports[0], self.fleet.tls(), f"Authorization: Bearer {token}\r\n"
            )
            try:
                await act(caller)
                await asyncio.sleep(0.02)
            except CUT:
                await asyncio.sleep(0.05)
            caller.close()

    async def _make_token(self, caller: Caller) -> None:
        self.tokens.append(
            (await self._ask(caller, "/v1/enrolment/tokens", {"host": "new-host"}))["token"]
        )

    async def _add_value(self, caller: Caller) -> None:
        value = Value("sha256", 17, "", self.random.randbytes(32).hex())
        await self._ask(
            caller,
            "/v1/reference-values/golden/add",
            {"value": reference_values.encode_value(value)},
        )
        self.values.append(value.digest)

    async def _ask(self, caller: Caller, path: str, message: Mapping[str, Any]) -> Any:
        """Return the JSON of a good answer.

        Raises:
            ConnectionError: the process stops, because another was killed, and cannot say what it
                did.
        """
        status, content = await caller.post(path, json.dumps(message).encode())
        if status == 500 and self.of_each > 1:
            raise ConnectionError
        assert status == 200, content
        return json.loads(content)

    def check(self) -> None:
        """Compare what was acknowledged with what was kept."""
        database = Database(self.fleet.database_url)
        kept = database.transact(results.of_all)
        lost = [
            secret
            for secret in self.tokens
            if database.transact(lambda c, s=secret: tokens.find(c, s)) is None
        ]
        good = {
            value.digest for one in database.transact(references.load).sets for value in one.values
        }
        database.close()
        assert self.tokens
        assert not lost
        assert self.values
        assert not set(self.values) - good
        assert self.twice == 0
        assert set(self.booted) == {agent.name for agent in self.fleet.agents}
        for name, reset_count in self.booted.items():
            one = kept[name]
            assert isinstance(one, Result)
            assert (one.level, one.boot.reset_count >= reset_count) == (Level.TRUSTED, True)


def _family(pid: int) -> list[int]:
    """Return the ids of a process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as made:
        yield made


def play(campaign: Campaign) -> None:
    asyncio.run(campaign.run())
    campaign.processes.stop_all()
    campaign.check()
    print(
        f"\n{KILLS} kills, {len(campaign.used)} reports, {len(campaign.tokens)} tokens, "
        f"{len(campaign.values)} values"
    )


@pytest.mark.soak
def test_a_killed_server_on_sqlite_loses_nothing(tmp_path: Path, processes: Processes) -> None:
    play(Campaign(tmp_path, processes, "", servers=1))


@pytest.mark.soak
def test_a_killed_process_of_two_on_sqlite_loses_nothing(
    tmp_path: Path, processes: Processes
) -> None:
    play(Campaign(tmp_path, processes, "", servers=1, of_each=2))


@pytest.mark.soak
def test_two_servers_on_one_postgresql_killed_in_turn_lose_nothing(
    tmp_path: Path, processes: Processes, postgresql: PostgreSql
) -> None:
    play(Campaign(tmp_path, processes, postgresql.empty_database(), servers=2))
    postgresql.drop_databases()
