# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How the pause between two tries grows."""

from __future__ import annotations

from ovirt_tcp_plugin.backoff import pause_ms


def test_it_doubles_with_each_failure_and_stays_at_the_longest() -> None:
    assert [pause_ms(2_000, 30_000, failures) for failures in range(6)] == [
        2_000,
        4_000,
        8_000,
        16_000,
        30_000,
        30_000,
    ]


def test_a_thing_that_failed_for_years_has_no_larger_pause() -> None:
    assert pause_ms(2_000, 30_000, 10_000_000) == 30_000


def test_it_is_never_longer_than_the_longest_not_even_the_first_time() -> None:
    assert pause_ms(2_000, 500, 0) == 500
