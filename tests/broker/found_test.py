# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a hostile reading of the broker found, one test each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from ovirt_tcp_plugin.broker.sources import Answer
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.knowledge_test import LIFE, World
from tests.broker.site import EVERYBODY, Site, until


def replace(world: World, number: int, **changes: str) -> None:
    """Change a host at the engine, and let the broker look."""
    world.hosts[number] = dataclasses.replace(world.hosts[number], **changes)  # type: ignore[arg-type]
    world.look()


class TestPlaces:
    """A verdict is of one host in one place under one name."""

    @pytest.mark.parametrize("change", [{"cluster_id": "elsewhere"}, {"address": "other.lab"}])
    def test_one_that_moved_or_has_another_address_attests_before_it_counts(self, change: dict[str, str]) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        before = dataclasses.asdict(world.hosts[1])
        replace(world, 1, **change)
        replace(world, 1, **{name: before[name] for name in change})
        assert world.inside() == {"h0", "h2", "h3"}
        assert "h1" in world.knowledge.due(10)

    def test_an_answer_to_a_question_from_before_that_does_not_count(self) -> None:
        world = World()
        answer = Answer(Level.TRUSTED, world.clock.ms, 0, LIFE, True)
        world.clock.pass_ms(100)
        replace(world, 1, address="other.lab")
        world.knowledge.record({"h1": answer, "h2": answer})
        assert world.inside() == {"h2"}

    def test_hosts_that_come_to_share_a_name_leave_the_wall(self) -> None:
        world = World()
        world.attest(good=world.ids())
        assert world.inside() == set(world.ids())
        replace(world, 1, address=world.hosts[0].address)
        assert world.inside() == {"h2", "h3"}

    def test_an_answer_about_a_name_that_the_host_has_no_more_is_nobodys(self, site: Site) -> None:
        """The address changes after the broker chose whom to ask for, and before it asks."""
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        ask = site.source.ask
        site.source.levels["h9.lab"] = Level.TIMEOUT

        def changed_meanwhile(names: Sequence[str]) -> Mapping[str, Answer]:
            if "h1.lab" in names:
                site.host("h1").address = "h9.lab"
                until(lambda: site.knowledge.name(site.host("h1").id) == "h9.lab")
            return ask(names)

        site.source.ask = changed_meanwhile  # type: ignore[method-assign]
        site.service.attest_host(site.host("h1").id)
        until(lambda: site.asked_for("h9.lab"))
        until(lambda: site.inside() == EVERYBODY - {"h1"})


class TestWall:
    def test_an_untrusted_host_does_not_stay_inside_by_a_label(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        label = model.AffinityLabel(model.new_id(), "fast", hosts=[site.host("h1").id])
        site.engine.model.labels[label.id] = label
        wall = site.wall()
        assert wall is not None
        wall.host_labels.append(label.id)
        until(lambda: wall.host_labels == [])
