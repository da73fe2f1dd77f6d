# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is reported of the scheduling policies of pools, and how often."""

from __future__ import annotations

import dataclasses
import random

import pytest

from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.policy_watch import REPORTED_EVERY_MS
from ovirt_tcp_plugin.placement.inventory import Notice, Policy, Unit
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.broker.state.world import POOL, World

OURS = Policy("policy", "trusted", filter_ids=frozenset({"unit", "affinity"}))
OTHER = Policy("other", "power_saving", filter_ids=frozenset({"affinity"}))
BARE = Policy("bare", "bare")
UPGRADE = Policy(CLUSTER_MAINTENANCE, "cluster_maintenance", filter_ids=frozenset({"affinity"}))


@pytest.fixture
def world() -> World:
    made = World()
    made.units = (*made.units, Unit("affinity", "VmToHostsAffinityGroups"))
    use(made, OURS)
    return made


def use(world: World, policy: Policy) -> list[Notice]:
    """Give the cluster a policy, and let the broker look; return the new events."""
    world.policy = policy
    world.cluster = dataclasses.replace(world.cluster, policy_id=policy.id)
    world.state.outbox.take()
    world.look()
    return [notice for notice in world.state.outbox.take() if notice.event]


def restart(world: World, policy: Policy) -> list[Notice]:
    """Restart the broker while the cluster has this policy; return the new events."""
    world.policy = policy
    world.cluster = dataclasses.replace(world.cluster, policy_id=policy.id)
    world.restart()
    return [notice for notice in world.state.outbox.take() if notice.event]


def codes(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(notice.severity, notice.code) for notice in notices]


def test_another_policy_is_an_error_at_once_with_both_ways_out(world: World) -> None:
    (notice,) = use(world, OTHER)
    assert (notice.severity, notice.code, notice.cluster_id) == ("error", "pool_policy", POOL)
    assert "Cluster Trusted has the scheduling policy power_saving" in notice.text
    assert "its wall, attestation and quarantine go on" in notice.text
    assert "Give it back its policy, or end the pool: ovirt-tcp pool end Trusted" in notice.text


def test_a_policy_that_keeps_no_wall_is_told_to_keep_none(world: World) -> None:
    (notice,) = use(world, BARE)
    assert "so its wall stops nobody" in notice.text


def test_another_policy_is_repeated_daily_until_it_is_back(world: World) -> None:
    use(world, OTHER)
    world.clock.pass_ms(REPORTED_EVERY_MS - 1)
    assert use(world, OTHER) == []
    world.clock.pass_ms(1)
    assert codes(use(world, OTHER)) == [("error", "pool_policy")]
    assert use(world, OTHER) == []
    assert codes(use(world, OURS)) == [("normal", "pool_policy_back")]
    assert use(world, OURS) == []
    assert codes(use(world, OTHER)) == [("error", "pool_policy")]


def test_an_upgrade_is_told_once_at_its_begin_and_once_at_its_end(world: World) -> None:
    assert codes(use(world, UPGRADE)) == [("normal", "pool_upgrade")]
    world.clock.pass_ms(2 * REPORTED_EVERY_MS)
    assert use(world, UPGRADE) == []
    assert codes(use(world, OURS)) == [("normal", "pool_upgrade_ended")]
    assert use(world, OURS) == []


def test_an_upgrade_that_ends_in_another_policy_is_an_error(world: World) -> None:
    use(world, UPGRADE)
    assert codes(use(world, OTHER)) == [("error", "pool_policy")]


def test_a_restart_repeats_no_begin_and_misses_no_end(world: World) -> None:
    use(world, UPGRADE)
    assert restart(world, UPGRADE) == []
    assert codes(restart(world, OURS)) == [("normal", "pool_upgrade_ended")]


def test_a_restart_repeats_the_error_of_another_policy(world: World) -> None:
    use(world, OTHER)
    assert codes(restart(world, OTHER)) == [("error", "pool_policy")]


def test_a_listing_without_policies_says_nothing(world: World) -> None:
    use(world, UPGRADE)
    units = world.units
    world.units = ()
    assert use(world, UPGRADE) == []
    world.units = units
    assert use(world, UPGRADE) == []


def test_a_pool_that_only_its_wall_shows_is_told_with_who_needs_trust(world: World) -> None:
    world.state = BrokerState(world.options, world.clock, random.random)
    adopted, upgrade = use(world, UPGRADE)
    assert (adopted.severity, adopted.code) == ("warning", "pool_adopted")
    assert "counts as a trusted pool because of its wall" in adopted.text
    assert "All of its VMs need trusted hosts" in adopted.text
    assert upgrade.code == "pool_upgrade"
    assert use(world, UPGRADE) == []
