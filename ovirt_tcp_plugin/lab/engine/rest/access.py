# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Roles, users, and which user has which role."""

from __future__ import annotations

from ovirt_tcp_plugin.lab.engine import model, request_documents
from ovirt_tcp_plugin.lab.engine.documents import access, actions
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault, mandatory, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, Role
from ovirt_tcp_plugin.lab.engine.permits import PERMITS
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_NAME_IN_USE = (
    "Cannot add Role. The Role name is already in use, please choose a unique name and try again."
)
_ROLE_IN_USE = (
    "One or more Permissions is still associated with Role.\n- Please remove all Permissions first."
)


class AccessPaths:
    """`roles`, `users` and `permissions`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.routes: Routes = {
            "GET roles": self._roles,
            "POST roles": self._add_role,
            "GET roles/{}": self._role,
            "GET roles/{}/permits": self._permits,
            "DELETE roles/{}": self._remove_role,
            "GET users": self._users,
            "GET permissions": self._permissions,
            "GET users/{}/permissions": self._permissions_of_user,
            "POST permissions": self._grant,
            "DELETE permissions/{}": self._revoke,
        }

    def _roles(self, query: Query, _: Element) -> Element:
        return listing("roles", map(access.role, self._model.roles.values()))

    def _add_role(self, query: Query, document: Element) -> Element:
        name = document.findtext("name", "")
        if not name:
            raise mandatory("role.name")
        permits = _permit_names(document)
        if any(role.name == name for role in self._model.roles.values()):
            raise refusal(_NAME_IN_USE)
        role = Role(model.new_id(), name, permits)
        role.description = document.findtext("description", "")
        self._model.roles[role.id] = role
        return access.role(role)

    def _role(self, query: Query, _: Element, uid: str) -> Element:
        return access.role(self._model.roles.find(uid))

    def _permits(self, query: Query, _: Element, uid: str) -> Element:
        role = self._model.roles.find(uid)
        permits = [
            access.permit(role, permit_id, name)
            for permit_id, name in PERMITS.items()
            if name in role.permits
        ]
        return listing("permits", permits)

    def _remove_role(self, query: Query, _: Element, uid: str) -> Element:
        role = self._model.roles.find(uid)
        if not role.mutable:
            raise refusal("Cannot remove Role. Changing system Role is not allowed.")
        if any(uid in user.roles for user in self._model.users.values()):
            raise refusal(_ROLE_IN_USE)
        del self._model.roles[uid]
        return actions.complete()

    def _users(self, query: Query, _: Element) -> Element:
        return listing("users", map(access.user, self._model.users.values()))

    def _permissions(self, query: Query, _: Element) -> Element:
        permissions: list[Element] = []
        for user in self._model.users.values():
            for role_id in sorted(user.roles):
                role = self._model.roles[role_id]
                permissions.append(access.permission(role, user))
        permissions += access.everyones_permissions(True)
        return listing("permissions", permissions)

    def _permissions_of_user(self, query: Query, _: Element, uid: str) -> Element:
        permissions: list[Element] = []
        user = self._model.users.find(uid)
        for role_id in sorted(user.roles):
            role = self._model.roles[role_id]
            permissions.append(access.permission(role, user, f"users/{uid}/"))
        permissions += access.everyones_permissions(False)
        return listing("permissions", permissions)

    def _grant(self, query: Query, document: Element) -> Element:
        role_id = request_documents.identifier(document, "role")
        user_id = request_documents.identifier(document, "user")
        role = self._model.roles.find(role_id)
        user = self._model.users.find(user_id)
        user.roles.add(role.id)
        return access.permission(role, user)

    def _revoke(self, query: Query, _: Element, uid: str) -> Element:
        for user in self._model.users.values():
            for role_id in user.roles:
                role = self._model.roles[role_id]
                if access.permission_id(role, user) == uid:
                    user.roles.remove(role_id)
                    return actions.complete()
        raise Fault(404, "Operation Failed", f"[Entity not found: {uid}]")


def _permit_names(document: Element) -> set[str]:
    """Return the permits of a new role. Raises Fault or Bare (400)."""
    permit_ids = [permit.get("id", "") for permit in document.findall("permits/permit")]
    if not permit_ids:
        raise mandatory("role.permits.id")
    for permit_id in permit_ids:
        if permit_id not in PERMITS:
            raise Bare(400, f"{permit_id} is not a valid permit ID.")
    return {PERMITS[permit_id] for permit_id in permit_ids}
