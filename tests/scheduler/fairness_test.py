# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: what each costs counts, not how often or how long he asks."""

from __future__ import annotations

from ovirt_tcp_plugin.scheduler.fairness import Member, Turns


def serve(
    turns: Turns[Member], costs_s: dict[Member, float], total_s: float
) -> dict[Member, float]:
    """Let members, who always have something to do, use so much time; return what each had."""
    had_s = dict.fromkeys(costs_s, 0.0)
    for member in costs_s:
        turns.put(member)
    while sum(had_s.values()) < total_s:
        member = turns.take()
        had_s[member] += costs_s[member]
        turns.charge(member, costs_s[member])
        turns.put(member)
    return had_s


def test_members_have_the_same_time_whatever_their_turns_cost() -> None:
    cheap, dear = Member(), Member()
    had_s = serve(Turns(), {cheap: 0.001, dear: 0.1}, 10)
    # Two turns of the dear one, of fifty.
    assert abs(had_s[cheap] - had_s[dear]) <= 0.21


def test_who_comes_new_does_not_wait_behind_those_who_had_much() -> None:
    turns: Turns[Member] = Turns()
    serve(turns, {Member(): 0.01 for _ in range(60)}, 10)
    fresh = Member()
    turns.put(fresh)
    before_s = 0.0
    while (member := turns.take()) is not fresh:
        turns.charge(member, 0.01)
        turns.put(member)
        before_s += 0.01
    # A turn of each at most.
    assert before_s <= 0.6


def test_those_who_come_new_without_end_do_not_keep_the_others_out() -> None:
    turns: Turns[Member] = Turns()
    engine = Member()
    turns.put(engine)
    turns.charge(turns.take(), 0.005)
    turns.put(engine)
    served = 0
    turns.put(Member())
    while (member := turns.take()) is not engine:
        turns.charge(member, 0.001)
        turns.put(Member())
        turns.put(Member())
        served += 1
        assert served < 1000


def test_who_had_nothing_to_do_gets_no_credit_for_it() -> None:
    turns: Turns[Member] = Turns()
    busy, idle = Member(), Member()
    turns.put(idle)
    turns.charge(turns.take(), 0.001)
    serve(turns, {busy: 0.001}, 100)
    had_s = serve(turns, {busy: 0.001, idle: 0.001}, 1)
    assert abs(had_s[busy] - had_s[idle]) <= 0.01


def test_nobody_waits_twice() -> None:
    turns: Turns[Member] = Turns()
    member = Member()
    turns.put(member)
    turns.put(member)
    assert turns.take() is member
    assert not turns
