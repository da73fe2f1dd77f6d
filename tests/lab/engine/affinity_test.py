# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity labels, and the built-in policies that affinity lives in."""

from __future__ import annotations

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import builtin
from tests.lab.engine.peers import Lab, add_group


class TestLabels:
    def test_whoever_bears_a_label_of_a_group_is_a_member(self, lab: Lab) -> None:
        labels = lab.system.affinity_labels_service()
        label = labels.add(types.AffinityLabel(name="trusted"))
        labels.label_service(label.id).hosts_service().add(types.Host(id=lab.host("h3").id))
        labels.label_service(label.id).vms_service().add(types.Vm(id=lab.vm("vm2").id))
        uid = add_group(lab.session.connection, [], [])
        (cluster,) = lab.system.clusters_service().list()
        group = lab.system.clusters_service().cluster_service(cluster.id).affinity_groups_service().group_service(uid)
        group.host_labels_service().add(types.AffinityLabel(id=label.id))
        group.vm_labels_service().add(types.AffinityLabel(id=label.id))
        lab.session.vm_service("vm2").start()
        assert lab.journal()["internal"] == ["h3"]
        labels.label_service(label.id).hosts_service().host_service(lab.host("h3").id).remove()
        lab.session.vm_service("vm2").stop()
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            lab.session.vm_service("vm2").start()

    def test_a_label_alone_does_nothing(self, lab: Lab) -> None:
        labels = lab.system.affinity_labels_service()
        label = labels.add(types.AffinityLabel(name="trusted"))
        labels.label_service(label.id).vms_service().add(types.Vm(id=lab.vm("vm2").id))
        lab.session.vm_service("vm2").start()
        assert lab.journal()["internal"] == ["h1", "h2", "h3"]


class TestBuiltIn:
    def test_all_five_policies_are_there_locked_and_with_the_affinity_filter(self, lab: Lab) -> None:
        policies = lab.system.scheduling_policies_service()
        listed = policies.list()
        names = {"none", "cluster_maintenance", "evenly_distributed", "power_saving", "vm_evenly_distributed"}
        assert {one.name for one in listed} == names
        assert all(one.locked for one in listed)
        for policy in listed:
            service = policies.policy_service(policy.id)
            assert builtin.AFFINITY_FILTER in [one.id for one in service.filters_service().list()]
            assert len(service.balances_service().list()) == 1
        none = policies.policy_service(builtin.NONE_POLICY)
        assert {one.factor for one in none.weights_service().list()} == {1, 2, 4, 5, 20, 99}
        assert next(one for one in none.get().properties if one.name == "HighUtilization").value == "80"

    def test_a_policy_that_is_in_use_stays(self, lab: Lab) -> None:
        lab.session.use_policy("Default", [builtin.AFFINITY_FILTER])
        policies = lab.system.scheduling_policies_service()
        made = next(one for one in policies.list() if not one.locked)
        with pytest.raises(ovirtsdk4.Error, match="attached to cluster"):
            policies.policy_service(made.id).remove()
        filters = policies.policy_service(made.id).filters_service()
        unit = types.SchedulingPolicyUnit(id=builtin.AFFINITY_FILTER)
        with pytest.raises(ovirtsdk4.Error, match="already exists"):
            filters.add(types.Filter(scheduling_policy_unit=unit))
        filters.filter_service(builtin.AFFINITY_FILTER).remove()
        assert filters.list() == []
