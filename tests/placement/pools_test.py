# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which clusters are trusted pools, and what does not end one."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Cluster, Listing, Policy, Unit, Vm
from ovirt_tcp_plugin.placement.pools import Pool, Pools, exempt_vms, needs_trust

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


def test_two_listings_of_another_policy_end_it_and_name_the_vms(pools: Pools) -> None:
    assert pools.update(MOVED).ended == ()
    assert set(pools.by_cluster) == {"c1"}
    change = pools.update(MOVED)
    assert [pool.cluster_id for pool in change.ended] == ["c1"]
    (notice,) = change.notices
    assert (notice.severity, notice.cluster_id) == ("warning", "c1")
    assert notice.text.endswith("VMs: db.")
    assert pools.by_cluster == {}


def test_a_good_listing_in_between_starts_the_count_anew(pools: Pools) -> None:
    for listing in (MOVED, GOOD, MOVED):
        assert pools.update(listing).ended == ()
    assert set(pools.by_cluster) == {"c1"}


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
def test_nothing_else_ends_a_pool(pools: Pools, listing: Listing) -> None:
    for _ in range(5):
        assert pools.update(listing).ended == ()
    assert set(pools.by_cluster) == {"c1"}


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
