# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Only a person ends a pool; then all that the broker did there is given back."""

from __future__ import annotations

import dataclasses
import random

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.placement.inventory import Policy
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.broker.state.world import POOL, World

OURS = "ovirt-tcp: not trusted (pcr_differs): PCR 17"
PLAIN = Policy("plain", "power_saving")
UPGRADE = Policy(CLUSTER_MAINTENANCE, "cluster_maintenance")


@pytest.fixture
def world() -> World:
    """A pool whose policy somebody changed by hand, with one host in quarantine."""
    made = World(hosts=6)
    made.attest(good=made.ids())
    made.build()
    made.attest(bad=["h1"])
    made.build()
    made.state.quarantine.deactivated("h1")
    made.status("h1", "maintenance", OURS)
    use(made, PLAIN)
    made.told()
    return made


def use(world: World, policy: Policy) -> None:
    world.policy = policy
    world.cluster = dataclasses.replace(world.cluster, policy_id=policy.id)
    world.look()


def give_back(world: World) -> None:
    """Do at the engine what is to be done."""
    ends = world.state.pool_ends
    for cluster_id, group_id in ends.walls():
        world.wall = None
        world.state.walls.removed(cluster_id, group_id)
        ends.wall_removed(cluster_id)
    for host_id in ends.hosts():
        ends.activated(host_id)
        world.status(host_id, "up")
    ends.conclude()


def settle(world: World) -> str:
    """Give everything back, let the broker look twice, and return its last event."""
    give_back(world)
    for _ in range(2):
        world.look()
    world.state.pool_ends.conclude()
    return world.told()[-1]


class TestStanding:
    def test_under_another_policy_a_pool_is_protected_as_before(self, world: World) -> None:
        world.attest(good=["h0", "h2"], bad=["h3"])
        assert world.inside() == {"h0", "h2", "h4", "h5"}
        assert world.leaving() == {"h3"}
        assert [snapshot.pool_id for snapshot in world.state.snapshots()] == [POOL]
        assert world.state.pool_ends.walls() == []

    def test_with_the_state_lost_as_well_it_is(self, world: World) -> None:
        world.state = BrokerState(world.options, world.clock, random.random)
        world.look()
        world.attest(good=["h0", "h2", "h4"])
        world.attest(bad=["h3"])
        assert world.inside() == {"h0", "h2", "h4"}
        assert world.leaving() == {"h3"}
        assert not world.state.quarantine.to_activate()

    def test_a_pool_whose_cluster_is_gone_ends_without_an_event(self, world: World) -> None:
        world.cluster = dataclasses.replace(world.cluster, id="another", name="Another")
        world.wall = None
        world.hosts = []
        world.vms = []
        world.look()
        assert set(world.state.pools()) == {POOL}
        world.look()
        assert [pool.cluster_id for pool in world.gone] == [POOL]
        assert world.state.pools() == {}
        assert world.told() == []


class TestRefusal:
    def test_a_pool_whose_policy_has_our_unit_is_not_ended(self, world: World) -> None:
        use(world, Policy("policy", "trusted", filter_ids=frozenset({"unit"})))
        with pytest.raises(errors.Conflict) as refused:
            world.state.pool_ends.end("Trusted", "token 1")
        assert "policy trusted of cluster Trusted has the filter unit" in refused.value.reason
        assert "give the cluster another policy" in refused.value.reason
        assert set(world.state.pools()) == {POOL}

    def test_nor_is_one_that_is_being_upgraded(self, world: World) -> None:
        use(world, UPGRADE)
        with pytest.raises(errors.Conflict, match="wait until the upgrade has ended"):
            world.state.pool_ends.end("Trusted", "token 1")

    def test_a_cluster_that_there_is_not_cannot_be_ended(self, world: World) -> None:
        with pytest.raises(errors.NotFound, match="cluster Stranger"):
            world.state.pool_ends.end("Stranger", "token 1")


class TestGivingBack:
    @pytest.mark.parametrize("name", ["Trusted", POOL])
    def test_wall_and_quarantine_are_given_back_and_one_event_tells_it(
        self, world: World, name: str
    ) -> None:
        assert world.state.pool_ends.end(name, "token 1") == ("Trusted", True)
        assert world.state.pools() == {}
        assert world.state.snapshots() == []
        assert world.state.pool_ends.walls() == [(POOL, "wall")]
        assert world.state.pool_ends.hosts() == ["h1"]
        give_back(world)
        world.look()
        assert world.told() == []
        world.look()
        give_back(world)
        (text,) = world.told()
        assert "no trusted pool any more: token 1 ended it at 1970-01-01T" in text
        assert "its VMs may run on any host: vm-0, vm-1." in text
        assert "Hosts back in service: host-1." in text
        world.look()
        assert world.state.pools() == {}

    def test_no_host_of_it_leaves_service_any_more(self, world: World) -> None:
        world.attest(bad=["h3"])
        world.state.pool_ends.end("Trusted", "token 1")
        world.look()
        assert world.leaving() == set()
        assert world.state.quarantine.to_activate() == []

    def test_a_host_that_leaves_at_this_moment_returns(self, world: World) -> None:
        world.attest(bad=["h3"])
        assert world.leaving() == {"h3"}
        world.state.pool_ends.end("Trusted", "token 1")
        world.state.quarantine.deactivated("h3")
        give_back(world)
        world.status("h3", "preparing_for_maintenance", OURS)
        assert world.state.pool_ends.hosts() == ["h3"]

    def test_a_host_that_the_engine_does_not_activate_is_named(self, world: World) -> None:
        ends = world.state.pool_ends
        ends.end("Trusted", "token 1")
        ends.activated("h1", "wrong status")
        assert ends.hosts() == []
        text = settle(world)
        assert "Host host-1 could not be activated (wrong status): activate it by hand" in text

    def test_a_host_whose_activation_only_looked_refused_is_not_named(self, world: World) -> None:
        ends = world.state.pool_ends
        ends.end("Trusted", "token 1")
        ends.activated("h1", "it is Up")
        world.status("h1", "up")
        text = settle(world)
        assert "Hosts back in service: host-1." in text
        assert "by hand" not in text

    def test_a_listing_from_before_a_late_removal_makes_no_pool(self, world: World) -> None:
        ends = world.state.pool_ends
        ends.end("Trusted", "token 1")
        for _ in range(5):
            world.look()
        wall = world.wall
        give_back(world)
        world.wall = wall
        world.look()
        assert world.state.pools() == {}

    def test_an_administrators_own_maintenance_stays(self, world: World) -> None:
        world.status("h2", "maintenance", "new memory")
        world.state.pool_ends.end("Trusted", "token 1")
        assert world.state.pool_ends.hosts() == ["h1"]

    @pytest.mark.parametrize("given_back", [False, True])
    def test_a_restart_goes_on_with_it(self, world: World, given_back: bool) -> None:
        world.state.pool_ends.end("Trusted", "token 1")
        if given_back:
            give_back(world)
        world.restart()
        assert world.state.pools() == {}
        if not given_back:
            assert world.state.pool_ends.walls() == [(POOL, "wall")]
            assert world.state.pool_ends.hosts() == ["h1"]
        text = settle(world)
        assert "token 1 ended it" in text
        assert "Hosts back in service: host-1." in text

    def test_a_second_end_changes_nothing(self, world: World) -> None:
        ends = world.state.pool_ends
        ends.end("Trusted", "token 1")
        assert ends.end("Trusted", "token 2") == ("Trusted", False)
        assert "token 1 ended it" in settle(world)
        assert ends.cluster_ids() == frozenset()
        assert ends.end("Trusted", "token 2") == ("Trusted", False)
        assert world.told() == []

    def test_a_pool_whose_policy_comes_back_keeps_wall_and_quarantine(self, world: World) -> None:
        world.state.pool_ends.end("Trusted", "token 1")
        use(world, Policy("policy", "trusted", filter_ids=frozenset({"unit"})))
        assert set(world.state.pools()) == {POOL}
        assert world.state.pool_ends.walls() == []
        assert world.state.pool_ends.hosts() == []
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == ["h1"]
