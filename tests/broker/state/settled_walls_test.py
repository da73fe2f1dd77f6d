# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Walls that need no plan, and that none is passed over that needs one."""

from __future__ import annotations

import collections
import dataclasses
import random

import pytest

from ovirt_tcp_plugin.broker.state.settled_walls import PLAN_AGAIN_MS
from ovirt_tcp_plugin.broker.state.verdicts import STANDING_MS
from ovirt_tcp_plugin.placement.inventory import Vm
from tests import soak
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import LIFE, POOL, World

SEQUENCES = soak.part(20_000)
ACTS = 30


def settled_world() -> World:
    """Return a pool whose wall is as it has to be, and planned."""
    world = World(hosts=4)
    world.attest(good=world.ids())
    world.build()
    assert len(world.state.walls.due_plans()) == 1
    return world


def test_a_wall_that_is_as_it_has_to_be_is_not_planned_again() -> None:
    world = settled_world()
    world.clock.pass_ms(PLAN_AGAIN_MS - 1)
    assert world.state.walls.due_plans() == []


def test_a_renewed_verdict_needs_another_plan_once() -> None:
    world = settled_world()
    world.clock.pass_ms(1_000)
    world.attest(good=["h1"])
    assert len(world.state.walls.due_plans()) == 1
    assert world.state.walls.due_plans() == []


def test_every_wall_is_planned_again_after_a_minute() -> None:
    world = settled_world()
    world.clock.pass_ms(PLAN_AGAIN_MS)
    assert len(world.state.walls.due_plans()) == 1


def test_an_unlisted_member_that_is_listed_again_elsewhere_leaves() -> None:
    world = settled_world()
    assert world.wall is not None
    world.wall = dataclasses.replace(world.wall, vm_ids=world.wall.vm_ids | {"stranger"})
    world.look()
    world.state.walls.due_plans()
    world.vms.append(Vm("stranger", "stranger", "another cluster"))
    world.look()
    (plan,) = world.state.walls.due_plans()
    assert [step.subject for step in plan.steps] == ["stranger"]


class RandomActs:
    """What happens to a pool."""

    def __init__(self, dice: random.Random) -> None:
        self.world = World(hosts=4, vms=3)
        self._dice = dice
        self._number = 0
        self.acts = (
            *(self.attest, self.fail, self.change_status, self.pass_time) * 2,
            self.build,
            self.edit_wall,
            self.remove_wall,
            self.change_surplus,
            self.change_vms,
            self.change_scope,
            self.share_a_name,
            self.move_a_host,
            self.end_a_verdict,
            self.restart_engine,
            self.restart_broker,
        )

    def play(self) -> None:
        self._dice.choice(self.acts)()

    def attest(self) -> None:
        hosts = self._dice.sample(self.world.ids(), 2)
        if self._dice.random() < 0.7:
            self.world.attest(good=hosts)
        else:
            self.world.attest(good=hosts[:1], bad=hosts[1:])

    def fail(self) -> None:
        self.world.state.questions.nobody_answered([self._host_id()], "refused")

    def change_status(self) -> None:
        status = self._dice.choice(("up", "up", "non_responsive", "maintenance"))
        self.world.status(self._host_id(), status)

    def pass_time(self) -> None:
        spans = (1, PLAN_AGAIN_MS, LIFE // 2, LIFE, STANDING_MS)
        self.world.clock.pass_ms(self._dice.choice(spans))

    def build(self) -> None:
        self.world.build()

    def edit_wall(self) -> None:
        wall = self.world.wall
        if wall is not None:
            some_hosts = frozenset(self._dice.sample(self.world.ids(), 2))
            enforcing = self._dice.random() < 0.7
            self.world.wall = dataclasses.replace(wall, host_ids=some_hosts, enforcing=enforcing)
            self.world.look()

    def remove_wall(self) -> None:
        self.world.wall = None
        self.world.look()

    def change_surplus(self) -> None:
        walls = self.world.state.walls
        self._dice.choice((walls.surplus_left, walls.surplus_removed))(POOL, "old")

    def change_vms(self) -> None:
        vms = self.world.vms
        if len(vms) > 2:
            vms.pop(self._dice.randrange(len(vms)))
        else:
            self._number += 1
            vms.append(Vm(f"new{self._number}", f"new-{self._number}", POOL, marked=True))
        self.world.look()

    def change_scope(self) -> None:
        properties = self._dice.choice(({}, {"trust_scope": "marked_vms"}))
        self.world.cluster = dataclasses.replace(self.world.cluster, properties=properties)
        self.world.look()

    def share_a_name(self) -> None:
        self.world.change_host(1, address=self._dice.choice(("h1.lab", "h0.lab")))

    def move_a_host(self) -> None:
        self.world.change_host(2, cluster_id=self._dice.choice((POOL, "another cluster")))

    def end_a_verdict(self) -> None:
        self.world.state.host_restarted(self._host_id())

    def restart_engine(self) -> None:
        stand = self._dice.random() < 0.5
        self.world.state.void("engine_restarted", "the engine restarted", walls_stand=stand)

    def restart_broker(self) -> None:
        self.world.restart()

    def _host_id(self) -> str:
        return self._dice.choice(self.world.ids())


@pytest.mark.soak
def test_no_plan_with_steps_is_passed_over_whatever_happened() -> None:
    counts: collections.Counter[bool] = collections.Counter()
    for number in range(SEQUENCES):
        acts = RandomActs(soak.randomness(f"settled walls {number}"))
        for _ in range(ACTS):
            acts.play()
            due = acts.world.state.walls.due_plans()
            plans = full_plans(acts.world.state.walls)
            counts[bool(due)] += 1
            assert [plan for plan in due if plan.steps] == [plan for plan in plans if plan.steps]
    assert counts[False] > SEQUENCES // 4
