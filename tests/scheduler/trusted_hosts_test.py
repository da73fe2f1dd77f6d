# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which hosts pass the filter, for each kind of VM, host and scope."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.clock import boottime_ms as now_ms
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict, decide, passing
from ovirt_tcp_plugin.scheduler.trusted_hosts import Accepted, accept
from tests.scheduler.conftest import (
    BAD,
    ENDED,
    EXEMPT,
    GOOD,
    MARKED,
    NEW,
    OTHER_POOL,
    PLAIN,
    SILENT,
    UNBORN,
    pool,
)

ALL = [GOOD, BAD, ENDED, UNBORN, SILENT]
STRANGER = "00000000-0000-0000-0000-0000000000ff"


def ask(
    scope: Scope, vm: str, hosts: list[str] | None = None, properties: dict[str, str] | None = None
) -> Accepted:
    one = pool(scope)
    return accept(
        {host: one for host in one.hosts},
        ALL if hosts is None else hosts,
        vm,
        properties or {},
        now_ms(),
    )


@pytest.mark.parametrize("vm", [MARKED, PLAIN, NEW], ids=["marked", "not marked", "unknown"])
def test_every_vm_of_a_pool_needs_a_fresh_trusted_verdict(vm: str) -> None:
    assert ask(Scope.ALL_VMS, vm).hosts == (GOOD,)


@pytest.mark.parametrize("vm", [MARKED, NEW], ids=["marked", "unknown"])
def test_a_marked_or_unknown_vm_needs_trust_in_a_pool_of_marked_vms(vm: str) -> None:
    assert ask(Scope.MARKED_VMS, vm).hosts == (GOOD,)


def test_a_vm_without_a_mark_runs_on_any_host_of_a_pool_of_marked_vms() -> None:
    assert ask(Scope.MARKED_VMS, PLAIN).hosts == tuple(ALL)


@pytest.mark.parametrize("scope", Scope)
def test_an_exempt_vm_runs_on_any_host_of_the_pool(scope: Scope) -> None:
    assert ask(scope, EXEMPT).hosts == tuple(ALL)


def test_a_refusal_of_all_hosts_tells_why() -> None:
    reasons = ask(Scope.ALL_VMS, MARKED, [BAD, ENDED, UNBORN]).reasons
    assert f"host {BAD} refused (no_launch): no measured launch took place" in reasons
    assert any("verdict_ended" in reason and "ended 5 s ago" in reason for reason in reasons)
    assert any("verdict_not_born" in reason for reason in reasons)
    assert any("no_answer" in reason for reason in ask(Scope.ALL_VMS, MARKED, [SILENT]).reasons)


def test_a_call_that_leaves_a_host_gives_no_reasons_since_the_engine_reads_none() -> None:
    assert ask(Scope.ALL_VMS, MARKED) == Accepted((GOOD,), ())


@pytest.mark.parametrize("vm", [MARKED, PLAIN, EXEMPT])
def test_a_host_that_no_snapshot_knows_is_refused_even_for_an_exempt_vm(vm: str) -> None:
    assert ask(Scope.MARKED_VMS, vm, [GOOD, STRANGER]).hosts == (GOOD,)


def test_without_a_snapshot_nobody_passes() -> None:
    found = accept({}, ALL, EXEMPT, {}, now_ms())
    assert found.hosts == ()
    assert "is ovirt-tcp-broker running?" in found.reasons[0]


def test_hosts_of_two_pools_in_one_call_are_all_refused() -> None:
    one, other = pool(), pool(pool_id=OTHER_POOL)
    found = accept({GOOD: one, BAD: other}, [GOOD, BAD], MARKED, {}, now_ms())
    assert found.hosts == ()
    assert "several pools" in found.reasons[0]


@pytest.mark.parametrize("asked", ["all_vms", "rubbish"])
def test_a_stricter_or_odd_scope_of_the_engine_wins(asked: str) -> None:
    assert ask(Scope.MARKED_VMS, PLAIN, properties={"trust_scope": asked}).hosts == (GOOD,)


def test_a_laxer_scope_of_the_engine_does_not_win() -> None:
    assert ask(Scope.ALL_VMS, PLAIN, properties={"trust_scope": "marked_vms"}).hosts == (GOOD,)


def test_everything_ends_by_itself() -> None:
    one = pool()
    later = one.hosts[GOOD].end_ms
    assert accept({GOOD: one}, [GOOD], MARKED, {}, later - 1).hosts == (GOOD,)
    assert accept({GOOD: one}, [GOOD], MARKED, {}, later).hosts == ()


def refuse_all(verdicts: dict[str, Verdict]) -> tuple[str, ...]:
    snapshot = dataclasses.replace(pool(), hosts=verdicts)
    return accept(dict.fromkeys(verdicts, snapshot), list(verdicts), MARKED, {}, now_ms()).reasons


def test_hosts_of_one_code_are_one_reason_with_the_first_names() -> None:
    bad = {f"{number:036d}": pool().hosts[BAD] for number in range(5)}
    names = ", ".join(list(bad)[:3])
    text = (
        f"5 hosts refused (no_launch): no measured launch took place (the first of {names} and 2 "
        "more)"
    )
    assert refuse_all(bad) == (text,)


def test_the_reason_of_most_hosts_comes_first() -> None:
    verdicts = {"a": pool().hosts[SILENT], "b": pool().hosts[BAD], "c": pool().hosts[BAD]}
    assert [reason.split(")")[0] for reason in refuse_all(verdicts)] == [
        "2 hosts refused (no_launch",
        "host a refused (no_answer",
    ]


def test_reasons_are_bounded_and_what_is_left_out_is_counted() -> None:
    codes = [
        Verdict(Level.UNTRUSTED, 0, 10, f"code_{number % 30}", "a reason") for number in range(1000)
    ]
    reasons = refuse_all({f"{number:036d}": verdict for number, verdict in enumerate(codes)})
    assert len(reasons) == 4
    assert reasons[3] == "988 more hosts refused"


TIMES = st.integers(-3, 9)
VERDICTS = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(Verdict, st.sampled_from(Level), TIMES, TIMES)
)


@given(st.sampled_from(Scope), st.sampled_from([MARKED, PLAIN, EXEMPT, NEW]), VERDICTS, TIMES)
def test_many_hosts_pass_as_each_of_them_would(
    scope: Scope, vm: str, hosts: dict[str, Verdict], now: int
) -> None:
    one = pool(scope).vm(vm)
    asked = ["a", "b", "x", "c", "d"]
    each = [
        host for host in asked if host in hosts and decide(one, scope, hosts[host], now).allowed
    ]
    assert passing(one, scope, asked, hosts, now) == each
