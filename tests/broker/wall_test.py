# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The wall's plan: who is inside, and in which order it is changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.broker.decision import Verdict, holds
from ovirt_tcp_plugin.broker.inventory import Group
from ovirt_tcp_plugin.broker.wall import Edit, Step, hosts_inside, plan
from ovirt_tcp_plugin.messages.result import Level

NAMES = ["a", "b", "c", "d"]


def wall(hosts: str = "", vms: str = "", enforcing: bool = True) -> Group:
    return Group("id", "ovirt-tcp-wall", frozenset(hosts), frozenset(vms), enforcing)


def test_who_must_leave_leaves_first_and_hosts_come_before_vms() -> None:
    steps = plan(wall("ab", "x"), {"b", "c"}, {"y"}, {"x", "y"})
    assert steps == [
        Step(Edit.REMOVE_HOST, "a"),
        Step(Edit.ADD_HOST, "c"),
        Step(Edit.ADD_VM, "y"),
        Step(Edit.REMOVE_VM, "x"),
    ]


def test_a_missing_wall_is_made_and_a_weakened_one_repaired_before_all() -> None:
    members = {"host_ids": frozenset("a"), "vm_ids": frozenset("x")}
    assert plan(None, {"a"}, {"x"}, {"x"}) == [Step(Edit.CREATE, **members)]
    assert plan(wall("a", "", enforcing=False), set(), set(), set())[0] == Step(Edit.REPAIR)


def test_a_good_wall_is_left_alone() -> None:
    assert plan(wall("a", "x"), {"a"}, {"x"}, {"x"}) == []


def test_a_vm_that_was_not_listed_stays_behind_it() -> None:
    assert plan(wall("a", "x"), {"a"}, set(), set()) == []


verdicts = st.none() | st.builds(
    Verdict, st.sampled_from(Level), st.integers(0, 100), st.integers(0, 100), st.just("code"), st.just("reason")
)


@given(
    st.dictionaries(st.sampled_from(NAMES), verdicts),
    st.frozensets(st.sampled_from(NAMES)),
    st.booleans(),
    st.integers(0, 110),
)
def test_silence_lets_nobody_in_and_evidence_always_out(
    up: dict[str, Verdict | None], inside: frozenset[str], servers_answer: bool, now: int
) -> None:
    chosen = hosts_inside(up, inside, servers_answer, now)
    for host_id in chosen:
        verdict = up[host_id]
        assert verdict is not None
        assert verdict.level is Level.TRUSTED
        if not holds(verdict, now):
            assert not servers_answer
            assert host_id in inside
    good = {host_id for host_id, verdict in up.items() if verdict is not None and holds(verdict, now)}
    assert good <= chosen
    if not good:
        assert chosen == frozenset()
