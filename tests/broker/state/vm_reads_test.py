# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Single VMs that are read, against listings that are older, incomplete or shifted."""

from __future__ import annotations

import dataclasses
from typing import Optional

import pytest

from ovirt_tcp_plugin.broker.state.retries import FAILURES_REPORTED
from ovirt_tcp_plugin.broker.state.vm_reads import AGAIN_MS, VmRequest
from ovirt_tcp_plugin.placement.inventory import Cluster, Group, Listing, Vm
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import POOL, World


class VmWorld(World):
    """A pool in which marked VMs need trust; its listings take as long as the test wants."""

    def __init__(self, vms: int = 3) -> None:
        super().__init__(vms=vms)
        self.cluster = Cluster(POOL, "Trusted", "policy", {"trust_scope": "marked_vms"})
        self.look()
        self.reads = self.state.vm_reads

    def begin_listing(self) -> Listing:
        """Return what a listing that is read now shows; it arrives later."""
        self.start = self.state.begin_listing()
        walls = {POOL: self.wall} if self.wall else {}
        return Listing(
            (self.cluster,),
            (self.policy,),
            self.units,
            tuple(self.hosts),
            tuple(self.vms),
            walls,
        )

    def end_listing(self, listing: Listing) -> None:
        self.state.observe_listing(listing, self.start)

    def mark(self, vm_id: str) -> Optional[bool]:
        """Return a VM's mark in the snapshot, None for a VM that is not known."""
        (snapshot,) = self.state.snapshots()
        return snapshot.vms.get(vm_id)

    def behind_wall(self) -> set[str]:
        self.build()
        assert self.wall is not None
        return set(self.wall.vm_ids)

    def change(self, vm_id: str, **members: bool) -> None:
        """Change a VM at the engine, which writes an event."""
        self.vms = [
            dataclasses.replace(vm, **members) if vm.id == vm_id else vm  # type: ignore[arg-type]
            for vm in self.vms
        ]
        self.reads.changed(vm_id)

    def request(self, failing: bool = False) -> VmRequest:
        request = self.reads.begin(failing)
        assert request is not None
        return request

    def answer(self, request: VmRequest) -> None:
        """Answer as the engine would now."""
        vms = {vm.id: vm for vm in self.vms}
        if request.vm_id in vms:
            self.reads.read(request, vms[request.vm_id])
        else:
            self.reads.gone(request)

    def read_all(self) -> None:
        while (request := self.reads.begin()) is not None:
            self.answer(request)


@pytest.fixture
def world() -> VmWorld:
    return VmWorld()


class TestEvents:
    def test_a_vm_counts_as_marked_until_it_is_read(self, world: VmWorld) -> None:
        assert world.mark("v0") is False
        world.reads.changed("v0")
        assert world.mark("v0") is True
        assert world.behind_wall() == {"v0"}
        world.read_all()
        assert world.mark("v0") is False
        assert world.behind_wall() == set()

    def test_an_answer_from_before_the_last_event_does_not_free_it(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        request = world.request()
        unmarked = world.vms[0]
        world.change("v0", marked=True)
        world.reads.read(request, unmarked)
        assert world.mark("v0") is True
        world.read_all()
        assert world.mark("v0") is True
        assert world.reads.waiting() == frozenset()

    def test_a_late_answer_counts_no_more_once_a_listing_has_shown_the_vm(
        self, world: VmWorld
    ) -> None:
        world.reads.changed("v0")
        request = world.request()
        unmarked = world.vms[0]
        world.look()
        world.change("v0", marked=True)
        world.read_all()
        world.reads.read(request, unmarked)
        assert world.mark("v0") is True
        world.reads.gone(request)
        assert world.mark("v0") is True

    def test_a_vm_is_read_once_more_since_its_event_may_have_come_too_early(
        self, world: VmWorld
    ) -> None:
        world.reads.changed("v0")
        world.reads.changed("new")
        world.read_all()
        assert world.reads.begin() is None
        world.vms[0] = dataclasses.replace(world.vms[0], marked=True)
        world.vms.append(Vm("new", "new", POOL, marked=True))
        world.clock.pass_ms(AGAIN_MS)
        world.read_all()
        assert world.mark("v0") is True
        assert world.mark("new") is True
        world.clock.pass_ms(AGAIN_MS)
        assert world.reads.begin() is None

    def test_an_event_meanwhile_has_it_read_at_once(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        world.read_all()
        world.clock.pass_ms(AGAIN_MS)
        world.reads.changed("v0")
        world.read_all()
        assert world.reads.waiting() == frozenset()

    def test_a_vm_is_read_by_one_thread_at_a_time(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        world.request()
        assert world.reads.begin() is None

    def test_a_new_one_is_behind_the_wall_once_it_is_read(self, world: VmWorld) -> None:
        world.vms.append(Vm("new", "new", POOL, marked=True))
        world.reads.changed("new")
        assert world.mark("new") is None
        world.read_all()
        assert world.mark("new") is True
        assert world.behind_wall() == {"new"}

    def test_one_that_moved_to_another_cluster_leaves_the_wall(self, world: VmWorld) -> None:
        world.change("v0", marked=True)
        world.read_all()
        assert world.behind_wall() == {"v0"}
        world.vms[0] = dataclasses.replace(world.vms[0], cluster_id="elsewhere")
        world.reads.changed("v0")
        world.read_all()
        assert world.mark("v0") is None
        assert world.behind_wall() == set()

    def test_one_that_carries_the_engine_is_exempt_at_once(self, world: VmWorld) -> None:
        world.change("v0", hosted_engine=True)
        world.read_all()
        assert world.state.exempt_vms() == {"v0"}


class TestOlderListing:
    def test_it_does_not_undo_a_mark(self, world: VmWorld) -> None:
        listing = world.begin_listing()
        world.change("v0", marked=True)
        world.read_all()
        world.end_listing(listing)
        assert world.mark("v0") is True
        world.look()
        assert world.mark("v0") is True

    def test_it_does_not_free_a_vm_that_is_not_read_yet(self, world: VmWorld) -> None:
        listing = world.begin_listing()
        world.change("v0", marked=True)
        world.end_listing(listing)
        assert world.mark("v0") is True
        assert world.reads.waiting() == {"v0"}

    def test_nor_one_that_was_marked_before_and_changed_twice(self, world: VmWorld) -> None:
        world.change("v0", marked=True)
        world.read_all()
        world.look()
        world.vms[0] = dataclasses.replace(world.vms[0], marked=False)
        listing = world.begin_listing()
        world.change("v0", marked=True)
        world.end_listing(listing)
        assert world.mark("v0") is True

    def test_nor_a_new_one(self, world: VmWorld) -> None:
        world.vms.append(Vm("new", "new", POOL))
        listing = world.begin_listing()
        world.change("new", marked=True)
        world.end_listing(listing)
        assert world.mark("new") is True

    def test_it_brings_no_vm_back_that_is_gone(self, world: VmWorld) -> None:
        listing = world.begin_listing()
        del world.vms[0]
        world.reads.changed("v0")
        world.read_all()
        world.end_listing(listing)
        assert world.mark("v0") is None

    def test_it_does_not_end_a_vm_that_is_new(self, world: VmWorld) -> None:
        listing = world.begin_listing()
        world.vms.append(Vm("new", "new", POOL, marked=True))
        world.reads.changed("new")
        world.read_all()
        world.end_listing(listing)
        assert world.mark("new") is True

    def test_a_younger_one_is_believed_whatever_was_to_be_read(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        world.look()
        assert world.mark("v0") is False
        assert world.reads.waiting() == frozenset()


class TestMissing:
    """Pages shift when VMs of earlier pages are removed."""

    def test_a_vm_that_one_listing_misses_stays_as_it_was(self, world: VmWorld) -> None:
        world.change("v1", marked=True)
        world.read_all()
        missed = world.vms.pop(1)
        world.look()
        assert world.mark("v1") is True
        assert world.behind_wall() == {"v1"}
        assert "v1" in {vm.id for vm in world.state.listing().vms}
        world.vms.append(missed)
        world.read_all()
        world.look()
        assert world.mark("v1") is True
        assert world.reads.waiting() == frozenset()

    def test_it_is_gone_when_it_is_not_found(self, world: VmWorld) -> None:
        del world.vms[1]
        world.look()
        world.read_all()
        assert world.mark("v1") is None

    def test_it_is_gone_when_the_second_listing_misses_it(self, world: VmWorld) -> None:
        del world.vms[1]
        for _ in range(2):
            world.look()
        assert world.mark("v1") is None
        assert world.reads.waiting() == frozenset()

    def test_the_one_that_carries_the_engine_stays_exempt(self, world: VmWorld) -> None:
        world.change("v0", hosted_engine=True)
        world.read_all()
        del world.vms[0]
        world.look()
        assert world.state.exempt_vms() == {"v0"}

    def test_an_incomplete_listing_ends_no_vm_and_marks_those_that_it_misses(
        self, world: VmWorld
    ) -> None:
        del world.vms[1]
        for _ in range(3):
            listing = dataclasses.replace(world.begin_listing(), nameless_vms=1)
            world.end_listing(listing)
            assert world.mark("v1") is True
        told = [text for text in world.told() if "fails to list 1 VMs" in text]
        assert len(told) == 1
        world.read_all()
        assert world.mark("v1") is None

    def test_a_vm_that_was_missed_and_is_marked_then_stays_marked(self, world: VmWorld) -> None:
        missed = world.vms.pop(1)
        world.end_listing(dataclasses.replace(world.begin_listing(), nameless_vms=1))
        world.vms.append(missed)
        older = world.begin_listing()
        world.change("v1", marked=True)
        world.end_listing(older)
        assert world.mark("v1") is True


class TestUnreadable:
    def test_of_several_vms_that_hang_each_has_its_turn(self, world: VmWorld) -> None:
        turns: list[str] = []
        for vm_id in ("v0", "v1", "v2"):
            world.reads.changed(vm_id)
        for _ in range(3):
            request = world.request()
            world.reads.unreadable(request, "it hangs", answers=True)
        for _ in range(3):
            world.clock.pass_ms(60_000)
            request = world.request(failing=True)
            turns.append(request.vm_id)
            world.reads.unreadable(request, "it hangs", answers=True)
        assert sorted(turns) == ["v0", "v1", "v2"]

    def test_a_vm_of_which_a_listing_does_not_show_all_counts_as_marked(
        self, world: VmWorld
    ) -> None:
        world.vms[0] = dataclasses.replace(world.vms[0], marked=True, next_run=True)
        for _ in range(2):
            listing = dataclasses.replace(world.begin_listing(), unreadable_vms=frozenset({"v0"}))
            world.end_listing(listing)
            assert world.mark("v0") is True
            assert world.reads.waiting() == {"v0"}

    def test_one_that_cannot_be_read_is_told_once_and_others_are_read(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        world.reads.changed("v1")
        for number in range(2 * FAILURES_REPORTED):
            request = world.request(failing=number > 0)
            assert request.vm_id == "v0"
            world.reads.unreadable(request, "the engine fails", answers=True)
            world.clock.pass_ms(60_000)
        world.read_all()
        assert world.mark("v0") is True
        assert world.mark("v1") is False
        assert len([text for text in world.told() if "cannot be read" in text]) == 1

    def test_it_is_tried_again_after_a_pause_only(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        world.reads.unreadable(world.request(), "the engine fails", answers=True)
        assert world.reads.begin() is None
        assert world.reads.begin(failing=True) is None
        world.clock.pass_ms(60_000)
        world.answer(world.request(failing=True))
        assert world.reads.waiting() == frozenset()

    def test_a_fault_of_a_question_that_nobody_waits_for_is_none(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        request = world.request()
        world.look()
        world.reads.unreadable(request, "the engine fails", answers=True)
        assert world.reads.waiting() == frozenset()

    def test_an_engine_that_is_away_is_no_fault_of_the_vm(self, world: VmWorld) -> None:
        world.reads.changed("v0")
        for number in range(2 * FAILURES_REPORTED):
            request = world.request(failing=number > 0)
            world.reads.unreadable(request, "the engine is away", answers=False)
            world.clock.pass_ms(60_000)
        assert world.told() == []
        assert world.mark("v0") is True


class TestHosts:
    def test_one_that_is_new_in_a_listing_is_as_it_shows(self, world: VmWorld) -> None:
        world.hosts.append(dataclasses.replace(world.hosts[0], id="new", address="new.lab"))
        listing = world.begin_listing()
        world.state.observe_hosts_not_up([])
        assert world.state.observe_hosts(listing.hosts, world.start) == ("new",)

    def test_looks_that_show_nothing_new_keep_what_is_known(self, world: VmWorld) -> None:
        world.attest(good=world.ids())
        down = dataclasses.replace(world.hosts[1], status="down")
        for _ in range(3):
            world.state.observe_hosts_not_up([down])
            assert world.inside() == {"h0", "h2", "h3"}
        assert world.state.observe_hosts_not_up([]) == ("h1",)

    def test_such_a_look_sees_what_an_exempt_vm_does_now(self, world: VmWorld) -> None:
        world.attest(good=world.ids()[1:], bad=["h0"])
        world.state.observe_hosts_not_up([])
        world.vms[0] = dataclasses.replace(
            world.vms[0], hosted_engine=True, marked=True, host_id="h0", status="up"
        )
        world.reads.changed("v0")
        world.read_all()
        world.told()
        world.state.observe_hosts_not_up([])
        (text,) = world.told()
        assert "The VM is exempt" in text

    def test_those_that_cannot_be_listed_are_told_once(self, world: VmWorld) -> None:
        for _ in range(2):
            listing = dataclasses.replace(world.begin_listing(), nameless_hosts=2)
            world.end_listing(listing)
        assert len([text for text in world.told() if "fails to list 2 hosts" in text]) == 1

    def test_a_listing_from_before_does_not_bring_a_host_up(self, world: VmWorld) -> None:
        world.attest(good=world.ids())
        assert world.inside() == set(world.ids())
        listing = world.begin_listing()
        down = dataclasses.replace(world.hosts[1], status="down")
        world.state.observe_hosts_not_up([down])
        world.state.observe_hosts(listing.hosts, world.start)
        assert world.inside() == {"h0", "h2", "h3"}

    def test_a_listing_from_before_takes_no_host_down_that_came_up(self, world: VmWorld) -> None:
        down = dataclasses.replace(world.hosts[1], status="down")
        world.hosts[1] = down
        world.state.observe_hosts(world.hosts)
        listing = world.begin_listing()
        assert world.state.observe_hosts_not_up([]) == ("h1",)
        world.attest(good=world.ids())
        world.state.observe_hosts(listing.hosts, world.start)
        assert world.inside() == set(world.ids())

    def test_hosts_that_cannot_be_listed_are_not_up_and_not_forgotten(self, world: VmWorld) -> None:
        world.attest(good=world.ids())
        world.state.observe_hosts(world.hosts[1:], complete=False)
        assert world.inside() == {"h1", "h2", "h3"}
        assert world.state.questions.host_id("host-0") == "h0"

    def test_a_host_that_a_listing_cannot_show_stays_as_the_polls_show_it(
        self, world: VmWorld
    ) -> None:
        world.attest(good=world.ids())
        listing = world.begin_listing()
        world.state.observe_hosts(listing.hosts[1:], world.start, complete=False)
        assert world.inside() == set(world.ids())
        down = dataclasses.replace(world.hosts[0], status="down")
        world.state.observe_hosts_not_up([down])
        world.state.observe_hosts(listing.hosts[1:], world.start, complete=False)
        assert world.inside() == {"h1", "h2", "h3"}

    def test_an_older_listing_does_not_undo_the_list_that_stood_in_for_a_poll(
        self, world: VmWorld
    ) -> None:
        world.attest(good=world.ids())
        listing = world.begin_listing()
        down = dataclasses.replace(world.hosts[1], status="down")
        hosts = [world.hosts[0], down, *world.hosts[2:]]
        world.state.observe_hosts(hosts, complete=False)
        world.state.observe_hosts(listing.hosts, world.start)
        assert world.inside() == {"h0", "h2", "h3"}

    def test_a_wall_that_cannot_be_listed_is_taken_to_be_as_it_was(self, world: VmWorld) -> None:
        world.attest(good=world.ids())
        assert world.inside() == set(world.ids())
        world.told()
        world.wall = None
        listing = dataclasses.replace(world.begin_listing(), unreadable_walls=frozenset({POOL}))
        world.end_listing(listing)
        (plan,) = full_plans(world.state.walls)
        assert isinstance(plan.group, Group)
        assert not plan.steps
        (text,) = world.told()
        assert "fails to list the affinity groups" in text
