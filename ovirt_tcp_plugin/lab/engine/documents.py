# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The XML of the REST API, for the entities that the simulator has, as an engine 4.5.8 writes it.

What a mapper of the engine (`VmMapper`, `HostMapper`, ...) leaves out, an answer here leaves out,
too.
"""

from __future__ import annotations

import datetime
import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, shapes
from ovirt_tcp_plugin.lab.engine.audit_log import Event
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.model import (
    NOT_RUNNING,
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
from ovirt_tcp_plugin.lab.engine.permits import OF_USERS
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import Filled, render

__all__ = ["API", "Element", "render"]

Element = ElementTree.Element

# Things of which this engine has one, under ids of its own.
_SPACE = uuid.UUID("5d3e5a0e-0f5c-4b57-9d0e-0d6f3e0b7a11")
(
    DATA_CENTER,
    MAC_POOL,
    MANAGEMENT_NETWORK,
    CPU_PROFILE,
    QUOTA,
    MIGRATION_POLICY,
    INSTANCE,
    LARGE_ICON,
    SMALL_ICON,
) = (str(uuid.uuid5(_SPACE, str(number))) for number in range(9))
_DEFAULT_FLOOD_RATE = 30
_STARTED_AT = "2026-01-01T08:01:00.000Z"


def parse(body: bytes) -> Element:
    """Return the root element of a request. Raises Fault (400)."""
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - the lab talks to itself
    except ElementTree.ParseError as e:
        raise Fault(400, "Request syntactically incorrect.", str(e)) from e


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
    root = Element("action")
    root.append(inner)
    _append(root, status="failed")
    return root


def text(root: Optional[Element], path: str) -> Optional[str]:
    """Return the text of a descendant, None if it is absent."""
    found = None if root is None else root.find(path)
    return None if found is None else found.text or ""


def integer(root: Element, path: str) -> Optional[int]:
    """Return the number in a descendant, None if it is absent. Raises Fault (400) as the engine's
    reader does.
    """
    image = text(root, path)
    if image is None:
        return None
    try:
        value = int(image)
    except ValueError as e:
        raise Fault(400, "Invalid value", f"The text '{image}' isn't a valid integer value.") from e
    if value > MAX_INTEGER:
        raise Fault(
            400, "Invalid value", f"Value {value} is greater than maximum integer {MAX_INTEGER}"
        )
    if value < MIN_INTEGER:
        raise Fault(
            400, "Invalid value", f"Value {value} is lower than minimum integer {MIN_INTEGER}"
        )
    return value


MAX_INTEGER, MIN_INTEGER = 2**31 - 1, -(2**31)


def identifier(root: Optional[Element], path: str) -> str:
    """Return the id of a linked descendant, empty if it is absent."""
    found = None if root is None else root.find(path)
    return "" if found is None else found.get("id", "")


def properties(root: Optional[Element], path: str) -> Optional[dict[str, str]]:
    """Return name-value pairs below `path`, None if it is absent."""
    found = None if root is None else root.find(path)
    if found is None:
        return None
    return {text(pair, "name") or "": text(pair, "value") or "" for pair in found}


def rule(found: Optional[Element], present: Rule) -> Rule:
    """Return a rule of an affinity group after an edit: what the document does not say stays
    (`AffinityGroupMapper`).
    """
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
    root = _entity(given.tag, given.get("id", ""), f"{given.tag}s")
    root.extend(given)
    return root


def cluster(
    row: Cluster, groups: Optional[Iterable[Element]] = None, edited: bool = False
) -> Element:
    """Return a cluster.

    Args:
        groups: its affinity groups, if they were asked for (`follow`).
        edited: as it answers an edit, when its address is that of its data centre.
    """
    major, minor = row.level.split(".")
    parent = f"datacenters/{DATA_CENTER}/" if edited else ""
    texts = {
        "href": f"{API}/{parent}clusters/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "migration_policy": MIGRATION_POLICY,
        "trusted_service": _yes(row.trusted_service),
        "major": major,
        "minor": minor,
    }
    lines = {
        "properties": _properties(
            "custom_scheduling_policy_properties", "property", row.properties
        ),
        "affinity_groups": [] if groups is None else [listing("affinity_groups", groups)],
        "data_center": [_link("data_center", DATA_CENTER, "datacenters")],
        "mac_pool": [_link("mac_pool", MAC_POOL, "macpools")],
        "management_network": [_link("management_network", MANAGEMENT_NETWORK, "networks")]
        if edited
        else [],
        "scheduling_policy": [_link("scheduling_policy", row.policy, "schedulingpolicies")],
    }
    return Filled("cluster", shapes.CLUSTER, texts, lines)


def host(row: Host, all_content: bool = False, vms: Sequence[Vm] = ()) -> Element:
    """Return a host; what it can do for the engine's VM only if all content was asked for
    (`BackendHostsResource`).

    Args:
        vms: that run there.
    """
    texts = {
        "href": f"{API}/hosts/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "address": escape(row.address),
        "external_status": row.external_status,
        "status": row.status,
        "active": str(len(vms)),
        "migrating": str(sum(1 for vm in vms if vm.migrating_to)),
        "total": str(len(vms)),
    }
    lines = {
        "hosted_engine": [_hosted_engine(row)] if all_content else [],
        "status_detail": _texts(status_detail=row.status_detail) if row.status_detail else [],
        "cluster": [_link("cluster", row.cluster, "clusters")],
    }
    return Filled("host", shapes.HOST, texts, lines)


def _hosted_engine(row: Host) -> Element:
    return _element(
        "hosted_engine",
        active=_yes(row.hosted_engine),
        configured=_yes(row.hosted_engine),
        global_maintenance="false",
        local_maintenance="false",
        score="3400" if row.hosted_engine else "0",
    )


def api(reader: User, tables: Model) -> Element:
    """Return the root of the API, which tells its reader who he is."""
    hosts, vms = tables.hosts.values(), tables.vms.values()
    counts = {
        "hosts": (sum(1 for row in hosts if row.status == "up"), len(hosts)),
        "storage_domains": (0, 0),
        "users": (len(tables.users), len(tables.users)),
        "vms": (sum(1 for row in vms if row.status not in NOT_RUNNING), len(vms)),
    }
    summary = Element("summary")
    for name, (active, total) in counts.items():
        summary.append(_element(name, active=str(active), total=str(total)))
    users = [
        _link("authenticated_user", reader.id, "users"),
        _link("effective_user", reader.id, "users"),
    ]
    texts = {"instance": INSTANCE, "time": _time(tables.clock.wall())}
    return Filled("api", shapes.ROOT, texts, {"summary": [summary], "users": users})


def option(name: str, values: Mapping[str, str]) -> Element:
    """Return an option with its values by cluster level."""
    root = _entity("system_option", name, "options", name=name)
    root.append(
        listing(
            "values",
            (_element("system_option_value", value=v, version=k) for k, v in values.items()),
        )
    )
    return root


def vm(
    row: Vm, next_run: bool = False, inline: bool = False, configuration: Optional[str] = None
) -> Element:
    """Return a VM, as it runs or as it is configured for its next start.

    Args:
        inline: with its reported devices (`follow`).
        configuration: its OVF, if all content was asked for.
    """
    given = row.next_run if next_run and row.next_run is not None else row.custom_properties
    texts = {
        "api": API,
        "href": f"{API}/vms/{row.id}",
        "id": row.id,
        "name": escape(row.name),
        "ha": _yes(row.high_availability),
        "priority": str(row.priority),
        "origin": row.origin,
        "status": "migrating" if row.migrating_to else row.status,
        "next_run": _yes(row.next_run is not None),
        "cpu_profile": CPU_PROFILE,
        "quota": QUOTA,
        "large_icon": LARGE_ICON,
        "small_icon": SMALL_ICON,
        "blank": builtin.BLANK_TEMPLATE,
    }
    run_once = _yes(row.run_once is not None)
    lines = {
        "custom_properties": _properties("custom_properties", "custom_property", given),
        "initialization": [] if configuration is None else [_initialization(configuration)],
        "placement_policy": [_placement(row)],
        "cluster": [_link("cluster", row.cluster, "clusters")],
        "fqdn": _texts(fqdn=row.fqdn) if row.fqdn else [],
        "certificate": [_certificate()] if row.host else [],
        "run": _texts(run_once=run_once, start_time=_STARTED_AT) if row.host else [],
        "host": [_link("host", row.host, "hosts")] if row.host else [],
        "reported_devices": [_reported_devices(row)] if inline else [],
    }
    return Filled("vm", shapes.VM, texts, lines)


@functools.cache
def _certificate() -> Element:
    """Return that of a host's display, which a VM has while it runs."""
    return _element(
        "certificate", content=shapes.PEM, organization="oVirt", subject="O=oVirt,CN=host.lab"
    )


def _placement(row: Vm) -> Element:
    placement = _element("placement_policy", affinity=row.affinity)
    if row.pinned_to:
        placement.append(listing("hosts", (_link("host", uid, "hosts") for uid in row.pinned_to)))
    return placement


def _reported_devices(row: Vm) -> Element:
    if not row.ips:
        return Element("reported_devices")
    uid = str(uuid.uuid5(_SPACE, row.id))
    device = _entity("reported_device", uid, f"vms/{row.id}/reporteddevices", name="eth0")
    device.append(listing("ips", (_element("ip", address=address) for address in row.ips)))
    return listing("reported_devices", [device])


def _initialization(configuration: str) -> Element:
    root = Element("initialization")
    root.append(_element("configuration", data=configuration, type="ovf"))
    return root


def unit(row: Unit) -> Element:
    """Return a scheduling policy unit. REST has no name for the type of those that are no filter,
    weight or balance.
    """
    members = {"name": row.name, "description": row.description, "enabled": _yes(row.enabled)}
    root = _entity(
        "scheduling_policy_unit",
        row.id,
        "schedulingpolicyunits",
        **members,
        internal=_yes(row.internal),
    )
    root.extend(_properties("properties", "property", row.properties))
    if row.type:
        _append(root, type=row.type)
    return root


def policy(row: Policy, default: bool, filters: Optional[Iterable[Element]] = None) -> Element:
    """Return a scheduling policy.

    Args:
        default: whether a new cluster has it.
        filters: its own, if they were asked for (`follow`).
    """
    root = _entity("scheduling_policy", row.id, "schedulingpolicies", name=row.name)
    if row.description:
        _append(root, description=row.description)
    _append_links(root, f"schedulingpolicies/{row.id}", "filters weights balances")
    _append(root, default_policy=_yes(default), locked=_yes(row.locked))
    root.extend(_properties("properties", "property", row.properties))
    if filters is not None:
        root.append(listing("filters", filters))
    return root


def policy_unit(kind: str, uid: str, number: Mapping[str, str]) -> Element:
    """Return a filter, weight or balance of a policy; its id is its unit's, as in the engine.

    Args:
        number: `position` of a filter or `factor` of a weight.
    """
    root = _element(kind, uid, **number)
    root.append(_link("scheduling_policy_unit", uid, "schedulingpolicyunits"))
    return root


def group(row: AffinityGroup, tables: Model, inline: bool = False) -> Element:
    """Return an affinity group with its members: by their ids (`AffinityGroupMapper`), or with
    names if asked to follow.
    """
    path = f"clusters/{row.cluster}/affinitygroups"
    root = _entity("affinity_group", row.id, path, name=row.name)
    if row.description:
        _append(root, description=row.description)
    _append_links(root, f"{path}/{row.id}", "hosts vms hostlabels vmlabels")
    _append(root, broken="false", enforcing=_yes(row.vms_rule.enforcing))
    root.append(_rule("hosts_rule", row.hosts_rule))
    if row.vms_rule.enabled:
        _append(root, positive=_yes(row.vms_rule.positive))
    _append(root, priority="1")
    root.append(_rule("vms_rule", row.vms_rule))
    root.append(_link("cluster", row.cluster, "clusters"))
    for attribute, table, collection, tag in (
        ("host_labels", tables.labels, "affinitylabels", "affinity_label"),
        ("hosts", tables.hosts, "hosts", "host"),
        ("vm_labels", tables.labels, "affinitylabels", "affinity_label"),
        ("vms", tables.vms, "vms", "vm"),
    ):
        rows: Mapping[str, Any] = table
        members = [rows[uid] for uid in getattr(row, attribute) if uid in rows]
        root.append(
            listing(attribute, (_member(tag, collection, member, inline) for member in members))
        )
    return root


def member_link(collection: str, uid: str) -> Element:
    """Return who bears an affinity label, one of `hosts` or `vms`
    (`BackendAffinityLabelHelper`)."""
    return _link(collection[:-1], uid, collection)


def named_host(row: Host) -> Element:
    """Return a host as a member of a group."""
    return _member("host", "hosts", row, named=True)


def named_vm(row: Vm) -> Element:
    """Return a VM as a member of a group."""
    return _member("vm", "vms", row, named=True)


def named_label(row: AffinityLabel) -> Element:
    """Return an affinity label as a member of a group."""
    return _member("affinity_label", "affinitylabels", row, named=True)


def _member(tag: str, collection: str, row: Any, named: bool) -> Element:
    return _link(tag, row.id, collection, row.name if named else "")


def _rule(name: str, row: Rule) -> Element:
    return _element(
        name, enabled=_yes(row.enabled), enforcing=_yes(row.enforcing), positive=_yes(row.positive)
    )


def label(row: AffinityLabel) -> Element:
    """Return an affinity label."""
    root = _entity("affinity_label", row.id, "affinitylabels", name=row.name)
    _append_links(root, f"affinitylabels/{row.id}", "hosts vms")
    _append(root, has_implicit_affinity_group="false", read_only="false")
    return root


def feature(name: str) -> Element:
    """Return an additional feature of a cluster; its id is its name here."""
    return _element("cluster_feature", name, name=name)


def hook(host_id: str, point: str, name: str, checksum: str) -> Element:
    """Return a VDSM hook as its host reports it. The checksum is a SHA-256, whatever its tag
    says."""
    uid = str(uuid.uuid5(_SPACE, f"{point}/{name}"))
    return _entity("hook", uid, f"hosts/{host_id}/hooks", name=name, event_name=point, md5=checksum)


def role(row: Role) -> Element:
    """Return a role, without its permits: they have a list of their own."""
    root = _entity("role", row.id, "roles", name=row.name)
    if row.description:
        _append(root, description=row.description)
    _append_links(root, f"roles/{row.id}", "permits")
    _append(root, administrative=_yes(bool(row.permits - OF_USERS)), mutable=_yes(row.mutable))
    return root


def permit(row: Role, uid: str, name: str) -> Element:
    """Return a permit of a role."""
    root = _entity(
        "permit",
        uid,
        f"roles/{row.id}/permits",
        name=name,
        administrative=_yes(name not in OF_USERS),
    )
    root.append(_link("role", row.id, "roles"))
    return root


def user(row: User) -> Element:
    """Return a user. Its name ends with the provider of authorization, not with the profile that it
    logs in with."""
    principal, _, profile = row.name.partition("@")
    domain = f"{profile}-authz"
    root = _entity("user", row.id, "users", name=principal)
    _append_links(
        root,
        f"users/{row.id}",
        "groups roles permissions tags options sshpublickeys eventsubscriptions",
    )
    _append(
        root,
        department="",
        domain_entry_id=row.id.encode().hex().upper(),
        email=f"{principal}@localhost",
        last_name="",
        namespace="*",
        principal=principal,
        user_name=row.qualified_name,
    )
    root.append(_link("domain", domain.encode().hex().upper(), "domains", domain))
    return root


def permission_id(given: Role, holder: User) -> str:
    """Return the id of the permission that gives a role to a user."""
    return str(uuid.uuid5(_SPACE, f"{given.id}/{holder.id}"))


def permission(given: Role, holder: User, parent: str = "") -> Element:
    """Return who has a role.

    Args:
        parent: path of the collection's owner with a slash, empty for the system's.
    """
    root = _entity("permission", permission_id(given, holder), f"{parent}permissions")
    root.extend([_link("role", given.id, "roles"), _link("user", holder.id, "users")])
    return root


def everyones_permissions(on_the_system: bool) -> list[Element]:
    """Return what every user has by the built-in group Everyone: permissions without a user, some
    on single objects.
    """
    elements = []
    for role_id, name, _, template in builtin.EVERYONES_ROLES:
        if on_the_system and name != builtin.ON_THE_SYSTEM:
            continue
        root = _entity(
            "permission", str(uuid.uuid5(_SPACE, name)), f"groups/{builtin.EVERYONE}/permissions"
        )
        root.extend([_link("group", builtin.EVERYONE, "groups"), _link("role", role_id, "roles")])
        if template:
            root.append(_link("template", template, "templates"))
        elements.append(root)
    return elements


def event(row: Event, tables: Model) -> Element:
    """Return an event; `index` is its id."""
    root = _entity("event", str(row.id), "events", description=row.description, code=str(row.code))
    if row.correlation:
        _append(root, correlation_id=row.correlation)
    flood_rate = row.flood_rate
    if flood_rate is None:
        flood_rate = _DEFAULT_FLOOD_RATE if row.code in audit_log.WRITTEN_BY_OTHERS else 0
    _append(
        root,
        custom_id=str(row.custom_id),
        flood_rate=str(flood_rate),
        index=str(row.id),
        origin=row.origin,
        severity=row.severity,
        time=_time(row.time),
    )
    # An event of a VM tells of everything around it.
    whole = bool(row.vm) and row.code not in audit_log.WITHOUT_SURROUNDINGS
    machine = tables.vms.get(row.vm)
    cluster_id = row.cluster or (machine.cluster if whole and machine is not None else "")
    if cluster_id:
        root.append(_named_link("cluster", cluster_id, "clusters", tables.clusters))
    if whole:
        root.append(_link("data_center", DATA_CENTER, "datacenters", "Default"))
    if row.host:
        root.append(_named_link("host", row.host, "hosts", tables.hosts))
    if whole:
        root.append(_link("template", builtin.BLANK_TEMPLATE, "templates", "Blank"))
    if row.user:
        root.append(_link("user", row.user, "users", tables.users[row.user].qualified_name))
    elif whole:
        root.append(_element("user", name="SYSTEM"))
    if row.vm:
        root.append(_named_link("vm", row.vm, "vms", tables.vms))
    return root


def action(
    entity: Optional[Element] = None, given: Optional[Element] = None, job: bool = False
) -> Element:
    """Return an action that is complete.

    Args:
        entity: what it was done with.
        given: the client's document: what that said comes back.
        job: whether the engine made a job of it.
    """
    root = Element("action")
    is_async = text(given, "async")
    reason = text(given, "reason")
    if is_async is not None:
        _append(root, **{"async": is_async})
    if entity is not None and entity.tag == "host":
        root.append(entity)
    if job:
        uid = str(uuid.uuid4())
        root.append(_link("job", uid, "jobs"))
    if reason is not None:
        _append(root, reason=reason)
    _append(root, status="complete")
    if entity is not None and entity.tag == "vm":
        root.append(entity)
    return root


def bare_host(uid: str) -> Element:
    """Return a host as an action's answer has it: what can be done with it, and what it has."""
    return Filled("host", shapes.BARE_HOST, {"href": f"{API}/hosts/{uid}", "id": uid}, {})


def bare_vm(uid: str) -> Element:
    """Return a VM as an action's answer has it."""
    return Filled("vm", shapes.BARE_VM, {"href": f"{API}/vms/{uid}", "id": uid}, {})


def _element(tag: str, identifier: str = "", /, **members: str) -> Element:
    root = Element(tag)
    if identifier:
        root.set("id", identifier)
    _append(root, **members)
    return root


def _entity(tag: str, identifier: str, collection: str, /, **members: str) -> Element:
    root = Element(tag, {"href": f"{API}/{collection}/{identifier}", "id": identifier})
    _append(root, **members)
    return root


def _link(tag: str, identifier: str, collection: str, name: str = "") -> Element:
    root = _entity(tag, identifier, collection)
    if name:
        _append(root, name=name)
    return root


def _named_link(tag: str, identifier: str, collection: str, rows: Mapping[str, Any]) -> Element:
    row = rows.get(identifier)
    return _link(tag, identifier, collection, "" if row is None else row.name)


def _append(root: Element, /, **members: str) -> None:
    root.extend(_texts(**members))


def _texts(**members: str) -> list[Element]:
    elements = []
    for member, value in members.items():
        element = Element(member)
        element.text = value
        elements.append(element)
    return elements


def _append_links(root: Element, path: str, relations: str) -> None:
    for relation in relations.split():
        ElementTree.SubElement(root, "link", {"href": f"{API}/{path}/{relation}", "rel": relation})


def _properties(plural: str, singular: str, values: Mapping[str, Any]) -> list[Element]:
    """Return the list of name-value pairs, or nothing if there are none: the engine has no empty
    one.
    """
    if not values:
        return []
    return [
        listing(
            plural, (_element(singular, name=name, value=value) for name, value in values.items())
        )
    ]


def _time(moment: datetime.datetime) -> str:
    return (
        moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.")
        + f"{moment.microsecond // 1000:03}Z"
    )


def _yes(value: bool) -> str:
    return "true" if value else "false"
