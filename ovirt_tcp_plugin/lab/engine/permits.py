# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the permits of a request, and those that roles give.

Sources: `ActionGroup`, `ActionType`. Only rights on the whole system are known, as the broker's
user has them.
"""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine.xml_text import Element

# Id: name.
PERMITS = {
    "1": "create_vm",
    "2": "delete_vm",
    "3": "edit_vm_properties",
    "6": "migrate_vm",
    "14": "change_vm_custom_properties",
    "18": "stop_vm",
    "21": "hibernate_vm",
    "22": "run_vm",
    "101": "edit_host_configuration",
    "103": "manipulate_host",
    "401": "edit_cluster_configuration",
    "500": "manipulate_users",
    "501": "manipulate_roles",
    "502": "manipulate_permissions",
    "504": "edit_profile",
    "702": "edit_storage_pool_configuration",
    "1300": "login",
    "1301": "tag_management",
    "1400": "inject_external_events",
    "1550": "manipulate_affinity_groups",
    "1668": "assign_cpu_profile",
}
# Those that make no administrator of whoever has them.
OF_USERS = frozenset(
    {
        "create_vm",
        "delete_vm",
        "edit_vm_properties",
        "migrate_vm",
        "stop_vm",
        "hibernate_vm",
        "run_vm",
        "login",
        "edit_profile",
    }
)
# Requests that change something, by the beginning of their path: the permit. The first that fits
# counts.
_NEEDED = (
    ("events", "inject_external_events"),
    ("clusters/{}/affinitygroups", "manipulate_affinity_groups"),
    ("clusters", "edit_cluster_configuration"),
    ("affinitylabels", "tag_management"),
    ("hosts/{}/", "manipulate_host"),
    ("hosts", "edit_host_configuration"),
    ("schedulingpolicyunits", "edit_storage_pool_configuration"),
    ("schedulingpolicies", "edit_storage_pool_configuration"),
    ("roles", "manipulate_roles"),
    ("users", "manipulate_users"),
    ("permissions", "manipulate_permissions"),
)
_VM_ACTIONS = {
    "clone": "create_vm",
    "start": "run_vm",
    "suspend": "hibernate_vm",
    "migrate": "migrate_vm",
    "stop": "stop_vm",
    "shutdown": "stop_vm",
}
_VM_EDITS = {"POST": "create_vm", "PUT": "edit_vm_properties", "DELETE": "delete_vm"}


def needed(verb: str, route: str, path: str, document: Element) -> set[str]:
    """Return the names of the permits that a request needs; administrators may read everything.

    Args:
        route: the path with `{}` for ids.
        document: of the client; an event that sets a host's status needs more.
    """
    if verb == "GET":
        return set()
    if route.startswith("vms"):
        action = path.rpartition("/")[2]
        return {_VM_ACTIONS.get(action) or _VM_EDITS.get(verb, "")}
    names = {next(name for start, name in _NEEDED if route.startswith(start))}
    if route == "events" and document.find("host/external_status") is not None:
        names.add("edit_host_configuration")
    return names
