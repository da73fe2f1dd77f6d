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
from ovirt_tcp_plugin.placement import filter_unit


class MakePolicy(Change):
    """A policy of our own, unit by unit. What is there is its id, name, description and content.

    Its description bears a random word of the journal's intent. So one that was begun and not
    journalled as done is known again, and one of that name by somebody else is not taken for ours.

    Args:
        content: returns what it is to consist of, and where that comes from, in a few words.
    """

    kind = "policy"
    makes = True

    def __init__(
        self,
        engine: AdminClient,
        name: str,
        content: Optional[Callable[[], tuple[Content, str]]] = None,
    ) -> None:
        super().__init__(name, f"scheduling policy {name}")
        self._engine = engine
        self._content = content

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the policy that the journal knows, or the one of this name."""
        policy = self._policy(entry)
        if policy is None:
            return None
        return {
            "id": policy.id,
            "name": policy.name,
            "description": policy.description,
            **self._engine.content(policy.id).encode(),
        }

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return what the journal wants, or a new copy.

        Raises:
            Conflict: somebody else has a policy of this name.
        """
        if entry is not None and entry.after is not None:
            return entry.after
        if now is not None and (entry is None or not self.is_partly_made(now, entry.desired)):
            what = f"there is a scheduling policy {self.subject}, and setup did not make it"
            raise errors.Conflict(f"{what}: choose another name by --policy")
        if entry is not None:
            return entry.desired
        content = Content()
        source = ""
        if self._content is not None:
            content, source = self._content()
        mark = f"made by ovirt-tcp setup {secrets.token_hex(4)}"
        description = f"{source} with {filter_unit.NAME}; {mark}"
        return {"name": self.subject, "description": description, **content.encode()}

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether the policy is there, word for word."""
        return now is not None and {**now, "id": ""} == {**value, "id": ""}

    def is_partly_made(self, now: Any, desired: Any) -> bool:
        """Return whether the policy is ours: its description is."""
        return now is not None and now["description"] == desired["description"]

    def is_undone(self, now: Any, entry: Entry) -> bool:
        """Return whether the policy is not there.

        One of its name that is not ours does not count when ours was never made.
        """
        if now is None:
            return True
        return entry.after is None and not self.is_partly_made(now, entry.desired)

    def make(self, desired: Any) -> Any:
        """Make the policy: the balance first, the properties when the units are there.

        One that an earlier run of ours left unfinished is removed and made again, never finished:
        what it shows may be a refused edit in the engine's memory, which the next one would repeat
        (`AdminClient.add_filter`).
        """
        self._remove_partly_made(desired)
        content = scheduling_policies.decode(desired)
        policy_id = self._engine.add_policy(desired["name"], desired["description"])
        self._engine.set_balance(policy_id, content.balance)
        for unit_id, position in content.filters.items():
            self._engine.add_filter(policy_id, unit_id, position)
        for unit_id, factor in content.weights.items():
            self._engine.add_weight(policy_id, unit_id, factor)
        self._engine.set_properties(policy_id, content.properties)
        made = self.look(None)
        if not self.is_in_place(made, desired):
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
        source = value["description"].partition(";")[0]
        counts = f"{len(value['filters'])} filters, {len(value['weights'])} weights, a balance"
        settings = [f"{name}={text}" for name, text in sorted(value["properties"].items())]
        return f"{source}: {counts}; {', '.join(settings)}"

    def _policy(self, entry: Optional[Entry]) -> Optional[Named]:
        known_id = entry.after["id"] if entry is not None and entry.after is not None else ""
        for policy in self._engine.policies():
            if policy.id == known_id or (not known_id and policy.name == self.subject):
                return policy
        return None

    def _remove_partly_made(self, desired: Any) -> None:
        """Remove a policy of this name that we began.

        Raises Conflict when it is not ours, or a cluster uses it.
        """
        policy = self._policy(None)
        if policy is None:
            return
        if policy.locked or policy.description != desired["description"]:
            what = f"somebody made a scheduling policy {self.subject} at this moment"
            raise errors.Conflict(f"{what}: run setup again")
        try:
            self._engine.remove_policy(policy.id)
        except errors.NotFound:
            return  # libcurl sent the request twice
        except errors.Conflict as e:
            what = f"the scheduling policy {self.subject} is half made, and has to be made again"
            step = "give its clusters another scheduling policy, then run setup again"
            raise errors.Conflict(f"{what}, but it cannot be removed ({e.reason}): {step}") from e


class KnowUnit(Change):
    """The filter unit. The engine makes it when it discovers filterd; we only remove it."""

    kind = "unit"
    makes = True

    def __init__(self, engine: AdminClient) -> None:
        super().__init__(filter_unit.NAME, f"filter unit {filter_unit.NAME}")
        self._engine = engine

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the unit's id."""
        for unit in self._engine.units():
            if unit.name == filter_unit.NAME:
                return unit.id
        return None

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the unit's id."""
        return now

    def make(self, desired: Any) -> Any:
        """Do nothing: it is there."""
        return desired

    def undo(self, entry: Entry, now: Any) -> str:
        """Remove the unit, which no policy may use any more."""
        self._engine.remove_unit(now)
        return ""

    def show(self, value: Any) -> str:
        """Return whether it is there."""
        return "nothing" if value is None else "known to the engine"
