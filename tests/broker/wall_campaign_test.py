# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A wall that somebody edits at random, at an engine that refuses and fails at times."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from ovirt_tcp_plugin.lab.engine import faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import WALL_DESCRIPTION, bears_wall_name, wall_name
from tests.broker.site import EVERYBODY, Site, until

ACTS = int(os.environ.get("WALL_ACTS", "25"))
SEED = int(os.environ.get("SEED", "7"))
KINDS = [faults.BROKEN, faults.HTML, faults.CUT, faults.LOST, faults.GARBAGE]


class Campaign:
    def __init__(self, site: Site) -> None:
        self.site, self.random = site, random.Random(SEED)
        self.untrusted: set[str] = set()
        self.acts: list[Callable[[], None]] = [
            self.weaken,
            self.label,
            self.rename,
            self.remove,
            self.let_in,
            self.put_out,
            self.let_vm_out,
            self.twin,
            self.contradict,
            self.appease,
            self.turn,
            self.recover,
            self.void,
        ]

    def walls(self) -> list[model.AffinityGroup]:
        groups = self.site.engine.model.groups.values()
        return [group for group in groups if self.is_wall(group)]

    def is_wall(self, group: model.AffinityGroup) -> bool:
        return group.description == WALL_DESCRIPTION or bears_wall_name(
            group.name, self.site.cluster
        )

    def wall(self) -> model.AffinityGroup:
        return self.walls()[0]

    def a_host(self) -> model.SimulatedHost:
        return self.site.host(self.random.choice(sorted(EVERYBODY)))

    def weaken(self) -> None:
        self.wall().hosts_rule = self.random.choice(
            [
                model.Rule(True, False, True),
                model.Rule(False, False, True),
                model.Rule(True, True, False),
            ]
        )

    def label(self) -> None:
        label = model.AffinityLabel(model.new_id(), model.new_id(), hosts=[self.a_host().id])
        self.site.engine.model.labels[label.id] = label
        self.wall().host_labels.append(label.id)

    def rename(self) -> None:
        self.wall().name = model.new_id()

    def remove(self) -> None:
        del self.site.engine.model.groups[self.wall().id]

    def let_in(self) -> None:
        wall = self.wall()
        wall.hosts = [host.id for host in self.site.engine.model.hosts.values()]

    def put_out(self) -> None:
        wall = self.wall()
        wall.hosts = self.random.sample(wall.hosts, self.random.randint(0, len(wall.hosts)))

    def let_vm_out(self) -> None:
        self.wall().vms.clear()

    def twin(self) -> None:
        name = f"{wall_name(self.site.cluster)}-{self.random.randint(0, 9)}"
        group = model.AffinityGroup(
            model.new_id(), name, self.site.cluster, model.Rule(True, True, True), model.Rule()
        )
        group.description = WALL_DESCRIPTION
        group.hosts = [self.a_host().id]
        self.site.engine.model.groups[group.id] = group

    def contradict(self) -> None:
        name = model.new_id()
        group = model.AffinityGroup(
            model.new_id(), name, self.site.cluster, model.Rule(True, True, False), model.Rule()
        )
        group.hosts, group.vms = [self.a_host().id], [next(iter(self.site.engine.model.vms))]
        self.site.engine.model.groups[group.id] = group

    def appease(self) -> None:
        for uid, group in list(self.site.engine.model.groups.items()):
            if not self.is_wall(group):
                del self.site.engine.model.groups[uid]

    def turn(self) -> None:
        if not self.untrusted:
            self.judge(self.a_host().name, Level.UNTRUSTED)

    def recover(self) -> None:
        for name in list(self.untrusted):
            self.judge(name, Level.TRUSTED)

    def judge(self, name: str, level: Level) -> None:
        self.untrusted = {name} if level is Level.UNTRUSTED else set()
        self.site.source.levels[f"{name}.lab"] = level
        self.site.service.attest_host(self.site.host(name).id)

    def void(self) -> None:
        self.site.state.void("engine_restarted", "the engine restarted")

    def fail(self) -> None:
        kind = self.random.choice(KINDS)
        verb = self.random.choice(["PUT", "POST", "DELETE"])
        answer = AnswerFault(kind, verb, "api/clusters/.*", self.random.randint(1, 2))
        self.site.engine.faults.answers = [answer]

    def settled(self) -> bool:
        walls = self.walls()
        if len(walls) != 1:
            return False
        (wall,) = walls
        inside = {self.site.engine.model.hosts[uid].name for uid in wall.hosts}
        rule = wall.hosts_rule
        binds = rule.enabled and rule.enforcing and rule.positive and not wall.host_labels
        up = {name for name, status in self.site.statuses().items() if status == "up"}
        return (
            binds
            and inside == up - self.untrusted
            and set(self.site.engine.model.vms) == set(wall.vms)
        )


@pytest.mark.timeout(180)
def test_whatever_somebody_does_to_it_the_wall_is_put_right(site: Site) -> None:
    site.start()
    campaign = Campaign(site)
    until(campaign.settled)
    done = []
    for _ in range(ACTS):
        chosen = campaign.random.sample(campaign.acts, campaign.random.randint(1, 3))
        with site.engine.model.lock:
            if campaign.random.random() < 0.3:
                campaign.fail()
            for act in chosen:
                if campaign.walls():
                    act()
                    done.append(act.__name__)
        try:
            until(campaign.settled, 25)
        except AssertionError:
            walls = [vars(wall) for wall in campaign.walls()]
            pytest.fail(f"not put right after {done[-6:]}: {walls} untrusted {campaign.untrusted}")
    assert not site.told("is not as it has to be")
