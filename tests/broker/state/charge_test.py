# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which of several brokers at one engine is in charge, whoever starts, stops or hangs when."""

from __future__ import annotations

import random

import pytest

from ovirt_tcp_plugin.broker.state import charge
from ovirt_tcp_plugin.broker.state.charge import (
    AGAIN_MS,
    ANSWER_MS,
    UNSEEN_MS,
    Charge,
    ChargeMessage,
    MessageKind,
    SavedClaim,
    Standing,
)

STEP_MS = 200
# A broker reads events every 0.6 s, and an event shows at once or a moment later.
READ_EVERY_MS = 600
SHOWS_WITHIN_MS = 1_000
# What a broker writes, others have read by then.
NEWS_MS = READ_EVERY_MS + SHOWS_WITHIN_MS + STEP_MS
TWO_FOR_MS = ANSWER_MS
NONE_FOR_MS = AGAIN_MS + ANSWER_MS + 4 * NEWS_MS


@pytest.fixture(autouse=True)
def quick_answers() -> None:
    """Here they take as long as they do."""


class Engine:
    """Events in the order of their ids, which show a moment after they were written."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._events: list[tuple[int, ChargeMessage]] = []

    def write(self, message: ChargeMessage, now_ms: int) -> None:
        visible_ms = now_ms + self._draw.randrange(SHOWS_WITHIN_MS)
        self._events.append((visible_ms, message))

    def read(self, now_ms: int) -> list[tuple[int, ChargeMessage]]:
        shown: list[tuple[int, ChargeMessage]] = []
        for event_id, (visible_ms, message) in enumerate(self._events):
            if visible_ms <= now_ms:
                shown.append((event_id, message))
        return shown


class Machine:
    """Where a broker runs, or does not."""

    def __init__(self, name: str, engine: Engine, draw: random.Random) -> None:
        self.name = name
        self._engine = engine
        self._draw = draw
        self.charge: Charge | None = None
        self.saved = SavedClaim()
        self.stands_still_until_ms = 0
        self._next_read_ms = 0
        self._known: set[int] = set()

    def start(self, now_ms: int) -> None:
        self.charge = Charge(self.name, self._token, now_ms, self.saved)
        if not self.saved.token:
            self._known = {event_id for event_id, _ in self._engine.read(now_ms)}
        # The events since the last time are read before anything else is done.
        self._read(now_ms)

    def kill(self) -> None:
        self.charge = None

    def pause(self, until_ms: int) -> None:
        self.stands_still_until_ms = until_ms

    def acts(self, now_ms: int) -> bool:
        return self.lives(now_ms) and self.charge is not None and self.charge.acts

    def lives(self, now_ms: int) -> bool:
        return self.charge is not None and now_ms >= self.stands_still_until_ms

    def step(self, now_ms: int) -> None:
        if self.charge is None or not self.lives(now_ms):
            return
        if now_ms >= self._next_read_ms:
            self._next_read_ms = now_ms + READ_EVERY_MS
            self._read(now_ms)
        for message in self.charge.due(now_ms):
            self._engine.write(message, now_ms)
            self.charge.written(message, now_ms)
        self.saved = self.charge.saved()

    def _read(self, now_ms: int) -> None:
        assert self.charge is not None
        for event_id, message in self._engine.read(now_ms):
            if event_id not in self._known:
                self._known.add(event_id)
                self.charge.take(event_id, message)
        self.charge.look(now_ms)

    def _token(self) -> str:
        return f"{self._draw.getrandbits(64):016x}"


class Site:
    """Machines with brokers at one engine."""

    def __init__(self, machines: int, seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.engine = Engine(self.draw)
        names = [f"m{number}" for number in range(machines)]
        self.machines = [Machine(name, self.engine, self.draw) for name in names]
        self.now_ms = 1_000_000
        self.two_for_ms = 0
        self.none_for_ms = 0
        self.longest_two_ms = 0
        self.longest_none_ms = 0

    def play(self, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            self.now_ms += STEP_MS
            for machine in self.machines:
                machine.step(self.now_ms)
            acting = len(self.acting())
            living = sum(machine.lives(self.now_ms) for machine in self.machines)
            self.two_for_ms = self.two_for_ms + STEP_MS if acting > 1 else 0
            self.none_for_ms = self.none_for_ms + STEP_MS if living and not acting else 0
            self.longest_two_ms = max(self.longest_two_ms, self.two_for_ms)
            self.longest_none_ms = max(self.longest_none_ms, self.none_for_ms)

    def start(self, number: int) -> None:
        self.machines[number].start(self.now_ms)

    def acting(self) -> list[str]:
        return [machine.name for machine in self.machines if machine.acts(self.now_ms)]


class TestOrder:
    def test_the_second_stays_passive_and_knows_who_is_in_charge(self) -> None:
        site = Site(2)
        site.start(0)
        site.play(ANSWER_MS + 3 * NEWS_MS)
        assert site.acting() == ["m0"]
        site.start(1)
        site.play(2 * AGAIN_MS)
        assert site.acting() == ["m0"]
        second = site.machines[1].charge
        assert second is not None
        assert second.other == "m0"
        assert site.longest_two_ms == 0

    def test_of_two_that_start_at_once_one_acts(self) -> None:
        site = Site(2)
        site.start(0)
        site.start(1)
        site.play(ANSWER_MS + 4 * NEWS_MS)
        assert len(site.acting()) == 1

    def test_the_second_takes_over_when_the_first_is_gone(self) -> None:
        site = Site(2)
        site.start(0)
        site.play(60_000)
        site.start(1)
        site.play(60_000)
        site.machines[0].kill()
        site.play(NONE_FOR_MS)
        assert site.acting() == ["m1"]

    def test_one_on_a_new_machine_after_the_old_one_died_waits_for_no_person(self) -> None:
        site = Site(2)
        site.start(0)
        site.play(60_000)
        site.machines[0].kill()
        site.start(1)
        site.play(ANSWER_MS + 3 * NEWS_MS)
        assert site.acting() == ["m1"]

    def test_one_that_was_killed_goes_on_at_once(self) -> None:
        site = Site(1)
        site.start(0)
        site.play(60_000)
        site.none_for_ms = 0
        site.longest_none_ms = 0
        for _ in range(5):
            site.machines[0].kill()
            site.play(2_000)
            site.start(0)
            site.play(7_000)
        assert site.longest_none_ms == 0

    def test_one_that_stood_still_meanwhile_does_not_act_beside_its_successor(self) -> None:
        site = Site(2)
        site.start(0)
        site.play(60_000)
        site.machines[0].stands_still_until_ms = site.now_ms + 600_000
        site.start(1)
        site.play(590_000)
        assert site.acting() == ["m1"]
        site.play(3 * AGAIN_MS)
        assert site.acting() == ["m1"]
        assert site.longest_two_ms <= TWO_FOR_MS

    def test_a_copy_with_the_state_of_the_first_gives_way(self) -> None:
        site = Site(2)
        site.start(0)
        site.play(60_000)
        site.machines[1].saved = site.machines[0].saved
        site.machines[1]._known = set(site.machines[0]._known)
        site.start(1)
        site.play(60_000)
        assert site.acting() == ["m0"]
        assert site.longest_two_ms <= TWO_FOR_MS

    def test_one_that_missed_events_asks_again_and_goes_on_meanwhile(self) -> None:
        site = Site(1)
        site.start(0)
        site.play(60_000)
        first = site.machines[0].charge
        assert first is not None
        first.doubt(site.now_ms)
        assert first.standing is Standing.CLAIMING
        site.longest_none_ms = 0
        site.play(60_000)
        assert first.standing is Standing.IN_CHARGE
        assert site.longest_none_ms == 0

    def test_one_whose_messages_never_show_acts_after_all(self) -> None:
        alone = Charge("m0", lambda: "0" * 16, 0)
        for now_ms in range(0, UNSEEN_MS, 1_000):
            alone.look(now_ms)
            assert not alone.acts
        alone.look(UNSEEN_MS)
        assert alone.acts


@pytest.mark.parametrize("seed", range(20))
def test_never_two_and_never_none_for_long(seed: int) -> None:
    """Starts, kills and pauses of three brokers in random orders.

    The time without any is counted from the last kill or pause: it may have hit the successor.
    """
    site = Site(3, seed)
    for _ in range(40):
        machine = site.draw.choice(site.machines)
        act = site.draw.choice(("start", "kill", "pause", "nothing"))
        if act in ("start", "kill"):
            machine.kill()
            site.none_for_ms = 0
        if act == "start":
            site.play(site.draw.choice((0, 1_000, 20_000)))
            machine.start(site.now_ms)
        elif act == "pause":
            machine.pause(site.now_ms + site.draw.choice((2_000, 30_000, 400_000)))
            site.none_for_ms = 0
        site.play(site.draw.choice((0, 400, 3_000, ANSWER_MS, 30_000, AGAIN_MS, 2 * AGAIN_MS)))
    assert site.longest_two_ms <= TWO_FOR_MS
    assert site.longest_none_ms <= NONE_FOR_MS


class TestMessages:
    def test_are_read_as_they_were_written(self) -> None:
        message = ChargeMessage(MessageKind.REFUSAL, "0" * 16, "a" * 16, "engine.example.com")
        assert charge.parse(f"Some sentence. {message.trailer()}") == message

    @pytest.mark.parametrize(
        "text",
        ["", "[claim]", "[claim 0000000000000000 - m] and more", "[own 0000000000000000 - m]"],
    )
    def test_other_texts_are_none(self, text: str) -> None:
        assert charge.parse(text) is None
