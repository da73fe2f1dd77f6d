# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events of the audit log."""

from __future__ import annotations

from collections.abc import Iterator

from ovirt_tcp_plugin.lab.engine import audit_log, builtin
from ovirt_tcp_plugin.lab.engine.audit_log import AuditEvent
from ovirt_tcp_plugin.lab.engine.documents.things import DATA_CENTER
from ovirt_tcp_plugin.lab.engine.elements import (
    append_texts,
    element,
    entity,
    link,
    named_link,
    timestamp,
)
from ovirt_tcp_plugin.lab.engine.model import Model
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_DEFAULT_FLOOD_RATE = 30


def event(row: AuditEvent, tables: Model) -> Element:
    """Return an event; `index` is its id."""
    root = entity("event", str(row.id), "events", description=row.description, code=str(row.code))
    if row.correlation:
        append_texts(root, correlation_id=row.correlation)
    append_texts(
        root,
        custom_id=str(row.custom_id),
        flood_rate=str(_flood_rate(row)),
        index=str(row.id),
        origin=row.origin,
        severity=row.severity,
        time=timestamp(row.time),
    )
    root.extend(_links_of_event(row, tables))
    return root


def _flood_rate(row: AuditEvent) -> int:
    if row.flood_rate is not None:
        return row.flood_rate
    return _DEFAULT_FLOOD_RATE if row.code in audit_log.WRITTEN_BY_OTHERS else 0


def _links_of_event(row: AuditEvent, tables: Model) -> Iterator[Element]:
    # An event of a VM names everything around it.
    with_surroundings = bool(row.vm) and row.code not in audit_log.WITHOUT_SURROUNDINGS
    cluster_id = row.cluster
    if with_surroundings and not cluster_id:
        cluster_id = _cluster_of_vm(row.vm, tables)
    if cluster_id:
        yield named_link("cluster", cluster_id, "clusters", tables.clusters)
    if with_surroundings:
        yield link("data_center", DATA_CENTER, "datacenters", "Default")
    if row.host:
        yield named_link("host", row.host, "hosts", tables.hosts)
    if with_surroundings:
        yield link("template", builtin.BLANK_TEMPLATE, "templates", "Blank")
    if row.user:
        yield link("user", row.user, "users", tables.users[row.user].qualified_name)
    elif with_surroundings:
        yield element("user", name="SYSTEM")
    if row.vm:
        yield named_link("vm", row.vm, "vms", tables.vms)


def _cluster_of_vm(uid: str, tables: Model) -> str:
    machine = tables.vms.get(uid)
    return "" if machine is None else machine.cluster
