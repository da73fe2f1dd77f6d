# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts, events and single VMs are watched whatever is being listed, and one bad object hurts only
itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.workers import contact, watch
from ovirt_tcp_plugin.engine import client
from ovirt_tcp_plugin.lab.engine import audit_log, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY
from tests.broker.site import EVERYBODY, Site, until

# Far less than a listing takes here. How long it takes is measured by `tests.bench.watching`, on a
# machine that does nothing else.
AT_ONCE_S = 2
SLOW_S = 6.0
FOR_EVER = 1_000_000
MARKED = {MARK_PROPERTY: "true"}


@pytest.fixture
def running(site: Site) -> Site:
    """A pool in which marked VMs need trust."""
    site.engine.model.clusters[site.cluster].properties = {"trust_scope": "marked_vms"}
    engine = dataclasses.replace(site.options.engine, timeout_s=10.0)
    site.options = dataclasses.replace(site.options, engine=engine)
    site.start()
    until(lambda: site.inside() == EVERYBODY and site.trusted_in_snapshot() == EVERYBODY)
    until(site.service.observation.all_known.is_set)
    return site


def begin_slow_listing(site: Site) -> None:
    """Return when a listing of VMs has begun that takes seconds."""
    site.engine.faults.slow_answers = {"api/vms": SLOW_S}
    listings = site.engine.rest.calls["GET vms"]
    until(lambda: site.engine.rest.calls["GET vms"] > listings)


def listings(site: Site) -> int:
    """Return how many complete listings were taken into account."""
    return site.engine.rest.calls["GET clusters"]


def vm_named(site: Site, name: str) -> model.SimulatedVm:
    return next(vm for vm in site.engine.model.vms.values() if vm.name == name)


def is_held(site: Site, vm_id: str) -> bool:
    """Return whether filterd lets a VM run on trusted hosts only: one that is not known, too."""
    return site.snapshot().vms.get(vm_id) is not False


def is_behind_wall(site: Site, vm_id: str) -> bool:
    wall = site.wall()
    return wall is not None and vm_id in wall.vms


def seconds_until(holds: Callable[[], object]) -> float:
    began = time.monotonic()
    until(holds)
    return time.monotonic() - began


def mark(site: Site, name: str) -> model.SimulatedVm:
    """Mark a VM as a PUT of the administrator does."""
    vm = vm_named(site, name)
    vm.custom_properties = dict(MARKED)
    site.engine.model.log(audit_log.VM_UPDATED, f"VM {name} was updated.", vm=vm.id)
    return vm


class TestWhileVmsAreListed:
    def test_a_host_that_loses_power_and_returns_is_not_trusted_again_by_the_listing(
        self, running: Site
    ) -> None:
        begin_slow_listing(running)
        done = listings(running)
        host = running.host("h1")
        running.source.levels["h1.lab"] = Level.TIMEOUT
        running.engine.hosts.power(host, False)
        until(lambda: host.status != "up")
        assert seconds_until(lambda: "h1" not in running.trusted_in_snapshot()) < AT_ONCE_S
        assert seconds_until(lambda: "h1" not in running.inside()) < 3
        running.engine.hosts.power(host, True)
        until(lambda: host.status == "up")
        assert listings(running) == done, "the listing ended too early to prove anything"
        until(lambda: listings(running) > done)
        for _ in range(20):
            assert "h1" not in running.trusted_in_snapshot()
            assert "h1" not in running.inside()
            time.sleep(0.02)

    def test_a_host_that_was_away_between_two_looks_loses_its_verdict_by_the_event(
        self, running: Site
    ) -> None:
        begin_slow_listing(running)
        host = running.host("h1")
        running.source.levels["h1.lab"] = Level.TIMEOUT
        running.engine.model.log(audit_log.HOST_CONNECTING, "and Up again", host=host.id)
        assert seconds_until(lambda: "h1" not in running.trusted_in_snapshot()) < AT_ONCE_S
        assert seconds_until(lambda: "h1" not in running.inside()) < 3

    def test_a_vm_that_is_marked_is_held_at_once_and_the_listing_does_not_undo_it(
        self, running: Site
    ) -> None:
        vm = vm_named(running, "vm1")
        until(lambda: not is_held(running, vm.id))
        begin_slow_listing(running)
        done = listings(running)
        mark(running, "vm1")
        assert seconds_until(lambda: is_held(running, vm.id)) < AT_ONCE_S
        assert seconds_until(lambda: is_behind_wall(running, vm.id)) < 3
        assert listings(running) == done, "the listing ended too early to prove anything"
        until(lambda: listings(running) > done)
        for _ in range(20):
            assert is_held(running, vm.id)
            time.sleep(0.02)

    def test_a_new_marked_vm_is_behind_the_wall_before_any_listing_shows_it(
        self, running: Site
    ) -> None:
        begin_slow_listing(running)
        done = listings(running)
        vm = model.SimulatedVm(
            model.new_id(), "new", running.cluster, custom_properties=dict(MARKED)
        )
        running.engine.model.vms[vm.id] = vm
        running.engine.model.log(audit_log.VM_ADDED, "VM new was created.", vm=vm.id)
        assert is_held(running, vm.id)
        assert seconds_until(lambda: is_behind_wall(running, vm.id)) < 3
        assert listings(running) == done, "the listing ended too early to prove anything"

    def test_a_vm_that_was_removed_is_not_brought_back_by_the_listing(self, running: Site) -> None:
        begin_slow_listing(running)
        vm = vm_named(running, "vm1")
        del running.engine.model.vms[vm.id]
        running.engine.model.log(audit_log.VM_UPDATED, "VM vm1 was updated.", vm=vm.id)
        until(lambda: vm.id not in running.snapshot().vms)
        done = listings(running)
        until(lambda: listings(running) > done)
        assert vm.id not in running.snapshot().vms


class TestUnread:
    def test_a_vm_counts_as_marked_from_its_event_until_it_is_read(self, running: Site) -> None:
        vm = vm_named(running, "vm1")
        until(lambda: not is_held(running, vm.id))
        running.engine.faults.slow_answers = {f"api/vms(/{vm.id})?": 2.0}
        running.engine.model.log(audit_log.VM_UPDATED, "VM vm1 was updated.", vm=vm.id)
        assert seconds_until(lambda: is_held(running, vm.id)) < AT_ONCE_S
        running.engine.faults.slow_answers = {}
        until(lambda: not is_held(running, vm.id))
        until(lambda: not is_behind_wall(running, vm.id))
        codes = {entry["code"] for entry in running.history.find(vm="vm1")}
        assert not codes & {"vm_marked", "vm_unmarked"}

    def test_one_that_hangs_holds_up_no_other(self, running: Site) -> None:
        stuck = vm_named(running, "vm1")
        running.engine.faults.slow_answers = {f"api/vms/{stuck.id}": 8.0}
        running.engine.model.log(audit_log.VM_UPDATED, "VM vm1 was updated.", vm=stuck.id)
        until(lambda: is_held(running, stuck.id))
        other = mark(running, "vm2")
        assert seconds_until(lambda: is_held(running, other.id)) < AT_ONCE_S
        assert seconds_until(lambda: is_behind_wall(running, other.id)) < 3


class TestBadObjects:
    def test_a_vm_whose_next_start_cannot_be_read_counts_as_marked_and_is_told(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 1_000)
        bad = vm_named(running, "vm1")
        bad.next_run = {}
        broken = AnswerFault(faults.BROKEN, "GET", f"api/vms/{bad.id}", FOR_EVER)
        running.engine.faults.answers = [broken]
        until(lambda: is_held(running, bad.id))
        until(lambda: running.told("VM vm1 cannot be read at the engine"))
        new = mark(running, "vm2")
        until(lambda: is_behind_wall(running, new.id))
        running.host("h3").status = "non_operational"
        until(lambda: "h3" not in running.trusted_in_snapshot())
        assert [entry for entry in running.history.find() if entry["code"] == "voided"] == []
        running.engine.faults.answers = []
        until(lambda: not is_held(running, bad.id))
        assert len(running.told("VM vm1 cannot be read at the engine")) == 1

    @pytest.mark.parametrize("path", ["api/vms", "api/clusters", "api/schedulingpolicies"])
    def test_a_list_that_fails_keeps_hosts_watched_and_no_verdict_is_void(
        self, running: Site, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 1_000)
        running.engine.faults.answers = [AnswerFault(faults.BROKEN, "GET", path, FOR_EVER)]
        until(lambda: running.told("The engine cannot be listed, though it answers"))
        running.host("h3").status = "non_operational"
        until(lambda: "h3" not in running.trusted_in_snapshot())
        until(lambda: running.inside() == EVERYBODY - {"h3"})
        running.host("h3").status = "up"
        until(lambda: running.inside() == EVERYBODY)
        assert [entry for entry in running.history.find() if entry["code"] == "voided"] == []
        running.engine.faults.answers = []
        until(lambda: running.told("The engine can be listed again"))

    def test_events_that_cannot_be_read_are_passed_over_and_end_all_verdicts_once(
        self, running: Site
    ) -> None:
        bad = AnswerFault(faults.BROKEN, "GET", "api/events", 0)
        running.engine.faults.answers = [bad]
        list_events = client.Engine.events

        def fail_at_old(engine: client.Engine, after: int) -> Any:
            bad.times = 1 if after < bad_id else 0
            return list_events(engine, after)

        running.engine.model.log(audit_log.VM_UPDATED, "an event that no list can show")
        bad_id = running.engine.model.events[-1].id
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.Engine, "events", fail_at_old)
            until(lambda: running.told("The engine's events cannot be read"))
            until(lambda: running.inside() == EVERYBODY)
            vm = mark(running, "vm1")
            until(lambda: is_held(running, vm.id))
        voided = [entry for entry in running.history.find() if entry["code"] == "voided"]
        assert len(voided) == 1

    def test_events_that_go_on_being_unreadable_end_all_verdicts_again_when_there_are_new_ones(
        self, running: Site
    ) -> None:
        """Each that is passed over may say that a host left Up for a moment."""

        def fail(_: client.Engine, after: int) -> Any:
            raise errors.RequestFailed("the engine", "no list of events")

        def voided() -> int:
            return sum(entry["code"] == "voided" for entry in running.history.find())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.Engine, "events", fail)
            until(lambda: voided() == 1)
            until(lambda: running.trusted_in_snapshot() == EVERYBODY)
            running.source.levels["h1.lab"] = Level.TIMEOUT
            left = audit_log.HOST_TO_MAINTENANCE
            running.engine.model.log(left, "and Up again", host=running.host("h1").id)
            until(lambda: running.trusted_in_snapshot() == EVERYBODY - {"h1"})
        assert len(running.told("The engine's events cannot be read")) == 1

    def test_hosts_are_watched_by_the_whole_list_where_the_short_one_fails(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: client.Engine) -> Any:
            raise errors.Unavailable("the engine", "one host that no list can show")

        monkeypatch.setattr(client.Engine, "hosts_not_up", fail)
        running.engine.faults.slow_answers = {"api/vms": SLOW_S}
        running.host("h3").status = "non_operational"
        until(lambda: "h3" not in running.trusted_in_snapshot())
        until(lambda: running.inside() == EVERYBODY - {"h3"})
        running.host("h3").status = "up"
        until(lambda: running.inside() == EVERYBODY)

    def test_affinity_groups_of_one_cluster_that_fail_leave_its_wall_as_it_was(
        self, running: Site
    ) -> None:
        second = dataclasses.replace(
            running.engine.model.clusters[running.cluster], id=model.new_id(), name="Second"
        )
        running.engine.model.clusters[second.id] = second
        until(lambda: len(running.engine.model.groups) == 2)
        running.engine.faults.answers = [
            AnswerFault(faults.BROKEN, "GET", path, FOR_EVER)
            for path in (f"api/clusters/{second.id}/affinitygroups",)
        ]
        follows = client._clusters_with_groups

        def without_following(system: Any) -> Any:
            list_clusters = system.clusters_service().list

            class Service:
                def list(self, follow: str = "") -> Any:
                    if follow:
                        raise ValueError("one group that no list can show")
                    return list_clusters()

                def __getattr__(self, name: str) -> Any:
                    return getattr(system.clusters_service(), name)

            class System:
                def clusters_service(self) -> Service:
                    return Service()

            return follows(System())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_clusters_with_groups", without_following)
            until(lambda: running.told("fails to list the affinity groups of cluster"))
            running.host("h3").status = "non_operational"
            until(lambda: running.inside() == EVERYBODY - {"h3"})
            assert len(running.engine.model.groups) == 2


class TestCalls:
    def test_an_engine_at_rest_is_asked_less_than_twice_a_second(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "CALM_AFTER_MS", 1_000)
        site.options = dataclasses.replace(site.options, intervals=settings.IntervalOptions())
        site.start()
        until(site.service.observation.all_known.is_set)
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.service.watch.pause_s() == watch.CALM_PAUSE_S)
        before = sum(site.engine.rest.calls.values())
        time.sleep(8)
        calls = sum(site.engine.rest.calls.values()) - before
        assert calls < 2 * 8 + 3
