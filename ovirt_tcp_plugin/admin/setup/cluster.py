# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 2: a cluster becomes a trusted pool, by REST.

When that is undone it gets its former policy back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.filter_unit import SCOPE_PROPERTY


class UsePolicy(Change):
    """The scheduling policy of a cluster.

    What is there is the policy's id and the cluster's own properties. The engine keeps a cluster's
    properties over a change of policy, fills in those of the new one, and drops what its units do
    not know (`ClusterOperationCommandBase.updateClusterPolicyProperties`).

    Args:
        policy_name: the one to use, which may not be there yet.
        scope: who needs trust; None for what the policy says.
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
        self._engine = engine
        self._policy_name = policy_name
        self._scope = scope

    def look(self, entry: Optional[Entry]) -> Any:
        """Return the cluster's policy and properties; None if the cluster is gone."""
        for cluster in self._engine.clusters():
            if cluster.id == self.subject:
                return {"policy": cluster.policy_id, "properties": dict(cluster.properties)}
        return None

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the policy of this name, with who needs trust."""
        policy_id = self._policy_id()
        scope = Scope.ALL_VMS.value
        if self._scope is not None:
            scope = self._scope.value
        elif policy_id:
            scope = self._engine.content(policy_id).properties.get(SCOPE_PROPERTY, scope)
        return {"policy": policy_id, "properties": {SCOPE_PROPERTY: scope}}

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether the cluster has this policy, and the same VMs need trust."""
        return now is not None and _meaning(now) == _meaning(value)

    def is_undone(self, now: Any, entry: Entry) -> bool:
        """Return whether the cluster has its former policy, or is gone itself."""
        return now is None or _meaning(now) == _meaning(entry.before)

    def make(self, desired: Any) -> Any:
        """Have the cluster use the policy."""
        if not desired["policy"]:
            what = f"there is no scheduling policy {self._policy_name} for {self.title}"
            raise errors.Conflict(what)
        self._engine.use_policy(self.subject, desired["policy"], desired["properties"])
        now = self.look(None)
        if not self.is_in_place(now, desired):
            fault = f"{self.title} is not what was asked for"
            raise errors.Unavailable("the engine", fault)
        return now

    def undo(self, entry: Entry, now: Any) -> str:
        """Give the cluster its former policy.

        And its former properties, where nobody has changed them since.
        """
        former_policy = entry.before["policy"]
        # For an unknown policy the engine would take its default one without a word.
        if former_policy not in self._policy_names():
            raise errors.Conflict("its former policy is gone: choose another one by hand")
        restored = _unchanged_since(entry, now["properties"])
        self._engine.use_policy(self.subject, former_policy, restored)
        former = entry.before["properties"]
        present = self.look(None)["properties"]
        kept = [name for name in sorted(present) if former.get(name) != present[name]]
        if not kept:
            return ""
        settings = ", ".join(f"{name}={present[name]}" for name in kept)
        return f"the engine keeps the cluster's {settings}"

    def show(self, value: Any) -> str:
        """Return the policy's name, and who needs trust."""
        if value is None:
            return "no such cluster"
        policy_id = value["policy"]
        name = self._policy_names().get(policy_id, policy_id) or self._policy_name
        scope = value["properties"].get(SCOPE_PROPERTY)
        return f"{name} ({scope})" if scope else name

    def _policy_id(self) -> str:
        """Return the id of the policy to use, empty as long as there is none of its name."""
        for policy_id, name in self._policy_names().items():
            if name == self._policy_name:
                return policy_id
        return ""

    def _policy_names(self) -> dict[str, str]:
        return {policy.id: policy.name for policy in self._engine.policies()}


def _unchanged_since(entry: Entry, properties: Mapping[str, str]) -> dict[str, str]:
    """Return the former properties that are as setup left them, or as they were before."""
    left = entry.left[-1]["properties"]
    restored: dict[str, str] = {}
    for name, text in entry.before["properties"].items():
        if properties.get(name) in (left.get(name), text):
            restored[name] = text
    return restored


def _meaning(value: Any) -> tuple[str, Any]:
    """Return what of a value makes a difference to us: the policy, and who needs trust."""
    return value["policy"], value["properties"].get(SCOPE_PROPERTY)
