# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine does repeatedly by itself: HA restarts, affinity, load balancing, recovery.

Sources: `AutoStartVmsRunner`, `AffinityRulesEnforcementManager`,
`SchedulingManager.performLoadBalancing`, `EvenGuestDistributionBalancePolicyUnit`,
`AutoRecoveryManager`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_tcp_plugin.lab.engine import affinity, audit_log, builtin
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.hosts import HostLifecycle
from ovirt_tcp_plugin.lab.engine.model import (
    DOWN,
    UP,
    Model,
    SchedulingPolicy,
    SimulatedCluster,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.vms import VmLifecycle

# A VM of higher priority that cannot start keeps the others waiting so long
# (MaxTimeAutoStartBlockedOnPriority).
MAX_BLOCKED_S = 600.0


@dataclasses.dataclass
class _Job:
    """What the engine does again and again, `pause` seconds apart, and next at `due`."""

    run: Callable[[], None]
    pause: float
    due: float


class Rounds:
    """The engine's periodic jobs. `tick` runs those that are due."""

    def __init__(
        self, tables: Model, scheduling: Scheduling, vms: VmLifecycle, hosts: HostLifecycle
    ) -> None:
        self._model = tables
        self._scheduling = scheduling
        self._vms = vms
        self._hosts = hosts
        self._blocked: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Begin as the engine does at its start.

        Every periodic job waits for one pause before it runs. Highly available VMs that are down
        are tried at once, and their tries count from 0 again.
        """
        now = self._model.now()
        timings = self._model.timings
        self._jobs = [
            _Job(self.enforce, timings.enforcer, now + timings.enforcer),
            _Job(self.balance, timings.balancing, now + timings.balancing),
            _Job(self._hosts.recover, timings.auto_recovery, now + timings.auto_recovery),
        ]
        self._blocked.clear()
        for vm in self._model.vms.values():
            if vm.restart:
                vm.tries = 0
                vm.retry_at = now

    def tick(self) -> None:
        """Let everything happen that is due."""
        now = self._model.now()
        self._restart_vms(now)
        for job in self._jobs:
            if now >= job.due:
                job.due = now + job.pause
                job.run()
        with self._model.lock:
            self._model.audit_log.age()

    def enforce(self) -> None:
        """Move a VM of each cluster off a host where an enforcing group forbids it to be."""
        for cluster in list(self._model.clusters.values()):
            with self._model.lock:
                candidates = affinity.violators(self._model, cluster)
            for vm in candidates:
                if self._scheduling.can_schedule(vm) and self._moves(vm, "enforcer"):
                    break

    def balance(self) -> None:
        """Move a VM of each cluster for the sake of its policy.

        A cluster whose policy has no balance ends the round.
        """
        for cluster in list(self._model.clusters.values()):
            policy = self._model.policies[cluster.policy]
            if not policy.balances:
                return  # NullPointerException, in engine.log only
            if policy.balances[0] == builtin.GUEST_BALANCE:
                self._balance_guests(cluster, policy)

    def _balance_guests(self, cluster: SimulatedCluster, policy: SchedulingPolicy) -> None:
        high = int(_property(cluster, policy, "HighVmCount"))
        threshold = int(_property(cluster, policy, "MigrationThreshold"))
        with self._model.lock:
            counts = self._vm_counts(cluster)
            most = max(counts.values(), default=0)
            if not counts or most < high:
                return
            busiest = next(host_id for host_id, count in counts.items() if count == most)
            targets = [host_id for host_id, count in counts.items() if most - count >= threshold]
            vms = self._model.vms_on(busiest)
            movable = [vm for vm in vms if vm.status == UP and vm.affinity == "migratable"]
        for vm in movable:
            if targets and self._moves(vm, "balance", targets):
                return

    def _vm_counts(self, cluster: SimulatedCluster) -> dict[str, int]:
        """Return how many VMs each Up host of a cluster runs, by its id."""
        counts: dict[str, int] = {}
        for host in self._model.up_hosts(cluster.id):
            counts[host.id] = len(self._model.vms_on(host.id))
        return counts

    def _moves(self, vm: SimulatedVm, purpose: str, hosts: Optional[Sequence[str]] = None) -> bool:
        try:
            self._vms.migrate(vm, purpose, hosts)
        except Fault:
            return False
        return True

    def _restart_vms(self, now: float) -> None:
        """Restart what is highly available.

        There are ten tries in short intervals, then others in long ones, without end.
        """
        lost = [vm for vm in list(self._model.vms.values()) if vm.restart]
        lost.sort(key=_restart_order)
        needed = 0
        for vm in lost:
            if vm.status == DOWN and now >= vm.retry_at and not self._is_blocked(vm, needed, now):
                self._restart_vm(vm, now)
            if vm.restart:
                needed = max(needed, vm.priority)

    def _is_blocked(self, vm: SimulatedVm, needed: int, now: float) -> bool:
        if vm.priority >= needed:
            self._blocked.pop(vm.id, None)
            return False
        return now - self._blocked.setdefault(vm.id, now) <= MAX_BLOCKED_S

    def _restart_vm(self, vm: SimulatedVm, now: float) -> None:
        timings = self._model.timings
        vm.tries += 1
        pause = timings.ha_retry if vm.tries < timings.ha_short_tries else timings.ha_long_retry
        # Also when the start is accepted: it may fail on the host, and then the next try is due as
        # late.
        vm.retry_at = now + pause
        try:
            self._vms.start(vm, "ha")
        except Fault:
            text = f"Failed to restart VM {vm.name}."
            self._model.log(audit_log.HA_RESTART_FAILED, text, "error", vm=vm.id)


def _restart_order(vm: SimulatedVm) -> tuple[int, str]:
    return -vm.priority, vm.name


def _property(cluster: SimulatedCluster, policy: SchedulingPolicy, name: str) -> str:
    return cluster.properties.get(name) or policy.properties[name]
