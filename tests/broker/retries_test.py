# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When something that failed is tried again."""

from __future__ import annotations

from ovirt_tcp_plugin.broker.retries import Retries


def pauses(retries: Retries, number: int) -> list[int]:
    """Let a subject fail as soon as it is due; return the seconds between its tries."""
    now_ms, tried_ms, seconds = 0, 0, []
    for _ in range(number):
        retries.failed("wall", now_ms)
        tried_ms = now_ms
        while not retries.due("wall", now_ms):
            now_ms += 1000
        seconds.append((now_ms - tried_ms) // 1000)
    return seconds


def test_a_subject_is_tried_quickly_at_first_and_then_ever_more_slowly_up_to_a_minute() -> None:
    assert pauses(Retries(), 12) == [1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 60, 60]


def test_success_begins_anew() -> None:
    retries = Retries()
    pauses(retries, 9)
    retries.succeeded("wall")
    assert retries.due("wall", 0)
    assert pauses(retries, 2) == [1, 1]


def test_each_subject_waits_for_itself() -> None:
    retries = Retries()
    retries.failed("one", 0)
    assert not retries.due("one", 0)
    assert retries.due("other", 0)
    assert (retries.number("one"), retries.number("other")) == (1, 0)


def test_what_nobody_wants_any_more_is_forgotten() -> None:
    retries = Retries()
    retries.failed("one", 0)
    retries.failed("other", 0)
    retries.keep(["other"])
    assert (retries.number("one"), retries.number("other")) == (0, 1)
