# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When the guard of a pool trips, and what ends it."""

from __future__ import annotations

import json

import pytest

from ovirt_tcp_plugin.broker.state.guard import Guard, GuardRule

RULE = GuardRule(hosts=2, share=0.2, window_ms=600_000)
NOW_MS = 1_000_000
POOL_SIZE = 10


@pytest.fixture
def guard() -> Guard:
    return Guard(RULE)


def turn(
    guard: Guard, *host_ids: str, now_ms: int = NOW_MS, pool_size: int = POOL_SIZE
) -> list[bool]:
    """Return for each host that turns whether it trips the guard."""
    return [guard.turned(host_id, pool_size, now_ms) for host_id in host_ids]


class TestTrips:
    def test_at_one_host_more_than_the_rule_allows_and_only_once(self, guard: Guard) -> None:
        assert turn(guard, "h1", "h2", "h3", "h4") == [False, False, True, False]
        assert (guard.tripped, guard.held) == (True, {"h1", "h2", "h3", "h4"})

    def test_not_at_two_hosts_of_ten(self, guard: Guard) -> None:
        assert turn(guard, "h1", "h2", "h1", "h2") == [False] * 4
        assert (guard.tripped, guard.held) == (False, set())

    def test_later_in_a_large_pool(self, guard: Guard) -> None:
        assert turn(guard, *(f"h{n}" for n in range(21)), pool_size=100) == [False] * 20 + [True]

    def test_not_at_hosts_that_turn_one_after_the_other(self, guard: Guard) -> None:
        for n in range(20):
            assert turn(guard, f"h{n}", now_ms=NOW_MS + n * RULE.window_ms) == [False]


class TestEnds:
    def test_when_all_that_were_held_recover(self, guard: Guard) -> None:
        turn(guard, "h1", "h2", "h3")
        guard.recovered("h1")
        guard.recovered("h2")
        assert (guard.tripped, guard.held) == (True, {"h3"})
        guard.recovered("h3")
        assert (guard.tripped, guard.held) == (False, set())

    def test_when_an_administrator_decides_and_then_counts_again_from_none(
        self, guard: Guard
    ) -> None:
        turn(guard, "h1", "h2", "h3")
        assert guard.release() == {"h1", "h2", "h3"}
        assert turn(guard, "h4", "h5") == [False, False]


class TestRestart:
    @pytest.mark.parametrize("same_boot", [True, False])
    def test_a_tripped_guard_holds_its_hosts_over_a_restart(
        self, guard: Guard, same_boot: bool
    ) -> None:
        turn(guard, "h1", "h2", "h3")
        again = Guard(RULE)
        again.restore(json.loads(json.dumps(guard.encode())), same_boot)
        assert (again.tripped, again.held) == (True, {"h1", "h2", "h3"})

    def test_moments_count_only_in_the_boot_that_they_are_of(self, guard: Guard) -> None:
        turn(guard, "h1", "h2")
        same, other = Guard(RULE), Guard(RULE)
        same.restore(guard.encode(), same_boot=True)
        other.restore(guard.encode(), same_boot=False)
        assert turn(same, "h3") == [True]
        assert turn(other, "h3") == [False]

    def test_the_state_file_names_its_members_as_before(self, guard: Guard) -> None:
        turn(guard, "h1", "h2", "h3")
        moments = {"h1": NOW_MS, "h2": NOW_MS, "h3": NOW_MS}
        assert guard.encode() == {"turned": moments, "tripped": True, "held": ["h1", "h2", "h3"]}
