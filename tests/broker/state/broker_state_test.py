# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What follows from what the broker knows: placement, wall, quarantine and guard, on a clock of the
test's own."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from typing import Any

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.wall_plan import Edit
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Group, Host, Listing, Vm
from tests.broker.state.full_plans import full_plans
from tests.broker.state.world import LIFE, OPTIONS, POOL, World


class TestChange:
    """What has walls looked at again, and what has a plan under way given up."""

    def look_away(self, world: World) -> None:
        world.state.changes.begin_plans()

    def seen(self, world: World) -> tuple[bool, bool]:
        return world.state.changes.are_plans_due(), world.state.changes.is_trust_lost()

    def test_a_renewed_verdict_concerns_no_wall(self) -> None:
        world = World()
        world.attest(good=world.ids())
        self.look_away(world)
        revision = world.state.changes.revision()
        world.clock.pass_ms(1000)
        world.attest(good=world.ids())
        assert self.seen(world) == (False, False)
        assert world.state.changes.revision() > revision

    def test_a_host_that_becomes_trusted_can_wait(self) -> None:
        world = World()
        self.look_away(world)
        world.attest(good=["h0"])
        assert self.seen(world) == (True, False)

    @pytest.mark.parametrize("lose", ["attest", "status", "void", "host_restarted", "remove"])
    def test_a_host_that_loses_trust_cannot(self, lose: str) -> None:
        world = World()
        world.attest(good=world.ids())
        self.look_away(world)
        if lose == "attest":
            world.attest(bad=["h1"])
        elif lose == "status":
            world.status("h1", "non_responsive")
        elif lose == "void":
            world.state.void("engine_restarted", "the engine restarted")
        elif lose == "host_restarted":
            world.state.host_restarted("h1")
        else:
            del world.hosts[1]
            world.look()
        assert self.seen(world) == (True, True)

    def test_servers_that_fall_silent_concern_walls_once(self) -> None:
        world = World()
        world.attest(good=world.ids())
        self.look_away(world)
        world.state.questions.nobody_answered(["h0"], "dead")
        assert self.seen(world) == (True, False)
        self.look_away(world)
        world.state.questions.nobody_answered(["h1"], "dead")
        assert self.seen(world) == (False, False)


class TestPlacement:
    def test_nobody_is_inside_before_the_first_verdict(self) -> None:
        world = World()
        assert world.inside() == set()
        assert world.wall is not None
        assert world.wall.vm_ids == {"v0", "v1"}

    def test_each_stage_is_acted_on_as_it_returns(self) -> None:
        world = World()
        world.attest(good=["h0", "h1"])
        assert world.inside() == {"h0", "h1"}

    def test_untrusted_leaves_wall_and_snapshot_at_once(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        world.attest(bad=["h1"])
        assert world.inside() == {"h0", "h2", "h3"}
        (snapshot,) = world.state.snapshots()
        assert snapshot.hosts["h1"].level is Level.UNTRUSTED

    def test_a_host_that_leaves_up_leaves_the_wall_at_once_and_needs_a_new_verdict(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        world.status("h2", "reboot")
        assert world.inside() == {"h0", "h1", "h3"}
        world.status("h2", "up")
        assert world.inside() == {"h0", "h1", "h3"}
        world.clock.pass_ms(1000)
        world.attest(good=["h2"])
        assert world.inside() == {"h0", "h1", "h2", "h3"}

    def test_hosts_that_share_a_name_are_both_refused(self) -> None:
        world = World()
        world.hosts[1] = dataclasses.replace(world.hosts[1], address=world.hosts[0].address.upper())
        world.look()
        assert {"h0", "h1"}.isdisjoint(world.state.questions.due(10))
        decision = world.state.case("vm-0", "host-1").decision
        assert decision is not None
        assert (decision.allowed, decision.code) == (False, "name_shared")

    def test_after_a_restart_they_are_refused_too(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        saved: dict[str, Any] = json.loads(json.dumps(world.state.encode()))
        world.hosts.append(Host("other", "other", "H1.lab", "elsewhere", "up"))
        world.state = BrokerState(OPTIONS, world.clock, random.random)
        world.state.restore(saved)
        world.look()
        assert world.inside() == {"h0", "h2", "h3"}
        assert world.state.changes.is_trust_lost()
        trusted = {state.host.id for state in world.state.host_states() if state.trusted}
        assert trusted == {"h0", "h2", "h3"}

    def test_one_that_shares_its_name_is_no_other_trusted_host(self) -> None:
        world = World(hosts=2)
        world.attest(good=world.ids())
        saved: dict[str, Any] = json.loads(json.dumps(world.state.encode()))
        world.hosts.append(Host("other", "other", "h1.lab", "elsewhere", "up"))
        world.state = BrokerState(OPTIONS, world.clock, random.random)
        world.state.restore(saved)
        world.look()
        world.attest(bad=["h0"])
        assert world.leaving() == set()

    def test_a_host_that_lost_its_name_to_another_data_centres_is_told_once(self) -> None:
        world = World()
        other = Host("other", "old", world.hosts[0].address.upper(), "other", "down")
        world.hosts.append(other)
        for _ in range(2):
            world.look()
        (text,) = [text for text in world.told() if "same name" in text]
        assert text.startswith("Host host-0 has the same name at the attestation server")
        world.hosts.remove(other)
        world.look()
        assert world.state.questions.due(10)

    def test_the_hosted_engine_and_exempt_vms_stay_outside(self) -> None:
        options = dataclasses.replace(OPTIONS, pools=settings.PoolOptions(exempt_vms=("v0",)))
        world = World(options=options, vms=3)
        world.vms[1] = dataclasses.replace(world.vms[1], hosted_engine=True)
        world.look()
        world.build()
        assert world.wall is not None
        assert world.wall.vm_ids == {"v2"}

    def test_a_large_pool_is_planned_fast(self) -> None:
        """Under the lock, many times a second: it may not grow with the square of the VMs."""
        world = World(hosts=50, vms=4000)
        world.attest(good=world.ids())
        world.build()
        began = time.perf_counter()
        full_plans(world.state.walls)
        world.state.snapshots()
        assert time.perf_counter() - began < 0.2


class TestSilence:
    def test_one_silent_host_leaves_at_its_end(self) -> None:
        world = World()
        world.attest(good=["h0"])
        world.inside()
        world.clock.pass_ms(LIFE // 2)
        world.attest(good=["h1", "h2", "h3"])
        assert world.inside() == {"h0", "h1", "h2", "h3"}
        world.clock.pass_ms(LIFE // 2)
        assert world.inside() == {"h1", "h2", "h3"}
        assert world.leaving() == set()

    def test_when_no_server_answers_no_host_leaves_singly_and_all_at_the_last_end(self) -> None:
        world = World()
        for host_id in world.ids():
            world.attest(good=[host_id])
            world.clock.pass_ms(60_000)
        everybody = set(world.ids())
        assert world.inside() == everybody
        world.state.questions.nobody_answered(world.ids(), "refused")
        while world.clock.ms < 1_000_000 + LIFE + 180_000 - 1:
            assert world.inside() == everybody
            assert world.leaving() == set()
            world.clock.pass_ms(29_999)
            world.state.questions.nobody_answered(world.ids(), "refused")
        world.clock.pass_ms(30_000)
        assert world.inside() == set()
        assert world.leaving() == set()

    def test_each_host_is_refused_from_its_own_end_all_the_same(self) -> None:
        world = World()
        world.attest(good=["h0"])
        world.clock.pass_ms(60_000)
        world.attest(good=["h1"])
        world.state.questions.nobody_answered(world.ids(), "refused")
        world.clock.pass_ms(LIFE - 60_000)
        refused, allowed = (
            world.state.case("vm-0", host).decision for host in ("host-0", "host-1")
        )
        assert refused is not None
        assert allowed is not None
        assert (refused.allowed, refused.code, allowed.allowed) == (False, "verdict_ended", True)

    def test_a_host_that_leaves_up_leaves_even_then(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        world.state.questions.nobody_answered(world.ids(), "refused")
        world.status("h0", "non_responsive")
        assert world.inside() == {"h1", "h2", "h3"}

    def test_a_paused_machine_trusts_nobody(self) -> None:
        world = World()
        world.state.watch_clock()
        world.attest(good=world.ids())
        world.clock.pass_ms(1000)
        assert not world.state.watch_clock()
        world.clock.utc_ms += 61_000
        assert world.state.watch_clock()
        assert world.inside() == set()

    def test_a_pause_while_the_broker_was_down_counts_too(self) -> None:
        world = World()
        world.attest(good=world.ids())
        saved = world.state.encode()
        for paused_ms, kept in ((0, set(world.ids())), (61_000, set())):
            world.clock.utc_ms += paused_ms
            world.state = BrokerState(world.options, world.clock, random.random)
            world.state.restore(saved)
            world.look()
            assert world.inside() == kept

    def test_a_clock_set_back_voids_nothing_and_extends_nothing(self) -> None:
        world = World()
        world.state.watch_clock()
        world.attest(good=world.ids())
        world.clock.utc_ms -= 3_600_000
        assert not world.state.watch_clock()
        assert world.inside() == set(world.ids())
        world.clock.pass_ms(LIFE)
        assert world.inside() == set()

    def test_an_engine_restart_changes_no_host(self) -> None:
        world = World()
        world.attest(good=["h0", "h1"], bad=["h2"])
        world.clock.pass_ms(1000)
        world.state.void("engine_restarted", "the engine restarted")
        assert world.inside() == set()
        assert world.leaving() == set()


class TestQuarantine:
    def test_an_untrusted_host_leaves_with_its_reason(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        ((host_id, reason),) = world.state.quarantine.to_deactivate()
        assert (host_id, reason) == (
            "h1",
            "ovirt-tcp: not trusted (pcr_differs): PCR 17 is not the known one",
        )
        assert any(
            "host-1 is untrusted (pcr_differs): PCR 17 is not the known one" in text
            for text in world.told()
        )

    @pytest.mark.parametrize("level", [Level.UNKNOWN, Level.TIMEOUT])
    def test_unreachable_is_not_tampered(self, level: Level) -> None:
        world = World()
        world.attest(good=world.ids())
        world.clock.pass_ms(2 * LIFE)
        world.state.questions.record({"h1": Answer(level, world.clock.ms, code="no_answer")})
        assert world.leaving() == set()

    def test_ours_returns_when_it_attests_well_and_is_attested_again(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        (detail,) = [reason for _, reason in world.state.quarantine.to_deactivate()]
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", detail)
        world.clock.pass_ms(34_000)
        assert "h1" in world.state.questions.due(10)
        assert world.state.quarantine.to_activate() == []
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == ["h1"]
        world.state.quarantine.activated("h1")
        world.status("h1", "up")
        assert "h1" not in world.inside()
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert "h1" in world.inside()
        assert world.leaving() == set()

    def test_ours_that_attests_well_before_it_is_seen_to_be_away_is_asked_again(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        assert world.leaving() == {"h1"}
        world.state.quarantine.deactivated("h1")
        world.attest(good=["h1"])
        world.status("h1", "maintenance", "ovirt-tcp: not trusted")
        assert world.state.questions.due(10) == ["h1"]

    def test_an_administrators_maintenance_is_never_ended(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.status("h1", "maintenance", "new memory modules")
        world.clock.pass_ms(34_000)
        assert "h1" not in world.state.questions.due(10)
        world.attest(bad=["h1"])
        world.attest(good=["h1"])
        assert (world.leaving(), world.state.quarantine.to_activate()) == (set(), [])

    def test_ours_is_known_again_after_a_restart_even_without_its_state(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        (detail,) = [reason for _, reason in world.state.quarantine.to_deactivate()]
        world.state = BrokerState(world.options, world.clock, random.random)
        world.look()
        world.status("h1", "maintenance", detail)
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == ["h1"]

    def test_a_refusal_is_said_once_and_tried_again_later(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        world.told()
        told = []
        for _ in range(3):
            assert world.leaving() == {"h1"}
            world.state.quarantine.deactivated("h1", "pinned VMs")
            assert world.leaving() == set()
            told += world.told()
            world.clock.pass_ms(LIFE // 2)
            world.attest(good=["h0", "h2", "h3"])
        assert [text for text in told if "maintenance was refused: pinned VMs" in text] == told
        assert len(told) == 1

    def test_a_host_that_recovered_before_maintenance_stays(self) -> None:
        world = World()
        world.attest(good=world.ids())
        world.attest(bad=["h1"])
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.leaving() == set()
        assert "h1" in world.inside()


class TestGuard:
    def tripped(self, hosts: int = 10) -> World:
        world = World(hosts=hosts)
        world.attest(good=world.ids())
        world.attest(bad=["h0", "h1", "h2"])
        return world

    def test_a_few_hosts_leave(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.attest(bad=["h0", "h1"])
        assert world.leaving() == {"h0", "h1"}

    def test_a_mass_event_evacuates_no_pool_but_refuses_placement(self) -> None:
        world = self.tripped()
        assert world.leaving() == set()
        assert world.inside() == {f"h{n}" for n in range(3, 10)}
        assert len([text for text in world.told() if "guard release" in text]) == 1

    def test_later_ones_are_held_too(self) -> None:
        world = self.tripped()
        world.clock.pass_ms(1000)
        world.attest(bad=["h3"])
        assert world.leaving() == set()

    def test_release_lets_them_leave(self) -> None:
        world = self.tripped()
        assert world.state.quarantine.decide(release=True) == ["host-0", "host-1", "host-2"]
        assert world.leaving() == {"h0", "h1", "h2"}

    def test_reject_leaves_them_in_service_until_they_attest_well(self) -> None:
        world = self.tripped()
        world.state.quarantine.decide(release=False)
        assert world.leaving() == set()
        assert "h0" not in world.inside()
        world.clock.pass_ms(LIFE)
        world.attest(good=world.ids())
        assert "h0" in world.inside()
        world.attest(bad=["h0"])
        assert world.leaving() == {"h0"}

    def test_slow_trouble_does_not_trip_it(self) -> None:
        world = World(hosts=10)
        for n in range(4):
            world.attest(good=[one for one in world.ids() if int(one[1:]) >= n])
            world.attest(bad=[f"h{n}"])
            assert f"h{n}" in world.leaving()
            world.state.quarantine.deactivated(f"h{n}")
            world.clock.pass_ms(LIFE)

    @pytest.mark.parametrize("answered", [False, True], ids=["at once", "after a new question"])
    def test_a_restart_of_the_broker_releases_nobody(self, answered: bool) -> None:
        world = self.tripped()
        world.restart()
        world.clock.pass_ms(1000)
        if answered:
            world.attest(good=[f"h{n}" for n in range(3, 10)], bad=["h0", "h1", "h2"])
        assert world.leaving() == set()
        assert world.state.quarantine.decide(release=True) == ["host-0", "host-1", "host-2"]
        world.attest(good=[f"h{n}" for n in range(3, 10)], bad=["h0", "h1", "h2"])
        assert world.leaving() == {"h0", "h1", "h2"}

    def test_those_that_never_were_trusted_count_too(self) -> None:
        world = World(hosts=10)
        world.attest(good=[f"h{n}" for n in range(5)])
        world.attest(bad=["h5", "h6"])
        assert world.leaving() == {"h5", "h6"}
        world.attest(bad=["h7"])
        assert world.leaving() == set()

    def test_it_is_over_when_all_that_were_held_attest_well(self) -> None:
        world = self.tripped()
        world.clock.pass_ms(LIFE)
        world.attest(good=world.ids())
        assert world.state.pool_states()[0].guard_tripped is False
        world.attest(bad=["h5"])
        assert world.leaving() == {"h5"}


class TestFirstListAfterARestart:
    """Of hosts. What was saved of those that it does not show is kept."""

    @pytest.fixture
    def world(self) -> World:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.build()
        world.attest(bad=["h1"])
        world.leaving()
        world.state.quarantine.deactivated("h1")
        world.attest(bad=["h2", "h3", "h4", "h5"])
        world.status("h1", "maintenance", "ovirt-tcp: not trusted (pcr_differs): PCR 17")
        return world

    def restart(self, world: World, first: list[Host], complete: bool) -> None:
        saved: dict[str, Any] = json.loads(json.dumps(world.state.encode()))
        world.state = BrokerState(OPTIONS, world.clock, random.random)
        world.state.restore(saved)
        world.state.observe_hosts(first, complete=complete)
        world.state.observe_hosts_not_up([host for host in first if not host.up])

    @pytest.mark.parametrize("shown", [0, 1, 6])
    def test_that_is_not_whole_erases_nothing(self, world: World, shown: int) -> None:
        before = world.state.encode()
        self.restart(world, world.hosts[:shown], complete=shown == 0)
        after = world.state.encode()
        for part in ("quarantine", "guards", "known_good", "established_pools"):
            assert after[part] == before[part], part
        assert after["verdicts"]["h1"]["level"] == "untrusted"
        world.look()
        assert world.leaving() == set()

    def test_that_is_whole_forgets_who_is_gone(self, world: World) -> None:
        del world.hosts[1]
        self.restart(world, world.hosts, complete=True)
        after = world.state.encode()
        assert "h1" not in after["quarantine"]["taken"]
        assert "h1" not in after["verdicts"]


class TestForeignEdits:
    """Somebody else edited the wall: it is put right, and told of."""

    def world(self) -> World:
        world = World()
        world.attest(good=["h0", "h1"])
        world.build()
        world.told()
        return world

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (
                {"host_ids": frozenset({"h0", "h1", "h2"})},
                "hosts were let in that are not trusted: host-2",
            ),
            ({"host_ids": frozenset({"h0"})}, "hosts were put out that are trusted: host-1"),
            ({"vm_ids": frozenset({"v1"})}, "VMs were let out: vm-0"),
            ({"enforcing": False}, "it was made to stop nobody"),
            ({"host_label_ids": frozenset({"label"})}, "hosts were let in by a label"),
            (None, "it was removed"),
        ],
    )
    def test_each_kind_is_told_once(self, change: dict[str, Any] | None, told: str) -> None:
        world = self.world()
        assert world.wall is not None
        world.wall = None if change is None else dataclasses.replace(world.wall, **change)
        world.look()
        assert world.told() == []
        for _ in range(2):
            world.build()
        assert world.told() == [
            f"Somebody edited the wall of pool Trusted: {told}. It is put right."
        ]
        world.look()
        world.build()
        assert world.told() == []

    def test_our_own_edit_whose_answer_got_lost_is_nobodys(self) -> None:
        world = self.world()
        assert world.wall is not None
        world.attest(good=["h2"], bad=["h1"])
        world.told()
        world.wall = dataclasses.replace(world.wall, host_ids=frozenset({"h0", "h2"}))
        world.look()
        assert world.told() == []


class TestNotices:
    def test_the_same_is_said_once(self) -> None:
        world = World()
        world.cluster = dataclasses.replace(world.cluster, trusted_service=True)
        told = []
        for _ in range(5):
            world.look()
            told += world.told()
        assert len(told) == 1

    def test_what_ended_and_came_back_is_said_again(self) -> None:
        world = World()
        told = []
        for trusted_service in (True, True, False, False, True):
            world.cluster = dataclasses.replace(world.cluster, trusted_service=trusted_service)
            world.look()
            told += world.told()
        assert len(told) == 2


def test_a_listing_that_is_older_than_an_edit_does_not_bring_an_old_wall_back() -> None:
    world = World()
    start = world.state.begin_listing()
    listing = Listing(
        (world.cluster,),
        (world.policy,),
        world.units,
        tuple(world.hosts),
        tuple(world.vms),
        {POOL: Group("wall", "ovirt-tcp-wall")},
    )
    world.attest(good=["h0"])
    assert world.inside() == {"h0"}
    world.state.observe_listing(listing, start)
    world.attest(bad=["h0"])
    (plan,) = full_plans(world.state.walls)
    assert [(step.edit, step.subject) for step in plan.steps if step.edit is Edit.REMOVE_HOST] == [
        (Edit.REMOVE_HOST, "h0")
    ]


def test_servers_that_answer_now_and_then_make_one_event() -> None:
    world = World()
    for _ in range(5):
        world.state.questions.nobody_answered(["h0"], "refused")
        world.attest(good=["h1"])
        world.clock.pass_ms(5_000)
    assert sum("No attestation server answers" in text for text in world.told()) == 1


class TestQuestions:
    def test_without_hosts_nobody_is_asked(self) -> None:
        world = World(hosts=0)
        assert world.state.questions.due(10) == []
        assert world.state.questions.begin_stages() == 0
        assert world.state.questions.stage(10) == []

    def test_hosts_of_a_cluster_that_becomes_a_pool_are_asked_at_once(self) -> None:
        world = World()
        world.policy = dataclasses.replace(world.policy, filter_ids=frozenset())
        world.wall = None
        world.state = BrokerState(world.options, world.clock, random.random)
        world.look()
        assert world.state.questions.due(10) == []
        world.policy = dataclasses.replace(world.policy, filter_ids=frozenset({"unit"}))
        world.look()
        assert set(world.state.questions.due(10)) == set(world.ids())
        (snapshot,) = world.state.snapshots()
        assert Level.TRUSTED not in {verdict.level for verdict in snapshot.hosts.values()}

    def test_hosts_that_answer_do_not_wait_for_silent_ones(self) -> None:
        world = World()
        world.attest(good=["h0", "h1"])
        world.state.questions.nobody_answered(["h2", "h3"], "silent")
        world.clock.pass_ms(LIFE)
        assert set(world.state.questions.due(10)) == {"h0", "h1"}
        assert set(world.state.questions.due(10)) == {"h2", "h3"}


def test_of_two_vms_of_one_name_that_of_the_hosts_cluster_is_meant() -> None:
    world = World()
    world.vms = [Vm("elsewhere", "web", "other"), Vm("here", "web", POOL)]
    world.look()
    vm = world.state.case("web", "host-0").vm
    assert vm is not None
    assert vm.id == "here"


@pytest.mark.parametrize("change", [{"cluster_id": "elsewhere"}, {"address": "other.lab"}])
def test_a_host_that_moved_or_has_another_address_attests_before_it_counts(
    change: dict[str, str],
) -> None:
    world = World()
    world.attest(good=world.ids())
    world.inside()
    before = dataclasses.asdict(world.hosts[1])
    world.change_host(1, **change)
    world.change_host(1, **{name: before[name] for name in change})
    assert world.inside() == {"h0", "h2", "h3"}
    assert "h1" in world.state.questions.due(10)


def test_an_answer_to_a_question_from_before_the_address_changed_does_not_count() -> None:
    world = World()
    answer = Answer(Level.TRUSTED, world.clock.ms, 0, LIFE, True)
    world.clock.pass_ms(100)
    world.change_host(1, address="other.lab")
    world.state.questions.record({"h1": answer, "h2": answer})
    assert world.inside() == {"h2"}


def test_hosts_that_come_to_share_a_name_leave_the_wall() -> None:
    world = World()
    world.attest(good=world.ids())
    assert world.inside() == set(world.ids())
    world.change_host(1, address=world.hosts[0].address)
    assert world.inside() == {"h2", "h3"}


def test_an_empty_list_of_hosts_forgets_nobody_and_trusts_nobody() -> None:
    world = World()
    world.attest(good=["h0", "h2", "h3"], bad=["h1"])
    world.inside()
    hosts, world.hosts = world.hosts, []
    world.look()
    assert world.inside() == set()
    world.hosts = hosts
    world.look()
    decision = world.state.case("vm-0", "host-1").decision
    assert decision is not None
    assert decision.code == "pcr_differs"
    assert world.inside() == set()


def test_a_damaged_state_is_not_taken_over_even_in_part() -> None:
    world = World()
    world.attest(good=world.ids(), bad=["h1"])
    saved = json.loads(json.dumps(world.state.encode()))
    saved["verdicts"]["h0"]["born_ms"] = "soon"
    fresh = BrokerState(world.options, world.clock, random.random)
    before = fresh.encode()
    with pytest.raises(ValueError, match="soon"):
        fresh.restore(saved)
    assert fresh.encode() == before
