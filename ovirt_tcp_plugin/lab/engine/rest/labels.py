# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity labels, and which hosts and VMs bear them."""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine import audit_log, model
from ovirt_tcp_plugin.lab.engine.documents import actions, affinity_groups
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import AffinityLabel, Model
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes
from ovirt_tcp_plugin.lab.engine.xml_text import Element


class AffinityLabelPaths:
    """`affinitylabels`. The `kind` of a path is that of the bearers: `hosts` or `vms`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.routes: Routes = {
            "GET affinitylabels": self._list,
            "POST affinitylabels": self._add,
            "GET affinitylabels/{}/(hosts|vms)": self._bearers,
            "POST affinitylabels/{}/(hosts|vms)": self._add_bearer,
            "DELETE affinitylabels/{}/(hosts|vms)/{}": self._remove_bearer,
        }

    def _list(self, query: Query, _: Element) -> Element:
        return listing("affinity_labels", map(affinity_groups.label, self._model.labels.values()))

    def _add(self, query: Query, document: Element) -> Element:
        name = document.findtext("name", "")
        label = AffinityLabel(model.new_id(), name)
        if any(other.name == name for other in self._model.labels.values()):
            raise refusal("Cannot add affinity label with a conflicting NAME.")
        self._model.labels[label.id] = label
        text = f"Affinity Label {name} was added. (User: {self._model.acting_name()})"
        self._model.log(audit_log.LABEL_ADDED, text)
        return affinity_groups.label(label)

    def _bearers(self, query: Query, _: Element, uid: str, kind: str) -> Element:
        rows = getattr(self._model, kind)
        present = [bearer for bearer in self._ids(uid, kind) if bearer in rows]
        return listing(kind, [affinity_groups.member_link(kind, bearer) for bearer in present])

    def _add_bearer(self, query: Query, document: Element, uid: str, kind: str) -> Element:
        bearers = self._ids(uid, kind)
        row = getattr(self._model, kind).find(document.get("id", ""))
        if row.id not in bearers:
            bearers.append(row.id)
        return affinity_groups.member_link(kind, row.id)

    def _remove_bearer(self, query: Query, _: Element, uid: str, kind: str, bearer: str) -> Element:
        bearers = self._ids(uid, kind)
        if bearer not in bearers:
            raise Fault(404, "Operation Failed", "[Entity not found]")
        bearers.remove(bearer)
        return actions.complete()

    def _ids(self, uid: str, kind: str) -> list[str]:
        label = self._model.labels.find(uid)
        return label.hosts if kind == "hosts" else label.vms
