# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups of clusters, and their members.

Sources: `BackendAffinityGroupResource` (the cluster in the path is not looked at, only the group's
id), `AffinityGroupMapper` (an edit replaces the lists that it has, also with empty ones, and leaves
the others as they are), `AffinityGroupCRUDCommand` (an edit of the whole validates all members and
all groups of the cluster, an edit of a single member does not), and `AddHostToAffinityGroupCommand`
with its like for the texts.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from ovirt_tcp_plugin.lab.engine import affinity, audit_log, model, request_documents
from ovirt_tcp_plugin.lab.engine.documents import actions, affinity_groups
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Fault, invalid
from ovirt_tcp_plugin.lab.engine.model import AffinityGroup, Model, Rule
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes
from ovirt_tcp_plugin.lab.engine.xml_text import Element


@dataclasses.dataclass(frozen=True)
class _Members:
    """A kind of members.

    Attributes:
        table: their rows are in it.
        attribute: of a group: the list of their ids.
        document: returns a member's document.
        listing: tag of a list of them.
        title: what refusals call a member.
        missing: the refusal of a member that does not exist.
    """

    table: str
    attribute: str
    document: Callable[[Any], Element]
    listing: str
    title: str
    missing: str


_NO_LABEL = "Affinity label does not exist."
# By path element.
_MEMBERS = {
    "hosts": _Members(
        "hosts",
        "hosts",
        affinity_groups.host_link,
        "hosts",
        "VDS",
        "Cannot edit Affinity Group. Host does not exist.",
    ),
    "vms": _Members(
        "vms", "vms", affinity_groups.vm_link, "vms", "VM", "The selected VM does not exist."
    ),
    "hostlabels": _Members(
        "labels", "host_labels", affinity_groups.label_link, "affinity_labels", "LABEL", _NO_LABEL
    ),
    "vmlabels": _Members(
        "labels", "vm_labels", affinity_groups.label_link, "affinity_labels", "LABEL", _NO_LABEL
    ),
}
# Attribute of a group, which is also its element in a document: tag of a member there.
_LISTS = {
    "hosts": "host",
    "vms": "vm",
    "host_labels": "affinity_label",
    "vm_labels": "affinity_label",
}
_GROUPS = "clusters/{}/affinitygroups"

# The engine's words. A group that is unknown breaks the query behind GET, PUT and DELETE of the
# group.
_NO_GROUP = (
    'cannot invoke "org.ovirt.engine.core.common.scheduling.affinitygroup.getvmlabels()" because '
    '"ag" is null'
)


class AffinityGroupPaths:
    """`clusters/{}/affinitygroups`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        members = f"{_GROUPS}/{{}}/({'|'.join(_MEMBERS)})"
        self.routes: Routes = {
            f"GET {_GROUPS}": self._list,
            f"POST {_GROUPS}": self._add,
            f"GET {_GROUPS}/{{}}": self._get,
            f"PUT {_GROUPS}/{{}}": self._update,
            f"DELETE {_GROUPS}/{{}}": self._remove,
            f"GET {members}": self._members,
            f"POST {members}": self._add_member,
            f"DELETE {members}/{{}}": self._remove_member,
        }

    # Groups

    def _list(self, query: Query, _: Element, cluster: str) -> Element:
        inline = "hosts" in query.get("follow", "")
        groups: list[Element] = []
        for group in self._model.groups.values():
            if group.cluster == cluster:
                groups.append(affinity_groups.group(group, self._model, inline))
        return listing("affinity_groups", groups)

    def _add(self, query: Query, document: Element, cluster: str) -> Element:
        hosts_rule = Rule(positive=False)
        vms_rule = Rule(positive=False)
        group = AffinityGroup(model.new_id(), "", cluster, hosts_rule, vms_rule)
        self._edit(group, document)
        self._check_name(group, "add")
        self._validate(group, "add")
        self._model.groups[group.id] = group
        self._log(audit_log.GROUP_ADDED, group, "added")
        return affinity_groups.group(group, self._model)

    def _get(self, query: Query, _: Element, cluster: str, uid: str) -> Element:
        inline = "hosts" in query.get("follow", "")
        return affinity_groups.group(self._find(uid), self._model, inline)

    def _update(self, query: Query, document: Element, cluster: str, uid: str) -> Element:
        present = self._find(uid)
        group = copy.deepcopy(present)
        self._edit(group, document)
        if group.name != present.name:
            self._check_name(group, "edit")
        self._validate(group, "edit")
        # The same row for whoever holds it.
        vars(present).update(vars(group))
        self._log(audit_log.GROUP_UPDATED, present, "updated")
        return affinity_groups.group(present, self._model)

    def _remove(self, query: Query, _: Element, cluster: str, uid: str) -> Element:
        group = self._find(uid)
        del self._model.groups[group.id]
        self._log(audit_log.GROUP_REMOVED, group, "removed")
        return actions.complete()

    def _find(self, uid: str) -> AffinityGroup:
        group = self._model.groups.get(uid)
        if group is None:
            raise Fault(400, "Operation Failed", _NO_GROUP)
        return group

    def _edit(self, group: AffinityGroup, document: Element) -> None:
        group.name = document.findtext("name") or group.name
        group.description = document.findtext("description") or group.description
        hosts_rule = document.find("hosts_rule")
        vms_rule = document.find("vms_rule")
        group.hosts_rule = request_documents.rule(hosts_rule, group.hosts_rule)
        group.vms_rule = request_documents.rule(vms_rule, group.vms_rule)
        for attribute, tag in _LISTS.items():
            members = document.find(attribute)
            if members is not None:
                uids = [member.get("id", "") for member in members.findall(tag)]
                setattr(group, attribute, [uid for uid in uids if uid])

    def _check_name(self, group: AffinityGroup, action: str) -> None:
        # Of any cluster: `AddAffinityGroupCommand` looks for the name alone.
        if any(other.name == group.name for other in self._model.groups.values()):
            raise invalid(f"Cannot {action} Affinity Group. Affinity Group name already exists.")

    def _validate(self, group: AffinityGroup, action: str) -> None:
        """Raise Fault (400) for a member that does not fit, or rules that contradict each other."""
        prefix = f"Cannot {action} Affinity Group."
        if group.cluster not in self._model.clusters:
            raise invalid(f"{prefix} Provided Cluster is invalid.")
        self._validate_members(group, "vms", prefix)
        self._validate_members(group, "hosts", prefix)
        self._validate_labels(group.vm_labels, prefix)
        self._validate_labels(group.host_labels, prefix)
        collision = affinity.collision(self._model, group)
        if collision:
            raise invalid(collision)

    def _validate_members(self, group: AffinityGroup, kind: str, prefix: str) -> None:
        title = _MEMBERS[kind].title
        rows = getattr(self._model, kind)
        seen: set[str] = set()
        for uid in getattr(group, kind):
            if uid not in rows:
                raise invalid(f"{prefix} Provided {title} is invalid (does not exist).")
            if rows[uid].cluster != group.cluster:
                raise invalid(f"{prefix} Provided {title} resides in another Cluster.")
            if uid in seen:
                raise invalid(f"{prefix} Duplicate {title}.")
            seen.add(uid)

    def _validate_labels(self, labels: list[str], prefix: str) -> None:
        if set(labels) - set(self._model.labels):
            raise invalid(f"{prefix} Provided label is invalid (does not exist).")
        if len(set(labels)) < len(labels):
            raise invalid(f"{prefix} Duplicate label.")

    # Members

    def _members(self, query: Query, _: Element, cluster: str, uid: str, kind: str) -> Element:
        members = _MEMBERS[kind]
        rows = getattr(self._model, members.table)
        uids = getattr(self._find(uid), members.attribute)
        present = [rows[member] for member in uids if member in rows]
        return listing(members.listing, map(members.document, present))

    def _add_member(
        self, query: Query, document: Element, cluster: str, uid: str, kind: str
    ) -> Element:
        member = document.get("id", "")
        members = self._editable_members(uid, kind, member)
        group = self._model.groups[uid]
        # A label of hosts is looked for among those of VMs
        # (`AddHostLabelToAffinityGroupCommand`).
        present = group.vm_labels if kind == "hostlabels" else members
        if member in present:
            raise invalid(f"Cannot edit Affinity Group. Duplicate {_MEMBERS[kind].title}.")
        members.append(member)
        self._log(audit_log.GROUP_UPDATED, group, "updated")
        # `BackendAffinityGroupVmsResource` gives the VM back as it came.
        return actions.echo(document) if kind == "vms" else actions.complete()

    def _remove_member(
        self, query: Query, _: Element, cluster: str, uid: str, kind: str, member: str
    ) -> Element:
        title = _MEMBERS[kind].title
        members = self._editable_members(uid, kind, member)
        # A label is looked for among the ids of VMs
        # (`RemoveHostLabelFromAffinityGroupCommand`), so none can be removed.
        if member not in members or title == "LABEL":
            text = f"Provided {title} is invalid (does not exist)."
            raise invalid(f"Cannot edit Affinity Group. {text}")
        members.remove(member)
        self._log(audit_log.GROUP_UPDATED, self._model.groups[uid], "updated")
        return actions.complete()

    def _editable_members(self, uid: str, kind: str, member: str) -> list[str]:
        """Return the ids of a group's members.

        Raises:
            Fault: the group or the member does not exist (400).
        """
        group = self._model.groups.get(uid)
        if group is None:
            raise invalid("Cannot edit Affinity Group. No matching Affinity Group.")
        if member not in getattr(self._model, _MEMBERS[kind].table):
            raise invalid(_MEMBERS[kind].missing)
        members: list[str] = getattr(group, _MEMBERS[kind].attribute)
        return members

    def _log(self, code: int, group: AffinityGroup, done: str) -> None:
        text = f"Affinity Group {group.name} was {done}. (User: {self._model.acting_name()})"
        self._model.log(code, text, cluster=group.cluster)
