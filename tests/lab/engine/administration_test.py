# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator's tool meets: policies and their units, permissions, options."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab import engine_config
from ovirt_tcp_plugin.lab.engine import builtin
from tests.lab.engine.peers import Lab, ScriptedScheduler
from tests.site_pki import PASSWORD

HIGH = types.Property(name="HighUtilization", value="75")


def refused(code: int, text: str) -> object:
    return pytest.raises(ovirtsdk4.Error, match=f"{text}.*HTTP response code is {code}")


def policy_of(lab: Lab, name: str) -> ovirtsdk4.services.SchedulingPolicyService:
    policies = lab.system.scheduling_policies_service()
    return policies.policy_service(
        next(policy.id for policy in policies.list() if policy.name == name)
    )


def filter_of(uid: str) -> types.Filter:
    return types.Filter(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid))


def filter_ids(service: ovirtsdk4.services.SchedulingPolicyService) -> list[str]:
    return [unit.id for unit in service.filters_service().list()]


class TestRefusedEdits:
    """What is refused stays in the engine's memory until it starts again, not in its database."""

    def test_one_of_a_unit_that_is_there_spoils_every_later_one(self, lab: Lab) -> None:
        lab.system.scheduling_policies_service().add(types.SchedulingPolicy(name="p"))
        service = policy_of(lab, "p")
        filters = service.filters_service()
        filters.add(filter_of(builtin.AFFINITY_FILTER))
        with refused(400, "policy unit already exists in Scheduling Policy"):
            filters.add(filter_of(builtin.AFFINITY_FILTER))
        assert filter_ids(service) == [builtin.AFFINITY_FILTER] * 2
        for uid in (
            builtin.MEMORY_FILTER,
            "00000000-0000-0000-0000-000000000001",
            builtin.NO_BALANCE,
        ):
            with refused(400, "policy unit already exists in Scheduling Policy"):
                filters.add(filter_of(uid))
        with refused(400, "policy unit already exists in Scheduling Policy"):
            service.update(types.SchedulingPolicy(description="another"))
        assert len(filter_ids(service)) == 5
        lab.restart()
        assert filter_ids(service) == [builtin.AFFINITY_FILTER]
        assert service.get().description is None
        filters.add(filter_of(builtin.MEMORY_FILTER))

    def test_a_spoiled_policy_can_be_removed(self, lab: Lab) -> None:
        lab.system.scheduling_policies_service().add(types.SchedulingPolicy(name="p"))
        service = policy_of(lab, "p")
        with refused(400, "Policy unit is unknown"):
            service.filters_service().add(filter_of("00000000-0000-0000-0000-000000000001"))
        service.remove()
        lab.restart()
        assert "p" not in [
            policy.name for policy in lab.system.scheduling_policies_service().list()
        ]

    def test_one_of_a_built_in_policy_makes_pools_of_all_clusters_that_have_it(
        self, filtered: Lab
    ) -> None:
        unit = filtered.session.unit("TrustedHosts").id
        service = policy_of(filtered, "none")
        with refused(400, "Parameters are invalid"):
            service.filters_service().add(filter_of(unit))
        assert unit in filter_ids(service)
        with refused(409, "policies: none,policy of Default"):
            filtered.system.scheduling_policy_units_service().unit_service(unit).remove()
        filtered.restart()
        assert unit not in filter_ids(service)

    def test_a_filter_that_is_absent_is_removed_all_the_same(self, lab: Lab) -> None:
        lab.system.scheduling_policies_service().add(types.SchedulingPolicy(name="p"))
        policy_of(lab, "p").filters_service().filter_service(builtin.MEMORY_FILTER).remove()

    def test_a_unit_of_another_type_is_refused_in_words(self, lab: Lab) -> None:
        lab.system.scheduling_policies_service().add(types.SchedulingPolicy(name="p"))
        with refused(400, "Policy unit doesn't implement Filtering"):
            policy_of(lab, "p").filters_service().add(filter_of(builtin.NO_BALANCE))


class TestPolicies:
    def test_a_new_one_can_have_no_properties(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        with refused(400, "not configured by the system. The keys are: HighUtilization"):
            policies.add(types.SchedulingPolicy(name="p", properties=[HIGH]))
        assert [policy.name for policy in policies.list() if policy.name == "p"] == []

    def test_its_properties_are_those_of_its_units_and_hold_them_there(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        service = policies.policy_service(
            policies.add(types.SchedulingPolicy(name="p", description="d")).id
        )
        unit = types.SchedulingPolicyUnit(id=builtin.FILTERS["CPUOverloaded"])
        service.filters_service().add(types.Filter(scheduling_policy_unit=unit, position=1))
        with refused(400, "illegal values"):
            service.update(
                types.SchedulingPolicy(
                    properties=[types.Property(name="HighUtilization", value="1000")]
                )
            )
        service.update(types.SchedulingPolicy(properties=[HIGH]))
        with refused(400, "not configured"):
            service.filters_service().filter_service(unit.id).remove()
        lab.restart()
        policy = service.get()
        assert (policy.description, [setting.value for setting in policy.properties]) == (
            "d",
            ["75"],
        )
        (position,) = [row.position for row in service.filters_service().list()]
        assert position == 1

    def test_the_second_balance_takes_the_place_of_the_first(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        balances = policies.policy_service(
            policies.add(types.SchedulingPolicy(name="p")).id
        ).balances_service()
        for uid in (builtin.GUEST_BALANCE, builtin.NO_BALANCE):
            balances.add(types.Balance(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid)))
        assert [balance.id for balance in balances.list()] == [builtin.NO_BALANCE]

    def test_a_unit_in_use_stays(self, filtered: Lab) -> None:
        unit = filtered.session.unit("TrustedHosts")
        units = filtered.system.scheduling_policy_units_service()
        with refused(409, "attached to the following cluster policies: policy of Default"):
            units.unit_service(unit.id).remove()

    def test_a_cluster_keeps_what_it_has_and_gets_what_it_lacks(self, lab: Lab) -> None:
        (cluster,) = lab.system.clusters_service().list()
        service = lab.system.clusters_service().cluster_service(cluster.id)
        service.update(types.Cluster(custom_scheduling_policy_properties=[HIGH]))
        even = next(uid for uid, name, *_ in builtin.POLICIES if name == "evenly_distributed")
        changed = service.update(types.Cluster(scheduling_policy=types.SchedulingPolicy(id=even)))
        properties = {
            setting.name: setting.value for setting in changed.custom_scheduling_policy_properties
        }
        assert properties["HighUtilization"] == "75"
        assert "VCpuToPhysicalCpuRatio" in properties
        changed = service.update(
            types.Cluster(scheduling_policy=types.SchedulingPolicy(id=builtin.NONE_POLICY))
        )
        assert "VCpuToPhysicalCpuRatio" in {
            setting.name for setting in changed.custom_scheduling_policy_properties
        }


def test_a_cluster_takes_no_value_that_its_policy_refuses(filtered: Lab) -> None:
    (cluster,) = filtered.system.clusters_service().list()
    service = filtered.system.clusters_service().cluster_service(cluster.id)
    bad = types.Property(name="trust_scope", value="bogus")
    with refused(400, "Cannot edit Cluster if some .* illegal values. The keys are: trust_scope"):
        service.update(types.Cluster(custom_scheduling_policy_properties=[bad]))
    # One that nobody knows is dropped without a word.
    changed = service.update(
        types.Cluster(custom_scheduling_policy_properties=[types.Property(name="x", value="y")])
    )
    assert {setting.name: setting.value for setting in changed.custom_scheduling_policy_properties}[
        "trust_scope"
    ] == "all_vms"
    assert "x" not in [setting.name for setting in changed.custom_scheduling_policy_properties]


def test_permissions_are_listed_and_taken_back(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(directory={"broker@internal": PASSWORD})
    permissions = lab.system.permissions_service()
    role = lab.system.roles_service().add(
        types.Role(name="r", administrative=True, permits=[types.Permit(id="1300")])
    )
    user = next(
        user
        for user in lab.system.users_service().list()
        if user.user_name == "broker@internal-authz"
    )
    permission = permissions.add(
        types.Permission(role=types.Role(id=role.id), user=types.User(id=user.id))
    )
    users = [permission for permission in permissions.list() if permission.user is not None]
    assert (role.id, user.id) in [(permission.role.id, permission.user.id) for permission in users]
    # What everybody has is a group's.
    assert len(users) < len(permissions.list())
    permissions.permission_service(permission.id).remove()
    lab.system.roles_service().role_service(role.id).remove()
    with pytest.raises(ovirtsdk4.NotFoundError):
        permissions.permission_service(permission.id).remove()


def test_options_count_from_the_next_start(
    make_lab: Callable[..., Lab], proxy: ScriptedScheduler, tmp_path: Path
) -> None:
    command, options = engine_config.install(tmp_path)
    lab = make_lab(options=str(options))
    for value in (
        f"ExternalSchedulerServiceURL={proxy.url}",
        "ExternalSchedulerEnabled=true",
        "ExternalSchedulerResponseTimeout=3000",
    ):
        subprocess.run([command, "-s", value], check=True)
    subprocess.run(
        [command, "-m", "UserDefinedVMProperties=trusted_host_flag=^(true|false)$", "--cver=4.8"],
        check=True,
    )
    mark = types.Vm(
        custom_properties=[types.CustomProperty(name="trusted_host_flag", value="true")]
    )
    with refused(400, "not configured by the system. The keys are: trusted_host_flag"):
        lab.session.vm_service("vm2").update(mark)
    assert "TrustedHosts" not in [
        unit.name for unit in lab.system.scheduling_policy_units_service().list()
    ]
    assert lab.engine.model.timings.external_response == 120
    lab.engine.restart(0.1)
    lab.pass_time(1)
    lab.engine.discovery.wait(5)
    assert lab.session.unit("TrustedHosts").enabled
    assert lab.session.vm_service("vm2").update(mark).custom_properties[0].value == "true"
    assert lab.engine.model.timings.external_response == 3
