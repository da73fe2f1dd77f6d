# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VMs that lose the trust they were given, or ask in vain for it: each is told once, whatever
events get lost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping

import pytest

from ovirt_tcp_plugin.broker.state import vm_records
from ovirt_tcp_plugin.broker.state.vm_records import (
    CLONED,
    FROM_TRUSTED,
    IMPORTED,
    VmListing,
    VmRecords,
)
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Vm
from ovirt_tcp_plugin.placement.pools import Pool

STRICT, MARKED, PLAIN, OTHER = "strict", "marked", "plain", "other"
POOLS = {
    STRICT: Pool(STRICT, "Strict", Scope.ALL_VMS),
    MARKED: Pool(MARKED, "Marked", Scope.MARKED_VMS),
}
CLUSTERS = {STRICT: "Strict", MARKED: "Marked", PLAIN: "Plain", OTHER: "Other"}
ANY = Vm("any", "any", OTHER)


class World:
    """Some VMs in two pools and two other clusters, and the records of them."""

    def __init__(self, *vms: Vm) -> None:
        self.records, self.vms = VmRecords(), {vm.id: vm for vm in (ANY, *vms)}
        self.pools: Mapping[str, Pool] = POOLS
        self.exempt: Collection[str] = ()
        self.look()

    def listing(self) -> VmListing:
        return VmListing(list(self.vms.values()), CLUSTERS, self.pools, self.exempt)

    def look(self, **causes: Collection[str]) -> list[tuple[str, str]]:
        """Compare another listing; return (code, sentence) of the warnings."""
        self.news, notices, self.changed = self.records.observe(self.listing(), causes)
        return [(one.code, one.fault) for one in self.news if one.fault] + [
            (one.code, one.text) for one in notices
        ]

    def codes(self, **causes: Collection[str]) -> list[str]:
        return [code for code, _ in self.look(**causes)]

    def hooks(self) -> list[str]:
        return [one.name for one in self.news]

    def put(self, cluster: str, marked: bool = False, uid: str = "web") -> None:
        self.vms[uid] = Vm(uid, uid, cluster, marked=marked)

    def remove(self, uid: str = "web") -> None:
        del self.vms[uid]
        self.look()


def web(cluster: str, marked: bool = False) -> Vm:
    return Vm("web", "web", cluster, marked=marked)


class TestMoved:
    def test_out_of_a_pool_of_all_vms(self) -> None:
        world = World(web(STRICT))
        world.put(PLAIN)
        ((code, text),) = world.look()
        assert code == "vm_left_trust"
        assert text == (
            "VM web needed a trusted host in pool Strict, and is now in cluster Plain, which is no "
            "trusted pool: "
            "it may run on any host."
        )
        assert world.hooks() == ["vm_moved"]
        assert world.look() == []

    def test_to_a_pool_where_it_needs_none(self) -> None:
        world = World(web(STRICT))
        world.put(MARKED)
        ((_, text),) = world.look()
        assert "is now in pool Marked, where only marked VMs need trust" in text

    def test_with_its_mark_out_of_all_pools(self) -> None:
        world = World(web(MARKED, marked=True))
        world.put(PLAIN, marked=True)
        ((code, text),) = world.look()
        assert (code, "nothing keeps it on trusted hosts" in text) == ("vm_marked_outside", True)

    @pytest.mark.parametrize(
        ("before", "after"), [(PLAIN, OTHER), (PLAIN, STRICT), (MARKED, PLAIN), (MARKED, STRICT)]
    )
    def test_where_nothing_is_lost_nothing_is_told(self, before: str, after: str) -> None:
        world = World(web(before))
        world.put(after)
        assert world.look() == []
        assert world.hooks() == ["vm_moved"]

    def test_out_and_in_and_out_again_is_told_each_time(self) -> None:
        world = World(web(STRICT))
        told = []
        for cluster in (PLAIN, STRICT, PLAIN):
            world.put(cluster)
            told += world.codes()
        assert told == ["vm_left_trust"] * 2


class TestMark:
    def test_lost_in_a_pool_of_marked_vms(self) -> None:
        world = World(web(MARKED, marked=True))
        world.put(MARKED)
        ((code, text),) = world.look()
        assert code == "vm_unmarked"
        assert "lost its mark trusted_host_flag" in text
        assert world.hooks() == ["vm_marked"]

    def test_lost_where_all_vms_need_trust_changes_nothing(self) -> None:
        world = World(web(STRICT, marked=True))
        world.put(STRICT)
        assert world.look() == []

    def test_given_outside_of_all_pools_is_told_once(self) -> None:
        world = World(web(PLAIN))
        world.put(PLAIN, marked=True)
        assert world.codes() == ["vm_marked_outside"]
        assert [world.codes(), world.codes(web={CLONED})] == [[], []]
        world.put(PLAIN)
        assert world.look() == []
        world.put(PLAIN, marked=True)
        assert world.codes() == ["vm_marked_outside"]

    def test_given_in_a_pool_is_no_fault(self) -> None:
        world = World(web(MARKED))
        world.put(MARKED, marked=True)
        assert world.look() == []
        assert world.hooks() == ["vm_marked"]


class TestImported:
    @pytest.mark.parametrize("event", [True, False])
    def test_one_that_needed_trust_before_it_was_removed(self, event: bool) -> None:
        """A dropped event changes neither hook nor warning: the id is known."""
        world = World(web(STRICT))
        world.remove()
        world.put(PLAIN)
        assert world.codes(**({"web": {IMPORTED}} if event else {})) == ["vm_left_trust"]
        assert world.hooks() == ["vm_imported"]
        assert world.look() == []

    def test_with_its_mark_dropped(self) -> None:
        world = World(web(MARKED, marked=True))
        world.remove()
        world.put(MARKED)
        assert world.codes(web={IMPORTED}) == ["vm_left_trust"]

    def test_one_that_nobody_knows_with_a_mark_that_no_pool_heeds(self) -> None:
        world = World()
        world.put(PLAIN, marked=True)
        assert world.codes(web={IMPORTED}) == ["vm_marked_outside"]

    @pytest.mark.parametrize("late", [True, False])
    def test_one_that_the_engine_says_comes_from_a_trusted_cluster(self, late: bool) -> None:
        world = World()
        world.put(PLAIN)
        first = world.codes(**({} if late else {"web": {IMPORTED, FROM_TRUSTED}}))
        second = world.codes(**({"web": {FROM_TRUSTED}} if late else {}))
        assert first + second == ["vm_from_trusted_cluster"]

    def test_the_engines_word_is_not_told_beside_our_own(self) -> None:
        world = World(web(STRICT))
        world.remove()
        world.put(PLAIN)
        assert world.codes(web={IMPORTED, FROM_TRUSTED}) == ["vm_left_trust"]
        assert world.codes(web={FROM_TRUSTED}) == []

    def test_into_a_pool_that_keeps_it_is_no_fault(self) -> None:
        world = World(web(PLAIN))
        world.remove()
        world.put(STRICT)
        assert world.codes(web={IMPORTED, FROM_TRUSTED}) == []


def test_a_clone_is_judged_by_its_own_mark_and_place() -> None:
    world = World(web(MARKED, marked=True))
    world.put(MARKED, marked=True, uid="copy")
    assert world.codes(copy={CLONED}) == []
    assert world.hooks() == ["vm_cloned"]
    world.put(PLAIN, marked=True, uid="copy-2")
    assert world.codes(**{"copy-2": {CLONED}}) == ["vm_marked_outside"]


class TestPools:
    def test_one_that_ends_is_told_of_as_a_whole_and_not_here(self) -> None:
        world = World(web(STRICT, marked=True))
        world.pools = {MARKED: POOLS[MARKED]}
        assert world.look() == []

    def test_a_scope_that_widens_is_one_warning_with_the_names(self) -> None:
        world = World(*(Vm(f"v{n}", f"vm-{n}", STRICT, marked=n == 0) for n in range(30)))
        world.pools = {STRICT: dataclasses.replace(POOLS[STRICT], scope=Scope.MARKED_VMS)}
        ((code, text),) = world.look()
        assert code == "pool_scope"
        assert text.endswith("and 9 more.")
        assert world.look() == []


def test_the_first_look_tells_only_what_is_wrong() -> None:
    world = World(web(PLAIN, marked=True), Vm("v1", "vm-1", STRICT))
    assert [(one.name, one.code) for one in world.news] == [("vm_added", "vm_marked_outside")]


def test_exempt_vms_are_nobodys_worry() -> None:
    world = World(web(STRICT, marked=True))
    world.exempt = {"web"}
    assert world.look() == []
    world.put(PLAIN, marked=True)
    assert world.look() == []


def test_a_listing_without_vms_loses_nothing() -> None:
    world = World(web(STRICT))
    kept, world.vms = world.vms, {}
    assert world.look() == []
    world.vms = kept
    assert world.look() == []


def test_only_what_changed_is_to_be_saved() -> None:
    world = World(*(Vm(f"v{n}", f"vm-{n}", STRICT) for n in range(100)))
    assert len(world.changed) == 101
    world.look()
    assert world.changed == set()
    world.remove("v3")
    assert world.changed == {"v3"}


def test_the_longest_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_records, "MAX_GONE", 2)
    world = World(*(Vm(f"v{n}", f"vm-{n}", STRICT) for n in range(4)))
    for n in (2, 0, 1):
        world.remove(f"v{n}")
    assert {uid for uid, record in world.records.by_id.items() if record.gone} == {"v0", "v1"}
    assert world.changed == {"v1", "v2"}


def test_whatever_happens_a_vm_that_may_run_anywhere_after_it_needed_trust_was_told_of() -> None:
    """All ways of three steps through all places: each loss is told exactly once."""
    places = [(cluster, marked) for cluster in (STRICT, MARKED, PLAIN) for marked in (False, True)]
    for steps in itertools.product([None, *places], repeat=3):
        world, needed = World(web(STRICT)), True
        for step in steps:
            if step is None:
                world.vms.pop("web", None)
                assert world.look() == []
                continue
            world.put(*step)
            told, again = world.codes(), world.codes()
            needs = step[0] == STRICT or step == (MARKED, True)
            if needed and not needs:
                assert len(told) == 1, steps
            if needs:
                assert told == [], steps
            assert again == []
            needed = needs
