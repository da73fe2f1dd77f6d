# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What trips a guard, of a pool and of the site, what it holds, and what ends it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Optional

import pytest

from ovirt_tcp_plugin.broker.state.guard import GuardRule, Guards, Trip

RULE = GuardRule(hosts=2, share=0.2, window_ms=600_000)
NOW_MS = 1_000_000
POOL = "pool"
TEN = {POOL: 10}
# Ten pools of three hosts.
SMALL = {f"pool{n}": 3 for n in range(10)}


def established(sizes: Mapping[str, int]) -> Guards:
    guards = Guards(RULE)
    guards.established.update(sizes)
    return guards


@pytest.fixture
def guards() -> Guards:
    return established(TEN)


def leave(
    guards: Guards,
    *host_ids: str,
    pool: str = POOL,
    now_ms: int = NOW_MS,
    sizes: Mapping[str, int] = TEN,
) -> list[Optional[Trip]]:
    """Return for each host that would leave what it trips."""
    return [guards.check_leaving(host_id, pool, sizes, now_ms) for host_id in host_ids]


class TestObservation:
    def test_holds_every_host_and_is_news_once(self) -> None:
        guards = Guards(RULE)
        assert leave(guards, "h1", "h2", "h3") == [Trip.OBSERVATION, None, None]
        assert guards.held() == {"h1", "h2", "h3"}

    def test_leaves_what_it_held_to_the_pools_limit_when_it_ends(self) -> None:
        guards = Guards(RULE)
        leave(guards, "h1", "h2")
        assert guards.establish(POOL, TEN, NOW_MS) is None
        assert guards.held() == set()
        assert leave(guards, "h3") == [Trip.POOL]

    def test_has_the_guard_trip_at_its_end_if_it_held_many(self) -> None:
        guards = Guards(RULE)
        leave(guards, "h1", "h2", "h3")
        assert guards.establish(POOL, TEN, NOW_MS) is Trip.POOL
        assert guards.held() == {"h1", "h2", "h3"}

    def test_of_a_new_pool_is_no_reason_to_hold_hosts_of_others(self) -> None:
        sizes = {POOL: 10, "new": 20}
        guards = established(TEN)
        leave(guards, *(f"n{n}" for n in range(19)), pool="new", sizes=sizes)
        assert leave(guards, "h1", sizes=sizes) == [None]
        assert "h1" not in guards.held()

    def test_begins_again_where_a_pool_ended(self, guards: Guards) -> None:
        guards.forget(POOL)
        assert leave(guards, "h1") == [Trip.OBSERVATION]


class TestPool:
    def test_trips_at_one_host_more_than_its_limit_and_only_once(self, guards: Guards) -> None:
        assert leave(guards, "h1", "h2", "h3", "h4") == [None, None, Trip.POOL, None]
        assert guards.by_cluster[POOL].tripped is True
        assert guards.held() == {"h1", "h2", "h3", "h4"}

    def test_does_not_trip_at_two_hosts_of_ten(self, guards: Guards) -> None:
        assert leave(guards, "h1", "h2", "h1", "h2") == [None] * 4
        assert guards.held() == set()

    def test_trips_at_the_second_host_of_a_small_pool(self) -> None:
        sizes = {POOL: 5}
        guards = established(sizes)
        assert leave(guards, "h1", "h2", sizes=sizes) == [None, Trip.POOL]

    def test_trips_later_in_a_large_pool(self) -> None:
        sizes = {POOL: 100}
        guards = established(sizes)
        hosts = [f"h{n}" for n in range(21)]
        assert leave(guards, *hosts, sizes=sizes) == [None] * 20 + [Trip.POOL]

    def test_does_not_trip_at_hosts_that_leave_one_after_the_other(self, guards: Guards) -> None:
        for n in range(20):
            assert leave(guards, f"h{n}", now_ms=NOW_MS + n * RULE.window_ms) == [None]

    def test_never_trips_where_the_whole_pool_may_leave(self) -> None:
        guards = Guards(GuardRule(hosts=2, share=1.0))
        guards.established.add(POOL)
        sizes = {POOL: 3}
        assert leave(guards, "h1", "h2", "h3", sizes=sizes) == [None] * 3


class TestSite:
    def test_trips_when_small_pools_lose_a_host_each(self) -> None:
        guards = established(SMALL)
        trips = [leave(guards, f"{pool}h", pool=pool, sizes=SMALL)[0] for pool in SMALL]
        assert trips == [None, None, Trip.SITE] + [None] * 7
        assert guards.held() == {f"{pool}h" for pool in SMALL}

    def test_is_seen_before_the_pool(self) -> None:
        """The first host is of another pool: it must not leave as the only one."""
        guards = established(SMALL)
        leave(guards, "first", pool="pool0", sizes=SMALL)
        assert leave(guards, "a", "b", pool="pool1", sizes=SMALL) == [None, Trip.SITE]
        assert guards.held() == {"first", "a", "b"}

    def test_is_seen_after_a_pool_tripped(self) -> None:
        guards = established(SMALL)
        assert leave(guards, "a", "b", pool="pool1", sizes=SMALL) == [None, Trip.POOL]
        assert leave(guards, "c", pool="pool2", sizes=SMALL) == [Trip.SITE]
        assert guards.held() == {"a", "b", "c"}

    def test_lets_the_largest_pool_lose_what_it_may_alone(self) -> None:
        sizes = {**SMALL, "large": 100}
        guards = established(sizes)
        hosts = [f"h{n}" for n in range(20)]
        assert leave(guards, *hosts, pool="large", sizes=sizes) == [None] * 20
        assert leave(guards, "h", pool="pool0", sizes=sizes) == [Trip.SITE]

    def test_holds_for_as_long_as_somebody_has_to_decide(self) -> None:
        guards = established(SMALL)
        for pool in ("pool0", "pool1", "pool2"):
            leave(guards, f"{pool}h", pool=pool, sizes=SMALL)
        later_ms = NOW_MS + 2 * RULE.window_ms
        assert leave(guards, "h", pool="pool9", now_ms=later_ms, sizes=SMALL) == [None]
        assert "h" in guards.held()
        assert guards.release(["pool0", "pool1", "pool2"]) == {"pool0h", "pool1h", "pool2h"}
        assert guards.held() == {"h"}
        guards.recovered("h")
        assert leave(guards, "h", pool="pool9", now_ms=later_ms, sizes=SMALL) == [None]
        assert guards.held() == set()


class TestEnds:
    def test_when_all_that_were_held_recover(self, guards: Guards) -> None:
        leave(guards, "h1", "h2", "h3")
        guards.recovered("h1")
        guards.recovered("h2")
        assert (guards.by_cluster[POOL].tripped, guards.held()) == (True, {"h3"})
        guards.recovered("h3")
        assert (guards.by_cluster[POOL].tripped, guards.held()) == (False, set())

    def test_when_an_administrator_decides_and_then_counts_again_from_none(
        self, guards: Guards
    ) -> None:
        leave(guards, "h1", "h2", "h3")
        assert guards.release([POOL]) == {"h1", "h2", "h3"}
        assert leave(guards, "h4", "h5") == [None, None]


def restarted(guards: Guards, same_boot: bool, now_ms: int = NOW_MS) -> Guards:
    again = Guards(RULE)
    again.restore(json.loads(json.dumps(guards.encode())), same_boot, now_ms)
    return again


class TestRestart:
    @pytest.mark.parametrize("same_boot", [True, False])
    def test_a_tripped_guard_holds_its_hosts_over_a_restart(
        self, guards: Guards, same_boot: bool
    ) -> None:
        leave(guards, "h1", "h2", "h3")
        again = restarted(guards, same_boot)
        assert (again.by_cluster[POOL].tripped, again.held()) == (True, {"h1", "h2", "h3"})

    def test_moments_of_another_boot_count_as_now(self, guards: Guards) -> None:
        leave(guards, "h1", "h2")
        same = restarted(guards, same_boot=True)
        other = restarted(guards, same_boot=False, now_ms=5_000)
        assert leave(same, "h3") == [Trip.POOL]
        assert leave(other, "h3", now_ms=5_001) == [Trip.POOL]

    def test_the_sites_guard_and_the_end_of_observation_survive_it(self) -> None:
        guards = established(SMALL)
        for pool in ("pool0", "pool1", "pool2"):
            leave(guards, f"{pool}h", pool=pool, sizes=SMALL)
        again = restarted(guards, same_boot=True)
        later_ms = NOW_MS + 2 * RULE.window_ms
        assert leave(again, "h", pool="pool9", now_ms=later_ms, sizes=SMALL) == [None]
        assert "h" in again.held()

    def test_without_what_was_saved_every_pool_is_observed(self) -> None:
        again = Guards(RULE)
        again.restore({"guards": {}}, same_boot=True, now_ms=NOW_MS)
        assert leave(again, "h1") == [Trip.OBSERVATION]

    def test_the_state_file_names_its_members_as_before(self, guards: Guards) -> None:
        leave(guards, "h1", "h2", "h3")
        moments = {"h1": NOW_MS, "h2": NOW_MS, "h3": NOW_MS}
        encoded = {"turned": moments, "tripped": True, "held": ["h1", "h2", "h3"]}
        assert guards.encode()["guards"] == {POOL: encoded}


def test_random_mass_failures_never_take_out_more_than_the_limits() -> None:
    """Hosts fail in whatever order and pace, brokers restart, and nobody decides anything."""
    for seed in range(300):
        dice = random.Random(seed)
        sizes = {f"pool{n}": dice.randint(1, 30) for n in range(dice.randint(1, 12))}
        guards = established(sizes)
        hosts = [(f"{pool}-{n}", pool) for pool in sizes for n in range(sizes[pool])]
        dice.shuffle(hosts)
        now_ms = NOW_MS
        out: set[tuple[str, str]] = set()
        for host_id, pool in hosts:
            now_ms += dice.randint(0, RULE.window_ms // len(hosts))
            leave(guards, host_id, pool=pool, now_ms=now_ms, sizes=sizes)
            if dice.random() < 0.1:
                guards = restarted(guards, same_boot=dice.random() < 0.5, now_ms=now_ms)
            # As the broker does within a second; a host that is out stays out.
            if host_id not in guards.held():
                out.add((host_id, pool))
        for pool, size in sizes.items():
            assert sum(place == pool for _, place in out) <= RULE.pool_limit(size), seed
        assert len(out) <= RULE.site_limit(max(sizes.values())), seed
