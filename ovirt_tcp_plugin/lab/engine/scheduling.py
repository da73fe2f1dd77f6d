# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which host a VM gets: internal filters, the external scheduler, and the affinity enforcer.

Sources: `SchedulingManager.runFilters`, `runExternalFilters`, `VmToHostAffinityFilterPolicyUnit`,
`AffinityRulesEnforcementManager`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.engine.external_scheduler import CommandFails, ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.lab.engine.model import Fault, Host, Model, Policy, Unit, Vm

# SCHEDULER_UNREACHABLE is flood-limited.
UNREACHABLE_EVENT_EVERY_S = 60.0


class Scheduling:
    """schedule(), canSchedule() and discovery. `external` is None when ExternalSchedulerEnabled is false."""

    def __init__(self, tables: Model, external: Optional[ExternalScheduler]) -> None:
        self._model = tables
        self._external = external
        self._last_unreachable = -UNREACHABLE_EVENT_EVERY_S

    def discover(self) -> None:
        """Ask the external scheduler for its units, once (SchedulingManager.initExternalScheduler)."""
        tables = self._model
        with tables.lock:
            for unit in tables.units.values():
                unit.enabled = unit.internal
        if self._external is None:
            return
        try:
            found = self._external.discover()
        except NoAnswer as e:
            self._unreachable(str(e))
            return
        for kind, name in (("filters", "filter"), ("scores", "weight"), ("balance", "load_balancing")):
            for unit_name, (description, *regexes) in found.get(kind, {}).items():
                self._enable(name, unit_name, description, regexes)

    def can_schedule(self, vm: Vm, hosts: Optional[Sequence[str]] = None) -> list[Host]:
        """Return the hosts that the internal filters leave; external filters do not run here."""
        with self._model.lock:
            return self._internal(vm, self._candidates(vm, hosts))

    def schedule(self, vm: Vm, purpose: str, hosts: Optional[Sequence[str]] = None) -> Optional[Host]:
        """Return the host for a VM, None when no host is left. Holds the cluster's lock meanwhile.

        Args:
            purpose: start, migrate, evacuate, ha or enforcer; for the journal.
            hosts: ids to choose from; None for all of the cluster but the VM's own.

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
                chosen = self._best([host for host in internal if host.id in left and host.status == "up"])
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
        every = [host for host in self._model.hosts.values() if host.cluster == vm.cluster and host.status == "up"]
        if hosts is not None:
            return [host for host in every if host.id in hosts]
        return [host for host in every if host.id != vm.host]

    def _internal(self, vm: Vm, candidates: Sequence[Host]) -> list[Host]:
        policy = self._policy(vm)
        if model.INTERNAL_UNITS[model.AFFINITY_UNIT][0] not in policy.filters:
            return list(candidates)
        left = list(candidates)
        for group in self._model.groups.values():
            if vm.id in group.vms and group.hosts_rule.enabled and group.hosts_rule.enforcing:
                # An empty list of a positive rule rejects every host.
                left = [host for host in left if (host.id in group.hosts) is group.hosts_rule.positive]
        return left

    def _run_external(self, vm: Vm, hosts: list[str]) -> tuple[str, set[str]]:
        with self._model.lock:
            policy = self._policy(vm)
            units = [self._model.units[uid] for uid in policy.filters if uid in self._model.units]
            names = [unit.name for unit in units if not unit.internal and unit.enabled]
            properties = dict(self._model.clusters[vm.cluster].properties)
        if not names or not hosts or self._external is None:
            return "not called", set(hosts)
        try:
            answer = self._external.run_filters(names, hosts, vm.id, properties)
        except NoAnswer as e:
            self._unreachable(str(e))
            return "kept", set(hosts)
        except CommandFails as e:
            raise Fault(500, "Operation Failed", f"[Internal Engine Error: {e}]") from e
        if answer.result is not None and not isinstance(answer.result, list):
            raise Fault(500, "Operation Failed", "[Internal Engine Error: ClassCastException]")
        if answer.result_code != 0:
            self._log_errors(answer.plugin_errors, answer.errors)
        return "answer", set(hosts) & set(answer.result or [])

    def _best(self, hosts: Sequence[Host]) -> Optional[Host]:
        return min(hosts, key=lambda host: (len(self._model.vms_on(host.id)), host.name), default=None)

    def _policy(self, vm: Vm) -> Policy:
        return self._model.policies[self._model.clusters[vm.cluster].policy]

    def _log_errors(self, plugin_errors: Mapping[str, Any], texts: Sequence[str]) -> None:
        for plugin, messages in plugin_errors.items():
            for text in messages:
                self._model.log(model.PLUGIN_ERROR, f"Running the external plugin {plugin} failed: {text}", "warning")
        for text in texts:
            self._model.log(model.SCHEDULER_ERROR, f"External scheduler error: {text}", "warning")

    def _unreachable(self, reason: str) -> None:
        now = self._model.now()
        if now - self._last_unreachable >= UNREACHABLE_EVENT_EVERY_S:
            self._last_unreachable = now
            text = f"Failed to connect to external scheduler proxy: {reason}"
            self._model.log(model.SCHEDULER_UNREACHABLE, text, "error")

    def _enable(self, kind: str, name: str, description: str, regexes: Sequence[str]) -> None:
        with self._model.lock:
            units = self._model.units
            known = next((u for u in units.values() if not u.internal and (u.name, u.type) == (name, kind)), None)
            unit = known or Unit(model.new_id(), name, kind, internal=False)
            unit.enabled, unit.description = True, description
            unit.properties = dict(one.split("=", 1) for regex in regexes for one in regex.split(";") if "=" in one)
            units[unit.id] = unit

    def violations(self) -> list[Vm]:
        """Return one VM a cluster that the affinity enforcer would move now (one round)."""
        with self._model.lock:
            busy = {vm.cluster for vm in self._model.vms.values() if vm.migrating_to}
            found: dict[str, Vm] = {}
            for group in self._model.groups.values():
                rule = group.hosts_rule
                if not (rule.enabled and rule.enforcing and group.hosts) or group.cluster in busy:
                    continue
                for vm in (self._model.vms.get(vm_id) for vm_id in group.vms):
                    if vm is not None and vm.status == "up" and (vm.host in group.hosts) is not rule.positive:
                        found.setdefault(group.cluster, vm)
            return list(found.values())
