# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""In which order the broker takes hosts out of service, and what one refusal does to the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Optional

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.wall_plan import WallPlan
from ovirt_tcp_plugin.broker.state.walls import Walls
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.wall_builder import WallBuilder
from tests.broker.state.world import POOL
from tests.broker.workers.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.worker.stop()


@pytest.mark.parametrize("all_known", [True, False])
def test_a_passive_broker_does_nothing(scene: Scene, all_known: bool) -> None:
    scene.in_charge = False
    scene.all_known = all_known
    scene.world.attest(bad=["h1"])
    assert scene.step() == []


def test_before_everything_was_listed_untrusted_hosts_leave_the_wall_and_no_more(
    scene: Scene,
) -> None:
    scene.all_known = False
    scene.world.attest(bad=["h1"])
    scene.world.status("h2", "non_responsive")
    assert sorted(scene.step()) == ["put out h1", "put out h2"]
    assert scene.step() == []


def test_before_everything_was_listed_hosts_without_a_verdict_stay_inside(scene: Scene) -> None:
    scene.all_known = False
    scene.world.state.void("engine_restarted", "the engine restarted")
    assert scene.step() == []


def test_a_host_leaves_service_after_wall_snapshot_and_state_show_it(scene: Scene) -> None:
    scene.world.attest(bad=["h1"])
    assert scene.step() == ["put out h1", "publish", "save", "deactivate h1", "save"]


def test_pools_that_lost_trust_are_looked_at_before_all_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = scene.world.state.walls
    looks: list[Optional[Collection[str]]] = []

    def due_plans(cluster_ids: Optional[Collection[str]] = None) -> list[WallPlan]:
        looks.append(cluster_ids)
        return Walls.due_plans(walls, cluster_ids)

    monkeypatch.setattr(walls, "due_plans", due_plans)
    scene.step()
    scene.world.attest(bad=["h1"])
    scene.step()
    assert looks[-2:] == [{POOL}, None]


def test_nobody_leaves_while_trust_is_lost_in_a_pool_that_has_no_plan(scene: Scene) -> None:
    """Its wall was as it had to be when the plans were made."""
    state = scene.world.state
    calls = Calls()
    builder = WallBuilder(
        state, scene.engine, scene.contact, Metrics(), calls, scene.world.clock, lambda: None
    )
    scene.world.attest(bad=["h1"])
    assert builder.build([], lambda: False) == {POOL}
    calls.stop()


def test_nobody_leaves_while_an_untrusted_host_cannot_be_put_out_of_the_wall(scene: Scene) -> None:
    scene.engine.refusals["put out h1"] = errors.Conflict("the group is locked")
    scene.world.attest(bad=["h1"])
    assert scene.step() == []


def test_a_host_that_the_engine_does_not_know_makes_a_listing_due(scene: Scene) -> None:
    scene.engine.refusals["deactivate h1"] = errors.NotFound("host", "h1")
    scene.world.attest(bad=["h1"])
    scene.step()
    assert scene.listings_requested == 1


def test_a_refusal_at_one_host_keeps_no_other_in_service(scene: Scene) -> None:
    scene.engine.refusals["deactivate h1"] = errors.Conflict("a VM cannot migrate")
    scene.world.attest(bad=["h1", "h2"])
    assert "deactivate h2" in scene.step()
    assert any("maintenance was refused" in text for text in scene.world.told())


def test_an_engine_that_is_away_is_no_refusal(scene: Scene) -> None:
    scene.engine.refusals["deactivate h1"] = errors.Unavailable("the engine", "no route")
    scene.engine.is_away = True
    scene.world.attest(bad=["h1"])
    with pytest.raises(errors.Unavailable):
        scene.step()
    assert scene.calls[-1] == "save"
    assert not any("maintenance was refused" in text for text in scene.world.told())
