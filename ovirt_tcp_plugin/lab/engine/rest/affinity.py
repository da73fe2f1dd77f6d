# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups of clusters, their members, and affinity labels.

Sources: `BackendAffinityGroupResource` (the cluster in the path is not looked at, only the
    group's id),
`AffinityGroupMapper` (an edit replaces the lists that it has, also with empty ones, and leaves the
others as they are), `AffinityGroupCRUDCommand` (an edit of the whole validates all members and all
groups of the cluster, one of a single member does not), and `AddHostToAffinityGroupCommand` with
its like for the texts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ovirt_tcp_plugin.lab.engine import affinity, audit_log, documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, invalid, refusal
from ovirt_tcp_plugin.lab.engine.model import AffinityGroup, AffinityLabel, Model, Rule

# Path element: (table of the members, attribute of the group, their document, tag of a list).
_MEMBERS: dict[str, tuple[str, str, Callable[[Any], Element], str]] = {
    "hosts": ("hosts", "hosts", documents.named_host, "hosts"),
    "vms": ("vms", "vms", documents.named_vm, "vms"),
    "hostlabels": ("labels", "host_labels", documents.named_label, "affinity_labels"),
    "vmlabels": ("labels", "vm_labels", documents.named_label, "affinity_labels"),
}
# Attribute of a group: (its element in a document, tag of one member there).
_LISTS = {
    "hosts": ("hosts", "host"),
    "vms": ("vms", "vm"),
    "host_labels": ("host_labels", "affinity_label"),
    "vm_labels": ("vm_labels", "affinity_label"),
}
_GROUPS = "clusters/{}/affinitygroups"

# The engine's words. A group that is unknown breaks the query behind GET, PUT and DELETE of the
# group.
_NO_GROUP = (
    'cannot invoke "org.ovirt.engine.core.common.scheduling.affinitygroup.getvmlabels()" because '
    '"ag" is null'
)
_NO_SUCH_MEMBER = {
    "hosts": "Cannot edit Affinity Group. Host does not exist.",
    "vms": "The selected VM does not exist.",
    "hostlabels": "Affinity label does not exist.",
    "vmlabels": "Affinity label does not exist.",
}
_ENTITIES = {"hosts": "VDS", "vms": "VM", "hostlabels": "LABEL", "vmlabels": "LABEL"}


class AffinityPaths:
    """`clusters/{}/affinitygroups` and `affinitylabels`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        members = f"{_GROUPS}/{{}}/({'|'.join(_MEMBERS)})"
        self.routes: dict[str, Callable[..., Element]] = {
            f"GET {_GROUPS}": self._list,
            f"POST {_GROUPS}": self._add,
            f"GET {_GROUPS}/{{}}": self._get,
            f"PUT {_GROUPS}/{{}}": self._update,
            f"DELETE {_GROUPS}/{{}}": self._remove,
            f"GET {members}": self._members,
            f"POST {members}": self._add_member,
            f"DELETE {members}/{{}}": self._remove_member,
            "GET affinitylabels": self._labels,
            "POST affinitylabels": self._add_label,
            "GET affinitylabels/{}/(hosts|vms)": self._bearers,
            "POST affinitylabels/{}/(hosts|vms)": self._put_label,
            "DELETE affinitylabels/{}/(hosts|vms)/{}": self._take_label,
        }

    def _list(self, query: Mapping[str, str], _: Element, cluster: str) -> Element:
        with self._model.lock:
            groups = [group for group in self._model.groups.values() if group.cluster == cluster]
            inline = "hosts" in query.get("follow", "")
            return documents.listing(
                "affinity_groups", [documents.group(group, self._model, inline) for group in groups]
            )

    def _add(self, query: Mapping[str, str], given: Element, cluster: str) -> Element:
        with self._model.lock:
            group = AffinityGroup(
                model.new_id(), "", cluster, Rule(positive=False), Rule(positive=False)
            )
            self._edit(group, given)
            self._check_name(group, "add")
            self._validate(group, "add")
            self._model.groups[group.id] = group
            self._log(audit_log.GROUP_ADDED, group, "added")
            return documents.group(group, self._model)

    def _get(self, query: Mapping[str, str], _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            return documents.group(self._find(uid), self._model, "hosts" in query.get("follow", ""))

    def _update(self, query: Mapping[str, str], given: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            present = self._find(uid)
            group = copy.deepcopy(present)
            self._edit(group, given)
            if group.name != present.name:
                self._check_name(group, "edit")
            self._validate(group, "edit")
            # The same row for whoever holds it.
            vars(present).update(vars(group))
            self._log(audit_log.GROUP_UPDATED, present, "updated")
            return documents.group(present, self._model)

    def _remove(self, query: Mapping[str, str], _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            group = self._find(uid)
            del self._model.groups[group.id]
            self._log(audit_log.GROUP_REMOVED, group, "removed")
            return documents.action()

    def _find(self, uid: str) -> AffinityGroup:
        group = self._model.groups.get(uid)
        if group is None:
            raise Fault(400, "Operation Failed", _NO_GROUP)
        return group

    def _edit(self, group: AffinityGroup, given: Element) -> None:
        for name in ("name", "description"):
            setattr(group, name, documents.text(given, name) or getattr(group, name))
        for name in ("hosts_rule", "vms_rule"):
            setattr(group, name, documents.rule(given.find(name), getattr(group, name)))
        for attribute, (path, tag) in _LISTS.items():
            members = given.find(path)
            if members is not None:
                setattr(
                    group,
                    attribute,
                    [member.get("id", "") for member in members.findall(tag) if member.get("id")],
                )

    def _check_name(self, group: AffinityGroup, action: str) -> None:
        # Of any cluster: `AddAffinityGroupCommand` looks for the name alone.
        if any(other.name == group.name for other in self._model.groups.values()):
            raise invalid(f"Cannot {action} Affinity Group. Affinity Group name already exists.")

    def _validate(self, group: AffinityGroup, action: str) -> None:
        """Raise Fault (400) for a member that is no good, or rules of the cluster that contradict
        each other.
        """
        prefix = f"Cannot {action} Affinity Group."
        if group.cluster not in self._model.clusters:
            raise invalid(f"{prefix} Provided Cluster is invalid.")
        for kind in ("vms", "hosts"):
            entity = _ENTITIES[kind]
            rows = getattr(self._model, kind)
            seen: set[str] = set()
            for uid in getattr(group, kind):
                if uid not in rows:
                    raise invalid(f"{prefix} Provided {entity} is invalid (does not exist).")
                if rows[uid].cluster != group.cluster:
                    raise invalid(f"{prefix} Provided {entity} resides in another Cluster.")
                if uid in seen:
                    raise invalid(f"{prefix} Duplicate {entity}.")
                seen.add(uid)
        for labels in (group.vm_labels, group.host_labels):
            if set(labels) - set(self._model.labels):
                raise invalid(f"{prefix} Provided label is invalid (does not exist).")
            if len(set(labels)) < len(labels):
                raise invalid(f"{prefix} Duplicate label.")
        collision = affinity.collision(self._model, group)
        if collision:
            raise invalid(collision)

    def _members(
        self, query: Mapping[str, str], _: Element, cluster: str, uid: str, kind: str
    ) -> Element:
        table, attribute, document, tag = _MEMBERS[kind]
        with self._model.lock:
            rows = getattr(self._model, table)
            present = [
                rows[member] for member in getattr(self._find(uid), attribute) if member in rows
            ]
            return documents.listing(tag, map(document, present))

    def _add_member(
        self, query: Mapping[str, str], given: Element, cluster: str, uid: str, kind: str
    ) -> Element:
        with self._model.lock:
            members = self._editable_members(uid, kind, given.get("id", ""))
            # A label of hosts is looked for among those of VMs
            # (`AddHostLabelToAffinityGroupCommand`).
            present = self._model.groups[uid].vm_labels if kind == "hostlabels" else members
            if given.get("id", "") in present:
                raise invalid(f"Cannot edit Affinity Group. Duplicate {_ENTITIES[kind]}.")
            members.append(given.get("id", ""))
            self._log(audit_log.GROUP_UPDATED, self._model.groups[uid], "updated")
            # `BackendAffinityGroupVmsResource` gives the VM back as it came.
            return documents.echo(given) if kind == "vms" else documents.action()

    def _remove_member(
        self, query: Mapping[str, str], _: Element, cluster: str, uid: str, kind: str, member: str
    ) -> Element:
        with self._model.lock:
            members = self._editable_members(uid, kind, member)
            # A label is looked for among the ids of VMs
            # (`RemoveHostLabelFromAffinityGroupCommand`), so none ever goes.
            if member not in members or _ENTITIES[kind] == "LABEL":
                raise invalid(
                    f"Cannot edit Affinity Group. Provided {_ENTITIES[kind]} is invalid (does not "
                    "exist)."
                )
            members.remove(member)
            self._log(audit_log.GROUP_UPDATED, self._model.groups[uid], "updated")
            return documents.action()

    def _editable_members(self, uid: str, kind: str, member: str) -> list[str]:
        """Return the ids of a group's members. Raises Fault (400) if the group or the member does
        not exist.
        """
        table, attribute = _MEMBERS[kind][:2]
        group = self._model.groups.get(uid)
        if group is None:
            raise invalid("Cannot edit Affinity Group. No matching Affinity Group.")
        if member not in getattr(self._model, table):
            raise invalid(_NO_SUCH_MEMBER[kind])
        members: list[str] = getattr(group, attribute)
        return members

    def _log(self, code: int, group: AffinityGroup, done: str) -> None:
        text = f"Affinity Group {group.name} was {done}. (User: {self._model.acting_name()})"
        self._model.log(code, text, cluster=group.cluster)

    def _labels(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing(
                "affinity_labels", map(documents.label, self._model.labels.values())
            )

    def _add_label(self, query: Mapping[str, str], given: Element) -> Element:
        with self._model.lock:
            label = AffinityLabel(model.new_id(), documents.text(given, "name") or "")
            if any(one.name == label.name for one in self._model.labels.values()):
                raise refusal("Cannot add affinity label with a conflicting NAME.")
            self._model.labels[label.id] = label
            self._model.log(
                audit_log.LABEL_ADDED,
                f"Affinity Label {label.name} was added. (User: {self._model.acting_name()})",
            )
            return documents.label(label)

    def _bearers(self, query: Mapping[str, str], _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            rows = getattr(self._model, kind)
            present = [
                rows[one] for one in getattr(self._model.find("labels", uid), kind) if one in rows
            ]
            return documents.listing(kind, [documents.member_link(kind, row.id) for row in present])

    def _put_label(self, query: Mapping[str, str], given: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            bearers = getattr(self._model.find("labels", uid), kind)
            row = self._model.find(kind, given.get("id", ""))
            if row.id not in bearers:
                bearers.append(row.id)
            return documents.member_link(kind, row.id)

    def _take_label(
        self, query: Mapping[str, str], _: Element, uid: str, kind: str, bearer: str
    ) -> Element:
        with self._model.lock:
            bearers = getattr(self._model.find("labels", uid), kind)
            if bearer not in bearers:
                raise Fault(404, "Operation Failed", "[Entity not found]")
            bearers.remove(bearer)
            return documents.action()
