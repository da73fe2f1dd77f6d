# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which host a VM gets: internal filters, then the external scheduler, under the cluster's lock.

Sources: `SchedulingManager.runFilters`, `runExternalFilters`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine import affinity, audit_log, builtin
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.external_scheduler import (
    CommandFails,
    ExternalScheduler,
    FilterAnswer,
    NoAnswer,
)
from ovirt_tcp_plugin.lab.engine.model import (
    UP,
    Model,
    SchedulingPolicy,
    SimulatedHost,
    SimulatedVm,
)

# What the engine takes an empty id for.
_EMPTY_ID = "00000000-0000-0000-0000-000000000000"


class Scheduling:
    """schedule() and canSchedule().

    Attributes:
        external: None when ExternalSchedulerEnabled is false.
    """

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.external: Optional[ExternalScheduler] = None

    def can_schedule(
        self, vm: SimulatedVm, hosts: Optional[Sequence[str]] = None
    ) -> list[SimulatedHost]:
        """Return the hosts that the internal filters leave; external filters do not run here."""
        with self._model.lock:
            return self._internal(vm, self._candidates(vm, hosts))

    def schedule(
        self, vm: SimulatedVm, purpose: str, hosts: Optional[Sequence[str]] = None
    ) -> Optional[SimulatedHost]:
        """Return the host for a VM, None when no host is left. Holds the cluster's lock meanwhile.

        Args:
            purpose: start, resume, migrate, evacuate, ha, enforcer or balance; for the journal.
            hosts: ids to choose from; None for all of the cluster. The VM's own and those it failed
                on never count.

        Raises:
            Fault: the external scheduler's answer broke the command.
        """
        tables = self._model
        with tables.clusters[vm.cluster].scheduling:
            with tables.lock:
                candidates = self._candidates(vm, hosts)
                internal = self._internal(vm, candidates)
            external, accepted = self._run_external(vm, [host.id for host in internal])
            with tables.lock:
                left = [host for host in internal if host.id in accepted]
                # A host may have left service while the external scheduler was asked.
                up = [host for host in left if host.status == UP]
                chosen = self._best(vm, up)
                entry = {
                    "time": tables.now(),
                    "purpose": purpose,
                    "vm": vm.id,
                    "candidates": _names(candidates),
                    "internal": _names(internal),
                    "external": external,
                    "left": _names(left),
                    "chosen": "" if chosen is None else chosen.name,
                }
                tables.journal.append(entry)
                return chosen

    def _candidates(self, vm: SimulatedVm, hosts: Optional[Sequence[str]]) -> list[SimulatedHost]:
        barred = {vm.host, *vm.tried}
        candidates = [host for host in self._model.up_hosts(vm.cluster) if host.id not in barred]
        if hosts is None:
            return candidates
        return [host for host in candidates if host.id in hosts]

    def _internal(
        self, vm: SimulatedVm, candidates: Sequence[SimulatedHost]
    ) -> list[SimulatedHost]:
        # Mandatory filters first: no policy is without them.
        left = list(candidates)
        if vm.pinned:
            left = [host for host in left if host.id in vm.pinned_to]
        filters = self._policy(vm).filters
        if builtin.FILTERS["HA"] in filters and vm.hosted_engine:
            left = [host for host in left if host.hosted_engine]
        if builtin.CLUSTER_MAINTENANCE_FILTER in filters and not (vm.high_availability or vm.host):
            left = []
        if builtin.AFFINITY_FILTER in filters:
            left = affinity.allowed(self._model, vm, left)
        return left

    def _run_external(self, vm: SimulatedVm, hosts: list[str]) -> tuple[str, set[str]]:
        """Return what became of the call, for the journal, and the ids of the accepted hosts.

        Raises:
            Fault: the answer broke the command.
        """
        with self._model.lock:
            names = self._external_filters(vm)
            properties = dict(self._model.clusters[vm.cluster].properties)
        external = self.external
        if not names or not hosts or external is None:
            return "not called", set(hosts)
        try:
            answer = external.run_filters(names, hosts, vm.id, properties)
            accepted = _accepted(answer)
        except NoAnswer:
            self._model.log(audit_log.SCHEDULER_UNREACHABLE, audit_log.NO_SCHEDULER, "error")
            return "kept", set(hosts)
        except CommandFails as e:
            raise Fault(500, "Operation Failed", f"[Internal Engine Error: {e}]") from e
        if answer.result_code != 0:
            self._log_errors(answer.plugin_errors, answer.errors)
        return "answer", set(hosts) & accepted

    def _external_filters(self, vm: SimulatedVm) -> list[str]:
        names: list[str] = []
        for uid in self._policy(vm).filters:
            unit = self._model.units.get(uid)
            if unit is not None and not unit.internal and unit.enabled:
                names.append(unit.name)
        return names

    def _best(self, vm: SimulatedVm, hosts: Sequence[SimulatedHost]) -> Optional[SimulatedHost]:
        def rank(host: SimulatedHost) -> tuple[bool, int, str]:
            return host.id not in vm.pinned_to, len(self._model.vms_on(host.id)), host.name

        return min(hosts, key=rank, default=None)

    def _policy(self, vm: SimulatedVm) -> SchedulingPolicy:
        return self._model.policies[self._model.clusters[vm.cluster].policy]

    def _log_errors(self, plugin_errors: Mapping[str, Any], texts: Sequence[str]) -> None:
        for plugin, messages in plugin_errors.items():
            for message in messages:
                text = f"Running the external scheduler plugin '{plugin}' failed: '{message}'"
                self._model.log(audit_log.PLUGIN_ERROR, text, "error")
        for message in texts:
            text = f"Running the external scheduler failed: '{message}'"
            self._model.log(audit_log.SCHEDULER_ERROR, text, "error")


def _accepted(answer: FilterAnswer) -> set[str]:
    """Return the host ids of an answer; without a list there are none. Raises CommandFails."""
    if answer.result is None:
        return set()
    if not isinstance(answer.result, list):
        raise CommandFails("ClassCastException")
    for host_id in answer.result:
        try:
            uuid.UUID(host_id or _EMPTY_ID)
        except (ValueError, AttributeError, TypeError) as e:
            raise CommandFails(f"IllegalArgumentException: {host_id}") from e
    return set(answer.result)


def _names(hosts: Sequence[SimulatedHost]) -> list[str]:
    return [host.name for host in hosts]
