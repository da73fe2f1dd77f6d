# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""10 MB of mutated calls, and of mutated snapshots: none ends filterd, and none lets a host pass
that may not."""

from __future__ import annotations

import dataclasses
import os
import random
import xmlrpc.client
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.clock import boottime_ms
from ovirt_tcp_plugin.lab.engine.external_scheduler import request
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.decision import decide
from ovirt_tcp_plugin.scheduler import web
from ovirt_tcp_plugin.scheduler.snapshots import SnapshotDirectory
from tests import soak
from tests.scheduler.conftest import (
    BAD,
    ENDED,
    GOOD,
    MARKED,
    POOL,
    SILENT,
    UNBORN,
    pool,
    running_boot,
)

SIZE = soak.part(10_000_000)
HOSTS = [GOOD, BAD, ENDED, UNBORN, SILENT]
PIECES = [
    b"<value>",
    b"</value>",
    b"<ex:nil/>",
    b"<array><data>",
    b"&amp;",
    b"]]>",
    b"trusted",
    b"[",
    b"9" * 20,
    b'"',
]


def mutate(content: bytes, numbers: random.Random) -> bytes:
    """Return it with one to three changes: bytes replaced, lost, doubled, swapped, or a piece of
    the format put in."""
    for _ in range(numbers.randint(1, 3)):
        first, last = sorted(numbers.choices(range(len(content) + 1), k=2))
        last = min(last, first + 80)
        changes = [
            content[:first] + bytes([numbers.randrange(256)]) + content[first + 1 :],
            content[:first] + content[last:],
            content[:last] + content[first:],
            content[:first] + numbers.choice(PIECES) + content[first:],
            content[:first]
            + numbers.choice([BAD, ENDED, UNBORN, SILENT, GOOD]).encode()
            + content[last:],
        ]
        content = numbers.choice(changes)
    return content


@pytest.fixture
def directory(tmp_path: Path) -> SnapshotDirectory:
    made = SnapshotDirectory(tmp_path, frozenset({os.getuid()}))
    SnapshotWriter(tmp_path).write(pool())
    made.load_all()
    return made


@pytest.mark.soak
def test_no_mutated_call_gets_a_host_that_may_not(directory: SnapshotDirectory) -> None:
    scheduler, numbers = web.Scheduler(directory), soak.randomness("mutated calls")
    good = request("runFilters", [["TrustedHosts"], HOSTS, MARKED, {"trust_scope": "all_vms"}])
    left, passed, refused = SIZE, 0, 0
    while left > 0:
        body = mutate(good, numbers)
        left -= len(body)
        content = scheduler.answer(body)
        assert b"<nil" not in content
        assert b"<i8" not in content
        ((answer,), _) = xmlrpc.client.loads(content)
        assert answer.keys() == {
            "result_code",
            "result",
            "errors",
            "plugin_errors",
        } or answer.keys() == {
            "filters",
            "scores",
            "balance",
        }
        assert set(answer.get("result", [])) <= {GOOD}
        passed, refused = passed + bool(answer.get("result")), refused + (not answer.get("result"))
    scheduler.close()
    print(f"mutated calls: {passed} let the trusted host pass, {refused} nobody")
    assert passed
    assert refused


@pytest.mark.soak
def test_no_mutated_snapshot_stops_the_others_or_is_believed_in_part(
    directory: SnapshotDirectory, tmp_path: Path
) -> None:
    """What is read at all says what its bytes say: the codec adds no trust, and a refused one
    leaves the last good."""
    numbers, boot_id = soak.randomness("mutated snapshots"), running_boot()
    whole = pool()
    good = snapshot.encode(
        dataclasses.replace(whole, hosts={host: whole.hosts[host] for host in HOSTS})
    )
    left, read, refused = SIZE, 0, 0
    path = tmp_path / f"{POOL}.json"
    while left > 0:
        content = mutate(good, numbers)
        left -= len(content)
        path.write_bytes(content)
        before = dict(directory.by_host)
        directory._known.clear()
        directory.read(path)
        directory.use()
        if directory.faults:
            refused += 1
            assert directory.by_host == before
        else:
            read += 1
            told = snapshot.decode(content, boot_id)
            assert dict(directory.by_host) == dict.fromkeys(told.hosts, told)
            assert all(f'"{host}":["trusted",'.encode() in content for host in _passing(told))
    print(f"mutated snapshots: {read} read, {refused} refused")
    assert refused


def _passing(told: snapshot.Snapshot) -> list[str]:
    vm, now = told.vm("a VM that nobody knows"), boottime_ms()
    return [
        host for host, verdict in told.hosts.items() if decide(vm, told.scope, verdict, now).allowed
    ]
