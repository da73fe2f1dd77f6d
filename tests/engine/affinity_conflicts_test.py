# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups that contradict the wall."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.engine.affinity_conflicts import conflicts
from ovirt_tcp_plugin.placement.affinity_rules import AffinityRule, EnforcingGroup
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Vm, wall_name
from ovirt_tcp_plugin.placement.pools import Pool

APART = AffinityRule(enabled=True, enforcing=True, positive=False)
POOL = Pool("c1", "Trusted", Scope.ALL_VMS)
VMS = [
    Vm("v1", "web", "c1"),
    Vm("v2", "db", "c1", marked=True),
    Vm("v3", "else", "c2"),
    Vm("v4", "engine", "c1", hosted_engine=True),
]
BOTH = frozenset({"v1", "v2"})
HOSTS_APART = EnforcingGroup(
    "g", "old hosts", "c1", hosts_rule=APART, host_ids=frozenset("ab"), vm_ids=BOTH
)
VMS_APART = EnforcingGroup("g", "pair", "c1", vms_rule=APART, vm_ids=BOTH)


def told(group: EnforcingGroup, pool: Pool = POOL, exempt: tuple[str, ...] = ()) -> list[str]:
    return [one.text for one in conflicts({pool.cluster_id: pool}, VMS, [group], exempt)]


def test_an_enforcing_negative_rule_to_hosts_is_told_with_what_to_do() -> None:
    (found,) = conflicts({"c1": POOL}, VMS, [HOSTS_APART])
    assert found.text.startswith(
        "Affinity group old hosts of cluster Trusted keeps db, web off 2 hosts"
    )
    assert "make the rule not enforcing" in found.next_step


def test_an_enforcing_positive_rule_to_hosts_is_told_too() -> None:
    together = AffinityRule(enabled=True, enforcing=True, positive=True)
    licensed = dataclasses.replace(HOSTS_APART, name="licence", hosts_rule=together)
    (conflict,) = conflicts({"c1": POOL}, VMS, [licensed])
    assert "licence of cluster Trusted keeps db, web on 2 hosts" in conflict.text
    assert "see that hosts of the group are trusted" in conflict.next_step


def test_an_enforcing_negative_rule_between_vms_is_told_with_the_hosts_that_it_needs() -> None:
    (text,) = told(VMS_APART)
    assert "keeps db, web apart" in text
    assert "fewer than 2 hosts" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts_rule": AffinityRule(enabled=False, enforcing=True, positive=False)},
        {"hosts_rule": AffinityRule(enabled=True, enforcing=False, positive=False)},
        {"hosts_rule": AffinityRule(enabled=True, enforcing=False, positive=True)},
        {"host_ids": frozenset()},
        {"vm_ids": frozenset({"v3", "gone"})},
        {"vm_ids": frozenset({"v4"})},
        {"name": wall_name("c1")},
        {"name": f"{wall_name('c1')}-0a1b2c3d"},
        {"cluster_id": "c2"},
    ],
)
def test_what_takes_no_host_from_a_vm_of_the_pool_is_none(changes: dict[str, object]) -> None:
    assert told(dataclasses.replace(HOSTS_APART, **changes)) == []  # type: ignore[arg-type]


def test_vms_that_need_no_trust_do_not_count() -> None:
    marked = dataclasses.replace(POOL, scope=Scope.MARKED_VMS)
    assert "keeps db off" in told(HOSTS_APART, marked)[0]
    assert told(HOSTS_APART, marked, exempt=("v2",)) == []
    assert told(VMS_APART, marked) == []


def test_a_group_of_hundreds_names_the_first() -> None:
    crowd = [Vm(f"v{n}", f"vm{n:03}", "c1") for n in range(200)]
    group = dataclasses.replace(HOSTS_APART, vm_ids=frozenset(vm.id for vm in crowd))
    (found,) = conflicts({"c1": POOL}, crowd, [group])
    assert "vm009 and 190 more" in found.text
