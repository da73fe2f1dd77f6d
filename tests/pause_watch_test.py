# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A machine that was paused shows by its two clocks."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.pause_watch import MAX_PAUSE_MS, PauseWatch

WALL_MS = 5_000_000
NOW_MS = 1_000_000


@pytest.fixture
def watch() -> PauseWatch:
    watch = PauseWatch()
    assert watch.look(WALL_MS, NOW_MS) == 0
    return watch


def test_a_pause_is_as_long_as_the_wall_clock_went_ahead(watch: PauseWatch) -> None:
    paused_ms = MAX_PAUSE_MS + 1
    assert watch.look(WALL_MS + 10 + paused_ms, NOW_MS + 10) == paused_ms


def test_a_pause_is_noticed_once(watch: PauseWatch) -> None:
    ahead_ms = 2 * MAX_PAUSE_MS
    assert watch.look(WALL_MS + ahead_ms, NOW_MS) == ahead_ms
    assert watch.look(WALL_MS + ahead_ms, NOW_MS) == 0


def test_a_clock_that_is_slewed_is_no_pause(watch: PauseWatch) -> None:
    assert watch.look(WALL_MS + MAX_PAUSE_MS, NOW_MS) == 0


def test_a_clock_that_is_set_back_is_no_pause(watch: PauseWatch) -> None:
    assert watch.look(WALL_MS - 3_600_000, NOW_MS) == 0


def test_a_pause_since_an_earlier_run_is_noticed_at_the_first_look() -> None:
    earlier_ahead_ms = WALL_MS - NOW_MS - 2 * MAX_PAUSE_MS
    assert PauseWatch(earlier_ahead_ms).look(WALL_MS, NOW_MS) == 2 * MAX_PAUSE_MS
