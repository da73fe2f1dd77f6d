# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts that cannot leave service, get stuck on their way, or are somebody else's: said once,
retried, or left alone."""

from __future__ import annotations

import dataclasses

from ovirt_tcp_plugin.placement.inventory import Vm
from tests.broker.state.world import LIFE, POOL, World

OURS = "ovirt-tcp: not trusted (pcr_differs): PCR 17 is not the known one"
TEN_MINUTES = 600_000


def untrusted(world: World, host: str = "h1") -> World:
    world.attest(good=world.ids())
    world.attest(bad=[host])
    world.told()
    return world


def look_for(world: World, ms: int, good: tuple[str, ...] = ("h0", "h2", "h3")) -> list[str]:
    """Let time pass in steps, with the other hosts attesting well; return what was said."""
    told: list[str] = []
    for _ in range(ms // 10_000):
        world.clock.pass_ms(10_000)
        world.attest(good=good)
        world.state.observe_hosts(world.hosts)
        world.state.quarantine.to_deactivate()
        told += world.told()
    return told


class TestHostedEngine:
    def world(self, engine_hosts: set[str]) -> World:
        """A pool whose untrusted host h1 carries the engine's VM."""
        world = World(hosts=6)
        world.vms.append(Vm("engine", "HostedEngine", POOL, "up", "h1", hosted_engine=True))
        world.engine_hosts = frozenset(engine_hosts)
        world.look()
        return untrusted(world)

    def test_its_host_stays_while_no_trusted_host_can_take_it_and_an_error_says_so_once(
        self,
    ) -> None:
        world = self.world({"h1"})
        assert world.leaving() == set()
        (told,) = (text for text in look_for(world, 120_000) if "stays in service" in text)
        assert (
            "Host host-1 is untrusted, but stays in service: it carries the engine's own VM" in told
        )
        assert "h1" not in world.inside()

    def test_an_untrusted_host_of_its_kind_is_no_alternative(self) -> None:
        world = self.world({"h1", "h2"})
        world.attest(bad=["h2"])
        assert "h1" not in world.leaving()

    def test_its_host_leaves_once_a_trusted_one_can_take_it(self) -> None:
        world = self.world({"h1"})
        assert world.leaving() == set()
        world.engine_hosts = frozenset({"h1", "h3"})
        world.look()
        assert world.leaving() == {"h1"}

    def test_other_hosts_of_its_kind_leave_like_any_host(self) -> None:
        world = self.world({"h1", "h2"})
        world.attest(bad=["h2"])
        assert world.leaving() == {"h2"}


class TestLastHost:
    def test_stays_and_an_error_says_so_once(self) -> None:
        world = World(hosts=2)
        world.attest(bad=["h0", "h1"])
        world.state.quarantine.decide(release=True)
        world.told()
        assert world.leaving() == set()
        assert world.told() == []
        told = look_for(world, 120_000, good=())
        assert len(told) == 2
        assert all("no other host of its pool is trusted" in text for text in told)

    def test_nothing_is_said_of_one_that_leaves_a_moment_later(self) -> None:
        world = World(hosts=2)
        world.attest(bad=["h0"])
        assert world.leaving() == set()
        world.clock.pass_ms(2000)
        world.attest(good=["h1"])
        assert world.leaving() == {"h0"}
        assert not any("stays in service" in text for text in world.told())


class TestRefused:
    """Each refused maintenance is an error event of the engine's own."""

    DAY = 86_400_000

    def days(self, world: World, days: int) -> tuple[int, list[str]]:
        """Refuse maintenance for days; return how often it was asked for, and what was said."""
        asked, told = 0, []
        for _ in range(days * self.DAY // 60_000):
            world.attest(good=["h0", "h2", "h3"], bad=["h1"])
            if world.leaving():
                asked += 1
                world.state.quarantine.deactivated("h1", f"pinned VMs {asked}")
            told += [text for text in world.told() if "maintenance was refused" in text]
            world.clock.pass_ms(60_000)
        return asked, told

    def test_maintenance_is_asked_for_four_times_a_day_at_the_end_and_said_once(self) -> None:
        world = untrusted(World())
        first, told = self.days(world, 1)
        assert (first <= 17, len(told)) == (True, 1)
        later, told = self.days(world, 2)
        assert later <= 9
        assert len(told) == 2
        assert "shut down or move its VMs" in told[0]

    def test_a_vm_that_left_has_it_asked_for_again_at_once(self) -> None:
        world = untrusted(World())
        world.vms.append(Vm("pinned", "pinned", POOL, "up", "h1", marked=True))
        world.look()
        self.days(world, 1)
        world.look()
        assert world.leaving() == set()
        world.vms.pop()
        for _ in range(2):
            world.look()
        world.attest(good=["h0", "h2", "h3"], bad=["h1"])
        assert world.leaving() == {"h1"}

    def test_a_refused_return_is_said_once_and_slows_down(self) -> None:
        world = untrusted(World())
        assert world.leaving() == {"h1"}
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", OURS)
        world.attest(good=["h1"])
        world.told()
        asked, told = 0, []
        for _ in range(3 * 360):
            if world.state.quarantine.to_activate():
                asked += 1
                world.state.quarantine.activated("h1", "its status is wrong")
            told += [text for text in world.told() if "activation was refused" in text]
            world.clock.pass_ms(10_000)
        assert asked <= 9
        assert len(told) == 1


class TestReturns:
    DAY = 86_400_000

    def pause_of_return(self, world: World, well_for_ms: int) -> int:
        """Let h1 be taken out and repaired, and be well for so long; return how long it waited."""
        world.attest(good=["h0", "h2", "h3"], bad=["h1"])
        assert world.leaving() == {"h1"}
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", OURS)
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        waited_ms = 0
        while not world.state.quarantine.to_activate():
            world.clock.pass_ms(10_000)
            waited_ms += 10_000
        world.state.quarantine.activated("h1")
        world.status("h1", "up")
        for _ in range(well_for_ms // 600_000):
            world.clock.pass_ms(600_000)
            world.attest(good=world.ids())
        return waited_ms

    def test_that_follow_each_other_become_slower(self) -> None:
        world = World()
        pauses = [self.pause_of_return(world, self.DAY // 2) for _ in range(4)]
        assert pauses == [0, 30_000, 60_000, 120_000]

    def test_are_forgotten_after_a_day_of_good_verdicts(self) -> None:
        world = World()
        pauses = [self.pause_of_return(world, self.DAY + 600_000) for _ in range(4)]
        assert pauses == [0] * 4
        assert world.state.encode()["quarantine"]["returns"] == {}


class TestStuck:
    def preparing(self) -> World:
        world = untrusted(World())
        assert world.leaving() == {"h1"}
        world.state.quarantine.deactivated("h1")
        world.status("h1", "preparing_for_maintenance", OURS)
        return world

    def test_is_said_once_and_asked_for_again(self) -> None:
        world = self.preparing()
        assert look_for(world, TEN_MINUTES - 20_000) == []
        assert world.leaving() == set()
        (told,) = look_for(world, 60_000)
        assert "Host host-1 is untrusted and does not reach maintenance" in told
        assert world.leaving() == {"h1"}
        world.state.quarantine.deactivated("h1")
        assert world.leaving() == set()
        assert look_for(world, TEN_MINUTES + 10_000) == []
        assert world.leaving() == {"h1"}

    def test_the_reason_of_a_refusal_is_said_too(self) -> None:
        world = self.preparing()
        look_for(world, TEN_MINUTES + 10_000)
        world.state.quarantine.deactivated("h1", "pinned VMs")
        assert [text for text in world.told() if "maintenance was refused: pinned VMs" in text]
        assert look_for(world, 60_000) == []

    def test_returns_when_it_attests_well(self) -> None:
        world = self.preparing()
        look_for(world, TEN_MINUTES + 10_000)
        world.attest(good=["h1"])
        assert world.leaving() == set()
        assert world.state.quarantine.to_activate() == ["h1"]

    def test_one_that_arrives_in_time_is_not_stuck(self) -> None:
        world = self.preparing()
        look_for(world, LIFE // 2)
        world.status("h1", "maintenance", OURS)
        assert look_for(world, 2 * TEN_MINUTES) == []
        assert world.leaving() == set()


class TestAdministrators:
    def test_maintenance_of_a_host_that_was_ours_is_not_ended(self) -> None:
        """Activated and put away again between two looks: only the reason tells."""
        world = untrusted(World())
        world.leaving()
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", OURS)
        world.status("h1", "maintenance", "new memory modules")
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == []

    def test_nor_after_a_restart_of_the_broker(self) -> None:
        world = untrusted(World())
        world.leaving()
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", OURS)
        world.hosts = [
            dataclasses.replace(one, status_detail="") if one.id == "h1" else one
            for one in world.hosts
        ]
        world.restart()
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == []

    def test_ours_returns_where_the_engine_shows_no_reason(self) -> None:
        """A host that does not answer goes to maintenance at once, and the engine may leave the
        reason out."""
        world = untrusted(World())
        world.leaving()
        world.state.quarantine.deactivated("h1")
        world.status("h1", "maintenance", "")
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.state.quarantine.to_activate() == ["h1"]


def quarantined(world: World, host_id: str) -> None:
    """Let a host be found untrusted, and be in maintenance for that."""
    world.attest(bad=[host_id])
    reasons = dict(world.state.quarantine.to_deactivate())
    world.state.quarantine.deactivated(host_id)
    world.status(host_id, "maintenance", reasons[host_id])


def test_a_host_found_untrusted_again_does_not_return_for_an_earlier_good_verdict() -> None:
    world = World()
    world.attest(good=world.ids())
    quarantined(world, "h1")
    world.attest(good=["h1"])
    world.state.quarantine.activated("h1")
    world.status("h1", "up")
    world.clock.pass_ms(1000)
    quarantined(world, "h1")
    world.attest(good=["h1"])
    assert world.state.quarantine.to_activate() == [], "the second time it has to wait"
    world.clock.pass_ms(20_000)
    world.attest(bad=["h1"])
    world.clock.pass_ms(20_000)
    assert world.state.quarantine.to_activate() == []
    world.attest(good=["h1"])
    world.clock.pass_ms(31_000)
    assert world.state.quarantine.to_activate() == ["h1"]


def test_an_activation_that_is_refused_is_tried_again_later_not_at_once() -> None:
    world = World()
    world.attest(good=world.ids())
    quarantined(world, "h1")
    world.attest(good=["h1"])
    assert world.state.quarantine.to_activate() == ["h1"]
    world.state.quarantine.activated("h1", "its status is wrong")
    assert world.state.quarantine.to_activate() == []
    world.clock.pass_ms(31_000)
    assert world.state.quarantine.to_activate() == ["h1"]
