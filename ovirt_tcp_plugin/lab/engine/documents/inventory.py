# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Clusters, hosts and VMs."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Sequence
from typing import Optional
from xml.sax.saxutils import escape

from ovirt_tcp_plugin.lab.engine import builtin, shapes
from ovirt_tcp_plugin.lab.engine.documents.things import (
    CPU_PROFILE,
    DATA_CENTER,
    LARGE_ICON,
    MAC_POOL,
    MANAGEMENT_NETWORK,
    MIGRATION_POLICY,
    QUOTA,
    SMALL_ICON,
    SPACE,
)
from ovirt_tcp_plugin.lab.engine.elements import (
    boolean,
    element,
    entity,
    link,
    listing,
    properties,
    texts,
)
from ovirt_tcp_plugin.lab.engine.model import SimulatedCluster, SimulatedHost, SimulatedVm
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import Element, Filled

_STARTED_AT = "2026-01-01T08:01:00.000Z"


def cluster(
    row: SimulatedCluster, groups: Optional[Iterable[Element]] = None, edited: bool = False
) -> Element:
    """Return a cluster.

    Args:
        groups: its affinity groups, if they were asked for (`follow`).
        edited: as it answers an edit, when its address is that of its data centre.
    """
    major, minor = row.level.split(".")
    parent = f"datacenters/{DATA_CENTER}/" if edited else ""
    fields = {
        "href": f"{API}/{parent}clusters/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "migration_policy": MIGRATION_POLICY,
        "trusted_service": boolean(row.trusted_service),
        "major": major,
        "minor": minor,
    }
    lines = {
        "properties": properties("custom_scheduling_policy_properties", "property", row.properties),
        "data_center": [link("data_center", DATA_CENTER, "datacenters")],
        "mac_pool": [link("mac_pool", MAC_POOL, "macpools")],
        "scheduling_policy": [link("scheduling_policy", row.policy, "schedulingpolicies")],
    }
    if groups is not None:
        lines["affinity_groups"] = [listing("affinity_groups", groups)]
    if edited:
        lines["management_network"] = [link("management_network", MANAGEMENT_NETWORK, "networks")]
    return Filled("cluster", shapes.CLUSTER, fields, lines)


def feature(name: str) -> Element:
    """Return an additional feature of a cluster; its id is its name here."""
    return element("cluster_feature", name, name=name)


def host(row: SimulatedHost, all_content: bool = False, vms: Sequence[SimulatedVm] = ()) -> Element:
    """Return a host.

    Args:
        all_content: with what it can do for the engine's VM (`BackendHostsResource`).
        vms: that run there.
    """
    migrating = [vm for vm in vms if vm.migrating_to]
    fields = {
        "href": f"{API}/hosts/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "address": escape(row.address),
        "external_status": row.external_status,
        "status": row.status,
        "active": str(len(vms)),
        "migrating": str(len(migrating)),
        "total": str(len(vms)),
    }
    lines = {"cluster": [link("cluster", row.cluster, "clusters")]}
    if all_content:
        lines["hosted_engine"] = [_hosted_engine(row)]
    if row.status_detail:
        lines["status_detail"] = texts(status_detail=row.status_detail)
    return Filled("host", shapes.HOST, fields, lines)


def _hosted_engine(row: SimulatedHost) -> Element:
    return element(
        "hosted_engine",
        active=boolean(row.hosted_engine),
        configured=boolean(row.hosted_engine),
        global_maintenance="false",
        local_maintenance="false",
        score="3400" if row.hosted_engine else "0",
    )


def hook(host_id: str, point: str, name: str, checksum: str) -> Element:
    """Return a VDSM hook as its host reports it.

    The checksum is a SHA-256, although its tag says MD5.
    """
    uid = str(uuid.uuid5(SPACE, f"{point}/{name}"))
    return entity("hook", uid, f"hosts/{host_id}/hooks", name=name, event_name=point, md5=checksum)


def vm(
    row: SimulatedVm,
    next_run: bool = False,
    inline: bool = False,
    configuration: Optional[str] = None,
) -> Element:
    """Return a VM, as it runs or as it is configured for its next start.

    Args:
        inline: with its reported devices (`follow`).
        configuration: its OVF, if all content was asked for.
    """
    custom_properties = row.custom_properties
    if next_run and row.next_run is not None:
        custom_properties = row.next_run
    lines = {
        "custom_properties": properties("custom_properties", "custom_property", custom_properties),
        "placement_policy": [_placement(row)],
        "cluster": [link("cluster", row.cluster, "clusters")],
    }
    if configuration is not None:
        lines["initialization"] = [_initialization(configuration)]
    if row.fqdn:
        lines["fqdn"] = texts(fqdn=row.fqdn)
    if row.host:
        run_once = boolean(row.run_once is not None)
        lines["certificate"] = [_certificate()]
        lines["run"] = texts(run_once=run_once, start_time=_STARTED_AT)
        lines["host"] = [link("host", row.host, "hosts")]
    if inline:
        lines["reported_devices"] = [_reported_devices(row)]
    return Filled("vm", shapes.VM, _vm_fields(row), lines)


def _vm_fields(row: SimulatedVm) -> dict[str, str]:
    return {
        "api": API,
        "href": f"{API}/vms/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "ha": boolean(row.high_availability),
        "priority": str(row.priority),
        "origin": row.origin,
        "status": "migrating" if row.migrating_to else row.status,
        "next_run": boolean(row.next_run is not None),
        "cpu_profile": CPU_PROFILE,
        "quota": QUOTA,
        "large_icon": LARGE_ICON,
        "small_icon": SMALL_ICON,
        "blank": builtin.BLANK_TEMPLATE,
    }


@functools.cache
def _certificate() -> Element:
    """Return that of a host's display, which a VM has while it runs."""
    return element(
        "certificate", content=shapes.PEM, organization="oVirt", subject="O=oVirt,CN=host.lab"
    )


def _placement(row: SimulatedVm) -> Element:
    placement = element("placement_policy", affinity=row.affinity)
    if row.pinned_to:
        hosts = (link("host", uid, "hosts") for uid in row.pinned_to)
        placement.append(listing("hosts", hosts))
    return placement


def _reported_devices(row: SimulatedVm) -> Element:
    if not row.ips:
        return Element("reported_devices")
    uid = str(uuid.uuid5(SPACE, row.id))
    device = entity("reported_device", uid, f"vms/{row.id}/reporteddevices", name="eth0")
    addresses = (element("ip", address=address) for address in row.ips)
    device.append(listing("ips", addresses))
    return listing("reported_devices", [device])


def _initialization(configuration: str) -> Element:
    root = Element("initialization")
    root.append(element("configuration", data=configuration, type="ovf"))
    return root
