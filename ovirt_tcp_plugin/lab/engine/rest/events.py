# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events: lists by id and by search, and events of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents
from ovirt_tcp_plugin.lab.engine.audit_log import Event
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.model import Model
from ovirt_tcp_plugin.lab.engine.rest import search

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
            return documents.listing("events", map(documents.event, search.listed(query, rows, self._fields)))

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        wanted = {name: documents.text(given, name) for name in ("description", "severity", "origin", "custom_id")}
        missing = [name for name, value in wanted.items() if not value]
        if missing:
            raise Fault(400, "Incomplete parameters", f"Event [{', '.join(missing)}] required for add")
        rate = documents.text(given, "flood_rate")
        status = documents.text(given, "host/external_status")
        with self._model.lock:
            links = {kind: documents.identifier(given, kind) for kind in ("host", "vm", "cluster")}
            for kind, uid in links.items():
                if uid:
                    self._model.find(f"{kind}s", uid)
            row = self._model.audit_log.write_external(
                wanted["description"] or "",
                wanted["severity"] or "",
                wanted["origin"] or "",
                int(wanted["custom_id"] or 0),
                None if rate is None else int(rate),
                **links,
            )
            if links["host"] and status in _EXTERNAL_STATUSES:
                self._model.hosts[links["host"]].external_status = status
            return documents.event(row)

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
