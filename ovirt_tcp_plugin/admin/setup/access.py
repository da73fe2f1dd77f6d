# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 2: the role with just the permits that the broker needs, and who has it, by REST.

The broker's user has it on the whole system.
"""

from __future__ import annotations

import secrets
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine.admin_client import AdminClient, Permission
from ovirt_tcp_plugin.placement.inventory import PERMITS

ROLE = "ovirt-tcp"
# A user that logs in as broker@internal is listed as broker@internal-authz: profile and provider of
# authorization differ.
PROVIDER_SUFFIX = "-authz"


class MakeRole(Change):
    """The role. What is there is its id, description and the ids of its permits."""

    kind = "role"
    makes = True

    def __init__(self, engine: AdminClient) -> None:
        super().__init__(ROLE, f"role {ROLE}")
        self._engine = engine

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the role that the journal knows, or the one of this name."""
        known_id = entry.after["id"] if entry is not None and entry.after is not None else ""
        for role in self._engine.roles():
            if role.id == known_id or (not known_id and role.name == ROLE):
                permits = sorted(self._engine.permits(role.id))
                return {"id": role.id, "description": role.description, "permits": permits}
        return None

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the role. Raises Conflict when there is one of this name that is not enough."""
        if entry is not None:
            return entry.desired if entry.after is None else entry.after
        if now is None:
            description = f"What ovirt-tcp-broker needs; made by ovirt-tcp setup {_mark()}"
            return {"id": "", "description": description, "permits": sorted(PERMITS)}
        lacking = [name for permit_id, name in PERMITS.items() if permit_id not in now["permits"]]
        if lacking:
            names = ", ".join(lacking)
            what = f"there is a role {ROLE} that setup did not make, and it lacks {names}"
            raise errors.Conflict(f"{what}: rename it, or give it these permits")
        return now

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether the role is there with its permits."""
        return now is not None and {**now, "id": ""} == {**value, "id": ""}

    def is_undone(self, now: Any, entry: Entry) -> bool:
        """Return whether the role is not there, or one that is not ours has its name."""
        if now is None:
            return True
        return entry.after is None and now["description"] != entry.desired["description"]

    def make(self, desired: Any) -> Any:
        """Make it, unless it is there."""
        now = self.look(None)
        if not self.is_in_place(now, desired):
            self._engine.add_role(ROLE, desired["description"], desired["permits"])
            now = self.look(None)
        return now

    def undo(self, entry: Entry, now: Any) -> str:
        """Remove it; the engine refuses while somebody has it."""
        self._engine.remove_role(now["id"])
        return ""

    def show(self, value: Any) -> str:
        """Return its permits."""
        if value is None:
            return "nothing"
        names = [PERMITS.get(permit_id, f"permit {permit_id}") for permit_id in value["permits"]]
        return ", ".join(names)


class GrantRole(Change):
    """The role for the broker's user.

    What is there are the ids of both; None as long as the user does not have it.
    """

    kind = "permission"
    makes = True

    def __init__(self, engine: AdminClient, user_name: str) -> None:
        super().__init__(user_name, f"role {ROLE} for {user_name}")
        self._engine = engine

    def look(self, entry: Optional[Entry]) -> Any:
        """Return role and user, if the user has the role."""
        ids = entry.desired if entry is not None else self._ids()
        if ids is None or not self._permissions(ids):
            return None
        return ids

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return role and user. Raises Conflict when there is no such user."""
        if entry is not None:
            return entry.desired
        user_id = find_user(self._engine, self.subject)
        if user_id is None:
            raise errors.Conflict(missing_user(self.subject))
        return self._ids() or {"role": "", "user": user_id}

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether the user has the role."""
        return now is not None and bool(now == value)

    def make(self, desired: Any) -> Any:
        """Give it, unless the user has it."""
        if not self._permissions(desired):
            self._engine.grant(desired["role"], desired["user"])
        return desired

    def undo(self, entry: Entry, now: Any) -> str:
        """Take it back."""
        for permission in self._permissions(now):
            self._engine.revoke(permission.id)
        return ""

    def show(self, value: Any) -> str:
        """Return whether the user has it."""
        return "no" if value is None else "yes"

    def _permissions(self, ids: Any) -> list[Permission]:
        """Return the permissions that give this role to this user."""
        return [
            permission
            for permission in self._engine.permissions()
            if permission.role_id == ids["role"] and permission.user_id == ids["user"]
        ]

    def _ids(self) -> Optional[dict[str, str]]:
        role_ids = [role.id for role in self._engine.roles() if role.name == ROLE]
        user_id = find_user(self._engine, self.subject)
        if not role_ids or user_id is None:
            return None
        return {"role": role_ids[0], "user": user_id}


def find_user(engine: AdminClient, login: str) -> Optional[str]:
    """Return the id of the user that logs in by this name, None if the engine does not know it."""
    names = {login, login + PROVIDER_SUFFIX}
    return next((user.id for user in engine.users() if user.name in names), None)


def missing_user(login: str) -> str:
    """Return what to do when the engine does not know the broker's user."""
    name = login.partition("@")[0]
    tool = f"ovirt-aaa-jdbc-tool user add {name}, then user password-reset {name}"
    return (
        f"the engine has no user {login}: make it ({tool}), add it under Administration, Users in"
        " the admin portal, and run setup again"
    )


def _mark() -> str:
    """Return a random word, by which a role that was begun is known again."""
    return secrets.token_hex(4)
