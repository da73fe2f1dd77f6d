# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Roles, users, and which user has which role."""

from __future__ import annotations

import uuid

from ovirt_tcp_plugin.lab.engine import builtin
from ovirt_tcp_plugin.lab.engine.documents.things import SPACE
from ovirt_tcp_plugin.lab.engine.elements import append_links, append_texts, boolean, entity, link
from ovirt_tcp_plugin.lab.engine.model import EngineUser, Role
from ovirt_tcp_plugin.lab.engine.permits import OF_USERS
from ovirt_tcp_plugin.lab.engine.xml_text import Element


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
    return str(uuid.uuid5(SPACE, f"{role.id}/{holder.id}"))


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
        uid = str(uuid.uuid5(SPACE, name))
        root = entity("permission", uid, f"groups/{builtin.EVERYONE}/permissions")
        root.append(link("group", builtin.EVERYONE, "groups"))
        root.append(link("role", role_id, "roles"))
        if template:
            root.append(link("template", template, "templates"))
        elements.append(root)
    return elements
