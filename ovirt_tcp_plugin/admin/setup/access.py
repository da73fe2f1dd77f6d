# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 2: the role with just the permits that the broker needs, and its user's permission on the whole system, by REST."""

from __future__ import annotations

import secrets
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.placement.inventory import PERMITS

ROLE = "ovirt-tcp"
# A user that logs in as broker@internal is listed as broker@internal-authz: profile and provider of authorization differ.
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
        known = entry.after["id"] if entry is not None and entry.after is not None else ""
        for role in self._engine.roles():
            if role.id == known or (not known and role.name == ROLE):
                return {"id": role.id, "description": role.description, "permits": sorted(self._engine.permits(role.id))}
        return None

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the role. Raises Conflict when there is one of this name that is not enough."""
        if entry is not None:
            return entry.wanted if entry.after is None else entry.after
        if now is not None:
            lacking = [name for uid, name in PERMITS.items() if uid not in now["permits"]]
            if lacking:
                what = f"there is a role {ROLE} that setup did not make, and it lacks {', '.join(lacking)}"
                raise errors.Conflict(f"{what}: rename it, or give it these permits")
            return now
        description = f"What ovirt-tcp-broker needs; made by ovirt-tcp setup {secrets.token_hex(4)}"
        return {"id": "", "description": description, "permits": sorted(PERMITS)}

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether the role is there with its permits."""
        return now is not None and {**now, "id": ""} == {**left, "id": ""}

    def gone(self, now: Any, entry: Entry) -> bool:
        """Return whether the role is not there, or one that is not ours has its name."""
        return now is None or (entry.after is None and now["description"] != entry.wanted["description"])

    def do(self, wanted: Any) -> Any:
        """Make it, unless it is there."""
        there = self.look(None)
        if not self.stands(there, wanted):
            self._engine.add_role(ROLE, wanted["description"], wanted["permits"])
            there = self.look(None)
        return there

    def undo(self, entry: Entry, now: Any) -> str:
        """Remove it; the engine refuses while somebody has it."""
        self._engine.remove_role(now["id"])
        return ""

    def show(self, value: Any) -> str:
        """Return its permits."""
        return "nothing" if value is None else ", ".join(PERMITS.get(one, f"permit {one}") for one in value["permits"])


class GrantRole(Change):
    """The role for the broker's user. What is there are the ids of both; None as long as the user does not have it."""

    kind = "permission"
    makes = True

    def __init__(self, engine: AdminClient, user_name: str) -> None:
        super().__init__(user_name, f"role {ROLE} for {user_name}")
        self._engine = engine

    def look(self, entry: Optional[Entry]) -> Any:
        """Return role and user, if the user has the role."""
        given = entry.wanted if entry is not None else self._ids()
        there = [(one.role_id, one.user_id) for one in self._engine.permissions()]
        return given if given is not None and (given["role"], given["user"]) in there else None

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return role and user. Raises Conflict when there is no such user."""
        if entry is not None:
            return entry.wanted
        user = find_user(self._engine, self.subject)
        if user is None:
            raise errors.Conflict(missing_user(self.subject))
        return self._ids() or {"role": "", "user": user}

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether the user has the role."""
        return now is not None and bool(now == left)

    def do(self, wanted: Any) -> Any:
        """Give it, unless the user has it."""
        if not any((one.role_id, one.user_id) == (wanted["role"], wanted["user"]) for one in self._engine.permissions()):
            self._engine.grant(wanted["role"], wanted["user"])
        return wanted

    def undo(self, entry: Entry, now: Any) -> str:
        """Take it back."""
        for one in self._engine.permissions():
            if (one.role_id, one.user_id) == (now["role"], now["user"]):
                self._engine.revoke(one.id)
        return ""

    def show(self, value: Any) -> str:
        """Return whether the user has it."""
        return "no" if value is None else "yes"

    def _ids(self) -> Optional[dict[str, str]]:
        role = next((one.id for one in self._engine.roles() if one.name == ROLE), None)
        user = find_user(self._engine, self.subject)
        return None if role is None or user is None else {"role": role, "user": user}


def find_user(engine: AdminClient, login: str) -> Optional[str]:
    """Return the id of the user that logs in by this name, None if the engine does not know it."""
    names = {login, login + PROVIDER_SUFFIX}
    return next((one.id for one in engine.users() if one.name in names), None)


def missing_user(login: str) -> str:
    """Return what to do when the engine does not know the broker's user."""
    name = login.partition("@")[0]
    return (
        f"the engine has no user {login}: make it (ovirt-aaa-jdbc-tool user add {name}, then user password-reset {name}), "
        "add it under AdminClient, Users in the admin portal, and run setup again"
    )
