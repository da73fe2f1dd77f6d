# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Affinity groups, their members, and affinity labels."""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine.elements import (
    append_links,
    append_texts,
    boolean,
    element,
    entity,
    link,
    listing,
)
from ovirt_tcp_plugin.lab.engine.model import (
    AffinityGroup,
    AffinityLabel,
    Model,
    Rule,
    SimulatedHost,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.xml_text import Element


def group(row: AffinityGroup, tables: Model, inline: bool = False) -> Element:
    """Return an affinity group with its members by their ids (`AffinityGroupMapper`).

    Args:
        inline: with the members' names, too (`follow`).
    """
    path = f"clusters/{row.cluster}/affinitygroups"
    root = entity("affinity_group", row.id, path, name=row.name)
    if row.description:
        append_texts(root, description=row.description)
    append_links(root, f"{path}/{row.id}", "hosts vms hostlabels vmlabels")
    append_texts(root, broken="false", enforcing=boolean(row.vms_rule.enforcing))
    root.append(_rule("hosts_rule", row.hosts_rule))
    if row.vms_rule.enabled:
        append_texts(root, positive=boolean(row.vms_rule.positive))
    append_texts(root, priority="1")
    root.append(_rule("vms_rule", row.vms_rule))
    root.append(link("cluster", row.cluster, "clusters"))
    root.extend(_members_of_group(row, tables, inline))
    return root


def _members_of_group(row: AffinityGroup, tables: Model, named: bool) -> list[Element]:
    labels = tables.labels
    host_labels = [label_link(labels[uid], named) for uid in row.host_labels if uid in labels]
    hosts = [host_link(tables.hosts[uid], named) for uid in row.hosts if uid in tables.hosts]
    vm_labels = [label_link(labels[uid], named) for uid in row.vm_labels if uid in labels]
    vms = [vm_link(tables.vms[uid], named) for uid in row.vms if uid in tables.vms]
    return [
        listing("host_labels", host_labels),
        listing("hosts", hosts),
        listing("vm_labels", vm_labels),
        listing("vms", vms),
    ]


def _rule(name: str, row: Rule) -> Element:
    return element(
        name,
        enabled=boolean(row.enabled),
        enforcing=boolean(row.enforcing),
        positive=boolean(row.positive),
    )


def host_link(row: SimulatedHost, named: bool = True) -> Element:
    """Return a host as a member of a group."""
    return link("host", row.id, "hosts", row.name if named else "")


def vm_link(row: SimulatedVm, named: bool = True) -> Element:
    """Return a VM as a member of a group."""
    return link("vm", row.id, "vms", row.name if named else "")


def label_link(row: AffinityLabel, named: bool = True) -> Element:
    """Return an affinity label as a member of a group."""
    return link("affinity_label", row.id, "affinitylabels", row.name if named else "")


def label(row: AffinityLabel) -> Element:
    """Return an affinity label."""
    root = entity("affinity_label", row.id, "affinitylabels", name=row.name)
    append_links(root, f"affinitylabels/{row.id}", "hosts vms")
    append_texts(root, has_implicit_affinity_group="false", read_only="false")
    return root


def member_link(collection: str, uid: str) -> Element:
    """Return what bears an affinity label (`BackendAffinityLabelHelper`).

    Args:
        collection: `hosts` or `vms`.
    """
    return link(collection[:-1], uid, collection)
