# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which clusters are trusted pools, and what does not end one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Cluster, Group, Listing, Policy, Unit, Vm
from ovirt_tcp_plugin.placement.pools import (
    CLUSTER_MAINTENANCE,
    PolicyState,
    Pool,
    Pools,
    exempt_vms,
    needs_trust,
)

UNIT = Unit("unit", "TrustedHosts")
TRUSTED = Policy("trusted", "trusted", {}, frozenset({"memory", "unit"}))
PLAIN = Policy("plain", "none", {}, frozenset({"memory"}))
POOL = Cluster("c1", "Pool", "trusted")
OTHER = Cluster("c2", "Other", "plain")
GOOD = Listing(
    (POOL, OTHER), (TRUSTED, PLAIN), (UNIT,), (), (Vm("v1", "db", "c1"), Vm("v2", "web", "c2"))
)


@pytest.fixture
def pools() -> Pools:
    known = Pools()
    known.update(GOOD)
    return known


def test_a_policy_with_our_unit_makes_a_pool(pools: Pools) -> None:
    assert set(pools.by_cluster) == {"c1"}


@pytest.mark.parametrize(
    ("policys", "clusters", "scope"),
    [
        ("", "", Scope.ALL_VMS),
        ("marked_vms", "", Scope.MARKED_VMS),
        ("marked_vms", "all_vms", Scope.ALL_VMS),
        ("all_vms", "marked_vms", Scope.MARKED_VMS),
        ("", "marked", Scope.ALL_VMS),
        ("", "MARKED_VMS", Scope.ALL_VMS),
    ],
)
def test_the_clusters_own_scope_wins_and_what_is_not_understood_is_strict(
    policys: str, clusters: str, scope: Scope
) -> None:
    pools = Pools()
    policy = dataclasses.replace(TRUSTED, properties={"trust_scope": policys} if policys else {})
    cluster = dataclasses.replace(POOL, properties={"trust_scope": clusters} if clusters else {})
    pools.update(Listing((cluster,), (policy,), (UNIT,), (), ()))
    assert pools.by_cluster["c1"].scope is scope


MOVED = dataclasses.replace(GOOD, clusters=(dataclasses.replace(POOL, policy_id="plain"), OTHER))
UPGRADED = dataclasses.replace(
    GOOD,
    clusters=(dataclasses.replace(POOL, policy_id=CLUSTER_MAINTENANCE), OTHER),
    policies=(TRUSTED, Policy(CLUSTER_MAINTENANCE, "cluster_maintenance", {}, frozenset({"cpu"}))),
)


@pytest.mark.parametrize(
    ("listing", "policy_state", "policy"),
    [
        (MOVED, PolicyState.OTHER, "none"),
        (UPGRADED, PolicyState.UPGRADE, "cluster_maintenance"),
        (GOOD, PolicyState.TRUSTED, "trusted"),
    ],
)
def test_no_policy_ends_a_pool(
    pools: Pools, listing: Listing, policy_state: PolicyState, policy: str
) -> None:
    for _ in range(5):
        assert pools.update(listing).gone == ()
    pool = pools.by_cluster["c1"]
    assert (pool.policy_state, pool.policy) == (policy_state, policy)


@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(Listing((), (), (), (), ()), id="nothing listed"),
        pytest.param(dataclasses.replace(GOOD, units=()), id="no units"),
        pytest.param(dataclasses.replace(GOOD, policies=()), id="no policies"),
        pytest.param(dataclasses.replace(GOOD, policies=(PLAIN,)), id="its policy not listed"),
        pytest.param(
            dataclasses.replace(GOOD, units=(Unit("unit", "TrustedHosts", False),)),
            id="unit disabled",
        ),
        pytest.param(dataclasses.replace(GOOD, units=(Unit("cpu", "CPU"),)), id="unit gone"),
    ],
)
def test_nothing_else_ends_a_pool_or_counts_as_another_policy(
    pools: Pools, listing: Listing
) -> None:
    for _ in range(5):
        assert pools.update(listing).gone == ()
    assert pools.by_cluster["c1"].policy_state in (PolicyState.TRUSTED, PolicyState.UNKNOWN)


@pytest.mark.parametrize("listing", [MOVED, UPGRADED, dataclasses.replace(GOOD, units=())])
def test_under_another_policy_the_same_vms_need_trust_as_before(listing: Listing) -> None:
    pools = Pools()
    lax = dataclasses.replace(TRUSTED, properties={"trust_scope": "marked_vms"})
    pools.update(dataclasses.replace(GOOD, policies=(lax, PLAIN)))
    pools.update(listing)
    assert pools.by_cluster["c1"].scope is Scope.MARKED_VMS


def test_a_policy_without_the_filter_of_affinity_groups_keeps_no_wall(pools: Pools) -> None:
    listing = dataclasses.replace(MOVED, units=(UNIT, Unit("affinity", "VmToHostsAffinityGroups")))
    pools.update(listing)
    assert not pools.by_cluster["c1"].keeps_wall
    keeping = dataclasses.replace(PLAIN, filter_ids=frozenset({"affinity"}))
    pools.update(dataclasses.replace(listing, policies=(TRUSTED, keeping)))
    assert pools.by_cluster["c1"].keeps_wall


def test_a_pool_whose_cluster_is_gone_ends_with_the_second_listing(pools: Pools) -> None:
    gone = dataclasses.replace(GOOD, clusters=(OTHER,))
    assert pools.update(gone).gone == ()
    pools.update(GOOD)
    assert pools.update(gone).gone == ()
    assert [pool.name for pool in pools.update(gone).gone] == ["Pool"]
    assert pools.by_cluster == {}


@pytest.mark.parametrize("listing", [MOVED, UPGRADED, dataclasses.replace(MOVED, units=())])
def test_where_nothing_is_remembered_a_wall_makes_a_pool_in_which_all_vms_need_trust(
    listing: Listing,
) -> None:
    pools = Pools()
    walled = dataclasses.replace(listing, walls={"c1": Group("wall", "ovirt-tcp-wall")})
    assert [pool.name for pool in pools.update(walled).adopted] == ["Pool"]
    assert pools.by_cluster["c1"].scope is Scope.ALL_VMS
    assert pools.update(walled).adopted == ()


def test_a_wall_makes_no_pool_where_a_person_ended_it(pools: Pools) -> None:
    walled = dataclasses.replace(MOVED, walls={"c1": Group("wall", "ovirt-tcp-wall")})
    pools.update(walled)
    pools.end("c1")
    pools.update(walled, ended={"c1"})
    assert pools.by_cluster == {}
    pools.update(GOOD, ended={"c1"})
    assert set(pools.by_cluster) == {"c1"}


@pytest.mark.parametrize("listing", [GOOD, MOVED, UPGRADED])
def test_a_restart_knows_the_pools_as_before(pools: Pools, listing: Listing) -> None:
    pools.update(listing)
    restored = Pools()
    restored.restore(json.loads(json.dumps(pools.encode())))
    assert restored.by_cluster == pools.by_cluster


def test_trusted_service_is_reported_with_the_way_out() -> None:
    cluster = dataclasses.replace(POOL, trusted_service=True)
    (notice,) = Pools().update(dataclasses.replace(GOOD, clusters=(cluster,))).notices
    assert "trusted_service" in notice.text
    assert "switch it off" in notice.text


STRICT, LAX = Pool("c1", "Pool", Scope.ALL_VMS), Pool("c1", "Pool", Scope.MARKED_VMS)
DB, ENGINE = Vm("v1", "db", "c1"), Vm("v3", "engine", "c1", hosted_engine=True)
MARKED = dataclasses.replace(DB, marked=True)


@pytest.mark.parametrize(
    ("vm", "pool", "exempt", "needs"),
    [
        pytest.param(DB, STRICT, (), True, id="any VM where all need trust"),
        pytest.param(MARKED, LAX, (), True, id="marked where marked ones need it"),
        pytest.param(DB, LAX, (), False, id="not marked where marked ones need it"),
        pytest.param(MARKED, STRICT, ("v1",), False, id="exempt"),
        pytest.param(MARKED, None, (), False, id="outside of all pools"),
    ],
)
def test_who_needs_trust(vm: Vm, pool: Pool | None, exempt: tuple[str, ...], needs: bool) -> None:
    assert needs_trust(vm, pool, exempt) is needs


def test_the_vm_that_carries_the_engine_is_exempt_beside_those_of_the_option() -> None:
    assert exempt_vms(("v9",), (DB, ENGINE)) == {"v9", "v3"}
