# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 2: the scheduling policy with our filter unit, and the unit itself, by REST."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine import scheduling_policies
from ovirt_tcp_plugin.engine.admin_client import AdminClient, Named
from ovirt_tcp_plugin.engine.scheduling_policies import Content
from ovirt_tcp_plugin.placement.inventory import UNIT_NAME


class MakePolicy(Change):
    """A policy of our own, unit by unit. What is there is its id, name, description and content.

    Its description bears a random word of the journal's intent, so that one that was begun and not journalled as done is
    known again, and one of that name by somebody else is not.

    Args:
        wish: returns what it is to consist of, and the name of the policy that this comes from.
    """

    kind = "policy"
    makes = True

    def __init__(
        self, engine: AdminClient, name: str, wish: Optional[Callable[[], tuple[Content, str]]] = None
    ) -> None:
        super().__init__(name, f"scheduling policy {name}")
        self._engine, self._wish = engine, wish

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the policy that the journal knows, or the one of this name."""
        known = entry.after["id"] if entry is not None and entry.after is not None else ""
        found = [one for one in self._engine.policies() if (one.id == known if known else one.name == self.subject)]
        return _encode(found[0], self._engine.content(found[0].id)) if found else None

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return what the journal wants, or a new copy. Raises Conflict when somebody else has one of this name."""
        if entry is not None and entry.after is not None:
            return entry.after
        if now is not None and (entry is None or not self.half_made(now, entry.wanted)):
            raise errors.Conflict(
                f"there is a scheduling policy {self.subject}, and setup did not make it: choose another name by --policy"
            )
        if entry is not None:
            return entry.wanted
        content, source = self._wish() if self._wish is not None else (Content(), "")
        description = f"{source} with {UNIT_NAME}; made by ovirt-tcp setup {secrets.token_hex(4)}"
        return {"name": self.subject, "description": description, **content.encode()}

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether the policy is there, word for word."""
        return now is not None and {**now, "id": ""} == {**left, "id": ""}

    def half_made(self, now: Any, wanted: Any) -> bool:
        """Return whether the policy is ours: its description is."""
        return now is not None and now["description"] == wanted["description"]

    def gone(self, now: Any, entry: Entry) -> bool:
        """Return whether the policy is not there, or the one of its name is not ours and ours was never made."""
        return now is None or (entry.after is None and not self.half_made(now, entry.wanted))

    def do(self, wanted: Any) -> Any:
        """Make the policy: the balance first, the properties when the units are there.

        One that an earlier run of ours left unfinished is removed and made again, never finished:
        what it shows may be a refused edit in the engine's memory, which the next one would repeat
        (`AdminClient.add_filter`).
        """
        self._remove_half_made(wanted)
        content = scheduling_policies.decode(wanted)
        uid = self._engine.add_policy(wanted["name"], wanted["description"])
        self._engine.set_balance(uid, content.balance)
        for unit, position in content.filters.items():
            self._engine.add_filter(uid, unit, position)
        for unit, factor in content.weights.items():
            self._engine.add_weight(uid, unit, factor)
        self._engine.set_properties(uid, content.properties)
        made = self.look(None)
        if not self.stands(made, wanted):
            what = f"the scheduling policy {self.subject} is not what was asked for"
            raise errors.Unavailable("the engine", what)
        return made

    def undo(self, entry: Entry, now: Any) -> str:
        """Remove the policy, which works whatever was refused before."""
        self._engine.remove_policy(now["id"])
        return ""

    def show(self, value: Any) -> str:
        """Return the policy in short."""
        if value is None:
            return "nothing"
        counts = f"{len(value['filters'])} filters, {len(value['weights'])} weights, a balance"
        given = ", ".join(f"{name}={text}" for name, text in sorted(value["properties"].items()))
        return f"{value['description'].partition(';')[0]}: {counts}; {given}"

    def _remove_half_made(self, wanted: Any) -> None:
        """Remove a policy of this name that we began.

        Raises Conflict when it is not ours, or a cluster uses it.
        """
        policy = next((one for one in self._engine.policies() if one.name == self.subject), None)
        if policy is None:
            return
        if policy.locked or policy.description != wanted["description"]:
            what = f"somebody made a scheduling policy {self.subject} at this moment"
            raise errors.Conflict(what)
        try:
            self._engine.remove_policy(policy.id)
        except errors.NotFound:
            return  # libcurl sent the request twice
        except errors.Conflict as e:
            what = f"the scheduling policy {self.subject} is half made, and has to be made again"
            step = "give its clusters another scheduling policy, then run setup again"
            raise errors.Conflict(f"{what}, but it cannot be removed ({e.reason}): {step}") from e


class KnowUnit(Change):
    """The filter unit: the engine makes it by itself when it discovers filterd; only its end is an act."""

    kind = "unit"
    makes = True

    def __init__(self, engine: AdminClient) -> None:
        super().__init__(UNIT_NAME, f"filter unit {UNIT_NAME}")
        self._engine = engine

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the unit's id."""
        return next((one.id for one in self._engine.units() if one.name == UNIT_NAME), None)

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the unit's id."""
        return now

    def do(self, wanted: Any) -> Any:
        """Do nothing: it is there."""
        return wanted

    def undo(self, entry: Entry, now: Any) -> str:
        """Remove the unit, which no policy may use any more."""
        self._engine.remove_unit(now)
        return ""

    def show(self, value: Any) -> str:
        """Return whether it is there."""
        return "nothing" if value is None else "known to the engine"


def _encode(policy: Named, content: Content) -> dict[str, Any]:
    return {"id": policy.id, "name": policy.name, "description": policy.description, **content.encode()}
