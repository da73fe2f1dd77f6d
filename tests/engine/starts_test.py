# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Each start of the engine counts once, by whichever sign; in doubt twice rather than never."""

from __future__ import annotations

import datetime

import pytest

from ovirt_tcp_plugin.engine.events import EngineEvent
from ovirt_tcp_plugin.engine.starts import LATE_EVENT_MS, LATE_NOTIFIER_MS, EngineStarts
from tests.fake_clock import FakeClock

STARTED = EngineEvent.AFFINITY_RULES_ENFORCEMENT_MANAGER_START
NOTIFIED = EngineEvent.VDC_START
NOTIFIED_OF_END = 2  # VDC_STOP
MINUTE_MS = 60_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def starts(clock: FakeClock) -> EngineStarts:
    return EngineStarts(clock)


def written(clock: FakeClock) -> datetime.datetime:
    """Return what the engine's service writes into its file system now."""
    return clock.wall()


class TestEvent:
    def test_each_is_a_start(self, starts: EngineStarts, clock: FakeClock) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(1)
        assert starts.is_new_by_event(STARTED)

    def test_the_notifiers_of_an_end_is_none(self, starts: EngineStarts) -> None:
        assert not starts.is_new_by_event(NOTIFIED_OF_END)
        assert starts.last_ms is None


class TestSilence:
    def test_it_is_a_start(self, starts: EngineStarts, clock: FakeClock) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(20_000)
        assert starts.is_new_by_silence(heard_ms)

    def test_that_ends_with_the_event_counts_once(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(20_000)
        assert starts.is_new_by_event(STARTED)
        assert not starts.is_new_by_silence(heard_ms)

    def test_whose_event_shows_late_counts_once(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(20_000)
        assert starts.is_new_by_silence(heard_ms)
        clock.pass_ms(LATE_EVENT_MS - 1)
        assert not starts.is_new_by_event(STARTED)

    def test_and_an_event_that_is_too_late_to_be_of_it_count_twice(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(20_000)
        assert starts.is_new_by_silence(heard_ms)
        clock.pass_ms(LATE_EVENT_MS)
        assert starts.is_new_by_event(STARTED)

    def test_and_two_events_are_two_starts(self, starts: EngineStarts, clock: FakeClock) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(20_000)
        assert starts.is_new_by_silence(heard_ms)
        assert not starts.is_new_by_event(STARTED)
        assert starts.is_new_by_event(STARTED)

    def test_soon_after_another_start_is_a_start_of_its_own(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(5_000)
        heard_ms = clock.now_ms()
        clock.pass_ms(11_000)
        assert starts.is_new_by_silence(heard_ms)


class TestNotifier:
    def test_it_adds_nothing_to_the_event(self, starts: EngineStarts, clock: FakeClock) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(7 * MINUTE_MS)
        assert not starts.is_new_by_event(NOTIFIED)

    def test_it_adds_nothing_to_a_silence(self, starts: EngineStarts, clock: FakeClock) -> None:
        heard_ms = clock.now_ms()
        clock.pass_ms(MINUTE_MS)
        assert starts.is_new_by_silence(heard_ms)
        clock.pass_ms(7 * MINUTE_MS)
        assert not starts.is_new_by_event(NOTIFIED)

    def test_alone_it_counts_once(self, starts: EngineStarts, clock: FakeClock) -> None:
        assert starts.is_new_by_event(NOTIFIED)
        clock.pass_ms(MINUTE_MS)
        assert not starts.is_new_by_event(NOTIFIED)

    def test_it_counts_when_the_last_start_is_long_ago(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(LATE_NOTIFIER_MS)
        assert starts.is_new_by_event(NOTIFIED)

    def test_it_never_keeps_an_event_from_counting(self, starts: EngineStarts) -> None:
        assert starts.is_new_by_event(NOTIFIED)
        assert starts.is_new_by_event(STARTED)

    def test_it_adds_nothing_to_a_start_before_the_brokers_own(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(MINUTE_MS)
        # The machine was booted, too: CLOCK_BOOTTIME begins again.
        clock.ms = 1_000
        again = EngineStarts(clock, starts.last_ms)
        assert not again.is_new_by_event(NOTIFIED)

    def test_it_counts_when_the_clock_was_set_back_since_the_last_start(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.utc_ms -= MINUTE_MS
        assert starts.is_new_by_event(NOTIFIED)


class TestFile:
    def test_it_tells_of_a_restart_that_nothing_else_shows(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        before = written(clock)
        heard_ms = clock.now_ms()
        assert not starts.is_new_by_file(before, None)
        clock.pass_ms(3_000)
        assert starts.is_new_by_file(written(clock), heard_ms)
        assert not starts.is_new_by_file(written(clock), heard_ms)

    def test_it_adds_nothing_to_the_event(self, starts: EngineStarts, clock: FakeClock) -> None:
        heard_ms = clock.now_ms()
        assert not starts.is_new_by_file(written(clock), heard_ms)
        clock.pass_ms(1_000)
        after = written(clock)
        clock.pass_ms(30_000)
        assert starts.is_new_by_event(STARTED)
        assert not starts.is_new_by_file(after, heard_ms)

    def test_that_is_missing_tells_nothing(self, starts: EngineStarts, clock: FakeClock) -> None:
        before = written(clock)
        assert not starts.is_new_by_file(before, None)
        assert not starts.is_new_by_file(None, clock.now_ms())
        assert not starts.is_new_by_file(before, clock.now_ms())

    def test_it_tells_of_a_restart_while_the_broker_was_down(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(MINUTE_MS)
        assert EngineStarts(clock, starts.last_ms).is_new_by_file(written(clock), None)

    def test_of_a_start_that_is_known_says_nothing_to_a_new_broker(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        before = written(clock)
        clock.pass_ms(30_000)
        assert starts.is_new_by_event(STARTED)
        assert not EngineStarts(clock, starts.last_ms).is_new_by_file(before, None)

    def test_it_is_believed_when_no_list_was_read_since_the_last_start(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert starts.is_new_by_event(STARTED)
        assert not starts.is_new_by_file(written(clock), None)
        clock.pass_ms(MINUTE_MS)
        assert starts.is_new_by_file(written(clock), None)

    def test_it_is_believed_when_the_clock_was_set_back(
        self, starts: EngineStarts, clock: FakeClock
    ) -> None:
        assert not starts.is_new_by_file(written(clock), None)
        assert starts.is_new_by_event(STARTED)
        clock.pass_ms(MINUTE_MS)
        heard_ms = clock.now_ms()
        clock.ms += 1_000
        clock.utc_ms -= 10 * MINUTE_MS
        assert starts.is_new_by_file(written(clock), heard_ms)

    def test_of_before_the_clock_was_set_back_counts_once(self, clock: FakeClock) -> None:
        starts = EngineStarts(clock, last_ms=clock.wall_ms())
        clock.pass_ms(MINUTE_MS)
        ahead = written(clock) + datetime.timedelta(hours=2)
        assert starts.is_new_by_file(ahead, None)
        for _ in range(3):
            clock.pass_ms(1_000)
            heard_ms = clock.now_ms()
            clock.pass_ms(1_000)
            assert not starts.is_new_by_file(ahead, heard_ms)


def test_what_the_caller_concludes_counts_with_its_late_event_once(
    starts: EngineStarts, clock: FakeClock
) -> None:
    starts.conclude()
    assert starts.last_ms == clock.wall_ms()
    assert not starts.is_new_by_event(STARTED)
    assert starts.is_new_by_event(STARTED)
