# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""2,000 pools with 10,000 hosts and 100,000 VMs: filterd is ready at once, and never late for
systemd's watchdog."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict
from ovirt_tcp_plugin.placement.snapshot import Snapshot
from ovirt_tcp_plugin.scheduler import snapshots
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory
from tests import soak
from tests.scheduler.conftest import HOUR_MS, running_boot
from tests.scheduler.filterd import Filterd
from tests.scheduler.systemd import Systemd

POOLS = soak.part(2000, least=400)
HOSTS_OF_A_POOL = 5
VMS_OF_A_POOL = 50
REWRITES = soak.part(10, least=2)
# The bars, and for a machine that runs the other tests what the engine waits, and half of what
# systemd does.
READY_WITHIN_S = 1.0 if soak.WHOLE else 3.0
WATCHDOG_WITHIN_S = 1.0 if soak.WHOLE else 2.5
# This test's own processes share the machine with others.
STARTS = 3


def uid(kind: int, number: int) -> str:
    return str(uuid.UUID(int=(kind << 112) + number))


def pool(number: int, level: Level = Level.TRUSTED) -> Snapshot:
    """Return a pool whose hosts and VMs are in no other."""
    now = boottime_ms()
    hosts = range(number * HOSTS_OF_A_POOL, (number + 1) * HOSTS_OF_A_POOL)
    vms = range(number * VMS_OF_A_POOL, (number + 1) * VMS_OF_A_POOL)
    verdicts = {uid(2, host): Verdict(level, now, now + HOUR_MS) for host in hosts}
    marks = {uid(3, vm): vm % 2 == 0 for vm in vms}
    return Snapshot(
        uid(1, number), Scope.ALL_VMS, running_boot(), now, verdicts, marks, frozenset()
    )


def write_all(writer: SnapshotWriter, level: Level) -> None:
    for number in range(POOLS):
        writer.write(pool(number, level))


def result(filterd: Filterd, number: int) -> list[str]:
    """Return which of a pool's hosts a VM may run on."""
    engine = ExternalScheduler(f"http://127.0.0.1:{filterd.port}/", 3)
    hosts = list(pool(number).hosts)
    answer: list[str] = engine.run_filters(
        ["TrustedHosts"], hosts, uid(3, number * VMS_OF_A_POOL), {}
    ).result
    return answer


@pytest.fixture
def filterd(tmp_path: Path) -> Filterd:
    made = Filterd(tmp_path)
    write_all(made.writer, Level.TRUSTED)
    return made


@pytest.fixture
def systemd(filterd: Filterd, tmp_path: Path) -> Iterator[Systemd]:
    running = Systemd(filterd, tmp_path)
    yield running
    running.close()


@pytest.mark.soak
def test_filterd_is_ready_at_once_and_never_late_for_the_watchdog(
    filterd: Filterd, systemd: Systemd
) -> None:
    ready_s = min(systemd.restart() for _ in range(STARTS))
    read_s = until(lambda: len(result(filterd, POOLS - 1)) == HOSTS_OF_A_POOL)
    rewriting = threading.Thread(target=rewrite, args=(filterd.writer,))
    rewriting.start()
    gap_s = longest_gap(systemd, rewriting)
    took_over_s = until(
        lambda: not any(result(filterd, number) for number in (0, POOLS // 2, POOLS - 1))
    )
    status = Path(f"/proc/{systemd.process.pid}/status").read_text()
    (rss,) = [
        int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:")
    ]
    print(
        f"filterd with {POOLS} pools: ready after {ready_s:.2f} s, all read {read_s:.2f} s later; "
        f"{REWRITES} rewrites "
        f"of all: longest gap of the watchdog {gap_s:.2f} s, the last taken over after "
        f"{took_over_s:.2f} s; "
        f"RSS at most {rss} MiB, load {os.getloadavg()[0]:.1f}"
    )
    assert ready_s <= READY_WITHIN_S
    assert gap_s <= WATCHDOG_WITHIN_S


def longest_gap(systemd: Systemd, while_alive: threading.Thread) -> float:
    """Return the longest time in which systemd is told nothing."""
    gap_s = 0.0
    before = time.monotonic()
    while while_alive.is_alive():
        assert systemd.notified.recv(100) == b"WATCHDOG=1"
        gap_s = max(gap_s, time.monotonic() - before)
        before = time.monotonic()
    return gap_s


def rewrite(writer: SnapshotWriter) -> None:
    """Change every file, as at a restart of the engine."""
    for number in range(REWRITES):
        write_all(writer, Level.TRUSTED if number % 2 else Level.UNKNOWN)
        time.sleep(1)
    write_all(writer, Level.UNTRUSTED)


def until(is_so: Callable[[], bool]) -> float:
    """Return the seconds until it is so."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 10
    return time.monotonic() - began


def test_as_many_pools_as_an_engine_has_are_read_and_what_is_left_out_is_told(
    tmp_path: Path,
) -> None:
    writer = SnapshotWriter(tmp_path / "snapshot.d")
    assert snapshots.MAX_FILES >= 4000
    for number in range(snapshots.MAX_FILES):
        (tmp_path / "snapshot.d" / f"{uid(1, number)}.json").touch()
    writer.write(pool(snapshots.MAX_FILES - 1))
    directory = SnapshotDirectory(tmp_path / "snapshot.d", frozenset({os.getuid()}))
    directory.load_all()
    assert len(directory.by_host) == HOSTS_OF_A_POOL
    assert "snapshot.d" not in directory.faults
    writer.write(pool(snapshots.MAX_FILES))
    directory.load_all()
    assert len(directory.by_host) == HOSTS_OF_A_POOL
    assert "1 files are left out" in directory.faults["snapshot.d"]
    writer.remove(uid(1, 0))
    directory.load_all()
    assert len(directory.by_host) == 2 * HOSTS_OF_A_POOL
    assert "snapshot.d" not in directory.faults


@pytest.mark.parametrize("pools", [100, 800])
def test_a_file_that_changed_costs_the_same_however_many_pools_there_are(
    tmp_path: Path, pools: int
) -> None:
    writer = SnapshotWriter(tmp_path / "snapshot.d")
    for number in range(pools):
        writer.write(pool(number))
    directory = SnapshotDirectory(tmp_path / "snapshot.d", frozenset({os.getuid()}))
    directory.load_all()
    looked_at = []
    claim = directory._claim

    def count(pool_id: str) -> set[str]:
        looked_at.append(pool_id)
        return claim(pool_id)

    directory._claim = count  # type: ignore[method-assign]
    writer.write(pool(3, Level.UNTRUSTED))
    directory.load_all()
    assert looked_at == [uid(1, 3)]
    assert (
        directory.by_host[uid(2, 3 * HOSTS_OF_A_POOL)].hosts[uid(2, 3 * HOSTS_OF_A_POOL)].level
        is Level.UNTRUSTED
    )
