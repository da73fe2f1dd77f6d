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
    Answer,
    CommandFails,
    ExternalScheduler,
    NoAnswer,
)
from ovirt_tcp_plugin.lab.engine.model import UP, Host, Model, Policy, Vm


class Scheduling:
    """schedule() and canSchedule(). `external` is None when ExternalSchedulerEnabled is false."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.external: Optional[ExternalScheduler] = None

    def can_schedule(self, vm: Vm, hosts: Optional[Sequence[str]] = None) -> list[Host]:
        """Return the hosts that the internal filters leave; external filters do not run here."""
        with self._model.lock:
            return self._internal(vm, self._candidates(vm, hosts))

    def schedule(
        self, vm: Vm, purpose: str, hosts: Optional[Sequence[str]] = None
    ) -> Optional[Host]:
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
            kind, left = self._run_external(vm, [host.id for host in internal])
            with tables.lock:
                chosen = self._best(
                    vm, [host for host in internal if host.id in left and host.status == UP]
                )
                entry = {
                    "time": tables.now(),
                    "purpose": purpose,
                    "vm": vm.id,
                    "candidates": [host.name for host in candidates],
                    "internal": [host.name for host in internal],
                    "external": kind,
                    "left": [host.name for host in internal if host.id in left],
                    "chosen": chosen.name if chosen else "",
                }
                tables.journal.append(entry)
                return chosen

    def _candidates(self, vm: Vm, hosts: Optional[Sequence[str]]) -> list[Host]:
        barred = {vm.host, *vm.tried}
        every = [host for host in self._model.up_hosts(vm.cluster) if host.id not in barred]
        return every if hosts is None else [host for host in every if host.id in hosts]

    def _internal(self, vm: Vm, candidates: Sequence[Host]) -> list[Host]:
        # Mandatory filters first: no policy is without them.
        left = [host for host in candidates if not vm.pinned or host.id in vm.pinned_to]
        filters = self._policy(vm).filters
        if builtin.FILTERS["HA"] in filters and vm.hosted_engine:
            left = [host for host in left if host.hosted_engine]
        if builtin.CLUSTER_MAINTENANCE_FILTER in filters and not (vm.high_availability or vm.host):
            left = []
        return (
            affinity.allowed(self._model, vm, left) if builtin.AFFINITY_FILTER in filters else left
        )

    def _run_external(self, vm: Vm, hosts: list[str]) -> tuple[str, set[str]]:
        with self._model.lock:
            policy = self._policy(vm)
            units = [self._model.units[uid] for uid in policy.filters if uid in self._model.units]
            names = [unit.name for unit in units if not unit.internal and unit.enabled]
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

    def _best(self, vm: Vm, hosts: Sequence[Host]) -> Optional[Host]:
        def rank(host: Host) -> tuple[bool, int, str]:
            return host.id not in vm.pinned_to, len(self._model.vms_on(host.id)), host.name

        return min(hosts, key=rank, default=None)

    def _policy(self, vm: Vm) -> Policy:
        return self._model.policies[self._model.clusters[vm.cluster].policy]

    def _log_errors(self, plugin_errors: Mapping[str, Any], texts: Sequence[str]) -> None:
        for plugin, messages in plugin_errors.items():
            for text in messages:
                about = f"Running the external scheduler plugin '{plugin}' failed: '{text}'"
                self._model.log(audit_log.PLUGIN_ERROR, about, "error")
        for text in texts:
            self._model.log(
                audit_log.SCHEDULER_ERROR,
                f"Running the external scheduler failed: '{text}'",
                "error",
            )


def _accepted(answer: Answer) -> set[str]:
    """Return the host ids of an answer; without a list there are none. Raises CommandFails."""
    if answer.result is not None and not isinstance(answer.result, list):
        raise CommandFails("ClassCastException")
    for one in answer.result or []:
        try:
            uuid.UUID(one or "00000000-0000-0000-0000-000000000000")
        except (ValueError, AttributeError, TypeError) as e:
            raise CommandFails(f"IllegalArgumentException: {one}") from e
    return set(answer.result or [])
