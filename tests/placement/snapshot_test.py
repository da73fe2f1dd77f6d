# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The message to filterd: what is not exactly one is refused with the one error."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.decision import Scope, Verdict, VmTrust
from ovirt_tcp_plugin.placement.snapshot import Snapshot

BOOT = "00000000-0000-0000-0000-000000000001"
GOOD = Snapshot(
    "pool",
    Scope.MARKED_VMS,
    BOOT,
    1000,
    {
        "h1": Verdict(Level.TRUSTED, 1, 2000),
        "h2": Verdict(Level.UNTRUSTED, 1, 2, "no_launch", "no launch"),
    },
    {"v1": True, "v2": False},
    frozenset({"v3"}),
)


def changed(*path: str, value: Any) -> bytes:
    content = json.loads(snapshot.encode(GOOD))
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = copy.deepcopy(value)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        snapshot.encode(GOOD)[:-1],
        changed("version", value=2),
        changed("version", value=True),
        changed("boot_id", value="another"),
        changed("scope", value="nobody"),
        changed("scope", value=[]),
        changed("pool_id", value="../../etc/passwd"),
        changed("written_ms", value=-1),
        changed("hosts", value=[]),
        changed("hosts", "h1", value=None),
        changed("hosts", "h1", value=["trusted", 1, 2, ""]),
        changed("hosts", "h1", value=["Trusted", 1, 2, "", ""]),
        changed("hosts", "h1", value=[["trusted"], 1, 2, "", ""]),
        changed("hosts", "h1", value=["trusted", "1", 2, "", ""]),
        changed("hosts", "h1", value=["trusted", 1, True, "", ""]),
        changed("hosts", "h1", value=["trusted", 1, 2**60, "", ""]),
        changed("hosts", "h1", value=["trusted", -(2**60), 1, "", ""]),
        changed("hosts", "h1", value=["trusted", 1, 2, "", "x" * 501]),
        changed("hosts", "h1", value=["trusted", 1, 2, None, ""]),
        changed("hosts", "h 1", value=["trusted", 1, 2, "", ""]),
        changed("hosts", value={f"h{n}": ["trusted", 1, 2, "", ""] for n in range(10_001)}),
        changed("vms", "v1", value="true"),
        changed("vms", value=None),
        changed("exempt", value="v1"),
        changed("exempt", value=[None]),
    ],
)
def test_refuses_what_is_no_snapshot(body: bytes) -> None:
    with pytest.raises(errors.InvalidMessage):
        snapshot.decode(body, BOOT)


@given(st.binary(max_size=1000))
def test_any_bytes_give_a_snapshot_or_the_one_error(body: bytes) -> None:
    with contextlib.suppress(errors.InvalidMessage):
        snapshot.decode(body, BOOT)


@given(st.integers(0, 400), st.binary(max_size=6), st.integers(0, 6))
def test_a_mutated_snapshot_gives_a_snapshot_or_the_one_error(
    position: int, inserted: bytes, removed: int
) -> None:
    content = snapshot.encode(GOOD)
    with contextlib.suppress(errors.InvalidMessage):
        snapshot.decode(content[:position] + inserted + content[position + removed :], BOOT)


def test_reads_back_as_it_was() -> None:
    assert snapshot.decode(snapshot.encode(GOOD), BOOT) == GOOD


def test_a_verdict_from_before_this_machine_booted_closes_no_pool() -> None:
    old = Verdict(Level.UNTRUSTED, -5000, -1000, "no_launch", "no launch")
    one = Snapshot("pool", Scope.ALL_VMS, BOOT, 1, {"h": old}, {}, frozenset())
    assert snapshot.decode(snapshot.encode(one), BOOT) == one


def test_a_long_reason_is_cut_so_that_it_can_be_read() -> None:
    long = Verdict(Level.UNTRUSTED, 1, 2, "c" * 100, "r" * 1000)
    one = Snapshot("pool", Scope.ALL_VMS, BOOT, 1, {"h": long}, {}, frozenset())
    assert len(snapshot.decode(snapshot.encode(one), BOOT).hosts["h"].reason) == 500


def test_a_vm_that_is_not_in_it_is_unknown() -> None:
    assert GOOD.vm("v1") == VmTrust(True)
    assert GOOD.vm("v2") == VmTrust(False)
    assert GOOD.vm("v3") == VmTrust(None, exempt=True)
    assert GOOD.vm("v4") == VmTrust(None)


DATA = Path(__file__).with_name("data")


def test_a_snapshot_of_an_earlier_release_is_read_and_written_the_same() -> None:
    earlier = (DATA / "snapshot.json").read_bytes()
    decoded = snapshot.decode(earlier, BOOT)
    assert (decoded.scope, decoded.written_ms, len(decoded.exempt)) == (
        Scope.MARKED_VMS,
        1_000_900,
        1,
    )
    verdicts = decoded.hosts.values()
    assert {verdict.level for verdict in verdicts} == set(Level)
    assert "kernel_differs" in {verdict.code for verdict in verdicts}
    assert json.loads(snapshot.encode(decoded)) == json.loads(earlier)


def test_a_confirmation_of_an_earlier_release_is_read() -> None:
    earlier = (DATA / "confirmation.json").read_bytes()
    assert snapshot.decode_confirmation(earlier, BOOT) == 1_001_400
