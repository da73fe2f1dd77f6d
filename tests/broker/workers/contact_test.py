# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""When the engine counts as away."""

from __future__ import annotations

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.workers.contact import MAX_ENGINE_SILENCE_MS, EngineContact
from tests.broker.workers.scene import FakeEngine
from tests.fake_clock import FakeClock

FAILURE = errors.Unavailable("the engine", "it failed")


def test_an_engine_that_is_asked_seldom_is_there_between_two_questions() -> None:
    clock = FakeClock()
    poll_ms = 4 * MAX_ENGINE_SILENCE_MS
    contact = EngineContact(FakeEngine([]), clock, poll_ms)
    contact.answered(clock.now_ms())
    clock.pass_ms(poll_ms)
    assert contact.is_there()
    contact.answered(clock.now_ms())
    assert contact.take_absence() is None


def test_one_that_was_silent_for_longer_was_away() -> None:
    clock = FakeClock()
    contact = EngineContact(FakeEngine([]), clock, 1_000)
    contact.answered(clock.now_ms())
    heard_ms = clock.now_ms()
    clock.pass_ms(MAX_ENGINE_SILENCE_MS + 1)
    assert not contact.is_there()
    contact.answered(clock.now_ms())
    assert contact.take_absence() == heard_ms
    assert contact.take_absence() is None


def test_one_that_answers_nothing_else_is_away() -> None:
    engine = FakeEngine([])
    contact = EngineContact(engine, FakeClock(), 1_000)
    engine.is_away = True
    assert contact.is_away(FAILURE)
    assert contact.last_ms() is None


def test_one_that_failed_at_one_thing_only_is_heard() -> None:
    clock = FakeClock()
    contact = EngineContact(FakeEngine([]), clock, 1_000)
    assert not contact.is_away(FAILURE)
    assert contact.last_ms() == clock.now_ms()


def test_one_that_refuses_is_not_asked() -> None:
    engine = FakeEngine([])
    contact = EngineContact(engine, FakeClock(), 1_000)
    engine.is_away = True
    assert not contact.is_away(errors.Conflict("a VM cannot migrate"))
