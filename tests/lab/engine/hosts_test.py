# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Refused maintenance and activation, and what a start of the engine does to hosts on their way."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import audit_log
from tests.lab.engine.peers import HOSTS, Lab, vm


class TestMaintenance:
    @pytest.mark.parametrize(
        ("action", "verb"), [("deactivate", "maintenance"), ("activate", "activate")]
    )
    def test_a_host_that_is_unknown_is_a_bad_parameter(
        self, lab: Lab, action: str, verb: str
    ) -> None:
        path = f"hosts/00000000-0000-0000-0000-000000000001/{action}"
        assert lab.refused("POST", path, "<action/>") == (
            400,
            f"[Cannot {verb} Host. Invalid Host Id.]",
        )

    def test_a_host_that_initializes_is_not_operational(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        lab.session.host_service("h2").activate()
        with pytest.raises(ovirtsdk4.Error, match="not operational"):
            lab.session.host_service("h2").deactivate()

    def test_a_silent_host_may_leave_only_without_vms(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm("vm1", "h1")])
        lab.host("h1").external_status = "error"
        for name in ("h1", "h2"):
            lab.engine.hosts.power(lab.host(name), False)
        lab.pass_time(70)
        with pytest.raises(ovirtsdk4.Error, match="Non Responsive"):
            lab.session.host_service("h1").deactivate()
        lab.session.host_service("h2").deactivate()
        assert lab.status("h2") == "maintenance"

    def test_the_engines_own_host_leaves_only_if_another_can_take_the_engine(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        hosts = [{**host, "hosted_engine": host["name"] == "h1"} for host in HOSTS]
        lab = make_lab(hosts=hosts, vms=[vm("HostedEngine", "h1", origin="hosted_engine")])
        with pytest.raises(ovirtsdk4.Error, match="running the engine VM"):
            lab.session.host_service("h1").deactivate()

    def test_the_engines_repetition_leaves_alone_what_only_users_move(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("vm1", "h1", affinity="user_migratable")])
        lab.engine.faults.failing_migrations = {"h2", "h3"}
        lab.session.host_service("h1").deactivate()
        lab.pass_time(60)
        lab.engine.faults.failing_migrations = set()
        lab.pass_time(1000)
        assert (lab.session.place("vm1"), lab.status("h1")) == ("h1", "preparing_for_maintenance")
        assert lab.session.codes().count(audit_log.REFUSED) == 3
        lab.session.host_service("h1").deactivate()
        lab.pass_time(21)
        assert lab.status("h1") == "maintenance"

    def test_one_asked_for_again_keeps_its_first_reason(self, lab: Lab) -> None:
        lab.session.host_service("h1").deactivate(reason="PCR 17 differs")
        lab.session.host_service("h1").deactivate(reason="another")
        assert lab.session.host("h1").status_detail == "PCR 17 differs"

    def test_an_engine_that_starts_repeats_the_evacuation_later(self, lab: Lab) -> None:
        lab.engine.faults.failing_migrations = {"h2", "h3"}
        lab.session.host_service("h1").deactivate()
        lab.pass_time(200)
        lab.engine.faults.failing_migrations = set()
        lab.engine.restart(1)
        lab.pass_time(290)
        assert lab.session.place("vm1") == "h1"
        lab.pass_time(40)
        assert lab.status("h1") == "maintenance"


class TestActivation:
    def test_a_host_that_is_up_cannot_be_activated(self, lab: Lab) -> None:
        with pytest.raises(ovirtsdk4.Error, match="Host in Up status"):
            lab.session.host_service("h1").activate()

    def test_one_without_power_does_not_come_up_until_it_has_some(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        lab.engine.hosts.power(lab.host("h2"), False)
        lab.session.host_service("h2").activate()
        lab.pass_time(60)
        assert lab.status("h2") == "non_responsive"
        lab.engine.hosts.power(lab.host("h2"), True)
        lab.pass_time(15)
        assert lab.status("h2") == "up"

    def test_vms_of_a_silent_host_are_known_again_when_it_answers(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        """Only the network was away: it was not fenced, so nothing ended."""
        lab = make_lab(vms=[vm("vm1", "h1", high_availability=True)])
        host = lab.host("h1")
        host.external_status, host.powered = "error", False
        lab.pass_time(70)
        assert lab.vm("vm1").status == "unknown"
        host.powered = True
        lab.pass_time(15)
        assert (lab.vm("vm1").status, lab.session.place("vm1")) == ("up", "h1")

    def test_an_engine_that_starts_never_tells_of_hosts_that_came_up_before(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        lab.session.host_service("h2").activate()
        lab.pass_time(11)
        lab.engine.restart(1)
        lab.pass_time(60)
        assert lab.status("h2") == "up"
        assert audit_log.HOST_DETECTED not in lab.session.codes()
