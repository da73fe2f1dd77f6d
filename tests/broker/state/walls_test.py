# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Walls while hosts are silent, and after a start of the engine or of its machine."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.verdicts import STANDING_MS
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import LIFE, World

STEP_MS = 5_000


class AskedWorld(World):
    """A pool whose hosts are asked about when they are due, each at its own time.

    Attributes:
        silent: ids of the hosts of which the attestation server, which answers, knows nothing.
        sizes: how many hosts the wall listed after each step.
    """

    def __init__(self, hosts: int) -> None:
        super().__init__(hosts=hosts)
        self.silent: set[str] = set()
        self.sizes: list[int] = []
        for host_id in self.ids():
            self.clock.pass_ms(LIFE // 2 // hosts)
            self.attest(good=[host_id])
        self.play(LIFE)
        self.told()

    def play(self, ms: int, level: Level = Level.UNKNOWN) -> None:
        """Let time pass; silent hosts are answered for with this level."""
        for _ in range(ms // STEP_MS):
            self.clock.pass_ms(STEP_MS)
            due = self.state.questions.due(1000, failing=False)
            due += self.state.questions.due(1000)
            now_ms = self.clock.ms
            answers: dict[str, Answer] = {}
            for host_id in due:
                answers[host_id] = Answer(Level.TRUSTED, now_ms, 0, LIFE, True)
                if host_id in self.silent:
                    answers[host_id] = Answer(level, now_ms, None, None, False)
            self.state.questions.record(answers)
            self.sizes.append(len(self.inside()))


def silences(world: World) -> int:
    return sum("gives evidence, though" in text for text in world.told())


class TestSilence:
    @pytest.mark.parametrize("hosts", [2, 3, 15, 40])
    @pytest.mark.parametrize("level", [Level.UNKNOWN, Level.TIMEOUT])
    def test_of_the_whole_pool_empties_the_wall_in_one_step(self, hosts: int, level: Level) -> None:
        """As where the attestation server is cut off from the hosts, or its database is empty."""
        world = AskedWorld(hosts)
        world.silent.update(world.ids())
        world.sizes.clear()
        world.play(2 * LIFE, level)
        assert set(world.sizes) == {hosts, 0}
        assert sorted(world.sizes, reverse=True) == world.sizes
        assert world.leaving() == set()
        assert silences(world) == 1

    def test_of_nearly_all_hosts_keeps_them_inside_for_another_life(self) -> None:
        world = AskedWorld(40)
        world.silent.update(world.ids()[1:])
        world.sizes.clear()
        world.play(LIFE - LIFE // 10)
        assert set(world.sizes) == {40}
        world.play(2 * LIFE)
        assert world.inside() == {"h0"}
        assert world.leaving() == set()

    def test_is_refused_by_the_filter_at_each_verdicts_end(self) -> None:
        world = AskedWorld(15)
        world.silent.update(world.ids())
        world.play(LIFE // 2 + LIFE // 4)
        trusted = {host_id for host_id in world.ids() if world.state.holds(host_id)}
        assert 0 < len(trusted) < 15
        assert len(world.inside()) == 15

    @pytest.mark.parametrize("hosts", [2, 15])
    def test_of_one_host_has_it_leave_singly(self, hosts: int) -> None:
        world = AskedWorld(hosts)
        world.silent.add("h1")
        world.play(LIFE + LIFE // 10)
        assert world.inside() == set(world.ids()) - {"h1"}
        assert silences(world) == 0

    def test_that_ends_has_all_inside_without_an_edit(self) -> None:
        world = AskedWorld(15)
        world.silent.update(world.ids())
        world.sizes.clear()
        world.play(LIFE // 2 + LIFE // 4)
        world.silent.clear()
        world.play(LIFE)
        assert set(world.sizes) == {15}

    def test_that_ends_late_fills_the_wall_within_seconds(self) -> None:
        world = AskedWorld(15)
        world.silent.update(world.ids())
        world.play(2 * LIFE)
        assert world.inside() == set()
        world.silent.clear()
        world.sizes.clear()
        world.play(LIFE)
        assert world.sizes[-1] == 15
        assert sum(0 < size < 15 for size in world.sizes) <= 2


def edits(world: World) -> int:
    (plan,) = full_plans(world.state.walls)
    return len(plan.steps)


class TestEngineStart:
    def started(self, hosts: int = 100) -> World:
        """The engine has just restarted."""
        world = World(hosts=hosts)
        world.attest(good=world.ids())
        world.build()
        world.clock.pass_ms(1000)
        world.state.void("engine_restarted", "the engine restarted", walls_stand=True)
        return world

    def test_edits_no_wall_while_all_hosts_attest_well_again(self) -> None:
        world = self.started()
        assert edits(world) == 0
        assert not any(world.state.holds(host_id) for host_id in world.ids())
        for host_id in world.ids():
            world.clock.pass_ms(STANDING_MS // 101)
            world.attest(good=[host_id])
            assert edits(world) == 0
        world.clock.pass_ms(STANDING_MS)
        assert edits(world) == 0

    def test_has_a_host_that_attests_badly_leave_at_once(self) -> None:
        world = self.started()
        world.attest(bad=["h7"])
        assert world.inside() == set(world.ids()) - {"h7"}
        world.attest(good=["h8"])
        assert world.leaving() == {"h7"}

    def test_has_a_host_that_leaves_up_or_reboots_leave_at_once(self) -> None:
        world = self.started()
        world.status("h7", "non_responsive")
        world.status("h7", "up")
        world.state.host_restarted("h8")
        assert world.inside() == set(world.ids()) - {"h7", "h8"}

    def test_has_a_host_that_is_not_attested_in_time_leave(self) -> None:
        world = self.started()
        attested = world.ids()[:50]
        silent = dict.fromkeys(world.ids()[50:], Answer(Level.TIMEOUT, 0, None, None, False))
        world.state.questions.record(silent)
        world.clock.pass_ms(STANDING_MS - 1)
        world.attest(good=attested)
        world.state.questions.record(silent)
        assert edits(world) == 0
        world.clock.pass_ms(1)
        assert world.inside() == set(attested)

    def test_a_second_time_does_not_have_the_wall_stand_for_longer(self) -> None:
        world = self.started()
        world.clock.pass_ms(STANDING_MS - 1)
        world.state.void("engine_restarted", "the engine restarted", walls_stand=True)
        world.clock.pass_ms(1)
        assert world.inside() == set()

    @pytest.mark.parametrize("same_boot", [True, False])
    def test_with_its_whole_machine_edits_no_wall(self, same_boot: bool) -> None:
        """The broker's machine is the engine's."""
        world = self.started() if same_boot else World(hosts=100)
        world.attest(good=world.ids()[:99])
        world.build()
        if not same_boot:
            world.clock.boot_id = "00000000-0000-0000-0000-000000000002"
        world.restart()
        assert edits(world) == 0
        world.attest(good=world.ids())
        assert set(world.ids()[:99]) <= world.inside()

    def test_after_a_pause_of_the_machine_walls_are_emptied(self) -> None:
        world = self.started()
        world.state.void("clock_jump", "this machine was paused")
        assert world.inside() == set()
