# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Starts and migrations that a host refuses, suspend and resume, and changes of the cluster."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.model import SimulatedHost, SimulatedVm
from tests.lab.engine.peers import HOSTS, Lab, add_group, vm


class TestStart:
    def test_a_host_that_refuses_is_followed_by_others(self, lab: Lab) -> None:
        lab.engine.faults.failing_starts = {"h2"}
        lab.session.vm_service("vm2").start()
        assert lab.journal()["chosen"] == "h2"
        lab.pass_time(11)
        assert (lab.session.place("vm2"), lab.vm("vm2").status) == ("h3", "up")
        codes = lab.session.codes()
        assert codes.count(audit_log.VM_DOWN_ERROR) == 1
        assert codes.count(audit_log.VM_START_FAILED_ON_HOST) == 1

    @pytest.mark.parametrize("running", [False, True], ids=["start", "migration"])
    def test_a_vm_that_is_stopped_while_its_host_asks_a_hook_of_another_vm_stays_down(
        self, make_lab: Callable[..., Lab], running: bool
    ) -> None:
        host = "h1" if running else ""
        lab = make_lab(vms=[vm("first", host), vm("second", host)])

        def stop_second(_point: str, _host: SimulatedHost, asked: SimulatedVm) -> str:
            if asked.name == "first":
                lab.engine.vms.stop(lab.vm("second"))
            return ""

        lab.engine.vms.vdsm = stop_second
        for name in ("first", "second"):
            service = lab.session.vm_service(name)
            if running:
                service.migrate()
            else:
                service.start()
        lab.pass_time(25)
        assert (lab.vm("first").status, lab.vm("second").status) == ("up", "down")

    def test_after_three_hosts_the_engine_gives_up(self, make_lab: Callable[..., Lab]) -> None:
        hosts = [{"name": f"h{n}", "address": f"h{n}.lab", "cluster": "Default"} for n in range(5)]
        lab = make_lab(hosts=hosts, vms=[vm("vm2")])
        lab.engine.faults.failing_starts = {f"h{n}" for n in range(5)}
        lab.session.vm_service("vm2").start()
        lab.pass_time(60)
        assert [entry["chosen"] for entry in lab.engine.model.journal] == ["h0", "h1", "h2"]
        assert lab.vm("vm2").status == "down"
        assert audit_log.VM_START_FAILED in lab.session.codes()

    def test_a_pinned_vm_starts_on_its_hosts_only(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(
            vms=[vm("fixed", affinity="pinned", pinned_to=["h3"]), vm("inclined", pinned_to=["h2"])]
        )
        lab.session.use_policy("Default", [])
        for name in ("fixed", "inclined"):
            lab.session.vm_service(name).start()
        lab.pass_time(5)
        assert (lab.session.place("fixed"), lab.session.place("inclined")) == ("h3", "h2")
        with pytest.raises(ovirtsdk4.Error, match="non migratable"):
            lab.session.vm_service("fixed").migrate(force=True)

    def test_a_cluster_in_maintenance_starts_highly_available_vms_only(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("plain"), vm("ha", high_availability=True)])
        policies = lab.system.scheduling_policies_service().list()
        policy = next(policy.id for policy in policies if policy.name == "cluster_maintenance")
        (cluster,) = lab.system.clusters_service().list()
        change = types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy))
        lab.system.clusters_service().cluster_service(cluster.id).update(change)
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            lab.session.vm_service("plain").start()
        lab.session.vm_service("ha").start()


class TestMigration:
    def test_a_destination_that_refuses_is_followed_by_another(self, lab: Lab) -> None:
        lab.engine.faults.failing_migrations = {"h2"}
        lab.session.vm_service("vm1").migrate()
        assert lab.journal()["chosen"] == "h2"
        lab.pass_time(41)
        assert lab.session.place("vm1") == "h3"
        assert audit_log.MIGRATION_RERUN in lab.session.codes()

    def test_one_that_fails_everywhere_leaves_the_vm_where_it_is(self, lab: Lab) -> None:
        lab.engine.faults.failing_migrations = {"h2", "h3"}
        lab.session.vm_service("vm1").migrate()
        lab.pass_time(60)
        assert (lab.session.place("vm1"), lab.vm("vm1").status) == ("h1", "up")
        assert audit_log.MIGRATION_FAILED in lab.session.codes()

    def test_one_out_of_a_leaving_host_that_fails_has_its_own_event(self, lab: Lab) -> None:
        lab.engine.faults.failing_migrations = {"h2", "h3"}
        lab.session.host_service("h1").deactivate()
        lab.pass_time(60)
        assert lab.status("h1") == "preparing_for_maintenance"
        assert audit_log.MIGRATION_FAILED_IN_MAINTENANCE in lab.session.codes()

    def test_its_destination_leaving_service_ends_it(self, lab: Lab) -> None:
        lab.session.vm_service("vm1").migrate(host=types.Host(id=lab.host("h2").id))
        lab.session.host_service("h2").deactivate()
        lab.pass_time(30)
        assert (lab.session.place("vm1"), lab.status("h2")) == ("h1", "maintenance")


class TestSuspend:
    def test_a_suspended_vm_has_no_host_and_is_scheduled_again(self, lab: Lab) -> None:
        lab.session.vm_service("vm1").suspend()
        lab.pass_time(1)
        assert lab.session.vm("vm1").status == types.VmStatus.SUSPENDED
        assert lab.session.vm("vm1").host is None
        add_group(lab.session.connection, [lab.session.host("h3")], [lab.session.vm("vm1")])
        lab.session.vm_service("vm1").start()
        assert (lab.journal()["purpose"], lab.journal()["internal"]) == ("resume", ["h3"])
        lab.pass_time(6)
        assert (lab.vm("vm1").status, lab.session.place("vm1")) == ("up", "h3")

    def test_one_that_no_host_takes_stays_suspended(self, lab: Lab) -> None:
        lab.session.vm_service("vm1").suspend()
        lab.pass_time(1)
        lab.engine.faults.failing_starts = {"h1", "h2", "h3"}
        lab.session.vm_service("vm1").start()
        lab.pass_time(60)
        assert lab.vm("vm1").status == "suspended"


def test_a_vm_that_changes_its_cluster_leaves_its_groups(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(clusters=["Default", "Other"], hosts=HOSTS)
    clusters = {cluster.name: cluster.id for cluster in lab.system.clusters_service().list()}
    groups = (
        lab.system.clusters_service().cluster_service(clusters["Default"]).affinity_groups_service()
    )
    uid = groups.add(types.AffinityGroup(name="wall", vms=[types.Vm(id=lab.vm("vm2").id)])).id
    lab.session.vm_service("vm2").update(types.Vm(cluster=types.Cluster(id=clusters["Other"])))
    assert lab.session.vm("vm2").cluster.id == clusters["Other"]
    assert groups.group_service(uid).vms_service().list() == []
    assert audit_log.VM_UPDATED in lab.session.codes()


class TestExport:
    def test_what_is_no_ovf_is_refused(self, lab: Lab) -> None:
        for data in ("rubbish", "<Envelope/>"):
            with pytest.raises(ovirtsdk4.Error, match="parse a given OVF"):
                take(lab, data)

    def test_a_vm_comes_back_with_the_properties_that_are_defined(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("marked", custom_properties={"trusted_host_flag": "true"})])
        data = give(lab, "marked")
        assert "<TrustedService>false</TrustedService>" in data
        with pytest.raises(ovirtsdk4.Error, match="already exist"):
            take(lab, data)
        uid = lab.vm("marked").id
        lab.session.vm_service("marked").remove()
        assert take(lab, data.replace("=true", "=true;unknown=1")).id == uid
        assert lab.vm("marked").custom_properties == {"trusted_host_flag": "true"}
        assert audit_log.VM_IMPORTED in lab.session.codes()

    def test_the_flag_of_another_engine_only_warns(self, lab: Lab) -> None:
        data = give(lab, "vm2").replace("<TrustedService>false", "<TrustedService>true")
        lab.session.vm_service("vm2").remove()
        take(lab, data)
        (warning,) = [
            row for row in lab.engine.model.events if row.code == audit_log.IMPORTED_FROM_TRUSTED
        ]
        assert (warning.severity, warning.vm) == ("warning", lab.vm("vm2").id)

    def test_a_clone_has_the_mark_and_no_group(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm("marked", custom_properties={"trusted_host_flag": "true"})])
        add_group(lab.session.connection, [], [lab.session.vm("marked")])
        lab.session.vm_service("marked").clone(vm=types.Vm(name="copy"))
        assert lab.vm("copy").custom_properties == {"trusted_host_flag": "true"}
        lab.session.vm_service("copy").start()
        assert audit_log.VM_CLONED in lab.session.codes()


def give(lab: Lab, name: str) -> str:
    return str(lab.session.vm_service(name).get(all_content=True).initialization.configuration.data)


def take(lab: Lab, data: str) -> types.Vm:
    configuration = types.Configuration(type=types.ConfigurationType.OVF, data=data)
    description = types.Vm(
        cluster=types.Cluster(name="Default"),
        initialization=types.Initialization(configuration=configuration),
    )
    description.cluster.id = next(iter(lab.engine.model.clusters))
    return lab.system.vms_service().add(description)
