# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 2: a cluster becomes a trusted pool, by REST; its former policy comes back when that is undone."""

from __future__ import annotations

from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.pools import SCOPE_PROPERTY


class UsePolicy(Change):
    """The scheduling policy of a cluster. What is there is the policy's id and the cluster's own properties.

    The engine keeps a cluster's properties over a change of policy, fills in those of the new one, and drops what its
    units do not know (`ClusterOperationCommandBase.updateClusterPolicyProperties`).

    Args:
        policy_name: the one to use, which may not be there yet.
        scope: who needs trust; None for whom the policy says.
    """

    kind = "cluster"

    def __init__(
        self,
        engine: AdminClient,
        cluster_id: str,
        cluster_name: str,
        policy_name: str = "",
        scope: Optional[Scope] = None,
    ) -> None:
        super().__init__(cluster_id, f"scheduling policy of cluster {cluster_name}")
        self._engine, self._policy_name, self._scope = engine, policy_name, scope

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the cluster's policy and properties; None if there is no such cluster any more."""
        found = next((one for one in self._engine.clusters() if one.id == self.subject), None)
        return None if found is None else {"policy": found.policy_id, "properties": dict(found.properties)}

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the policy of this name, with who needs trust."""
        policy = next((one.id for one in self._engine.policies() if one.name == self._policy_name), "")
        scope = self._scope.value if self._scope is not None else Scope.ALL_VMS.value
        if policy and self._scope is None:
            scope = self._engine.content(policy).properties.get(SCOPE_PROPERTY, scope)
        return {"policy": policy, "properties": {SCOPE_PROPERTY: scope}}

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether the cluster has this policy, and the same VMs need trust."""
        return now is not None and _meaning(now) == _meaning(left)

    def gone(self, now: Any, entry: Entry) -> bool:
        """Return whether the cluster has its former policy, or is gone itself."""
        return now is None or _meaning(now) == _meaning(entry.before)

    def do(self, wanted: Any) -> Any:
        """Have the cluster use the policy."""
        if not wanted["policy"]:
            raise errors.Conflict(f"there is no scheduling policy {self._policy_name} for {self.title}")
        self._engine.use_policy(self.subject, wanted["policy"], wanted["properties"])
        there = self.look(None)
        if not self.stands(there, wanted):
            raise errors.Unavailable("the engine", f"{self.title} is not what was asked for")
        return there

    def undo(self, entry: Entry, now: Any) -> str:
        """Have the cluster use its former policy, with its former properties where nobody changed them since."""
        # For an unknown policy the engine would take its default one without a word.
        if entry.before["policy"] not in [one.id for one in self._engine.policies()]:
            raise errors.Conflict("its former policy is gone; choose one by hand")
        former, left = entry.before["properties"], entry.left[-1]["properties"]
        untouched = {name: text for name, text in former.items() if now["properties"].get(name) in (left.get(name), text)}
        self._engine.use_policy(self.subject, entry.before["policy"], untouched)
        there = self.look(None)["properties"]
        kept = [f"{name}={text}" for name, text in sorted(there.items()) if former.get(name) != text]
        return f"the engine keeps the cluster's {', '.join(kept)}" if kept else ""

    def show(self, value: Any) -> str:
        """Return the policy's name, and who needs trust."""
        if value is None:
            return "no such cluster"
        names = {one.id: one.name for one in self._engine.policies()}
        name = names.get(value["policy"], value["policy"]) or self._policy_name
        scope = value["properties"].get(SCOPE_PROPERTY)
        return f"{name} ({scope})" if scope else name


def _meaning(value: Any) -> tuple[str, Any]:
    return value["policy"], value["properties"].get(SCOPE_PROPERTY)
