# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is asked about, in what order and in how many questions at once; answers come when the test
says so."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.questions import Questions
from ovirt_tcp_plugin.broker.workers.attest import HEAD_START_MS, AttestationWorker
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import EVERYBODY, Site, until
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import LIFE, OPTIONS, World
from tests.fake_clock import FakeClock


class HeldSource:
    """Answers when it is let go; hosts in `silent` time out."""

    def __init__(self, clock: FakeClock) -> None:
        self.asked: list[list[str]] = []
        self.go, self.silent = threading.Event(), set[str]()
        self.down = False
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        self.asked.append(list(names))
        now_ms = self._clock.now_ms()
        self.go.wait(10)
        if self.down:
            raise errors.Unavailable("the attestation server", "refused")
        return {name: self._answer(name, now_ms) for name in names}

    def _answer(self, name: str, now_ms: int) -> Answer:
        level = Level.TIMEOUT if name in self.silent else Level.TRUSTED
        return Answer(level, now_ms, 0, LIFE, True)

    def sizes(self) -> list[int]:
        return [len(names) for names in self.asked]


class Scene:
    """An asker with 4 connections and questions of 5 hosts, over 40 hosts."""

    def __init__(self) -> None:
        verifier = dataclasses.replace(OPTIONS.verifier, connections=4, batch_size=5)
        options = dataclasses.replace(
            OPTIONS, verifier=verifier, startup=settings.StartupOptions(3, 5)
        )
        self.world = World(hosts=40, options=options)
        self.source = HeldSource(self.world.clock)
        self.asker = AttestationWorker(
            options, self.world.state, self.source, Metrics(), self.world.clock
        )

    def all_asked(self) -> bool:
        self.asker.step()
        return sum(self.source.sizes()) >= 40


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.source.go.set()
    made.asker.stop()


def test_the_first_stage_is_answered_before_others_are_asked_and_then_several_are_under_way(
    scene: Scene,
) -> None:
    scene.asker.attest_in_stages()
    for _ in range(5):
        scene.asker.step()
    until(lambda: scene.source.sizes() == [3])
    scene.source.go.set()
    until(scene.all_asked)
    first, *others = scene.source.sizes()
    assert (first, sorted(others)) == (3, [2, 5, 5, 5, 5, 5, 5, 5])  # several threads ask them


def test_a_first_stage_that_is_silent_holds_nobody_up_for_long(scene: Scene) -> None:
    scene.asker.attest_in_stages()
    scene.asker.step()
    scene.world.clock.pass_ms(HEAD_START_MS)
    scene.asker.step()
    until(lambda: scene.source.sizes() == [3, 5, 5, 5])


def test_stages_whose_hosts_all_left_end_and_others_are_asked(scene: Scene) -> None:
    scene.asker.attest_in_stages()
    scene.world.state.questions.begin_stages()
    for host in scene.world.hosts:
        scene.world.status(host.id, "down")
    scene.source.go.set()
    scene.asker._stages_requested.clear()
    scene.asker.step()
    scene.world.status("h7", "up")
    scene.asker.step()
    until(lambda: scene.source.asked == [["h7.lab"]])


def test_silent_hosts_leave_connections_to_those_that_answer(scene: Scene) -> None:
    scene.source.silent = {f"h{n}.lab" for n in range(30)}
    scene.source.go.set()
    scene.asker.attest_in_stages()
    until(scene.all_asked)
    until(lambda: not scene.world.state.questions.due(1, failing=False))
    scene.source.asked.clear()
    scene.source.go.clear()
    scene.world.clock.pass_ms(3_000)
    scene.asker.step()
    until(lambda: len(scene.source.asked) == 2)
    scene.world.state.questions.ask_soon("h35")
    scene.asker.step()
    until(lambda: any("h35.lab" in names for names in scene.source.asked))


def test_a_wall_is_not_made_before_its_pool_was_asked_about_once(scene: Scene) -> None:
    world = scene.world
    world.wall = None
    world.look()
    scene.asker.attest_in_stages()
    scene.source.down = True
    scene.asker.step()
    (plan,) = full_plans(world.state.walls)
    assert plan.steps == ()
    scene.source.go.set()
    until(scene.all_asked)
    until(lambda: full_plans(world.state.walls)[0].steps)
    (step,) = full_plans(world.state.walls)[0].steps
    assert (step.host_ids, step.vm_ids) == (frozenset(), {"v0", "v1"})


def test_an_answer_about_a_name_that_the_host_has_no_more_is_dropped(site: Site) -> None:
    """The address changes after the broker chose whom to ask for, and before it asks."""
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    ask = site.source.ask
    site.source.levels["h9.lab"] = Level.TIMEOUT

    def changed_meanwhile(names: Sequence[str]) -> Mapping[str, Answer]:
        if "h1.lab" in names:
            site.host("h1").address = "h9.lab"
            until(lambda: site.state.questions.name(site.host("h1").id) == "h9.lab")
        return ask(names)

    site.source.ask = changed_meanwhile  # type: ignore[method-assign]
    site.service.attest_host(site.host("h1").id)
    until(lambda: site.asked_for("h9.lab"))
    until(lambda: site.inside() == EVERYBODY - {"h1"})


def test_a_fault_of_our_own_in_taking_an_answer_leaves_nobody_unasked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Questions.record
    failed: list[Mapping[str, Answer]] = []

    def fail_once(questions: Questions, answers: Mapping[str, Answer]) -> None:
        if not failed:
            failed.append(answers)
            raise KeyError("a fault of our own")
        record(questions, answers)

    monkeypatch.setattr(Questions, "record", fail_once)
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    assert failed


def test_an_answer_is_aged_by_a_pause_of_the_machine_before_it_came(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages go on for long: nobody else looks at the clock meanwhile."""
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    ask, seen = site.source.ask, []
    wall_ms = site.clock.wall_ms

    def paused(names: Sequence[str]) -> Mapping[str, Answer]:
        seen.append(site.state.holds(site.host("h1").id))
        answers, now_ms = ask(names), site.clock.now_ms()
        until(lambda: site.clock.now_ms() > now_ms + 5)
        if len(seen) == 1:
            monkeypatch.setattr(site.clock, "wall_ms", lambda: wall_ms() + 120_000)
        return answers

    site.source.ask = paused  # type: ignore[method-assign]
    site.service.attest_in_stages()
    until(lambda: len(seen) >= 2)
    assert seen[:2] == [True, False]
