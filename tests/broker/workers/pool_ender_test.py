# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""In which order an ended pool is given back, and which requests of setup count."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.retries import Retries
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.placement.inventory import Policy
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.broker.state.world import POOL
from tests.broker.workers.scene import Scene

TRUSTED = Policy("policy", "trusted", filter_ids=frozenset({"unit"}))
PLAIN = Policy("plain", "power_saving")
UPGRADE = Policy(CLUSTER_MAINTENANCE, "cluster_maintenance")
OURS = "ovirt-tcp: not trusted (pcr_differs): PCR 17"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A pool whose policy somebody changed by hand, with a host in quarantine."""
    made = Scene(tmp_path)
    made.world.attest(bad=["h1"])
    made.step()
    made.world.wall = made.world.state.listing().walls[POOL]
    use(made, PLAIN)
    made.world.status("h1", "maintenance", OURS)
    made.step()
    made.world.told()
    yield made
    made.worker.stop()


@pytest.fixture
def requests(tmp_path: Path) -> EndRequests:
    return EndRequests(tmp_path)


def use(scene: Scene, policy: Policy) -> None:
    world = scene.world
    world.policy = policy
    world.cluster = dataclasses.replace(world.cluster, policy_id=policy.id)
    world.look()


def ends(scene: Scene, steps: int = 3) -> list[str]:
    """Look and step some times, as the broker does; return the calls."""
    calls: list[str] = []
    for _ in range(steps):
        done = scene.step()
        if "remove wall wall" in done:
            scene.world.wall = None
        if "activate h1" in done:
            scene.world.status("h1", "up")
        scene.world.look()
        calls += done
    return calls + scene.step()


def test_the_end_is_saved_before_anything_is_given_back(scene: Scene) -> None:
    scene.world.state.pool_ends.end("Trusted", "token 1")
    assert sorted(ends(scene)[2:]) == ["activate h1", "remove wall wall"]
    assert scene.world.state.pool_ends.cluster_ids() == frozenset()
    assert "token 1 ended it" in scene.world.told()[-1]


def test_snapshot_and_state_come_first(scene: Scene) -> None:
    scene.world.state.pool_ends.end("Trusted", "token 1")
    assert scene.step()[:2] == [f"forget {POOL}", "save"]


def test_a_host_that_is_refused_is_named_after_some_tries(scene: Scene) -> None:
    scene.engine.refusals["activate h1"] = errors.Conflict("wrong status")
    scene.world.state.pool_ends.end("Trusted", "token 1")
    assert "activate h1" not in ends(scene, steps=6)
    assert "Host host-1 could not be activated" in scene.world.told()[-1]


def test_a_wall_that_is_refused_is_an_error_and_is_tried_again(scene: Scene) -> None:
    scene.engine.refusals["remove wall wall"] = errors.Conflict("locked")
    scene.world.state.pool_ends.end("Trusted", "token 1")
    ends(scene, steps=6)
    told = [text for text in scene.world.told() if "could not be removed" in text]
    assert len(told) == 1
    assert "remove affinity group wall by hand" in told[0]
    scene.engine.refusals.clear()
    scene.world.clock.pass_ms(60_000)
    assert "remove wall wall" in ends(scene)
    assert "token 1 ended it" in scene.world.told()[-1]


class SlowRetries(Retries):
    """Notes whether two threads were in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self._inside = threading.Lock()
        self.overlapped = False

    def failed(self, subject: Hashable, now_ms: int) -> int:
        if not self._inside.acquire(blocking=False):
            self.overlapped = True
            return super().failed(subject, now_ms)
        time.sleep(0.2)
        self._inside.release()
        return super().failed(subject, now_ms)


def test_jobs_that_fail_at_once_are_counted_one_after_the_other(scene: Scene) -> None:
    retries = SlowRetries()
    scene.worker._pool_ender._retries = retries
    refusal = errors.Conflict("locked")
    scene.engine.refusals = {"remove wall wall": refusal, "activate h1": refusal}
    scene.world.state.pool_ends.end("Trusted", "token 1")
    scene.step()
    scene.step()
    assert retries.number("h1") == retries.number("wall") > 0
    assert not retries.overlapped


def test_an_engine_that_is_away_is_waited_for(scene: Scene) -> None:
    away = errors.Unavailable("the engine", "no route")
    scene.engine.refusals = {"remove wall wall": away, "activate h1": away}
    scene.engine.is_away = True
    scene.world.state.pool_ends.end("Trusted", "token 1")
    ends(scene, steps=6)
    assert scene.world.told() == []
    scene.engine.refusals.clear()
    scene.engine.is_away = False
    assert {"activate h1", "remove wall wall"} <= set(ends(scene))


class TestRequests:
    def test_one_ends_a_pool_under_another_policy(
        self, scene: Scene, requests: EndRequests
    ) -> None:
        requests.add([POOL])
        assert {"activate h1", "remove wall wall"} <= set(ends(scene))
        assert requests.cluster_ids() == []
        assert "`ovirt-tcp setup --remove` ended it" in scene.world.told()[-1]

    def test_one_ends_a_pool_whose_unit_the_engine_does_not_know_any_more(
        self, scene: Scene, requests: EndRequests
    ) -> None:
        scene.world.units = ()
        scene.world.look()
        requests.add([POOL])
        assert "remove wall wall" in ends(scene)

    def test_one_waits_for_the_listing_that_shows_the_policy(
        self, scene: Scene, requests: EndRequests
    ) -> None:
        use(scene, TRUSTED)
        requests.add([POOL])
        scene.step()
        use(scene, TRUSTED)
        scene.step()
        assert requests.cluster_ids() == [POOL]
        use(scene, PLAIN)
        assert "remove wall wall" in ends(scene)

    def test_one_is_dropped_when_somebody_gave_the_policy_back(
        self, scene: Scene, requests: EndRequests
    ) -> None:
        requests.add([POOL])
        for _ in range(3):
            use(scene, TRUSTED)
            assert "remove wall wall" not in scene.step()
        assert requests.cluster_ids() == []
        use(scene, PLAIN)
        assert "remove wall wall" not in ends(scene)

    def test_one_waits_through_an_upgrade(self, scene: Scene, requests: EndRequests) -> None:
        use(scene, UPGRADE)
        requests.add([POOL])
        assert "remove wall wall" not in ends(scene)
        assert requests.cluster_ids() == [POOL]

    def test_one_for_a_cluster_that_is_no_pool_is_done_at_once(
        self, scene: Scene, requests: EndRequests
    ) -> None:
        requests.add(["another"])
        scene.step()
        assert requests.cluster_ids() == []

    def test_a_name_that_is_none_of_a_cluster_is_passed_over(
        self, tmp_path: Path, requests: EndRequests
    ) -> None:
        for name in ("end-pool-", "end-pool-a b", f"end-pool-{'x' * 65}", "state.json"):
            (tmp_path / name).touch()
        assert requests.cluster_ids() == []

    def test_without_a_broker_there_is_nobody_to_ask(self, tmp_path: Path) -> None:
        requests = EndRequests(tmp_path / "nowhere")
        requests.add([POOL])
        assert requests.cluster_ids() == []
