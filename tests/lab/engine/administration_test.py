# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator's tool meets: policies, their properties and units, permissions, and the engine's options."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab import engine_config
from ovirt_tcp_plugin.lab.engine import builtin
from tests.lab.engine.conftest import PASSWORD
from tests.lab.engine.peers import Lab, ScriptedScheduler

HIGH = types.Property(name="HighUtilization", value="75")


def refused(code: int, text: str) -> object:
    return pytest.raises(ovirtsdk4.Error, match=f"{text}.*HTTP response code is {code}")


class TestPolicies:
    def test_a_new_one_can_have_no_properties(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        with refused(400, "not configured by the system. The keys are: HighUtilization"):
            policies.add(types.SchedulingPolicy(name="p", properties=[HIGH]))
        assert [one.name for one in policies.list() if one.name == "p"] == []

    def test_its_properties_are_those_of_its_units_and_hold_them_there(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        service = policies.policy_service(policies.add(types.SchedulingPolicy(name="p", description="d")).id)
        unit = types.SchedulingPolicyUnit(id=builtin.FILTERS["CPUOverloaded"])
        service.filters_service().add(types.Filter(scheduling_policy_unit=unit, position=1))
        with refused(400, "illegal values"):
            service.update(types.SchedulingPolicy(properties=[types.Property(name="HighUtilization", value="1000")]))
        service.update(types.SchedulingPolicy(properties=[HIGH]))
        with refused(400, "not configured"):
            service.filters_service().filter_service(unit.id).remove()
        policy = service.get()
        assert (policy.description, [one.value for one in policy.properties]) == ("d", ["75"])
        (position,) = [one.position for one in service.filters_service().list()]
        assert position == 1

    def test_the_second_balance_takes_the_place_of_the_first(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        balances = policies.policy_service(policies.add(types.SchedulingPolicy(name="p")).id).balances_service()
        for uid in (builtin.GUEST_BALANCE, builtin.NO_BALANCE):
            balances.add(types.Balance(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid)))
        assert [one.id for one in balances.list()] == [builtin.NO_BALANCE]

    def test_a_unit_in_use_stays(self, filtered: Lab) -> None:
        unit = filtered.session.unit("TrustedHosts")
        units = filtered.system.scheduling_policy_units_service()
        with refused(400, "attached to the following cluster policies: policy of Default"):
            units.unit_service(unit.id).remove()

    def test_a_cluster_keeps_what_it_has_and_gets_what_it_lacks(self, lab: Lab) -> None:
        (cluster,) = lab.system.clusters_service().list()
        service = lab.system.clusters_service().cluster_service(cluster.id)
        service.update(types.Cluster(custom_scheduling_policy_properties=[HIGH]))
        even = next(uid for uid, name, *_ in builtin.POLICIES if name == "evenly_distributed")
        changed = service.update(types.Cluster(scheduling_policy=types.SchedulingPolicy(id=even)))
        properties = {one.name: one.value for one in changed.custom_scheduling_policy_properties}
        assert properties["HighUtilization"] == "75"
        assert "VCpuToPhysicalCpuRatio" in properties
        changed = service.update(types.Cluster(scheduling_policy=types.SchedulingPolicy(id=builtin.NONE_POLICY)))
        assert "VCpuToPhysicalCpuRatio" in {one.name for one in changed.custom_scheduling_policy_properties}


def test_permissions_are_listed_and_taken_back(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(directory={"broker@internal": PASSWORD})
    permissions = lab.system.permissions_service()
    role = lab.system.roles_service().add(types.Role(name="r", administrative=True, permits=[types.Permit(id="1300")]))
    user = next(one for one in lab.system.users_service().list() if one.user_name == "broker@internal-authz")
    given = permissions.add(types.Permission(role=types.Role(id=role.id), user=types.User(id=user.id)))
    assert (role.id, user.id) in [(one.role.id, one.user.id) for one in permissions.list()]
    permissions.permission_service(given.id).remove()
    lab.system.roles_service().role_service(role.id).remove()
    with pytest.raises(ovirtsdk4.NotFoundError):
        permissions.permission_service(given.id).remove()


def test_options_count_from_the_next_start(make_lab: Callable[..., Lab], proxy: ScriptedScheduler, tmp_path: Path) -> None:
    command, options = engine_config.install(tmp_path)
    lab = make_lab(options=str(options))
    for value in (
        f"ExternalSchedulerServiceURL={proxy.url}",
        "ExternalSchedulerEnabled=true",
        "ExternalSchedulerResponseTimeout=3000",
    ):
        subprocess.run([command, "-s", value], check=True)
    subprocess.run([command, "-m", "UserDefinedVMProperties=trusted_host_flag=^(true|false)$", "--cver=4.8"], check=True)
    mark = types.Vm(custom_properties=[types.CustomProperty(name="trusted_host_flag", value="true")])
    assert lab.session.vm_service("vm2").update(mark).custom_properties == []
    assert "TrustedHosts" not in [one.name for one in lab.system.scheduling_policy_units_service().list()]
    assert lab.engine.model.timings.external_response == 120
    lab.engine.restart(0.1)
    lab.pass_time(1)
    lab.engine.discovery.wait(5)
    assert lab.session.unit("TrustedHosts").enabled
    assert lab.session.vm_service("vm2").update(mark).custom_properties[0].value == "true"
    assert lab.engine.model.timings.external_response == 3
