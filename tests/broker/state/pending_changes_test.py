# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which plans and snapshots are due after a change."""

from __future__ import annotations

import threading

import pytest

from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.pending_changes import PendingChanges
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.pools import Pool

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def changes() -> PendingChanges:
    inventory = InventoryView(())
    for cluster_id in ("p1", "p2"):
        inventory.pools.by_cluster[cluster_id] = Pool(cluster_id, cluster_id, Scope.ALL_VMS)
    return PendingChanges(threading.RLock(), inventory)


def test_a_host_that_lost_trust_makes_its_snapshot_too_trusting(changes: PendingChanges) -> None:
    changes.touch(walls=False, worse=True, pools=["p1"])
    assert changes.old_snapshots() == ({"p1"}, {"p1"})
    assert changes.are_plans_due()
    assert changes.is_trust_lost()


def test_a_change_of_no_named_pool_concerns_all(changes: PendingChanges) -> None:
    changes.touch()
    assert changes.old_snapshots() == ({"p1", "p2"}, NOTHING)
    assert not changes.is_trust_lost()


def test_a_snapshot_that_could_not_be_written_stays_old(changes: PendingChanges) -> None:
    changes.touch()
    assert changes.written(["p1", "p2"]) == NOTHING
    changes.not_written("p2", urgent=False)
    assert changes.old_snapshots() == ({"p2"}, NOTHING)


def test_one_that_was_urgent_and_could_not_be_written_stays_urgent(changes: PendingChanges) -> None:
    changes.touch(worse=True, pools=["p1"])
    changes.touch(too_free=True, pools=["p2"])
    assert changes.written(["p1", "p2"]) == {"p1", "p2"}
    changes.not_written("p2", urgent=True)
    assert changes.urgent_snapshots() == {"p2"}


def test_what_concerns_no_wall_makes_no_plan_due(changes: PendingChanges) -> None:
    before = changes.revision()
    changes.touch(walls=False)
    assert not changes.are_plans_due()
    assert changes.revision() > before


def test_plans_that_were_begun_are_due_again_after_the_next_change(changes: PendingChanges) -> None:
    changes.touch(worse=True)
    changes.begin_plans()
    assert (changes.are_plans_due(), changes.is_trust_lost()) == (False, False)
    changes.request_plans()
    assert (changes.are_plans_due(), changes.is_trust_lost()) == (True, False)


def test_plans_are_begun_of_the_pools_that_lost_trust(changes: PendingChanges) -> None:
    changes.touch(pools=["p1"])
    changes.touch(worse=True, pools=["p2"])
    assert changes.begin_plans() == {"p2"}
    assert changes.begin_plans() == NOTHING


def test_a_vm_that_needs_trust_now_makes_its_snapshot_urgent(changes: PendingChanges) -> None:
    changes.touch(pools=["p1"], too_free=True)
    assert changes.old_snapshots() == ({"p1"}, NOTHING)
    assert changes.urgent_snapshots() == {"p1"}
    assert not changes.is_trust_lost()
    changes.written(["p1"])
    assert changes.urgent_snapshots() == NOTHING
