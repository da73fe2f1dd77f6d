# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The answers of the REST API, as an engine 4.5.8 writes them, for what the simulator has.

What a mapper of the engine (`VmMapper`, `HostMapper`, ...) leaves out, an answer here leaves out,
too.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Optional
from xml.sax.saxutils import escape

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, shapes
from ovirt_tcp_plugin.lab.engine.audit_log import AuditEvent
from ovirt_tcp_plugin.lab.engine.elements import (
    append_links,
    append_texts,
    boolean,
    element,
    entity,
    link,
    listing,
    named_link,
    properties,
    texts,
    timestamp,
)
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.model import (
    NOT_RUNNING,
    AffinityGroup,
    AffinityLabel,
    EngineUser,
    Model,
    PolicyUnit,
    Role,
    Rule,
    SchedulingPolicy,
    SimulatedCluster,
    SimulatedHost,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.permits import OF_USERS
from ovirt_tcp_plugin.lab.engine.shapes import API
from ovirt_tcp_plugin.lab.engine.xml_text import Element, Filled

# Things of which this engine has one, under ids of its own.
_SPACE = uuid.UUID("5d3e5a0e-0f5c-4b57-9d0e-0d6f3e0b7a11")


def _id_of_thing(number: int) -> str:
    return str(uuid.uuid5(_SPACE, str(number)))


DATA_CENTER = _id_of_thing(0)
MAC_POOL = _id_of_thing(1)
MANAGEMENT_NETWORK = _id_of_thing(2)
CPU_PROFILE = _id_of_thing(3)
QUOTA = _id_of_thing(4)
MIGRATION_POLICY = _id_of_thing(5)
INSTANCE = _id_of_thing(6)
LARGE_ICON = _id_of_thing(7)
SMALL_ICON = _id_of_thing(8)
_DEFAULT_FLOOD_RATE = 30
_STARTED_AT = "2026-01-01T08:01:00.000Z"


# Actions and faults


def fault(error: Fault, action: bool) -> Element:
    """Return a fault; that of an action sits inside it."""
    inner = element("fault", detail=error.detail, reason=error.reason)
    if not action:
        return inner
    root = Element("action")
    root.append(inner)
    append_texts(root, status="failed")
    return root


def action(
    subject: Optional[Element] = None, request: Optional[Element] = None, job: bool = False
) -> Element:
    """Return an action that is complete.

    Args:
        subject: what it was done with.
        request: the client's document: what that said comes back.
        job: whether the engine made a job of it.
    """
    root = Element("action")
    kind = "" if subject is None else subject.tag
    is_async = None if request is None else request.findtext("async")
    reason = None if request is None else request.findtext("reason")
    if is_async is not None:
        append_texts(root, **{"async": is_async})
    if subject is not None and kind == "host":
        root.append(subject)
    if job:
        root.append(link("job", str(uuid.uuid4()), "jobs"))
    if reason is not None:
        append_texts(root, reason=reason)
    append_texts(root, status="complete")
    if subject is not None and kind == "vm":
        root.append(subject)
    return root


def bare_host(uid: str) -> Element:
    """Return a host as an action's answer has it: what can be done with it, and what it has."""
    return Filled("host", shapes.BARE_HOST, {"href": f"{API}/hosts/{uid}", "id": uid}, {})


def bare_vm(uid: str) -> Element:
    """Return a VM as an action's answer has it."""
    return Filled("vm", shapes.BARE_VM, {"href": f"{API}/vms/{uid}", "id": uid}, {})


def echo(request: Element) -> Element:
    """Return an entity as the client sent it, with its address."""
    root = entity(request.tag, request.get("id", ""), f"{request.tag}s")
    root.extend(request)
    return root


# The root


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


# Clusters, hosts and VMs


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
    uid = str(uuid.uuid5(_SPACE, f"{point}/{name}"))
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
    uid = str(uuid.uuid5(_SPACE, row.id))
    device = entity("reported_device", uid, f"vms/{row.id}/reporteddevices", name="eth0")
    addresses = (element("ip", address=address) for address in row.ips)
    device.append(listing("ips", addresses))
    return listing("reported_devices", [device])


def _initialization(configuration: str) -> Element:
    root = Element("initialization")
    root.append(element("configuration", data=configuration, type="ovf"))
    return root


# Scheduling policies


def unit(row: PolicyUnit) -> Element:
    """Return a scheduling policy unit.

    REST has no name for the type of those that are no filter, weight or balance.
    """
    root = entity("scheduling_policy_unit", row.id, "schedulingpolicyunits")
    append_texts(
        root,
        name=row.name,
        description=row.description,
        enabled=boolean(row.enabled),
        internal=boolean(row.internal),
    )
    root.extend(properties("properties", "property", row.properties))
    if row.type:
        append_texts(root, type=row.type)
    return root


def policy(
    row: SchedulingPolicy, default: bool, filters: Optional[Iterable[Element]] = None
) -> Element:
    """Return a scheduling policy.

    Args:
        default: whether a new cluster has it.
        filters: the policy's filters, if they were asked for (`follow`).
    """
    root = entity("scheduling_policy", row.id, "schedulingpolicies", name=row.name)
    if row.description:
        append_texts(root, description=row.description)
    append_links(root, f"schedulingpolicies/{row.id}", "filters weights balances")
    append_texts(root, default_policy=boolean(default), locked=boolean(row.locked))
    root.extend(properties("properties", "property", row.properties))
    if filters is not None:
        root.append(listing("filters", filters))
    return root


def policy_unit(kind: str, uid: str, number: Mapping[str, str]) -> Element:
    """Return a filter, weight or balance of a policy; its id is its unit's, as in the engine.

    Args:
        number: `position` of a filter or `factor` of a weight.
    """
    root = element(kind, uid, **number)
    root.append(link("scheduling_policy_unit", uid, "schedulingpolicyunits"))
    return root


# Affinity


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


# Roles and users


def role(row: Role) -> Element:
    """Return a role, without its permits: they have a list of their own."""
    root = entity("role", row.id, "roles", name=row.name)
    if row.description:
        append_texts(root, description=row.description)
    append_links(root, f"roles/{row.id}", "permits")
    administrative = bool(row.permits - OF_USERS)
    append_texts(root, administrative=boolean(administrative), mutable=boolean(row.mutable))
    return root


def permit(row: Role, uid: str, name: str) -> Element:
    """Return a permit of a role."""
    administrative = boolean(name not in OF_USERS)
    path = f"roles/{row.id}/permits"
    root = entity("permit", uid, path, name=name, administrative=administrative)
    root.append(link("role", row.id, "roles"))
    return root


def user(row: EngineUser) -> Element:
    """Return a user.

    Its name ends with the provider of authorization, not with the profile that it logs in with.
    """
    principal, _, profile = row.name.partition("@")
    domain = f"{profile}-authz"
    root = entity("user", row.id, "users", name=principal)
    relations = "groups roles permissions tags options sshpublickeys eventsubscriptions"
    append_links(root, f"users/{row.id}", relations)
    append_texts(
        root,
        department="",
        domain_entry_id=_hexadecimal(row.id),
        email=f"{principal}@localhost",
        last_name="",
        namespace="*",
        principal=principal,
        user_name=row.qualified_name,
    )
    root.append(link("domain", _hexadecimal(domain), "domains", domain))
    return root


def _hexadecimal(text: str) -> str:
    return text.encode().hex().upper()


def permission_id(role: Role, holder: EngineUser) -> str:
    """Return the id of the permission that gives a role to a user."""
    return str(uuid.uuid5(_SPACE, f"{role.id}/{holder.id}"))


def permission(role: Role, holder: EngineUser, parent: str = "") -> Element:
    """Return who has a role.

    Args:
        parent: path of the collection's owner with a slash, empty for the system's.
    """
    root = entity("permission", permission_id(role, holder), f"{parent}permissions")
    root.append(link("role", role.id, "roles"))
    root.append(link("user", holder.id, "users"))
    return root


def everyones_permissions(on_the_system: bool) -> list[Element]:
    """Return what every user has by the built-in group Everyone: permissions without a user.

    Args:
        on_the_system: without those on single objects.
    """
    elements: list[Element] = []
    for role_id, name, _, template in builtin.EVERYONES_ROLES:
        if on_the_system and name != builtin.ON_THE_SYSTEM:
            continue
        uid = str(uuid.uuid5(_SPACE, name))
        root = entity("permission", uid, f"groups/{builtin.EVERYONE}/permissions")
        root.append(link("group", builtin.EVERYONE, "groups"))
        root.append(link("role", role_id, "roles"))
        if template:
            root.append(link("template", template, "templates"))
        elements.append(root)
    return elements


# Events


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
