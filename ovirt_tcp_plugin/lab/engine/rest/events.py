# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events: lists by id and by search, and events of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents
from ovirt_tcp_plugin.lab.engine.audit_log import EXTERNAL_EVENT_CODES, Event
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, mandatory
from ovirt_tcp_plugin.lab.engine.model import Model
from ovirt_tcp_plugin.lab.engine.rest import search

_NO_SEVERITY = (
    "The string '{}' isn't a valid value for the 'LogSeverity' enumerated type. "
    "Valid values are: 'normal', 'warning', 'error', 'alert'."
)
_EXTERNAL_STATUSES = frozenset({"ok", "info", "warning", "error", "failure"})


class EventPaths:
    """`events`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self._fields: dict[str, Callable[[Event], object]] = {
            "type": lambda row: row.code,
            "severity": lambda row: row.severity,
            "message": lambda row: row.description,
            "origin": lambda row: row.origin,
            "custom_event_id": lambda row: row.custom_id,
            "time": lambda row: (row.time, row.id),
            "event_host": lambda row: self._name("hosts", row.host),
            "event_vm": lambda row: self._name("vms", row.vm),
        }
        self.routes: dict[str, Callable[..., Element]] = {
            "GET events": self._list,
            "POST events": self._add,
            "DELETE events/{}": self._remove,
        }

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            after = max(int(query.get("from") or 0), 0)
            # The newest first unless a search says otherwise, and cut only then.
            rows = [row for row in reversed(self._model.audit_log.visible()) if row.id > after]
            found = search.listed(query, rows, self._fields)
            return documents.listing("events", [documents.event(row, self._model) for row in found])

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        for name in ("description", "severity", "origin", "custom_id"):
            if not documents.text(given, name):
                raise mandatory(f"event.{name}")
        custom_id = documents.integer(given, "custom_id") or 0
        flood_rate = documents.integer(given, "flood_rate")
        severity = documents.text(given, "severity") or ""
        if severity not in EXTERNAL_EVENT_CODES:
            raise Fault(400, "Invalid value", _NO_SEVERITY.format(severity))
        status = documents.text(given, "host/external_status")
        with self._model.lock:
            # Nobody looks whether they exist.
            links = {kind: documents.identifier(given, kind) for kind in ("host", "vm", "cluster")}
            description, origin = (
                documents.text(given, "description") or "",
                documents.text(given, "origin") or "",
            )
            row = self._model.audit_log.write_external(
                description, severity, origin, custom_id, flood_rate, **links
            )
            if links["host"] in self._model.hosts and status in _EXTERNAL_STATUSES:
                self._model.hosts[links["host"]].external_status = status
            return documents.event(row, self._model)

    def _remove(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            for row in self._model.audit_log.visible():
                if str(row.id) == uid:
                    row.deleted = True
                    return documents.action()
        raise Fault(404, "Operation Failed", "[Entity not found]")

    def _name(self, table: str, uid: str) -> str:
        row = getattr(self._model, table).get(uid)
        return row.name if row is not None else ""
