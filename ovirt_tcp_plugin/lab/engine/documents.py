# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The XML of the REST API, for the entities that the simulator has (ovirt-engine-api-model 4.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional
from xml.etree import ElementTree

from ovirt_tcp_plugin.lab.engine.audit_log import Event
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.model import (
    AffinityGroup,
    AffinityLabel,
    Cluster,
    Host,
    Model,
    Policy,
    Role,
    Rule,
    Unit,
    User,
    Vm,
)

Element = ElementTree.Element

API = "/ovirt-engine/api"


def parse(body: bytes) -> Element:
    """Return the root element of a request. Raises Fault (400)."""
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - the lab talks to itself
    except ElementTree.ParseError as e:
        raise Fault(400, "Request syntactically incorrect.", str(e)) from e


def render(element: Element) -> bytes:
    """Return a document."""
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(element)


def listing(name: str, elements: Iterable[Element]) -> Element:
    """Return a collection."""
    root = Element(name)
    root.extend(elements)
    return root


def fault(error: Fault, action: bool) -> Element:
    """Return a fault; that of an action sits inside it."""
    inner = _element("fault", detail=error.detail, reason=error.reason)
    if not action:
        return inner
    root = _element("action", status="failed")
    root.append(inner)
    return root


def text(root: Optional[Element], path: str) -> Optional[str]:
    """Return the text of a descendant, None if it is absent."""
    found = None if root is None else root.find(path)
    return None if found is None else found.text or ""


def identifier(root: Optional[Element], path: str) -> str:
    """Return the id of a linked descendant, empty if it is absent."""
    found = None if root is None else root.find(path)
    return "" if found is None else found.get("id", "")


def properties(root: Optional[Element], path: str) -> Optional[dict[str, str]]:
    """Return name-value pairs below `path`, None if it is absent."""
    found = None if root is None else root.find(path)
    if found is None:
        return None
    return {text(one, "name") or "": text(one, "value") or "" for one in found}


def rule(found: Optional[Element], present: Rule) -> Rule:
    """Return a rule of an affinity group after an edit: what the document does not say stays (`AffinityGroupMapper`)."""
    enabled = text(found, "enabled")
    positive = text(found, "positive")
    enforcing = text(found, "enforcing")
    edited = Rule(present.enabled, present.enforcing, present.positive)
    if enabled == "false":
        edited.enabled = False
        edited.positive = False
    elif positive is not None:
        edited.enabled = True
        edited.positive = positive == "true"
    if enforcing is not None:
        edited.enforcing = enforcing == "true"
    return edited


def echo(given: Element) -> Element:
    """Return an entity as the client sent it, with its address."""
    root = _element(given.tag, given.get("id", ""), f"{given.tag}s")
    root.extend(given)
    return root


def cluster(one: Cluster, groups: Optional[Iterable[Element]] = None) -> Element:
    """Return a cluster, with its affinity groups if they were asked for (`follow`)."""
    root = _element("cluster", one.id, "clusters", name=one.name, trusted_service=_yes(one.trusted_service))
    root.append(_link("scheduling_policy", one.policy))
    major, minor = one.level.split(".")
    root.append(_element("version", major=major, minor=minor))
    root.append(_properties("custom_scheduling_policy_properties", "property", one.properties))
    if groups is not None:
        root.append(listing("affinity_groups", groups))
    return root


def host(one: Host, all_content: bool = False) -> Element:
    """Return a host; whether it can run the engine's VM only if all content was asked for (`BackendHostsResource`)."""
    details = {"status_detail": one.status_detail} if one.status_detail else {}
    root = _element(
        "host",
        one.id,
        "hosts",
        name=one.name,
        address=one.address,
        status=one.status,
        external_status=one.external_status,
        **details,
    )
    root.append(_link("cluster", one.cluster))
    if one.hosted_engine and all_content:
        root.append(_element("hosted_engine", active="true", configured="true", score="3400"))
    return root


def api(to: User) -> Element:
    """Return the root of the API, which tells its reader who he is."""
    root = Element("api")
    root.extend([_link("authenticated_user", to.id), _link("effective_user", to.id)])
    return root


def option(name: str, values: Mapping[str, str]) -> Element:
    """Return an option with its values by cluster level."""
    root = _element("system_option", name, "options", name=name)
    root.append(listing("values", (_element("system_option_value", value=v, version=k) for k, v in values.items())))
    return root


def vm(one: Vm, next_run: bool = False, inline: bool = False) -> Element:
    """Return a VM, as it runs or as it is configured for its next start.

    Args:
        inline: with its reported devices (`follow`).
    """
    status = "migrating" if one.migrating_to else one.status
    root = _element("vm", one.id, "vms", name=one.name, status=status, origin=one.origin)
    root.append(_link("cluster", one.cluster))
    if one.host:
        root.append(_link("host", one.host))
    if one.fqdn:
        ElementTree.SubElement(root, "fqdn").text = one.fqdn
    if inline:
        device = _element("reported_device", f"{one.id}-1", name="eth0")
        device.append(listing("ips", (_element("ip", address=address) for address in one.ips)))
        root.append(listing("reported_devices", [device] if one.ips else []))
    root.append(_element("high_availability", enabled=_yes(one.high_availability), priority=str(one.priority)))
    placement = _element("placement_policy", affinity=one.affinity)
    placement.append(listing("hosts", (_link("host", uid) for uid in one.pinned_to)))
    root.append(placement)
    ElementTree.SubElement(root, "next_run_configuration_exists").text = _yes(one.next_run is not None)
    given = one.next_run if next_run and one.next_run is not None else one.custom_properties
    root.append(_properties("custom_properties", "custom_property", given))
    return root


def initialization(configuration: str) -> Element:
    """Return a VM's whole configuration, an OVF."""
    root = Element("initialization")
    root.append(_element("configuration", type="ovf", data=configuration))
    return root


def unit(one: Unit) -> Element:
    """Return a scheduling policy unit."""
    root = _element(
        "scheduling_policy_unit",
        one.id,
        "schedulingpolicyunits",
        name=one.name,
        description=one.description,
        enabled=_yes(one.enabled),
        internal=_yes(one.internal),
        type=one.type,
    )
    root.append(_properties("properties", "property", one.properties))
    return root


def policy(one: Policy, filters: Optional[Iterable[Element]] = None) -> Element:
    """Return a scheduling policy, with its filters if they were asked for (`follow`)."""
    members = {"name": one.name, "description": one.description, "locked": _yes(one.locked)}
    root = _element("scheduling_policy", one.id, "schedulingpolicies", **members)
    root.append(_properties("properties", "property", one.properties))
    if filters is not None:
        root.append(listing("filters", filters))
    return root


def policy_unit(kind: str, uid: str, number: Mapping[str, str]) -> Element:
    """Return a filter, weight or balance of a policy; its id is its unit's, as in the engine.

    Args:
        number: `position` of a filter or `factor` of a weight.
    """
    root = _element(kind, uid, **number)
    root.append(_link("scheduling_policy_unit", uid))
    return root


def group(one: AffinityGroup, tables: Model, inline: bool = False) -> Element:
    """Return an affinity group with its members: by their ids (`AffinityGroupMapper`), or whole if that was asked for."""
    root = _element("affinity_group", one.id, f"clusters/{one.cluster}/affinitygroups", name=one.name)
    ElementTree.SubElement(root, "description").text = one.description
    for name in ("hosts_rule", "vms_rule"):
        given = getattr(one, name)
        inner = {k: _yes(getattr(given, k)) for k in ("enabled", "enforcing", "positive")}
        root.append(_element(name, **inner))
    if inline:
        root.append(listing("hosts", (host(tables.hosts[uid]) for uid in one.hosts if uid in tables.hosts)))
        root.append(listing("vms", (vm(tables.vms[uid]) for uid in one.vms if uid in tables.vms)))
        return root
    root.append(listing("hosts", (_link("host", uid) for uid in one.hosts if uid in tables.hosts)))
    root.append(listing("vms", (_link("vm", uid) for uid in one.vms if uid in tables.vms)))
    root.append(listing("host_labels", (_link("affinity_label", uid) for uid in one.host_labels if uid in tables.labels)))
    root.append(listing("vm_labels", (_link("affinity_label", uid) for uid in one.vm_labels if uid in tables.labels)))
    return root


def label(one: AffinityLabel) -> Element:
    """Return an affinity label."""
    return _element("affinity_label", one.id, "affinitylabels", name=one.name)


def feature(name: str) -> Element:
    """Return an additional feature of a cluster; its id is its name here."""
    return _element("cluster_feature", name, name=name)


def hook(point: str, name: str, checksum: str) -> Element:
    """Return a VDSM hook as its host reports it. The checksum is a SHA-256, whatever its tag says."""
    return _element("hook", name, event_name=point, name=name, md5=checksum)


def role(one: Role) -> Element:
    """Return a role, without its permits: they have a list of their own."""
    members = {"name": one.name, "description": one.description, "mutable": _yes(one.mutable)}
    return _element("role", one.id, "roles", administrative="true", **members)


def permit(uid: str, name: str) -> Element:
    """Return a permit of a role."""
    return _element("permit", uid, name=name, administrative="true")


def user(one: User) -> Element:
    """Return a user. Its name ends with the provider of authorization, not with the profile that it logs in with."""
    return _element("user", one.id, "users", user_name=f"{one.name}-authz")


def permission(given: Role, to: User) -> Element:
    """Return who has a role."""
    root = _element("permission", f"{given.id}-{to.id}", "permissions")
    root.extend([_link("role", given.id), _link("user", to.id)])
    return root


def event(one: Event) -> Element:
    """Return an event; `index` is its id."""
    root = _element(
        "event",
        str(one.id),
        "events",
        code=str(one.code),
        severity=one.severity,
        description=one.description,
        index=str(one.id),
        origin=one.origin,
        custom_id=str(one.custom_id),
        time=one.time.isoformat(timespec="milliseconds"),
    )
    for kind in ("host", "vm", "cluster"):
        if getattr(one, kind):
            root.append(_link(kind, getattr(one, kind)))
    return root


def action() -> Element:
    """Return an action that is complete."""
    return _element("action", status="complete")


def _element(tag: str, identifier: str = "", collection: str = "", /, **members: str) -> Element:
    root = Element(tag)
    if identifier:
        root.set("id", identifier)
    if collection:
        root.set("href", f"{API}/{collection}/{identifier}")
    for member, value in members.items():
        ElementTree.SubElement(root, member).text = value
    return root


def _link(name: str, identifier: str) -> Element:
    return _element(name, identifier)


def _properties(plural: str, singular: str, values: Mapping[str, Any]) -> Element:
    return listing(plural, (_element(singular, name=name, value=value) for name, value in values.items()))


def _yes(value: bool) -> str:
    return "true" if value else "false"
