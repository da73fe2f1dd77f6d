# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attestation server as its agents and pollers see it: a process of its own, HTTPS, SQLite,
everything on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.messages import evidence
from tests.bench.harness import Benchmark, Sample, percentile
from tests.verifier.fleet import POLL, Agent, Caller, Fleet
from tests.verifier.software_tpm import REQUIRED

AGENTS = 100
TURN_S = 2.0
POLLED = 1000
POLLS = 300
MANY = 10_000
# How many of them are connected at once while each reports.
AT_ONCE = 50
# Everybody here comes from one address.
UNLIMITED = {"requests_per_second": 1e6, "question_share": 1e6}

CHALLENGE = evidence.Challenge(bytes(32), REQUIRED, 15_000)


@contextlib.contextmanager
def evidence_https() -> Iterator[Callable[[], Sample]]:
    """Reports a second of a server with two processes: a challenge and its evidence.

    The floor is an echo of the same bodies by the same clients, in one process.
    """
    with _processes() as (directory, processes):
        fleet = Fleet(directory, AGENTS, processes=2, **UNLIMITED)
        fleet.start(processes, "tests.bench.unhurried")
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "tests.bench.echo", str(directory), str(port)]
        processes.start("echo", command, lambda: listens(port))
        echoes = [Caller(port, fleet.tls(agent.certificate)) for agent in fleet.agents]
        loop = asyncio.new_event_loop()

        def run() -> Sample:
            ours = loop.run_until_complete(_reports([agent.attest for agent in fleet.agents]))
            pairs = [_echo_of(agent, echo) for agent, echo in zip(fleet.agents, echoes)]
            return Sample(ours, loop.run_until_complete(_reports(pairs)))

        yield run
        for caller in [*(agent.caller for agent in fleet.agents), *echoes]:
            caller.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@contextlib.contextmanager
def evidence_steady() -> Iterator[Callable[[], Sample]]:
    """Reports a second of hosts whose logs the server has.

    The floor is the reports of hosts that send theirs, to the same server by the same clients. What
    both have in common, two requests and two transactions, is most of the work where few PCRs are
    required.
    """
    with _processes() as (directory, processes):
        fleet = Fleet(directory, AGENTS, processes=2, **UNLIMITED)
        fleet.start(processes, "tests.bench.unhurried")
        loop = asyncio.new_event_loop()

        def run() -> Sample:
            full = [agent.attest for agent in fleet.agents]
            floor = loop.run_until_complete(_reports(full))
            steady = [agent.attest_again for agent in fleet.agents]
            return Sample(loop.run_until_complete(_reports(steady)), floor)

        yield run
        for agent in fleet.agents:
            agent.caller.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@contextlib.contextmanager
def evidence_steady_size() -> Iterator[Callable[[], Sample]]:
    """KiB of both requests and both answers of a report of a host whose logs the server has."""
    with _processes() as (directory, processes):
        fleet = Fleet(directory, 1, **UNLIMITED)
        fleet.start(processes)
        (agent,) = fleet.agents

        async def size() -> int:
            assert await agent.attest() == "trusted"
            before = agent.caller.transferred
            assert await agent.attest_again() == "trusted"
            transferred = agent.caller.transferred - before
            agent.caller.close()
            return transferred

        yield lambda: Sample(asyncio.run(size()) / 1024)


def _echo_of(agent: Agent, echo: Caller) -> Callable[[], Awaitable[object]]:
    async def turn() -> None:
        agent.reboot()
        await echo.post("/challenge", agent.listening())
        await echo.post("/evidence", agent.report(CHALLENGE))

    return turn


async def _reports(turns: Sequence[Callable[[], Awaitable[object]]]) -> float:
    """Return how many turns a second are taken when each begins anew as soon as it ends."""
    await asyncio.gather(*(turn() for turn in turns))  # connects
    end = time.perf_counter() + TURN_S

    async def keep_on(turn: Callable[[], Awaitable[object]]) -> int:
        taken = 0
        while time.perf_counter() < end:
            await turn()
            taken += 1
        return taken

    began = time.perf_counter()
    counts = await asyncio.gather(*(keep_on(turn) for turn in turns))
    return sum(counts) / (time.perf_counter() - began)


@contextlib.contextmanager
def pollhosts_1000_warm_p99() -> Iterator[Callable[[], Sample]]:
    """Milliseconds for one question about 1000 hosts whose verdicts are young enough."""
    with _processes() as (directory, processes):
        fleet = Fleet(directory, POLLED, **UNLIMITED)
        fleet.start(processes)
        asyncio.run(_report_once(fleet.agents))
        message = {"hosts": [agent.name for agent in fleet.agents], "timeThreshold": 600_000}

        async def poll() -> list[float]:
            caller = fleet.viewing()
            times = []
            for _ in range(POLLS):
                began = time.perf_counter()
                answer = await caller.ask(POLL, message)
                times.append(1000 * (time.perf_counter() - began))
                assert {host["trust_lvl"] for host in answer["hosts"]} == {"trusted"}
            caller.close()
            return times

        yield lambda: Sample(percentile(asyncio.run(poll()), 99))


@contextlib.contextmanager
def verifier_memory_per_host() -> Iterator[Callable[[], Sample]]:
    """KiB that the server grows by for each host that reports and goes."""
    with _processes() as (directory, processes):
        fleet = Fleet(directory, MANY, **UNLIMITED)
        fleet.start(processes)
        first, rest = fleet.agents[:AT_ONCE], fleet.agents[AT_ONCE:]

        def run() -> Sample:
            asyncio.run(_report_once(first))
            before = _resident_kib(processes.pid("verifier-0"))
            asyncio.run(_report_once(rest))
            return Sample((_resident_kib(processes.pid("verifier-0")) - before) / len(rest))

        yield run


async def _report_once(agents: Sequence[Agent]) -> None:
    """Have each agent connect, report and close."""
    waiting = iter(agents)

    async def work() -> None:
        for agent in waiting:
            assert await agent.attest() == "trusted"
            agent.caller.close()
            del agent.caller

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@contextlib.contextmanager
def _processes() -> Iterator[tuple[Path, Processes]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Processes(Path(directory)) as processes,
    ):
        yield Path(directory), processes


BENCHMARKS = [
    Benchmark("evidence_https", "1/s", evidence_https, least_ratio=0.5),
    Benchmark("evidence_steady", "1/s", evidence_steady, least_ratio=1.0),
    Benchmark("evidence_steady_size", "KiB", evidence_steady_size, most=4, rounds=1),
    Benchmark("pollhosts_1000_warm_p99", "ms", pollhosts_1000_warm_p99, most=50, rounds=3),
    Benchmark("verifier_memory_per_host", "KiB", verifier_memory_per_host, most=50, rounds=1),
]
