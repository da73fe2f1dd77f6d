# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""filterd as systemd runs it: a socket that outlives it, and quick starts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler, NoAnswer
from tests.scheduler.conftest import GOOD, MARKED, pool
from tests.scheduler.filterd import Filterd
from tests.scheduler.systemd import Systemd

KILLS = 5
SERVES_WITHIN_S = 0.5
# On a machine that is busy with other things: so many starts of an interpreter with asyncio.
SERVES_WITHIN_STARTS = 5


@pytest.fixture
def filterd(tmp_path: Path) -> Filterd:
    made = Filterd(tmp_path)
    made.writer.write(pool())
    return made


def bare_start_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
    return time.perf_counter() - began


@pytest.fixture
def systemd(filterd: Filterd, tmp_path: Path) -> Iterator[Systemd]:
    running = Systemd(filterd, tmp_path)
    yield running
    running.close()


def test_loads_nothing_that_it_does_not_need_before_it_serves() -> None:
    """The engine waits meanwhile; each of these takes about as long as a hundred snapshots."""
    code = "import sys, ovirt_tcp_plugin.scheduler.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    needless = {"ovirt_tcp_plugin.placement.inventory", "secrets", "random", "requests", "tornado"}
    assert loaded & needless == set()


def test_takes_the_socket_and_says_when_it_is_ready(systemd: Systemd, filterd: Filterd) -> None:
    assert filterd.engine.run_filters(["TrustedHosts"], [GOOD], MARKED, {}).result == [GOOD]


def test_no_call_is_lost_and_nobody_passes_wrongly_while_it_is_killed(
    systemd: Systemd, filterd: Filterd
) -> None:
    """The port stays open: a call waits for the next process, 3 s at most. Only one that was being
    answered is lost."""
    lost: list[str] = []
    answered: list[list[str]] = []
    over = threading.Event()

    def keep_calling() -> None:
        while not over.is_set():
            try:
                found = ExternalScheduler(f"http://127.0.0.1:{filterd.port}/", 3).run_filters(
                    ["TrustedHosts"], [GOOD], MARKED, {}
                )
            except NoAnswer as e:
                lost.append(str(e))
            else:
                answered.append(found.result)

    threads = [threading.Thread(target=keep_calling) for _ in range(2)]
    for one in threads:
        one.start()
    starts = [systemd.restart() for _ in range(KILLS)]
    bare_starts = [bare_start_s() for _ in range(KILLS)]
    over.set()
    for one in threads:
        one.join()
    assert not [reason for reason in lost if "efused" in reason or "timed out" in reason]
    assert len(lost) <= KILLS * len(threads)
    assert answered.count([GOOD]) == len(answered) >= KILLS
    assert min(starts) < max(SERVES_WITHIN_S, SERVES_WITHIN_STARTS * min(bare_starts))


def test_a_directory_that_cannot_be_read_does_not_end_it(filterd: Filterd, tmp_path: Path) -> None:
    """A process that dies at each start would answer nothing, and the engine would keep all
    hosts."""
    for path in filterd.snapshots.iterdir():
        path.unlink()
    filterd.snapshots.rmdir()
    filterd.start()
    answer = filterd.engine.run_filters(["TrustedHosts"], [GOOD], MARKED, {})
    filterd.processes.stop_all()
    assert answer.result == []
    assert "No such file" in answer.errors[-1]
