# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Everybody attacks at once while good agents report.

Each of them keeps its verdict, and hardly waits for it.

The whole: 200 agents, 1,000 idle connections, 1,000 posts in another host's name, questions with
10,000 unknown names on 20 connections each with and without a token, polls of 4 MiB, reports of
3 MiB of 6 hosts, unfinished ones of 40, and so on. Server, good agents and attackers are processes
of their own; calm and attack are measured in the same run, and the attackers have the lowest
priority, since their own work on the same two cores is none of the server's.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.messages import evidence
from tests import soak
from tests.bench.harness import percentile
from tests.verifier.costly_attackers import NETWORK
from tests.verifier.fleet import POLL, Agent, Fleet
from tests.verifier.software_tpm import REQUIRED

# What each takes alone, and all at once with the attackers who only hold connections or send
# rubbish.
COSTLY = (
    "unknown_names_token",
    "unknown_names_network",
    "long_polls",
    "bad_evidence",
    "unfinished_bodies",
    "unknown_methods",
)
BAD_HOSTS = 6
UNFINISHED_HOSTS = soak.part(40, least=10)
AGENTS = soak.part(200, least=20)
SIZE = soak.part(1000, least=50)
# Each agent reports once in this time: much more often than any real one.
EACH_S = 2.0
WINDOW_S = 4.0
CALM_WINDOWS = 8 if soak.WHOLE else 1
ALONE_S = 12.0
AT_ONCE_S = 40.0 if soak.WHOLE else 4.0
STOP_WITHIN_S = 300
PAUSE_S = 0.02
MEMORY_KIB = 256 * 1024


class Scene:
    """A verifier with its usual limits.

    Good agents, a host that turned bad, and one whose record is corrupt.
    """

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        bad_hosts = BAD_HOSTS + UNFINISHED_HOSTS
        self.fleet = Fleet(directory, AGENTS + 2 + bad_hosts, oat_networks=[f"{NETWORK}/32"])
        self.fleet.start(processes)
        self.costly = [agent.name for agent in self.fleet.agents[-bad_hosts:]]
        *self.good, self.bad, self.corrupt = self.fleet.agents[:-bad_hosts]
        (directory / "attacker.pem").write_bytes(self.bad.certificate.read_bytes())
        known = {
            "viewer": self.fleet.viewer,
            "bad": self.costly[:BAD_HOSTS],
            "unfinished": self.costly[BAD_HOSTS:],
        }
        (directory / "costly.json").write_text(json.dumps(known))
        challenge = evidence.Challenge(b"n" * 32, REQUIRED, 15_000)
        (directory / "stolen.json").write_bytes(self.good[0].report(challenge))

    async def report(self) -> list[float]:
        """Have each good agent report again and again for WINDOW_S.

        Return the seconds that each report took.
        """
        took: list[float] = []
        until_s = time.monotonic() + WINDOW_S

        async def keep_on(agent: Agent, first_s: float) -> None:
            await asyncio.sleep(first_s)
            while time.monotonic() < until_s:
                began = time.monotonic()
                assert await agent.attest() == "trusted"
                took.append(time.monotonic() - began)
                await asyncio.sleep(max(0.0, began + EACH_S - time.monotonic()))

        await asyncio.gather(
            *(keep_on(agent, EACH_S * number / AGENTS) for number, agent in enumerate(self.good))
        )
        return took

    async def report_under_attack(
        self, *commands: Sequence[object]
    ) -> tuple[list[list[float]], dict[str, int]]:
        """Return what `report` gives in each window of the attack, and what the attackers did.

        Args:
            commands: modules and their arguments behind port and directory, a process each.
        """
        attacks = []
        for module, *arguments in commands:
            attacks.append(await self._begin(module, *arguments))
        outputs = asyncio.gather(*(attack.communicate() for attack in attacks))
        windows = []
        end_s = time.monotonic() + STOP_WITHIN_S
        while not outputs.done() and time.monotonic() < end_s:
            windows.append(await self.report())
        done: dict[str, int] = {}
        for output, _ in await outputs:
            done.update(json.loads(output))
        return windows, done

    async def _begin(self, module: object, *arguments: object) -> asyncio.subprocess.Process:
        interpreter = [sys.executable, "-m", f"tests.verifier.{module}"]
        if soak.WHOLE:
            # The attackers' own work is not what is measured, on a machine that they share with
            # their victims: it gets what processor time is left.
            interpreter = ["nice", "-n", "19", *interpreter]
        where = [str(self.fleet.port), str(self.directory)]
        command = [*interpreter, *where, *map(str, arguments)]
        return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    async def spoil_record(self) -> None:
        """Write rubbish where the server keeps what it knows of a host."""
        assert await self.corrupt.attest() == "trusted"
        with sqlite3.connect(self.directory / "verifier.db", timeout=5) as database:
            for change in (
                "results SET boot = 'x' WHERE host_name = ?",
                "hosts SET ak_public = x'00' WHERE name = ?",
            ):
                assert database.execute(f"UPDATE {change}", (self.corrupt.name,)).rowcount == 1
        database.close()

    async def levels(self) -> dict[str, str]:
        """Return what a poller is told of each host, without anybody being asked again."""
        caller = self.fleet.viewing()
        names = [agent.name for agent in self.fleet.agents]
        answer = await caller.ask(POLL, {"hosts": names, "timeThreshold": 600_000})
        caller.close()
        return {host["host_name"]: host["trust_lvl"] for host in answer["hosts"]}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Processes(tmp_path) as processes:
        yield Scene(tmp_path, processes)


@pytest.mark.soak
def test_good_agents_keep_their_verdicts_under_every_attack_at_once(scene: Scene) -> None:
    async def campaign() -> None:
        await scene.report()  # connects
        calm = [await scene.report() for _ in range(CALM_WINDOWS)]
        await scene.spoil_record()
        if soak.WHOLE:
            await _each_alone(scene, calm)
        crowd = ("attackers", SIZE, soak.SEED, PAUSE_S)
        costly = ("costly_attackers", AT_ONCE_S, *COSTLY)
        attacked, done = await scene.report_under_attack(crowd, costly)
        levels = await scene.levels()
        for agent in scene.fleet.agents:
            agent.caller.close()
        _check(calm, attacked, done)
        assert {levels[agent.name] for agent in scene.good} == {"trusted"}
        assert levels[scene.bad.name] != "trusted"
        assert levels[scene.corrupt.name] == "unknown"
        assert all(levels[name] != "trusted" for name in scene.costly)

    asyncio.run(campaign())
    log = (scene.directory / "verifier-0.log").read_text()
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 500
    peak = _peak_kib(scene.processes.pid("verifier-0"))
    print(f"peak of memory {peak / 1024:.0f} MiB, log {len(log) / 1024:.0f} KiB")
    assert peak < MEMORY_KIB, f"{peak} KiB"


async def _each_alone(scene: Scene, calm: list[list[float]]) -> None:
    for name in COSTLY:
        attacked, done = await scene.report_under_attack(("costly_attackers", ALONE_S, name))
        _tell(name, calm, attacked, done)
        _hold_the_bar(calm, attacked)


def _check(calm: list[list[float]], attacked: list[list[float]], done: dict[str, int]) -> None:
    _tell("all at once", calm, attacked, done)
    assert done["idle"] >= SIZE // 10  # the others were refused
    assert sum(count for what, count in done.items() if what.startswith("as another host")) == SIZE
    assert not [what for what in done if what.startswith("as") and what.endswith(": 200")]
    assert not [what for what in done if what.endswith(": 500")]
    costly = ("unknown by token", "unknown by network", "bad evidence", "methods", "unfinished")
    happened = [what for what in costly if any(key.startswith(what) for key in done)]
    # A busy machine may leave single attackers no time for anything in the few seconds of a part.
    assert len(happened) >= (len(costly) if soak.WHOLE else 1), happened
    _hold_the_bar(calm, attacked)


def _tell(
    name: str, calm: list[list[float]], attacked: list[list[float]], done: dict[str, int]
) -> None:
    before = _p99_ms(calm)
    meanwhile = _p99_ms(attacked)
    reports = sum(map(len, attacked))
    print(
        f"\n{name}: p99 {before:.0f} ms, attacked {meanwhile:.0f} ms in {reports} reports; {done}"
    )


def _hold_the_bar(calm: list[list[float]], attacked: list[list[float]]) -> None:
    if soak.WHOLE:  # fewer samples say nothing about one in a hundred
        assert _p99_ms(attacked) <= 2 * _p99_ms(calm)


def _p99_ms(windows: list[list[float]]) -> float:
    """Return the median over the windows: the machine has other things to do now and then."""
    return 1000 * statistics.median(percentile(window, 99) for window in windows)


def _peak_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])
