# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand starts at a gate whose host is well, broken, lied to, full or overloaded.

No hang, no wrong start.
"""

from __future__ import annotations

import contextlib
import os
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
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import gate
from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.messages.result import Level
from tests import soak
from tests.hooks.gate_faults import FAULTS
from tests.hooks.gated_host import LIFETIME_MS, OTHER_KEY, VM, Host

RUNS = soak.part(10_000)
LOADED_RUNS = RUNS // 50
# The gate's own alarm after 10 s, and what a busy machine needs to start an interpreter.
HANGS_AFTER_S = 20.0
LOAD = 16


class Campaign:
    """Counts what came of the runs."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.random = directory, soak.randomness("gate")
        self.started = self.refused = self.wrong = self.hung = 0
        self.slowest_s = 0.0

    def run(self, number: int) -> None:
        """Start one VM on a fresh host.

        Good, or with a fault of the list, or a good verdict with flipped bits.
        """
        place = self.directory / str(number)
        place.mkdir()
        host = Host(place)
        good = self.random.random() < 0.2
        if not good:
            spoil(host, self.random)
        point = self.random.choice(vdsm.GATE_POINTS)
        began = time.monotonic()
        refused = (
            full_disk_refuses(host, point)
            if self.random.random() < 0.05
            else bool(host.start(point).failure)
        )
        took_s = time.monotonic() - began
        self.slowest_s = max(self.slowest_s, took_s)
        self.hung += took_s > HANGS_AFTER_S
        if refused:
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
    """Flip a bit of a good verdict.

    Not in the last character of a part, which has bits that count for nothing.
    """
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
        f"gate: {RUNS} runs, {campaign.started} started, {campaign.refused} refused, "
        f"{campaign.wrong} wrong starts, "
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


def mutate(token: bytes, other: bytes, numbers: random.Random) -> bytes:
    """Return a verdict with one to three changes.

    Bits, bytes lost, doubled or added, parts of another verdict.
    """
    for _ in range(numbers.randint(1, 3)):
        first, last = sorted(numbers.choices(range(len(token) + 1), k=2))
        changes = [
            token[:first] + bytes([numbers.randrange(256)]) + token[first + 1 :],
            token[:first] + token[last:],
            token[:last] + token[first:],
            token[:first] + numbers.randbytes(last - first) + token[last:],
            b".".join(numbers.choice(parts) for parts in zip(token.split(b"."), other.split(b"."))),
            other[:first] + token[first:],
        ]
        token = numbers.choice(changes)
    return token


@pytest.mark.soak
def test_mutated_verdicts_are_refused_or_say_what_was_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process and with another implementation of the signature, to try many."""
    host, numbers = Host(tmp_path), soak.randomness("mutated verdicts")
    others = [
        host.sign(OTHER_KEY),
        host.sign(level=Level.UNTRUSTED),
        host.sign(lifetime_ms=0),
        host.sign(boot_id="x"),
    ]
    good = host.sign().encode()
    for name, place in (("VERDICT", host.verdict), ("KEYS", host.keys)):
        monkeypatch.setattr(gate, name, str(place))
    monkeypatch.setattr(gate, "OWNER", os.geteuid())
    monkeypatch.setattr(gate, "signed_by", signed_by)
    signed = gate.read_verdict()
    left, refused, same = soak.part(10_000_000), 0, 0
    while left > 0:
        mutated = mutate(good, numbers.choice(others).encode(), numbers)
        left -= len(mutated) + 1
        host.verdict.write_bytes(mutated)
        try:
            read = gate.read_verdict()
            gate.check(read, "")
        except gate.StartRefused:
            refused += 1
        else:
            same += 1
            assert read == signed
    print(f"mutated verdicts: {refused} refused, {same} still said what was signed")
    assert refused > same


def signed_by(key: bytes, signature: bytes, content: bytes) -> bool:
    public = serialization.load_pem_public_key(key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    try:
        public.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def test_a_full_disk_neither_starts_nor_stops_anything(tmp_path: Path) -> None:
    """The gate writes nothing: good starts and bad does not."""
    host = Host(tmp_path)
    assert not full_disk_refuses(host, "before_vm_start")
    host.verdict.write_bytes(b"")
    assert full_disk_refuses(host, "before_vm_start")


def full_disk_refuses(host: Host, point: str) -> bool:
    """Return whether a VM is refused where no file can grow."""
    script, environment = host.hooks / point / "50_ovirt_tcp_gate.py", {**os.environ, "vmId": VM}
    nothing = subprocess.DEVNULL
    return bool(
        subprocess.run(
            [script], preexec_fn=full, env=environment, stdin=nothing, stderr=nothing, check=False
        ).returncode
    )


def full() -> None:
    """Let the process write no file any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
