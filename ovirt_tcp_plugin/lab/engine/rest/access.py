# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Roles, users, and which user has which role."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Bare, Fault, mandatory, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, Role
from ovirt_tcp_plugin.lab.engine.permits import PERMITS


class AccessPaths:
    """`roles`, `users` and `permissions`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.routes: dict[str, Callable[..., Element]] = {
            "GET roles": self._roles,
            "POST roles": self._add_role,
            "GET roles/{}": self._role,
            "GET roles/{}/permits": self._permits,
            "DELETE roles/{}": self._remove_role,
            "GET users": self._users,
            "GET permissions": self._granted,
            "GET users/{}/permissions": self._permissions,
            "POST permissions": self._grant,
            "DELETE permissions/{}": self._revoke,
        }

    def _roles(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("roles", map(documents.role, self._model.roles.values()))

    def _add_role(self, query: Mapping[str, str], given: Element) -> Element:
        permits = [permit.get("id", "") for permit in given.findall("permits/permit")]
        name = documents.text(given, "name") or ""
        if not name:
            raise mandatory("role.name")
        if not permits:
            raise mandatory("role.permits.id")
        for permit in permits:
            if permit not in PERMITS:
                raise Bare(400, f"{permit} is not a valid permit ID.")
        with self._model.lock:
            if any(role.name == name for role in self._model.roles.values()):
                text = "The Role name is already in use, please choose a unique name and try again."
                raise refusal(f"Cannot add Role. {text}")
            role = Role(model.new_id(), name, {PERMITS[one] for one in permits})
            role.description = documents.text(given, "description") or ""
            self._model.roles[role.id] = role
            return documents.role(role)

    def _role(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return documents.role(self._model.find("roles", uid))

    def _permits(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            role: Role = self._model.find("roles", uid)
            own = [
                documents.permit(role, one, name)
                for one, name in PERMITS.items()
                if name in role.permits
            ]
            return documents.listing("permits", own)

    def _remove_role(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            role: Role = self._model.find("roles", uid)
            if not role.mutable:
                raise refusal("Cannot remove Role. Changing system Role is not allowed.")
            if any(uid in user.roles for user in self._model.users.values()):
                text = (
                    "One or more Permissions is still associated with Role.\n- Please remove all "
                    "Permissions first."
                )
                raise refusal(text)
            del self._model.roles[uid]
            return documents.action()

    def _users(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("users", map(documents.user, self._model.users.values()))

    def _granted(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            every = [
                (self._model.roles[uid], user)
                for user in self._model.users.values()
                for uid in sorted(user.roles)
            ]
            granted = [documents.permission(role, user) for role, user in every]
            return documents.listing(
                "permissions", [*granted, *documents.everyones_permissions(True)]
            )

    def _revoke(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            for user in self._model.users.values():
                for role in user.roles:
                    if documents.permission_id(self._model.roles[role], user) == uid:
                        user.roles.remove(role)
                        return documents.action()
            raise Fault(404, "Operation Failed", f"[Entity not found: {uid}]")

    def _permissions(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            user = self._model.find("users", uid)
            roles = [self._model.roles[one] for one in sorted(user.roles)]
            granted = [documents.permission(role, user, f"users/{uid}/") for role in roles]
            return documents.listing(
                "permissions", [*granted, *documents.everyones_permissions(False)]
            )

    def _grant(self, query: Mapping[str, str], given: Element) -> Element:
        with self._model.lock:
            role: Role = self._model.find("roles", documents.identifier(given, "role"))
            user = self._model.find("users", documents.identifier(given, "user"))
            user.roles.add(role.id)
            return documents.permission(role, user)
