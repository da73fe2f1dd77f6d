# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker sees whether the engine asks the filter: by the engine's memory, after each start, and
says so."""

from __future__ import annotations

import datetime

import pytest

from ovirt_tcp_plugin.broker.state.filter_watch import (
    GRACE_MS,
    LOOK_AGAIN_MS,
    REPORT_AGAIN_MS,
    FilterWatch,
)
from ovirt_tcp_plugin.placement.filter_unit import (
    DESCRIPTION,
    FilterState,
    filter_state,
    offered_description,
)
from ovirt_tcp_plugin.placement.inventory import Unit
from tests.fake_clock import FakeClock

START = datetime.datetime(2026, 11, 30, 12, 0, 0, 700_000, tzinfo=datetime.timezone.utc)
SECOND = datetime.timedelta(seconds=1)


def unit(seconds_after_start: int = 1, enabled: bool = True) -> Unit:
    asked = START + seconds_after_start * SECOND
    return Unit("u1", "TrustedHosts", enabled, offered_description(asked, "0123abcd"))


OTHER_UNIT = Unit("u2", "Memory", True, "any")


class TestFilterState:
    def test_a_unit_that_is_not_listed_is_unknown(self) -> None:
        assert filter_state([OTHER_UNIT]) is FilterState.UNKNOWN

    def test_a_disabled_unit_is_not_asked_whatever_its_text(self) -> None:
        assert filter_state([OTHER_UNIT, unit(enabled=False)], START) is FilterState.DISABLED

    def test_an_enabled_unit_found_before_the_engine_started_is_left_over(self) -> None:
        assert filter_state([unit(-2)], START) is FilterState.UNASKED

    def test_an_enabled_unit_whose_text_is_of_before_a_noticed_start_is_left_over(self) -> None:
        old = unit()
        assert filter_state([old], None, old.description) is FilterState.UNASKED

    @pytest.mark.parametrize("started", [None, START, START + SECOND])
    def test_an_enabled_unit_found_since_the_start_is_asked(
        self, started: datetime.datetime | None
    ) -> None:
        assert filter_state([OTHER_UNIT, unit(1)], started) is FilterState.ASKED

    def test_a_unit_found_in_the_very_second_of_the_start_is_asked(self) -> None:
        assert filter_state([unit(0)], START) is FilterState.ASKED

    def test_a_text_of_an_older_filterd_tells_no_moment_and_is_believed(self) -> None:
        older = Unit("u1", "TrustedHosts", True, DESCRIPTION)
        assert filter_state([older], START, DESCRIPTION) is FilterState.ASKED


class TestFilterWatch:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def watch(self, clock: FakeClock) -> FilterWatch:
        watch = FilterWatch(clock)
        assert watch.observe([unit()], None) is None
        return watch

    def test_while_all_is_well_listings_are_enough(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        clock.pass_ms(3_600_000)
        assert not watch.is_due()

    def test_it_is_looked_at_at_once_after_a_start_and_each_second_until_all_is_well(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        watch.engine_started(surely=True)
        assert watch.is_due()
        assert watch.observe([unit(enabled=False)], None) is None
        clock.pass_ms(LOOK_AGAIN_MS)
        assert watch.is_due()
        discovered_again = unit(2)
        assert watch.observe([discovered_again], None) is None
        clock.pass_ms(LOOK_AGAIN_MS)
        assert not watch.is_due()

    @pytest.mark.parametrize(
        ("units", "code"),
        [([], "unit_unknown"), ([unit(enabled=False)], "unit_disabled")],
    )
    def test_a_filter_that_stays_off_after_a_start_is_an_error_within_ten_seconds(
        self, watch: FilterWatch, clock: FakeClock, units: list[Unit], code: str
    ) -> None:
        watch.engine_started(surely=True)
        assert watch.observe(units, None) is None
        clock.pass_ms(GRACE_MS)
        notice = watch.observe(units, None)
        assert GRACE_MS < 10_000
        assert notice is not None
        assert (notice.code, notice.severity) == (code, "error")
        assert "systemctl restart ovirt-engine" in notice.text

    def test_a_unit_left_over_from_before_the_start_is_an_error(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        old = unit()
        watch.observe([old], None)
        watch.engine_started(surely=True)
        clock.pass_ms(GRACE_MS)
        notice = watch.observe([old], None)
        assert notice is not None
        assert notice.code == "unit_unasked"

    def test_a_broker_that_did_not_see_the_start_is_told_of_it_by_its_moment(
        self, clock: FakeClock
    ) -> None:
        notice = FilterWatch(clock).observe([unit(-10)], START)
        assert notice is not None
        assert notice.code == "unit_unasked"

    def test_a_fault_is_told_once_a_day_and_again_after_the_next_start(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        off = [unit(enabled=False)]
        assert watch.observe(off, None) is not None
        assert watch.observe(off, None) is None
        clock.pass_ms(REPORT_AGAIN_MS)
        assert watch.observe(off, None) is not None
        watch.engine_started(surely=True)
        clock.pass_ms(GRACE_MS)
        assert watch.observe(off, None) is not None

    def test_another_fault_is_told_at_once_and_so_is_the_end_of_it(
        self, watch: FilterWatch
    ) -> None:
        assert watch.observe([unit(enabled=False)], None) is not None
        assert watch.observe([], None) is not None
        notice = watch.observe([unit()], None)
        assert notice is not None
        assert (notice.code, notice.severity) == ("unit_asked", "normal")
        assert watch.observe([unit()], None) is None

    def test_an_engine_that_was_only_out_of_reach_need_not_have_asked_again(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        watch.engine_started(surely=False)
        assert watch.is_due()
        assert watch.observe([unit()], None) is None
        clock.pass_ms(GRACE_MS)
        assert watch.observe([unit()], None) is None
        assert not watch.is_due()

    def test_an_engine_that_is_out_of_reach_again_and_again_has_a_fault_told_once(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        assert watch.observe([unit(enabled=False)], None) is not None
        watch.engine_started(surely=False)
        clock.pass_ms(GRACE_MS)
        assert watch.observe([unit(enabled=False)], None) is None

    def test_a_fault_of_before_the_first_pool_is_told_with_the_pool(self, clock: FakeClock) -> None:
        watch = FilterWatch(clock)
        assert watch.observe([], None, has_pools=False) is None
        clock.pass_ms(LOOK_AGAIN_MS)
        assert not watch.is_due()
        assert watch.observe([], None, has_pools=True) is not None

    def test_a_fault_that_stays_is_looked_at_by_listings_only(
        self, watch: FilterWatch, clock: FakeClock
    ) -> None:
        watch.engine_started(surely=True)
        clock.pass_ms(GRACE_MS)
        assert watch.observe([unit(enabled=False)], None) is not None
        clock.pass_ms(3_600_000)
        assert not watch.is_due()
