# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand starts at a gate whose host is well, broken, lied to, full or overloaded: no hang, no wrong start."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab import vdsm
from tests import soak
from tests.hooks.gate_test import FAULTS, LIFETIME_MS, Host

RUNS = soak.part(10_000)
LOADED_RUNS = RUNS // 50
# The gate's own alarm, and what a busy machine needs to start an interpreter.
HANGS_AFTER_S = 10.0
LOAD = 16


class Campaign:
    """Counts what came of the runs."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.random = directory, soak.randomness("gate")
        self.started = self.refused = self.wrong = self.hung = 0
        self.slowest_s = 0.0

    def run(self, number: int) -> None:
        """Start one VM on a fresh host: good, or with a fault of the list, or a good verdict with flipped bits."""
        place = self.directory / str(number)
        place.mkdir()
        host = Host(place)
        good = self.random.random() < 0.2
        if not good:
            spoil(host, self.random)
        point = self.random.choice(vdsm.GATE_POINTS)
        began = time.monotonic()
        outcome = host.start(point)
        took_s = time.monotonic() - began
        self.slowest_s = max(self.slowest_s, took_s)
        self.hung += took_s > HANGS_AFTER_S
        if outcome.failure:
            self.refused += 1
        else:
            self.started += 1
            self.wrong += not good
        shutil.rmtree(place)


def spoil(host: Host, numbers: random.Random) -> None:
    """Break one thing, so that no VM may start."""
    choice = numbers.randrange(len(FAULTS) + 3)
    if choice < len(FAULTS):
        FAULTS[choice][0](host)
    elif choice == len(FAULTS):
        flip(host, numbers)
    elif choice == len(FAULTS) + 1:
        host.sign(age_ms=LIFETIME_MS + numbers.randrange(1, 2**40))
    else:
        host.sign(boot_id=str(uuid.UUID(int=numbers.getrandbits(128))))


def flip(host: Host, numbers: random.Random) -> None:
    """Flip a bit of a good verdict; not in the last character of a part, which has bits that count for nothing."""
    token = bytearray(host.verdict.read_bytes().strip())
    ends = {position - 1 for position, one in enumerate([*token, ord(".")]) if one == ord(".")}
    position = numbers.choice([one for one in range(len(token)) if one not in ends])
    token[position] ^= 1 << numbers.randrange(8)
    host.verdict.write_bytes(token)


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Keep the machine busy with many times its cores."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(LOAD)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def told(campaign: Campaign) -> str:
    return (
        f"gate: {RUNS} runs, {campaign.started} started, {campaign.refused} refused, {campaign.wrong} wrong starts, "
        f"{campaign.hung} hangs, slowest {campaign.slowest_s:.1f} s"
    )


@pytest.mark.soak
def test_no_run_hangs_and_no_vm_starts_that_may_not(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for number in range(RUNS - LOADED_RUNS):
        campaign.run(number)
    with load():
        for number in range(RUNS - LOADED_RUNS, RUNS):
            campaign.run(number)
    print(told(campaign))
    assert (campaign.wrong, campaign.hung) == (0, 0)
    assert campaign.started > 0
    assert campaign.refused > 0


def test_a_full_disk_neither_starts_nor_stops_anything(tmp_path: Path) -> None:
    """The gate writes nothing: with a file-size limit of zero, good starts and bad does not."""
    host = Host(tmp_path)
    script = host.hooks / "before_vm_start" / "50_ovirt_tcp_gate.py"

    def status() -> int:
        return subprocess.run([script], preexec_fn=full, stdin=subprocess.DEVNULL, check=False).returncode

    assert status() == 0
    host.verdict.write_bytes(b"")
    assert status() == 2


def full() -> None:
    """Let the process write no file any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
