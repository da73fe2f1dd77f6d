# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand hosts on one server of two processes, which asks each of them by itself.

Nobody else asks. The hosts do what agents do: they stay in a long poll, report when they are
challenged, and name the logs that the server has. All figures are of one run, since it takes
minutes: until all have connected and reported, and the first of them are due again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ovirt_tcp_plugin.attester.agent import PACE_S, WAIT_MS
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.verifier.refresh import JITTER
from ovirt_tcp_plugin.verifier.settings import Appraisal
from tests.bench.harness import Benchmark, Sample, percentile
from tests.verifier.fleet import Agent, Fleet

HOSTS = 10_000
CORES = 2
# How many connect at once.
AT_ONCE = 50
WINDOW_S = 60.0
# Everybody here comes from one machine.
UNLIMITED = {"requests_per_second": 1e6, "connections_per_second": 1e6}


@dataclasses.dataclass(frozen=True)
class Load:
    """What the server took for its hosts.

    Attributes:
        cpu_share: of all cores.
        report_ms: for each report, from its evidence to the answer.
        memory_mib: of all its processes; pages that they share count once.
    """

    cpu_share: float
    report_ms: Sequence[float]
    memory_mib: float


class Hosts:
    """The hosts of a fleet, each in its loop."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        self.report_ms: list[float] = []
        self._loops: list[asyncio.Future[None]] = []

    async def connect(self) -> None:
        """Have every host connect and report, and stay in its loop."""
        waiting = iter(self._agents)

        async def work() -> None:
            for agent in waiting:
                assert await agent.attest() == "trusted"
                self._loops.append(asyncio.ensure_future(self._live(agent)))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def stop(self) -> None:
        """End all loops and connections; a loop that failed is told."""
        for loop in self._loops:
            loop.cancel()
        outcomes = await asyncio.gather(*self._loops, return_exceptions=True)
        for agent in self._agents:
            agent.caller.close()
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert not failed, failed[:3]

    async def _live(self, agent: Agent) -> None:
        while True:
            await asyncio.sleep(PACE_S)
            challenge = await agent.next_challenge(agent.listening(WAIT_MS))
            if challenge is None:
                continue
            report = agent.short_report(challenge)
            began_s = time.perf_counter()
            assert await agent.send(report) == "trusted"
            self.report_ms.append(1000 * (time.perf_counter() - began_s))


@functools.cache
def measured_load() -> Load:
    """Return what the server takes while every host reports in time."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Processes(Path(directory)) as processes,
    ):
        fleet = Fleet(Path(directory), HOSTS, processes=CORES, **UNLIMITED)
        fleet.start(processes)
        return asyncio.run(_load(fleet, processes.pid("verifier-0")))


async def _load(fleet: Fleet, parent: int) -> Load:
    hosts = Hosts(fleet.agents)
    began_s = time.monotonic()
    await hosts.connect()
    # By then those that came first are due again.
    due_s = began_s + (1 - JITTER / 2) * Appraisal().refresh_ms / 1000
    await asyncio.sleep(max(due_s - time.monotonic(), 0))
    hosts.report_ms.clear()
    window_began_s = time.monotonic()
    cpu_before_s = _cpu_s(parent)
    await asyncio.sleep(WINDOW_S)
    share = (_cpu_s(parent) - cpu_before_s) / (time.monotonic() - window_began_s) / CORES
    load = Load(share, list(hosts.report_ms), _memory_mib(parent))
    await hosts.stop()
    return load


def _family(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [parent, *map(int, children.split())]


def _cpu_s(parent: int) -> float:
    ticks = 0
    for pid in _family(parent):
        _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        user, system = fields.split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_mib(parent: int) -> float:
    kib = 0
    for pid in _family(parent):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib += int(rollup.partition("\nPss:")[2].split()[0])
    return kib / 1024


@contextlib.contextmanager
def agents_10000_cpu() -> Iterator[Callable[[], Sample]]:
    """Share of the two cores."""
    yield lambda: Sample(measured_load().cpu_share)


@contextlib.contextmanager
def agents_10000_p99() -> Iterator[Callable[[], Sample]]:
    """Milliseconds from evidence to answer."""
    yield lambda: Sample(percentile(measured_load().report_ms, 99))


@contextlib.contextmanager
def agents_10000_memory() -> Iterator[Callable[[], Sample]]:
    """MiB of all processes of the server.

    Some 140 are there without any host; each open connection takes 55 KiB, half of them OpenSSL's.
    """
    yield lambda: Sample(measured_load().memory_mib)


BENCHMARKS = [
    Benchmark("agents_10000_cpu", "share", agents_10000_cpu, most=0.5, rounds=1),
    Benchmark("agents_10000_p99", "ms", agents_10000_p99, most=250, rounds=1),
    Benchmark("agents_10000_memory", "MiB", agents_10000_memory, most=800, rounds=1),
]
