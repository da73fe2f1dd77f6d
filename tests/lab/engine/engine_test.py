# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The REST API of the simulated engine, seen through the real SDK."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import audit_log, builtin
from ovirt_tcp_plugin.lab.engine.clock import EngineClock
from ovirt_tcp_plugin.lab.engine.sessions import Unauthorized
from tests.lab.engine.conftest import Connect
from tests.lab.engine.peers import Lab, add_group, until, vm


class TestRest:
    def test_a_wrong_password_is_refused(self, lab: Lab, connect: Connect) -> None:
        with pytest.raises(ovirtsdk4.AuthError):
            connect(lab.engine, "wrong").test(raise_exception=True)

    def test_what_does_not_exist_is_not_found(self, lab: Lab) -> None:
        with pytest.raises(ovirtsdk4.NotFoundError):
            lab.system.hosts_service().host_service("nobody").get()

    def test_a_locked_policy_cannot_be_edited(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        filters = policies.policy_service(builtin.NONE_POLICY).filters_service()
        unit = types.SchedulingPolicyUnit(id=builtin.MEMORY_FILTER)
        with pytest.raises(ovirtsdk4.Error, match="Parameters are invalid"):
            filters.add(types.Filter(scheduling_policy_unit=unit))

    def test_membership_of_a_group_is_edited_one_by_one(self, lab: Lab) -> None:
        session = lab.session
        uid = add_group(session.connection, [session.host("h1")], [session.vm("vm1")])
        (cluster,) = lab.system.clusters_service().list()
        groups = lab.system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
        hosts = groups.group_service(uid).hosts_service()
        with pytest.raises(ovirtsdk4.Error, match="Duplicate VDS"):
            hosts.add(types.Host(id=session.host("h1").id))
        hosts.add(types.Host(id=session.host("h2").id))
        hosts.host_service(session.host("h1").id).remove()
        with pytest.raises(ovirtsdk4.Error, match="does not exist"):
            hosts.host_service(session.host("h1").id).remove()
        assert [host.name for host in hosts.list()] == ["h2"]
        (followed,) = groups.list(follow="hosts,vms")
        assert ([host.name for host in followed.hosts], [vm.name for vm in followed.vms]) == (
            ["h2"],
            ["vm1"],
        )
        assert followed.hosts_rule.enforcing
        assert not followed.vms_rule.enabled

    def test_a_property_set_on_a_running_vm_waits_for_its_next_run(self, lab: Lab) -> None:
        service = lab.session.vm_service("vm1")
        mark = [types.CustomProperty(name="trusted_host_flag", value="true")]
        service.update(types.Vm(custom_properties=mark))
        assert lab.session.vm("vm1").next_run_configuration_exists
        assert not service.get().custom_properties
        assert service.get(next_run=True).custom_properties[0].value == "true"
        service.stop()
        assert service.get().custom_properties[0].value == "true"

    def test_a_restart_ends_sessions(self, lab: Lab) -> None:
        token = lab.session.connection.authenticate()
        lab.engine.restart(5)
        lab.pass_time(6)
        with pytest.raises(Unauthorized):
            lab.engine.sessions.user(token)


class TestHosts:
    def test_the_last_host_with_vms_cannot_leave(self, lab: Lab) -> None:
        for name in ("h2", "h3"):
            lab.session.host_service(name).deactivate()
        lab.pass_time(1)
        with pytest.raises(ovirtsdk4.Error, match="at least one Host in UP state: Default"):
            lab.session.host_service("h1").deactivate()

    def test_one_that_reboots_unseen_has_lost_its_vms(self, lab: Lab) -> None:
        for powered in (False, True):
            lab.engine.hosts.power(lab.host("h1"), powered)
        lab.pass_time(20)
        assert (lab.status("h1"), lab.vm("vm1").status) == ("up", "down")

    def test_what_happens_while_the_engine_is_away_is_seen_later(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(
            vms=[vm(name, "h1", high_availability=name == "ha") for name in ("ha", "plain")]
        )
        lab.engine.restart(600)
        lab.engine.hosts.power(lab.host("h1"), False)
        lab.pass_time(599)
        assert lab.host("h1").status == "up"
        lab.pass_time(120)
        assert lab.status("h1") == "non_responsive"
        assert (lab.vm("ha").status, lab.vm("plain").status) == ("up", "down")


class TestAffinity:
    def test_an_empty_group_lets_nobody_start(self, lab: Lab) -> None:
        add_group(lab.session.connection, [], [lab.session.vm("vm2")])
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            lab.session.vm_service("vm2").start()
        assert audit_log.VM_START_FAILED in lab.session.codes()

    def test_members_start_and_migrate_only_on_listed_hosts(self, lab: Lab) -> None:
        add_group(lab.session.connection, [lab.session.host("h2")], [lab.session.vm("vm2")])
        lab.session.vm_service("vm2").start()
        lab.pass_time(6)
        assert lab.session.place("vm2") == "h2"
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            lab.session.vm_service("vm2").migrate(host=types.Host(id=lab.host("h1").id))


def test_an_engine_on_the_machines_clock_lives_by_itself(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(clock=EngineClock(), timings={"vm_start": 0.05})
    lab.session.vm_service("vm2").start()
    until(lambda: lab.session.vm("vm2").status == types.VmStatus.UP)
    with pytest.raises(TypeError):
        lab.pass_time(1)
