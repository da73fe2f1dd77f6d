# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The root of the API, and the engine's options."""

from __future__ import annotations

from collections.abc import Mapping

from ovirt_tcp_plugin.lab.engine import shapes
from ovirt_tcp_plugin.lab.engine.documents.things import INSTANCE
from ovirt_tcp_plugin.lab.engine.elements import element, entity, link, listing, timestamp
from ovirt_tcp_plugin.lab.engine.model import NOT_RUNNING, EngineUser, Model
from ovirt_tcp_plugin.lab.engine.xml_text import Element, Filled


def api(reader: EngineUser, tables: Model) -> Element:
    """Return the root of the API, which says who its reader is."""
    users = [
        link("authenticated_user", reader.id, "users"),
        link("effective_user", reader.id, "users"),
    ]
    fields = {"instance": INSTANCE, "time": timestamp(tables.clock.wall())}
    return Filled("api", shapes.ROOT, fields, {"summary": [_summary(tables)], "users": users})


def _summary(tables: Model) -> Element:
    hosts = tables.hosts.values()
    vms = tables.vms.values()
    up_hosts = [row for row in hosts if row.status == "up"]
    running_vms = [row for row in vms if row.status not in NOT_RUNNING]
    counts = [
        _count("hosts", len(up_hosts), len(hosts)),
        _count("storage_domains", 0, 0),
        _count("users", len(tables.users), len(tables.users)),
        _count("vms", len(running_vms), len(vms)),
    ]
    return listing("summary", counts)


def _count(name: str, active: int, total: int) -> Element:
    return element(name, active=str(active), total=str(total))


def option(name: str, values: Mapping[str, str]) -> Element:
    """Return an option with its values by cluster level."""
    root = entity("system_option", name, "options", name=name)
    rows = [
        element("system_option_value", value=value, version=level)
        for level, value in values.items()
    ]
    root.append(listing("values", rows))
    return root
