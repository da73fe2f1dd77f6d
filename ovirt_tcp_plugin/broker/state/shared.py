# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the parts of the broker's state have in common."""

from __future__ import annotations

import dataclasses

from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.lock import Lock
from ovirt_tcp_plugin.broker.state.pending_changes import PendingChanges
from ovirt_tcp_plugin.broker.state.reporter import Reporter
from ovirt_tcp_plugin.broker.state.startup import Startup
from ovirt_tcp_plugin.broker.state.verdicts import VerdictCache


@dataclasses.dataclass(frozen=True)
class SharedState:
    """All of it is read and changed with `lock` held only."""

    lock: Lock
    clock: Clock
    inventory: InventoryView
    verdicts: VerdictCache
    startup: Startup
    changes: PendingChanges
    reporter: Reporter

    def holds(self, host_id: str, now_ms: int) -> bool:
        """Return whether a host is trusted now."""
        if host_id in self.inventory.shared_names:
            return False
        return self.verdicts.holds(host_id, now_ms)

    def is_starting(self, cluster_id: str) -> bool:
        """Return whether the startup attestation has not gone through a pool yet."""
        hosts = self.inventory.hosts_of.get(cluster_id, ())
        return any(self.startup.is_awaited(host.id) for host in hosts)

    def waits_for_wall(self, cluster_id: str) -> bool:
        """Return whether a cluster's wall is still to be made, once it has started."""
        return cluster_id not in self.inventory.walls and self.is_starting(cluster_id)
