# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""HA restarts, the affinity enforcer, and what a restart of the engine does to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ovirt_tcp_plugin.lab.engine import audit_log
from tests.lab.engine.peers import Lab, add_group, vm


@pytest.fixture
def lost(make_lab: Callable[..., Lab]) -> Lab:
    """The host of a highly available VM is off, and a wall without hosts refuses its restart."""
    lab = make_lab(vms=[vm("ha", "h1", high_availability=True)])
    add_group(lab.session.connection, [], [lab.session.vm("ha")])
    lab.engine.hosts.power(lab.host("h1"), False)
    while not lab.vm("ha").tries:
        lab.pass_time(1)
    return lab


def tries(lab: Lab, seconds: float) -> list[float]:
    """Return when a restart failed in the next seconds, counted from now."""
    began = lab.engine.clock.wall()
    lab.pass_time(seconds)
    failed = [row for row in lab.engine.model.events if row.code == audit_log.HA_RESTART_FAILED]
    return [round((row.time - began).total_seconds()) for row in failed if row.time > began]


class TestHighAvailability:
    def test_ten_tries_in_short_intervals_then_long_ones(self, lost: Lab) -> None:
        short = [30 * n for n in range(1, 10)]
        assert tries(lost, 6000) == [*short, 270 + 1800, 270 + 3600, 270 + 5400]

    def test_a_restart_of_the_engine_begins_to_count_anew(self, lost: Lab) -> None:
        lost.pass_time(600)
        lost.engine.restart(1)
        assert tries(lost, 70) == [1, 31, 61]

    def test_it_succeeds_once_a_host_may(self, lost: Lab) -> None:
        (group,) = lost.engine.model.groups.values()
        group.hosts.append(lost.host("h3").id)
        lost.pass_time(36)
        assert (lost.vm("ha").status, lost.session.place("ha")) == ("up", "h3")
        assert not lost.vm("ha").restart

    def test_a_user_who_stops_it_ends_it(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm("ha", "h1", high_availability=True)])
        lab.session.vm_service("ha").stop()
        lab.pass_time(600)
        assert lab.vm("ha").status == "down"

    def test_a_start_that_fails_on_the_host_waits_as_long(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("ha", "h1", high_availability=True)])
        lab.engine.faults.failing_starts = {"h2", "h3"}
        lab.engine.hosts.power(lab.host("h1"), False)
        lab.pass_time(200)
        times = [
            float(entry["time"]) for entry in lab.engine.model.journal if entry["purpose"] == "ha"
        ]
        assert {round(later - sooner) for sooner, later in zip(times, times[1:])} == {30}

    def test_one_of_higher_priority_keeps_the_others_waiting_for_ten_minutes(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        vms = [
            vm(name, "h1", high_availability=True, priority=n)
            for name, n in (("first", 100), ("second", 1))
        ]
        lab = make_lab(vms=vms)
        add_group(lab.session.connection, [], [lab.session.vm("first")])
        lab.engine.hosts.power(lab.host("h1"), False)
        lab.pass_time(600)
        assert lab.vm("second").status == "down"
        lab.pass_time(80)
        assert (lab.vm("first").status, lab.vm("second").status) == ("down", "up")


class TestEnforcer:
    def test_one_vm_of_a_cluster_moves_a_minute(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm(f"vm{n}", "h1") for n in range(3)])
        add_group(
            lab.session.connection,
            [lab.session.host("h2")],
            [lab.session.vm(f"vm{n}") for n in range(3)],
        )
        moved = []
        for _ in range(4):
            moved.append(sum(lab.session.place(f"vm{n}") == "h2" for n in range(3)))
            lab.pass_time(60)
        # What a round sends away arrives after it.
        assert moved == [0, 0, 1, 2]

    def test_one_that_cannot_move_is_passed_over(self, make_lab: Callable[..., Lab]) -> None:
        vms = [
            vm("a", "h1", affinity="user_migratable"),
            vm("b", "h1", origin="hosted_engine"),
            vm("c", "h1"),
        ]
        lab = make_lab(vms=vms)
        add_group(
            lab.session.connection,
            [lab.session.host("h2")],
            [lab.session.vm(name) for name in "abc"],
        )
        lab.pass_time(200)
        assert {name: lab.session.place(name) for name in "abc"} == {
            "a": "h1",
            "b": "h1",
            "c": "h2",
        }

    def test_an_empty_group_moves_nobody(self, lab: Lab) -> None:
        add_group(lab.session.connection, [], [lab.session.vm("vm1")])
        lab.pass_time(600)
        assert (lab.session.place("vm1"), lab.vm("vm1").migrating_to) == ("h1", "")

    def test_a_negative_rule_moves_vms_off_its_hosts(self, lab: Lab) -> None:
        add_group(
            lab.session.connection,
            [lab.session.host("h1")],
            [lab.session.vm("vm1")],
            positive=False,
        )
        lab.pass_time(81)
        assert lab.session.place("vm1") == "h2"
