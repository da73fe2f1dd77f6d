# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups and labels, and the built-in policies that affinity lives in."""

from __future__ import annotations

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import builtin, request_documents
from ovirt_tcp_plugin.lab.engine.model import Rule
from tests.lab.engine.peers import Lab, add_group

NOBODY = "00000000-0000-0000-0000-000000000001"
NO_GROUP = (
    'cannot invoke "org.ovirt.engine.core.common.scheduling.affinitygroup.getvmlabels()" because '
    '"ag" is null'
)


class TestGroups:
    """The words are a real engine's (4.5.8)."""

    def test_a_group_that_is_unknown_breaks_the_engines_query(self, lab: Lab) -> None:
        group = f"{lab.groups}/{NOBODY}"
        requests = [("GET", group), ("PUT", group), ("DELETE", group)]
        requests += [
            ("GET", f"{group}/{members}") for members in ("hosts", "vms", "hostlabels", "vmlabels")
        ]
        for verb, path in requests:
            assert lab.refused(verb, path, "<affinity_group/>" if verb == "PUT" else "") == (
                400,
                NO_GROUP,
            )

    def test_a_member_of_a_group_that_is_unknown_is_refused_in_words(self, lab: Lab) -> None:
        group, host = f"{lab.groups}/{NOBODY}", lab.host("h1").id
        refused = (400, "[Cannot edit Affinity Group. No matching Affinity Group.]")
        assert lab.refused("POST", f"{group}/hosts", f'<host id="{host}"/>') == refused
        assert lab.refused("POST", f"{group}/vms", f'<vm id="{lab.vm("vm1").id}"/>') == refused
        assert lab.refused("DELETE", f"{group}/hosts/{host}") == refused

    def test_members_that_are_there_or_nowhere_are_refused_in_words(self, lab: Lab) -> None:
        h1, h2, vm1, vm2 = lab.host("h1").id, lab.host("h2").id, lab.vm("vm1").id, lab.vm("vm2").id
        hosts, vms = [lab.session.host("h1")], [lab.session.vm("vm1")]
        group = f"{lab.groups}/{add_group(lab.session.connection, hosts, vms)}"
        edit = "Cannot edit Affinity Group."
        for verb, path, body, detail in (
            ("POST", "hosts", f'<host id="{h1}"/>', f"{edit} Duplicate VDS."),
            ("POST", "hosts", f'<host id="{NOBODY}"/>', f"{edit} Host does not exist."),
            ("DELETE", f"hosts/{h2}", "", f"{edit} Provided VDS is invalid (does not exist)."),
            ("DELETE", f"hosts/{NOBODY}", "", f"{edit} Host does not exist."),
            ("POST", "vms", f'<vm id="{vm1}"/>', f"{edit} Duplicate VM."),
            ("POST", "vms", f'<vm id="{NOBODY}"/>', "The selected VM does not exist."),
            ("DELETE", f"vms/{vm2}", "", f"{edit} Provided VM is invalid (does not exist)."),
            ("DELETE", f"vms/{NOBODY}", "", "The selected VM does not exist."),
            ("DELETE", f"hostlabels/{NOBODY}", "", "Affinity label does not exist."),
        ):
            assert lab.refused(verb, f"{group}/{path}", body) == (400, f"[{detail}]")

    def test_a_new_vm_is_given_back_as_it_came(self, lab: Lab) -> None:
        group = f"{lab.groups}/{add_group(lab.session.connection, [], [])}"
        status, answer = lab.ask("POST", f"{group}/vms", f'<vm id="{lab.vm("vm1").id}"/>')
        assert status == 200
        assert request_documents.parse(answer.encode()).tag == "vm"
        status, answer = lab.ask("POST", f"{group}/hosts", f'<host id="{lab.host("h1").id}"/>')
        assert (status, request_documents.parse(answer.encode()).tag) == (200, "action")

    def test_a_label_never_goes_alone_but_with_an_edit_of_the_whole(self, lab: Lab) -> None:
        label = lab.system.affinity_labels_service().add(types.AffinityLabel(name="rack"))
        uid = add_group(lab.session.connection, [lab.session.host("h1")], [lab.session.vm("vm1")])
        path, group = f"{lab.groups}/{uid}", lab.engine.model.groups[uid]
        assert lab.ask("POST", f"{path}/hostlabels", f'<affinity_label id="{label.id}"/>')[0] == 200
        refused = (400, "[Cannot edit Affinity Group. Provided LABEL is invalid (does not exist).]")
        assert lab.refused("DELETE", f"{path}/hostlabels/{label.id}") == refused
        assert group.host_labels == [label.id]
        assert lab.ask("PUT", path, "<affinity_group><host_labels/></affinity_group>")[0] == 200
        assert (group.host_labels, group.hosts, group.vms) == (
            [],
            [lab.host("h1").id],
            [lab.vm("vm1").id],
        )

    def test_an_edit_replaces_the_lists_that_it_has_and_no_others(self, lab: Lab) -> None:
        h1, h2, vm1 = lab.host("h1").id, lab.host("h2").id, lab.vm("vm1").id
        uid = add_group(lab.session.connection, [lab.session.host("h1")], [lab.session.vm("vm1")])
        path, group = f"{lab.groups}/{uid}", lab.engine.model.groups[uid]
        for lists, hosts, vms in (
            ("", [h1], [vm1]),
            (f'<hosts><host id="{h2}"/></hosts>', [h2], [vm1]),
            ("<hosts/>", [], [vm1]),
            (f'<hosts><host id="{h1}"/><host id="{h2}"/></hosts><vms/>', [h1, h2], []),
        ):
            assert lab.ask("PUT", path, f"<affinity_group>{lists}</affinity_group>")[0] == 200
            assert (group.hosts, group.vms) == (hosts, vms)
            assert group.hosts_rule == Rule(enabled=True, enforcing=True, positive=True)

    def test_an_edit_of_the_whole_validates_every_member_again(self, lab: Lab) -> None:
        uid = add_group(lab.session.connection, [lab.session.host("h1")], [])
        path, group = f"{lab.groups}/{uid}", lab.engine.model.groups[uid]
        refused = (400, "[Cannot edit Affinity Group. Provided VDS is invalid (does not exist).]")
        document = f'<affinity_group><hosts><host id="{NOBODY}"/></hosts></affinity_group>'
        assert lab.refused("PUT", path, document) == refused
        group.hosts.append(NOBODY)
        assert lab.refused("PUT", path, "<affinity_group/>") == refused
        assert group.hosts == [lab.host("h1").id, NOBODY]

    def test_rules_that_contradict_each_other_refuse_edits_of_any_group_but_not_of_members(
        self, lab: Lab
    ) -> None:
        connection, h1, vm1 = lab.session.connection, lab.session.host("h1"), lab.session.vm("vm1")
        add_group(connection, [h1], [vm1], positive=False)
        wall, third = add_group(connection, [h1], []), add_group(connection, [], [])
        assert lab.ask("POST", f"{lab.groups}/{wall}/vms", f'<vm id="{vm1.id}"/>')[0] == 200
        for uid in (wall, third):
            status, detail = lab.refused("PUT", f"{lab.groups}/{uid}", "<affinity_group/>")
            assert status == 400
            assert (
                "have VM to host conflicts between positive and negative enforcing affinity groups."
                in detail
            )
            assert "Affinity Groups: group 0,group 1, Hosts: h1, VMs: vm1]" in detail
        assert (
            lab.ask("PUT", f"{lab.groups}/{wall}", "<affinity_group><hosts/></affinity_group>")[0]
            == 200
        )

    def test_a_new_group_with_a_name_or_members_that_are_no_good_is_refused(self, lab: Lab) -> None:
        add_group(lab.session.connection, [], [])
        for members, detail in (
            ("<name>group 0</name>", "Affinity Group name already exists."),
            (
                f'<name>new</name><hosts><host id="{NOBODY}"/></hosts>',
                "Provided VDS is invalid (does not exist).",
            ),
            (
                f'<name>new</name><vms><vm id="{NOBODY}"/></vms>',
                "Provided VM is invalid (does not exist).",
            ),
        ):
            document = f"<affinity_group>{members}</affinity_group>"
            assert lab.refused("POST", lab.groups, document) == (
                400,
                f"[Cannot add Affinity Group. {detail}]",
            )


class TestLabels:
    def test_whoever_bears_a_label_of_a_group_is_a_member(self, lab: Lab) -> None:
        labels = lab.system.affinity_labels_service()
        label = labels.add(types.AffinityLabel(name="trusted"))
        labels.label_service(label.id).hosts_service().add(types.Host(id=lab.host("h3").id))
        labels.label_service(label.id).vms_service().add(types.Vm(id=lab.vm("vm2").id))
        uid = add_group(lab.session.connection, [], [])
        (cluster,) = lab.system.clusters_service().list()
        group = (
            lab.system.clusters_service()
            .cluster_service(cluster.id)
            .affinity_groups_service()
            .group_service(uid)
        )
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
    def test_all_five_policies_are_there_locked_and_with_the_affinity_filter(
        self, lab: Lab
    ) -> None:
        policies = lab.system.scheduling_policies_service()
        listed = policies.list()
        names = {
            "none",
            "cluster_maintenance",
            "evenly_distributed",
            "power_saving",
            "vm_evenly_distributed",
        }
        assert {policy.name for policy in listed} == names
        assert all(policy.locked for policy in listed)
        for policy in listed:
            service = policies.policy_service(policy.id)
            assert builtin.AFFINITY_FILTER in [row.id for row in service.filters_service().list()]
            assert len(service.balances_service().list()) == 1
        none = policies.policy_service(builtin.NONE_POLICY)
        assert {weight.factor for weight in none.weights_service().list()} == {1, 2, 4, 5, 20, 99}
        assert (
            next(
                setting for setting in none.get().properties if setting.name == "HighUtilization"
            ).value
            == "80"
        )

    def test_a_policy_that_is_in_use_stays(self, lab: Lab) -> None:
        lab.session.use_policy("Default", [builtin.AFFINITY_FILTER])
        policies = lab.system.scheduling_policies_service()
        made = next(policy for policy in policies.list() if not policy.locked)
        with pytest.raises(ovirtsdk4.Error, match="attached to cluster"):
            policies.policy_service(made.id).remove()
        filters = policies.policy_service(made.id).filters_service()
        filters.filter_service(builtin.AFFINITY_FILTER).remove()
        assert filters.list() == []
