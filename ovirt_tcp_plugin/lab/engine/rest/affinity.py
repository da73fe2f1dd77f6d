# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups of clusters, their members one by one, and affinity labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import AffinityGroup, AffinityLabel, Model

# Path element: (table of the members, attribute of the group, their document, tag of a list).
_MEMBERS: dict[str, tuple[str, str, Callable[[Any], Element], str]] = {
    "hosts": ("hosts", "hosts", documents.host, "hosts"),
    "vms": ("vms", "vms", documents.vm, "vms"),
    "hostlabels": ("labels", "host_labels", documents.label, "affinity_labels"),
    "vmlabels": ("labels", "vm_labels", documents.label, "affinity_labels"),
}
_GROUPS = "clusters/{}/affinitygroups"


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
            self._model.find("clusters", cluster)
            own = [group for group in self._model.groups.values() if group.cluster == cluster]
            inline = "hosts" in query.get("follow", "")
            return documents.listing("affinity_groups", [documents.group(one, self._model, inline) for one in own])

    def _add(self, query: Mapping[str, str], given: Element, cluster: str) -> Element:
        with self._model.lock:
            self._model.find("clusters", cluster)
            name = documents.text(given, "name") or ""
            # Of any cluster: `AddAffinityGroupCommand` looks for the name alone.
            if any(one.name == name for one in self._model.groups.values()):
                raise refusal("Cannot add Affinity Group. Affinity Group name already exists.")
            rules = [documents.rule(given, "hosts_rule"), documents.rule(given, "vms_rule")]
            hosts, vms = (
                [one.get("id", "") for one in given.findall(path)] for path in ("hosts/host", "vms/vm")
            )  # fmt: skip
            group = AffinityGroup(model.new_id(), name, cluster, rules[0], rules[1], hosts, vms)
            group.description = documents.text(given, "description") or ""
            self._validate(group)
            self._model.groups[group.id] = group
            return documents.group(group, self._model)

    def _get(self, query: Mapping[str, str], _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            return documents.group(self._find(cluster, uid), self._model, "hosts" in query.get("follow", ""))

    def _update(self, query: Mapping[str, str], given: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            group = self._find(cluster, uid)
            self._validate(group)
            for name in ("name", "description"):
                setattr(group, name, documents.text(given, name) or getattr(group, name))
            for name in ("hosts_rule", "vms_rule"):
                if given.find(name) is not None:
                    setattr(group, name, documents.rule(given, name))
            return documents.group(group, self._model)

    def _remove(self, query: Mapping[str, str], _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            del self._model.groups[self._find(cluster, uid).id]
            return documents.action()

    def _find(self, cluster: str, uid: str) -> AffinityGroup:
        group: AffinityGroup = self._model.find("groups", uid)
        if group.cluster != cluster:
            raise Fault(404, "Operation Failed", "[Entity not found]")
        return group

    def _validate(self, group: AffinityGroup) -> None:
        """An edit of the whole validates every member again (AffinityGroupCRUDCommand); one of a member does not."""
        for kind in ("hosts", "vms"):
            for uid in getattr(group, kind):
                if self._model.find(kind, uid).cluster != group.cluster:
                    raise refusal(f"Cannot edit Affinity Group. Provided {kind[:-1]} resides in another Cluster.")

    def _members(self, query: Mapping[str, str], _: Element, cluster: str, uid: str, kind: str) -> Element:
        table, attribute, document, tag = _MEMBERS[kind]
        with self._model.lock:
            rows = getattr(self._model, table)
            present = [rows[one] for one in getattr(self._find(cluster, uid), attribute) if one in rows]
            return documents.listing(tag, map(document, present))

    def _add_member(self, query: Mapping[str, str], given: Element, cluster: str, uid: str, kind: str) -> Element:
        table, attribute = _MEMBERS[kind][:2]
        with self._model.lock:
            members = getattr(self._find(cluster, uid), attribute)
            row = self._model.find(table, given.get("id", ""))
            if row.id in members:
                raise Fault(400, "Operation Failed", f"[Cannot edit Affinity Group. Duplicate {kind[:-1]}.]")
            members.append(row.id)
            return documents.action()

    def _remove_member(
        self, query: Mapping[str, str], _: Element, cluster: str, uid: str, kind: str, member: str
    ) -> Element:
        attribute = _MEMBERS[kind][1]
        with self._model.lock:
            members = getattr(self._find(cluster, uid), attribute)
            if member not in members:
                text = f"[Cannot edit Affinity Group. Provided {kind[:-1]} is invalid (does not exist).]"
                raise Fault(400, "Operation Failed", text)
            members.remove(member)
            return documents.action()

    def _labels(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("affinity_labels", map(documents.label, self._model.labels.values()))

    def _add_label(self, query: Mapping[str, str], given: Element) -> Element:
        with self._model.lock:
            label = AffinityLabel(model.new_id(), documents.text(given, "name") or "")
            if any(one.name == label.name for one in self._model.labels.values()):
                raise refusal("Cannot add affinity label with a conflicting NAME.")
            self._model.labels[label.id] = label
            return documents.label(label)

    def _bearers(self, query: Mapping[str, str], _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            rows = getattr(self._model, kind)
            present = [rows[one] for one in getattr(self._model.find("labels", uid), kind) if one in rows]
            return documents.listing(kind, map(_MEMBERS[kind][2], present))

    def _put_label(self, query: Mapping[str, str], given: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            bearers = getattr(self._model.find("labels", uid), kind)
            row = self._model.find(kind, given.get("id", ""))
            if row.id not in bearers:
                bearers.append(row.id)
            return _MEMBERS[kind][2](row)

    def _take_label(self, query: Mapping[str, str], _: Element, uid: str, kind: str, bearer: str) -> Element:
        with self._model.lock:
            bearers = getattr(self._model.find("labels", uid), kind)
            if bearer not in bearers:
                raise Fault(404, "Operation Failed", "[Entity not found]")
            bearers.remove(bearer)
            return documents.action()
