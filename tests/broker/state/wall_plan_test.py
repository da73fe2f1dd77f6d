# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The wall's plan: who is inside, and in which order it is changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.broker.state.verdicts import CachedVerdict
from ovirt_tcp_plugin.broker.state.wall_plan import (
    Edit,
    Inside,
    Step,
    hosts_inside,
    plan,
    single_steps,
)
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Verdict, holds
from ovirt_tcp_plugin.placement.inventory import Group

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


def test_a_label_has_the_wall_repaired_before_all() -> None:
    labelled = Group("id", "ovirt-tcp-wall", frozenset("ab"), host_label_ids=frozenset({"label"}))
    edits = [step.edit for step in plan(labelled, {"b"}, set(), set())]
    assert edits == [Edit.REPAIR, Edit.REMOVE_HOST]


def test_more_than_two_edits_of_a_kind_are_one_call_that_lists_all_members() -> None:
    steps = plan(wall("abcd", "uv"), {"d", "e", "f", "g"}, {"x", "y"}, set("uvxy"))
    assert steps == [
        Step(Edit.REMOVE_HOSTS, host_ids=frozenset("d")),
        Step(Edit.ADD_HOSTS, host_ids=frozenset("defg")),
        Step(Edit.CHANGE_VMS, vm_ids=frozenset("xy")),
    ]


def test_a_wall_of_two_is_emptied_by_one_call_too() -> None:
    assert plan(wall("ab"), set(), set(), set()) == [Step(Edit.REMOVE_HOSTS)]
    assert plan(wall("a"), set(), set(), set()) == [Step(Edit.REMOVE_HOST, "a")]


def test_a_few_edits_of_a_long_list_are_single_ones() -> None:
    known = {f"v{n}" for n in range(1000)}
    behind = Group("id", "ovirt-tcp-wall", vm_ids=frozenset(known))
    steps = plan(behind, set(), known | {"a", "b", "c"}, known)
    assert [step.edit for step in steps] == [Edit.ADD_VM] * 3


def test_one_call_for_all_vms_keeps_those_that_were_not_listed() -> None:
    (step,) = plan(wall("", "uvw"), set(), {"x", "y", "z"}, set("vwxyz"))
    assert step == Step(Edit.CHANGE_VMS, vm_ids=frozenset("uxyz"))


def test_single_edits_do_the_same_as_one_call() -> None:
    before = wall("abcd", "uvw")
    (out, into, vms) = plan(before, {"c", "e", "f", "g"}, {"x", "y"}, set("uvwxy"))
    assert single_steps(before, out) == [Step(Edit.REMOVE_HOST, host_id) for host_id in "abd"]
    assert single_steps(wall("c"), into) == [Step(Edit.ADD_HOST, host_id) for host_id in "efg"]
    added = [Step(Edit.ADD_VM, vm_id) for vm_id in "xy"]
    assert single_steps(before, vms) == added + [Step(Edit.REMOVE_VM, vm_id) for vm_id in "uvw"]


def test_a_surplus_wall_goes_when_the_other_is_as_it_has_to_be() -> None:
    assert plan(wall("a", "x"), {"a"}, {"x"}, {"x"}, ["old"]) == [Step(Edit.REMOVE_SURPLUS, "old")]
    assert plan(wall("a"), {"a"}, {"x"}, {"x"}, ["old"]) == [Step(Edit.ADD_VM, "x")]


verdicts = st.builds(
    Verdict,
    st.sampled_from(Level),
    st.integers(0, 100),
    st.integers(0, 100),
    st.just("code"),
    st.just("reason"),
)
known_hosts = st.builds(
    CachedVerdict,
    verdicts,
    up=st.just(True),
    in_flight=st.booleans(),
    failures=st.integers(0, 1),
    failing_since_ms=st.integers(0, 100),
    failed_ms=st.integers(0, 100),
    answered_ms=st.integers(0, 100),
    stands_until_ms=st.none() | st.integers(0, 100),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), known_hosts),
    st.frozensets(st.sampled_from(NAMES)),
    st.booleans(),
    st.integers(0, 110),
)
def test_silence_lets_nobody_in_and_evidence_always_out(
    up: dict[str, CachedVerdict], inside: frozenset[str], servers_answer: bool, now: int
) -> None:
    chosen = hosts_inside(up, inside, servers_answer, now)
    for host_id in chosen.host_ids:
        host = up[host_id]
        assert host.verdict.level is not Level.UNTRUSTED
        if not holds(host.verdict, now):
            assert host_id in inside
            stands = host.stands_until_ms is not None and now < host.stands_until_ms
            assert stands or not servers_answer or host_id in chosen.unheard
    good = {host_id for host_id, host in up.items() if holds(host.verdict, now)}
    assert good <= chosen.host_ids
    assert chosen.unheard <= chosen.host_ids


def host(
    end_ms: int, answered_ms: int, failing_since_ms: int | None = None, stands: int | None = None
) -> CachedVerdict:
    """Return a host whose verdict lives 600 ms."""
    verdict = Verdict(Level.TRUSTED, end_ms - 600, end_ms)
    if stands is not None:
        verdict = Verdict(Level.UNKNOWN, 0, 0, "engine_restarted", "the engine restarted")
    return CachedVerdict(
        verdict,
        up=True,
        failures=0 if failing_since_ms is None else 1,
        failing_since_ms=failing_since_ms or 0,
        failed_ms=980,
        answered_ms=answered_ms,
        stands_until_ms=stands,
    )


class TestSilentHost:
    """Verdicts live 600 ms, hosts are asked each 300 ms, and it is 1000 now; the last question on
    a silent host failed at 980.
    """

    def test_leaves_at_its_verdicts_end_while_others_give_evidence(self) -> None:
        pool = {"a": host(990, 390, 690), "b": host(1400, 800), "c": host(1500, 900)}
        assert hosts_inside(pool, set("abc"), True, 1000) == Inside(frozenset("bc"))

    def test_stays_while_no_other_gives_evidence(self) -> None:
        pool = {"a": host(990, 390, 690), "b": host(1100, 500, 800), "c": host(1200, 600, 900)}
        inside = hosts_inside(pool, set("abc"), True, 1000)
        assert inside == Inside(frozenset("abc"), frozenset("a"))

    def test_stays_while_one_of_twenty_gives_evidence_but_no_longer_than_a_life(self) -> None:
        pool = {f"h{n}": host(990, 390, 690) for n in range(19)}
        pool["good"] = host(1500, 900)
        inside = hosts_inside(pool, pool.keys(), True, 1000)
        assert len(inside.unheard) == 19
        pool["good"] = host(2000, 1400)
        inside = hosts_inside(pool, pool.keys(), True, 1590)
        assert inside == Inside(frozenset({"good"}))

    def test_leaves_with_all_others_when_the_last_verdict_ends(self) -> None:
        pool = {"a": host(990, 390, 690), "b": host(1000, 400, 700)}
        assert hosts_inside(pool, set("ab"), True, 1000) == Inside()

    def test_stays_until_it_was_asked_after_others_answered(self) -> None:
        pool = {"a": host(990, 390, 690), "b": host(1590, 990), "c": host(1590, 990)}
        inside = hosts_inside(pool, set("abc"), True, 1000)
        assert inside == Inside(frozenset("abc"), frozenset("a"))

    def test_is_not_let_in_again(self) -> None:
        pool = {"a": host(990, 390, 690), "b": host(1100, 500, 800)}
        assert hosts_inside(pool, set("b"), True, 1000) == Inside(frozenset("b"))


class TestStandingWall:
    def test_keeps_hosts_without_a_verdict_until_its_end(self) -> None:
        pool = {"a": host(0, 500, stands=1001), "b": host(0, 500, stands=1001)}
        assert hosts_inside(pool, set("ab"), True, 1000) == Inside(frozenset("ab"))
        assert hosts_inside(pool, set("ab"), True, 1001) == Inside()

    def test_keeps_none_that_others_were_attested_without(self) -> None:
        pool = {"a": host(0, 500, 900, stands=1000), "b": host(1550, 950)}
        assert hosts_inside(pool, set("ab"), True, 1000) == Inside(frozenset("b"))

    def test_lets_nobody_in(self) -> None:
        pool = {"a": host(0, 500, stands=1001)}
        assert hosts_inside(pool, set(), True, 1000) == Inside()


def carried_out(before: Group, step: Step) -> Group:
    """Return the wall after a step, as the engine does it."""
    hosts, vms = set(before.host_ids), set(before.vm_ids)
    if step.edit is Edit.REMOVE_HOST:
        hosts.remove(step.subject)
    elif step.edit is Edit.ADD_HOST:
        hosts.add(step.subject)
    elif step.edit is Edit.ADD_VM:
        vms.add(step.subject)
    elif step.edit is Edit.REMOVE_VM:
        vms.remove(step.subject)
    elif step.edit in (Edit.REMOVE_HOSTS, Edit.ADD_HOSTS):
        hosts = set(step.host_ids)
    elif step.edit is Edit.CHANGE_VMS:
        vms = set(step.vm_ids)
    return Group(before.id, before.name, frozenset(hosts), frozenset(vms))


members = st.frozensets(st.sampled_from("abcdefgh"))


@given(members, members, members, members, members)
def test_whatever_the_wall_was_the_steps_make_it_what_it_has_to_be(
    inside: frozenset[str],
    hosts: frozenset[str],
    behind: frozenset[str],
    vms: frozenset[str],
    known: frozenset[str],
) -> None:
    group = Group("id", "ovirt-tcp-wall", inside, behind)
    for step in plan(group, hosts, vms, known | vms):
        later = carried_out(group, step)
        if step.edit in (Edit.ADD_HOST, Edit.ADD_HOSTS):
            assert later.host_ids <= hosts, "who has to leave is inside while others enter"
        one_by_one = group
        for single in single_steps(group, step) if not step.subject else [step]:
            one_by_one = carried_out(one_by_one, single)
        assert one_by_one == later
        group = later
    assert group.host_ids == hosts
    assert group.vm_ids == vms | (behind - known)
