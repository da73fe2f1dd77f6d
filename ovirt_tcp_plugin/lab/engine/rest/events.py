# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events: lists by id and by search, and events of others."""

from __future__ import annotations

from collections.abc import Callable

from ovirt_tcp_plugin.lab.engine import request_documents
from ovirt_tcp_plugin.lab.engine.audit_log import EXTERNAL_EVENT_CODES, AuditEvent
from ovirt_tcp_plugin.lab.engine.documents import actions, events
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Fault, mandatory
from ovirt_tcp_plugin.lab.engine.model import Model
from ovirt_tcp_plugin.lab.engine.rest import search
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_NO_SEVERITY = (
    "The string '{}' isn't a valid value for the 'LogSeverity' enumerated type. "
    "Valid values are: 'normal', 'warning', 'error', 'alert'."
)
_EXTERNAL_STATUSES = frozenset({"ok", "info", "warning", "error", "failure"})


class EventPaths:
    """`events`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self._fields: dict[str, Callable[[AuditEvent], object]] = {
            "type": lambda row: row.code,
            "severity": lambda row: row.severity,
            "message": lambda row: row.description,
            "origin": lambda row: row.origin,
            "custom_event_id": lambda row: row.custom_id,
            "time": lambda row: (row.time, row.id),
            "event_host": lambda row: self._name("hosts", row.host),
            "event_vm": lambda row: self._name("vms", row.vm),
        }
        self.routes: Routes = {
            "GET events": self._list,
            "POST events": self._add,
            "DELETE events/{}": self._remove,
        }

    def _list(self, query: Query, _: Element) -> Element:
        after = max(int(query.get("from") or 0), 0)
        visible = self._model.audit_log.visible()
        # The newest first unless a search says otherwise, and cut only then.
        candidates = [row for row in reversed(visible) if row.id > after]
        rows = search.listed(query, candidates, self._fields)
        return listing("events", [events.event(row, self._model) for row in rows])

    def _add(self, query: Query, document: Element) -> Element:
        for name in ("description", "severity", "origin", "custom_id"):
            if not document.findtext(name):
                raise mandatory(f"event.{name}")
        custom_id = request_documents.integer(document, "custom_id") or 0
        flood_rate = request_documents.integer(document, "flood_rate")
        severity = _severity(document)
        # Nobody checks whether these exist.
        host = request_documents.identifier(document, "host")
        vm = request_documents.identifier(document, "vm")
        cluster = request_documents.identifier(document, "cluster")
        row = self._model.audit_log.write_external(
            document.findtext("description", ""),
            severity,
            document.findtext("origin", ""),
            custom_id,
            flood_rate,
            host=host,
            vm=vm,
            cluster=cluster,
        )
        self._set_external_status(host, document.findtext("host/external_status"))
        return events.event(row, self._model)

    def _set_external_status(self, host_id: str, status: str | None) -> None:
        host = self._model.hosts.get(host_id)
        if host is not None and status in _EXTERNAL_STATUSES:
            host.external_status = status

    def _remove(self, query: Query, _: Element, uid: str) -> Element:
        for row in self._model.audit_log.visible():
            if str(row.id) == uid:
                row.deleted = True
                return actions.complete()
        raise Fault(404, "Operation Failed", "[Entity not found]")

    def _name(self, table: str, uid: str) -> str:
        row = getattr(self._model, table).get(uid)
        return "" if row is None else row.name


def _severity(document: Element) -> str:
    """Return the severity of a new event. Raises Fault (400)."""
    severity = document.findtext("severity", "")
    if severity not in EXTERNAL_EVENT_CODES:
        raise Fault(400, "Invalid value", _NO_SEVERITY.format(severity))
    return severity
