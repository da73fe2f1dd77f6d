# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""9,600 calls of an engine beside each kind of hostile neighbour: none is lost, and none is
answered wrongly."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.engine.external_scheduler import CommandFails, ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict
from ovirt_tcp_plugin.placement.snapshot import Snapshot
from tests import soak
from tests.scheduler.conftest import HOUR_MS, MARKED, POOL, running_boot
from tests.scheduler.filterd import Filterd

CALLS = soak.part(9600)
THREADS = 4
# ExternalSchedulerResponseTimeout as `setup` sets it; more where other tests run beside this one.
ANSWER_WITHIN_S = 3.0 if soak.WHOLE else 9.0
SIZES = (1, 10, 100, 400, 1000)
MAX_RSS_MIB = 150
# Until a neighbour runs, and has opened what it opens.
SETTLES_S = 2.0 if soak.WHOLE else 0.7
HOSTS = [f"{number:036d}" for number in range(max(SIZES))]
GOOD = [host for number, host in enumerate(HOSTS) if number % 3]

# Of the same user as the engine: connections share the time evenly.
NEIGHBOURS = {
    "nobody": [],
    "20 clients with bodies of 1 MiB": [("bodies", 20)],
    "60 clients with bodies of 1 MiB": [("bodies", 60)],
    "1000 connections that open slowly": [("opening", 1000)],
    "1000 idle connections": [("idle", 1000)],
}
# Of another user: users do. The engine has one of its own.
STRANGERS = {
    "1000 unfinished calls": [("unfinished", 1000)],
    "connections opened as fast as possible": [("flood", 500)],
    "a connection for each call": [("fresh", 100)],
    "some of each": [("bodies", 20), ("opening", 300), ("idle", 300), ("unfinished", 100)],
}
STRANGER = 65534


@dataclasses.dataclass
class Engine:
    """Threads that call as the engine does, some over connections that are kept and some over new
    ones."""

    url: str
    calls: int

    def __post_init__(self) -> None:
        self.took_ms: list[float] = []
        self.lost: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._keep_calling, args=(number,)) for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _keep_calling(self, number: int) -> None:
        numbers = soak.randomness(f"engine {number}")
        kept = ExternalScheduler(self.url, ANSWER_WITHIN_S)
        for _ in range(self.calls // THREADS):
            scheduler = (
                kept if numbers.random() < 0.5 else ExternalScheduler(self.url, ANSWER_WITHIN_S)
            )
            self._call(scheduler, numbers)
            for connection in scheduler._idle if scheduler is not kept else ():
                connection.close()

    def _call(self, scheduler: ExternalScheduler, numbers: random.Random) -> None:
        hosts = numbers.sample(HOSTS, numbers.choice(SIZES))
        began = time.monotonic()
        try:
            result = scheduler.run_filters(["TrustedHosts"], hosts, MARKED, {}).result
        except (NoAnswer, CommandFails) as e:
            self.lost.append(f"{e} after {time.monotonic() - began:.2f} s")
            return
        self.took_ms.append((time.monotonic() - began) * 1000)
        if result != [host for host in hosts if host in ALLOWED]:
            self.wrong.append(f"{len(hosts)} hosts")


ALLOWED = frozenset(GOOD)


@pytest.fixture(scope="module")
def filterd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filterd]:
    running = Filterd(tmp_path_factory.mktemp("neighbours"))
    now = boottime_ms()
    good = Verdict(Level.TRUSTED, now - 1000, now + HOUR_MS)
    bad = Verdict(
        Level.UNTRUSTED, now - 1000, now + HOUR_MS, "no_launch", "no measured launch took place"
    )
    hosts = {host: good if host in ALLOWED else bad for host in HOSTS}
    running.writer.write(
        Snapshot(POOL, Scope.ALL_VMS, running_boot(), now, hosts, {MARKED: True}, frozenset())
    )
    running.start()
    yield running
    running.processes.stop_all()


@contextlib.contextmanager
def beside(filterd: Filterd, neighbours: list[tuple[str, int]], *user: str) -> Iterator[None]:
    """Have these kinds of neighbours, with so many connections each."""
    for name, count in neighbours:
        command = [
            sys.executable,
            "-m",
            "tests.scheduler.neighbours",
            name,
            str(filterd.port),
            str(count),
            *user,
        ]
        filterd.processes.start(name, command)
    time.sleep(SETTLES_S)
    try:
        yield
    finally:
        for name, _count in neighbours:
            filterd.processes.stop(name)


def peak_rss_mib(filterd: Filterd) -> float:
    """Return the most memory that it had so far."""
    status = Path(f"/proc/{filterd.processes.pid('filterd')}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


@pytest.mark.soak
@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_no_call_is_lost_beside(filterd: Filterd, kind: str) -> None:
    engine = Engine(f"http://127.0.0.1:{filterd.port}/", CALLS)
    with beside(filterd, NEIGHBOURS[kind]):
        engine.run()
    judge(filterd, engine, kind)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("kind", STRANGERS)
def test_no_call_is_lost_beside_another_user_with(filterd: Filterd, kind: str) -> None:
    engine = Engine(f"http://127.0.0.1:{filterd.port}/", CALLS)
    with beside(filterd, STRANGERS[kind], str(STRANGER)):
        engine.run()
    judge(filterd, engine, f"another user with {kind}")


def judge(filterd: Filterd, engine: Engine, kind: str) -> None:
    rss_mib = peak_rss_mib(filterd)
    took_ms = sorted(engine.took_ms) or [0]
    print(
        f"filterd beside {kind}: {engine.calls} calls, {len(engine.lost)} lost, "
        f"{len(engine.wrong)} wrong, "
        f"p50 {statistics.median(took_ms):.1f} ms, p99 {took_ms[len(took_ms) * 99 // 100]:.0f} ms, "
        f"most {took_ms[-1]:.0f} ms, RSS at most {rss_mib:.0f} MiB, load {os.getloadavg()[0]:.1f}"
    )
    assert engine.lost == []
    assert engine.wrong == []
    assert rss_mib <= MAX_RSS_MIB
