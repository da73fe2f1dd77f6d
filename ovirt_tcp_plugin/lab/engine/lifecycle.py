# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What hosts and VMs do, at once or in time: start, migrate, maintenance, activation, power loss, HA restart.

Sources: `RunVmCommand`, `MigrateVmCommand`, `MaintenanceNumberOfVdssCommand`, `ActivateVdsCommand`, `HostMonitoring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.engine.model import Fault, Host, Model, Vm
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling

_MAINTENANCE_FROM = ("up", "non_operational", "non_responsive", "error", "down", "install_failed")
_NO_HOST = "[Cannot {what} VM. There is no host that satisfies current scheduling constraints.]"


class Lifecycle:
    """The commands and the passing of time (`tick`)."""

    def __init__(self, tables: Model, scheduling: Scheduling) -> None:
        self._model = tables
        self._scheduling = scheduling
        self._enforce_at = tables.now() + tables.timings.enforcer
        self._late_events: list[tuple[float, Host]] = []

    # Commands of users

    def start_vm(self, vm: Vm, purpose: str = "start") -> None:
        """Start a VM that is down. Raises Fault."""
        with self._model.lock:
            if vm.status != "down" or vm.starting:
                raise Fault(409, "Operation Failed", "[Cannot run VM. VM is running.]")
            vm.starting = True
        try:
            host = self._choose(vm, purpose, None, "run", model.VM_START_FAILED)
        finally:
            vm.starting = False
        with self._model.lock:
            if vm.next_run is not None:
                vm.custom_properties, vm.next_run = vm.next_run, None
            vm.status, vm.host, vm.restart = "wait_for_launch", host.id, False
            vm.due = self._model.now() + self._model.timings.vm_start
            self._model.log(model.VM_STARTED, f"VM {vm.name} was started on Host {host.name}.", vm=vm.id, host=host.id)

    def migrate_vm(self, vm: Vm, purpose: str = "migrate", hosts: Optional[Sequence[str]] = None) -> None:
        """Move a running VM. Raises Fault."""
        with self._model.lock:
            if vm.status != "up" or vm.migrating_to:
                raise Fault(409, "Operation Failed", "[Cannot migrate VM. VM is not running, or migrates already.]")
        host = self._choose(vm, purpose, hosts, "migrate", model.NO_HOST_TO_MIGRATE_TO)
        with self._model.lock:
            vm.migrating_to, vm.due = host.id, self._model.now() + self._model.timings.migration
            self._model.log(model.MIGRATION_START, f"Migration started (VM: {vm.name}).", vm=vm.id, host=vm.host)

    def _choose(self, vm: Vm, purpose: str, hosts: Optional[Sequence[str]], what: str, code: int) -> Host:
        """Return the host for a VM; validation and scheduling refuse in different words, as in the engine."""
        validated = self._scheduling.can_schedule(vm, hosts)
        host = self._scheduling.schedule(vm, purpose, hosts) if validated else None
        if host is None:
            self._model.log(code, f"Failed to {what} VM {vm.name}: no host was found.", "error", vm=vm.id)
            raise Fault(400, "Operation Failed", "[]") if validated else Fault(
                409, "Operation Failed", _NO_HOST.format(what=what)
            )
        return host

    def stop_vm(self, vm: Vm) -> None:
        """Stop a VM."""
        with self._model.lock:
            self._down(vm, "User stopped VM")

    def deactivate(self, host: Host, reason: str) -> None:
        """Begin maintenance. Raises Fault where the engine's validation refuses."""
        with self._model.lock:
            if host.status in ("maintenance", "preparing_for_maintenance"):
                return
            if host.status not in _MAINTENANCE_FROM:
                raise Fault(409, "Operation Failed", "[Cannot switch Host to Maintenance mode. Wrong status.]")
            others = [one for one in self._model.hosts.values() if one.cluster == host.cluster and one.status == "up"]
            if self._model.vms_on(host.id) and not [one for one in others if one.id != host.id]:
                raise Fault(409, "Operation Failed", "[Cannot switch Host to Maintenance mode. No other Up Host.]")
            host.status, host.status_detail, host.due = "preparing_for_maintenance", reason, 0.0
            text = f"Host {host.name} was switched to Maintenance mode. Reason: {reason}"
            self._model.log(model.HOST_TO_MAINTENANCE, text, host=host.id)

    def activate(self, host: Host) -> None:
        """Begin activation. Raises Fault."""
        with self._model.lock:
            if host.status not in ("maintenance", "non_operational", "preparing_for_maintenance", "down"):
                raise Fault(409, "Operation Failed", "[Cannot activate Host. Wrong status.]")
            self._begin_initialization(host)
            self._model.log(model.HOST_ACTIVATED, f"Activation of host {host.name} initiated.", host=host.id)

    # The outside world

    def power(self, host: Host, powered: bool) -> None:
        """Switch a host on or off, behind the engine's back."""
        with self._model.lock:
            if host.powered == powered:
                return
            host.powered = powered
            if not powered and host.status not in ("maintenance", "non_responsive"):
                host.status, host.due = "connecting", self._model.now() + self._model.timings.not_responding_after
            if powered and host.status in ("connecting", "non_responsive"):
                if host.status == "connecting":
                    self._lose_vms(host)
                self._begin_initialization(host)

    # Time

    def tick(self) -> None:
        """Let everything happen that is due."""
        now = self._model.now()
        with self._model.lock:
            for host in self._model.hosts.values():
                self._tick_host(host, now)
            for vm in self._model.vms.values():
                self._tick_vm(vm, now)
            self._log_late(now)
            leaving = {h.id for h in self._model.hosts.values() if h.status == "preparing_for_maintenance"}
            moving = [vm for vm in self._model.vms.values() if vm.host in leaving and vm.status == "up"]
            moving = [vm for vm in moving if not vm.migrating_to and now >= vm.due]
            lost = [vm for vm in self._model.vms.values() if vm.restart and vm.status == "down" and now >= vm.due]
        for vm in moving:
            self._try_migrate(vm, "evacuate", now)
        for vm in lost:
            self._try_restart(vm, now)
        if now >= self._enforce_at:
            self._enforce_at = now + self._model.timings.enforcer
            for vm in self._scheduling.violations():
                self._try_migrate(vm, "enforcer", now)

    def _tick_host(self, host: Host, now: float) -> None:
        if host.status == "connecting" and now >= host.due:
            host.status = "non_responsive"
            text = f"Host {host.name} is not responding."
            self._model.log(model.HOST_NOT_RESPONDING, text, "error", host=host.id)
            self._lose_vms(host)
        elif host.status in ("unassigned", "initializing") and now >= host.due:
            if host.powered:
                host.status = "up"
                self._late_events.append((now + self._model.timings.event_after_up, host))
            else:
                host.status = "non_responsive"
        elif host.status == "preparing_for_maintenance" and not self._model.vms_on(host.id):
            host.status = "maintenance"
            text = f"Host {host.name} is in maintenance mode."
            self._model.log(model.HOST_IN_MAINTENANCE, text, host=host.id)

    def _tick_vm(self, vm: Vm, now: float) -> None:
        if vm.status == "wait_for_launch" and now >= vm.due:
            vm.status = "up"
        elif vm.migrating_to and now >= vm.due:
            target = self._model.hosts[vm.migrating_to]
            vm.migrating_to = ""
            if target.powered:
                vm.host = target.id
                text = f"Migration completed (VM: {vm.name}, Destination: {target.name})."
                self._model.log(model.MIGRATION_DONE, text, vm=vm.id, host=target.id)

    def _log_late(self, now: float) -> None:
        for due, host in [one for one in self._late_events if now >= one[0]]:
            self._late_events.remove((due, host))
            self._model.log(model.HOST_DETECTED, f"Status of host {host.name} was set to Up.", host=host.id)

    def _begin_initialization(self, host: Host) -> None:
        host.status, host.status_detail = "unassigned", ""
        host.due = self._model.now() + self._model.timings.host_initialization

    def _lose_vms(self, host: Host) -> None:
        for vm in self._model.vms_on(host.id):
            self._down(vm, "its host was lost")
            vm.restart = vm.high_availability

    def _down(self, vm: Vm, why: str) -> None:
        vm.status, vm.host, vm.migrating_to, vm.restart = "down", "", "", False
        self._model.log(model.VM_DOWN, f"VM {vm.name} is down: {why}.", vm=vm.id)

    def _try_migrate(self, vm: Vm, purpose: str, now: float) -> None:
        try:
            self.migrate_vm(vm, purpose)
        except Fault:
            vm.due = now + self._model.timings.ha_retry

    def _try_restart(self, vm: Vm, now: float) -> None:
        try:
            self.start_vm(vm, "ha")
        except Fault:
            vm.due = now + self._model.timings.ha_retry
            self._model.log(model.HA_RESTART_FAILED, f"Failed to restart VM {vm.name}.", "error", vm=vm.id)
