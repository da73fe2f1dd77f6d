# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What VMs do, at once or in time: start, suspend, resume, migrate, stop.

Sources: `RunVmCommand`, `RunVmCommandBase.rerun`, `MigrateVmCommand`, `HibernateVmCommand`,
`ProcessDownVmCommand`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin.lab import vdsm
from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import DOWN, UP, Host, Model, Vm
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling

# A host refuses or fails; so many are tried before the engine gives up (MaxRerunVmOnVdsCount).
MAX_TRIES = 3
_NO_HOST = (
    "Cannot {what} VM. There is no host that satisfies current scheduling constraints. See below "
    "for details:"
)

# What a host's VDSM answers to a hook point, a host and a VM: why it refuses, or nothing. Called
# without the tables' lock.
Vdsm = Callable[[str, Host, Vm], str]


def _title(vm: Vm) -> str:
    """Return a VM's status as the engine's messages write it (`VMStatus`): WaitForLaunch, Up."""
    status = "migrating_from" if vm.migrating_to else vm.status
    return "".join(word.capitalize() for word in status.split("_"))


class Vms:
    """Commands, and the passing of time (`tick`). `vdsm` is what the hosts say: by their real
    hooks, if they have any."""

    def __init__(self, tables: Model, scheduling: Scheduling, asked: Optional[Vdsm] = None) -> None:
        self._model = tables
        self._scheduling = scheduling
        self.vdsm = asked or self._run_hooks

    # Commands

    def start(
        self, vm: Vm, purpose: str = "start", run_once: Optional[Mapping[str, str]] = None
    ) -> None:
        """Start a VM that is down, or resume one that is suspended. Raises Fault.

        Args:
            run_once: custom properties in place of the VM's own, for this run.
        """
        with self._model.lock:
            if vm.status not in (DOWN, "suspended") or vm.busy:
                raise refusal(f"Cannot run VM because the VM is in {_title(vm)} status.")
            vm.busy, vm.tried = True, []
            vm.run_once = None if run_once is None else dict(run_once)
            purpose = "resume" if vm.status == "suspended" else purpose
        try:
            host = self._choose(vm, purpose, None, "run", audit_log.VM_START_FAILED)
        finally:
            vm.busy = False
        self._launch(vm, host)

    def migrate(
        self,
        vm: Vm,
        purpose: str = "migrate",
        hosts: Optional[Sequence[str]] = None,
        force: bool = False,
    ) -> None:
        """Move a running VM. Raises Fault.

        Args:
            force: also if only users may move it.
        """
        with self._model.lock:
            if vm.status != UP or vm.migrating_to:
                raise refusal("Cannot migrate VM. VM is not running, or migrates already.")
            if vm.pinned or (vm.affinity == "user_migratable" and not force):
                raise refusal(f"Cannot migrate VM. VM {vm.name} is non migratable.")
            vm.tried = []
        self._send(vm, self._choose(vm, purpose, hosts, "migrate", audit_log.NO_HOST_TO_MIGRATE_TO))

    def suspend(self, vm: Vm) -> None:
        """Write a running VM to disk. Raises Fault."""
        with self._model.lock:
            if vm.status != UP or vm.migrating_to:
                raise refusal("Cannot hibernate VM. VM is not running.")
            vm.status, vm.due = "saving_state", self._model.now() + self._model.timings.vm_suspend

    def stop(self, vm: Vm) -> None:
        """Stop a VM: a user's will, so nothing restarts it."""
        with self._model.lock:
            if vm.status == DOWN:
                raise refusal("Cannot stop VM. VM is not running.")
            self._down(vm, "User stopped VM.")

    def lose(self, vm: Vm, why: str) -> None:
        """A VM ended by nobody's will: a highly available one is restarted."""
        with self._model.lock:
            self._down(vm, why)
            vm.restart, vm.tries, vm.retry_at = vm.high_availability, 0, self._model.now()

    # Time

    def tick(self) -> None:
        """Let everything happen that is due."""
        now = self._model.now()
        with self._model.lock:
            passing = [
                vm
                for vm in self._model.vms.values()
                if vm.migrating_to or vm.status not in (UP, DOWN)
            ]
            due = [vm for vm in passing if now >= vm.due]
            for vm in [one for one in due if one.status == "saving_state"]:
                vm.status, vm.host = "suspended", ""
                self._model.log(audit_log.VM_SUSPENDED, f"VM {vm.name} was suspended.", vm=vm.id)
            launched = [vm for vm in due if vm.status in ("wait_for_launch", "restoring_state")]
            sent = [vm for vm in due if vm.migrating_to]
        for vm in launched:
            self._arrive(vm)
        for vm in sent:
            self._land(vm)

    def _run_hooks(self, point: str, host: Host, vm: Vm) -> str:
        faults = self._model.faults
        failing = (
            faults.failing_migrations
            if point == "before_vm_migrate_destination"
            else faults.failing_starts
        )
        if host.name in failing:
            return f"{point}: it fails"
        if not host.hook_directory:
            return ""
        domain = f"<domain type='kvm'><name>{vm.name}</name><uuid>{vm.id}</uuid></domain>"
        failure = vdsm.run_hooks(
            Path(host.hook_directory), point, domain, vm.id, vm.running_properties
        ).failure
        return f"Hook Error: ({failure})" if failure else ""

    def _choose(
        self, vm: Vm, purpose: str, hosts: Optional[Sequence[str]], what: str, code: int
    ) -> Host:
        """Return the host for a VM; validation and scheduling refuse in different words, as in the
        engine."""
        validated = self._scheduling.can_schedule(vm, hosts)
        host = self._scheduling.schedule(vm, purpose, hosts) if validated else None
        if host is None:
            self._model.log(
                code, f"Failed to {what} VM {vm.name}: no host was found.", "error", vm=vm.id
            )
            raise (
                Fault(400, "Operation Failed", "[]")
                if validated
                else refusal(_NO_HOST.format(what=what))
            )
        return host

    def _launch(self, vm: Vm, host: Host) -> None:
        with self._model.lock:
            resumes = vm.status in ("suspended", "restoring_state")
            vm.status, vm.host, vm.boots = (
                "restoring_state" if resumes else "wait_for_launch",
                host.id,
                host.boots,
            )
            vm.due = self._model.now() + self._model.timings.vm_start
            code = audit_log.VM_RESUMED if resumes else audit_log.VM_STARTED
            self._model.log(
                code, f"VM {vm.name} was started on Host {host.name}.", vm=vm.id, host=host.id
            )

    def _arrive(self, vm: Vm) -> None:
        """The host runs the VM, or refuses: then the engine tries another one."""
        host, resumes = self._model.hosts[vm.host], vm.status == "restoring_state"
        refused = self.vdsm("before_vm_start", host, vm)
        if resumes and not refused:
            refused = self.vdsm("before_vm_dehibernate", host, vm)
        with self._model.lock:
            if vm.host != host.id or vm.status not in ("wait_for_launch", "restoring_state"):
                return
            if not refused:
                vm.status, vm.restart, vm.tries = UP, False, 0
                return
            text = f"VM {vm.name} is down with error. Exit message: {refused}."
            self._model.log(audit_log.VM_DOWN_ERROR, text, "error", vm=vm.id, host=host.id)
            vm.host, vm.tried = "", [*vm.tried, host.id]
        again = self._again(vm, "resume" if resumes else "start")
        if again is not None:
            text = f"Failed to run VM {vm.name} on Host {host.name}."
            self._model.log(
                audit_log.VM_START_FAILED_ON_HOST, text, "warning", vm=vm.id, host=host.id
            )
            self._launch(vm, again)
            return
        with self._model.lock:
            vm.status, vm.tried = "suspended" if resumes else DOWN, []
            self._model.log(
                audit_log.VM_START_FAILED, f"Failed to run VM {vm.name}.", "error", vm=vm.id
            )

    def _send(self, vm: Vm, host: Host) -> None:
        with self._model.lock:
            vm.migrating_to, vm.due = host.id, self._model.now() + self._model.timings.migration
            text = f"Migration started (VM: {vm.name}, Destination: {host.name})."
            self._model.log(audit_log.MIGRATION_START, text, vm=vm.id, host=vm.host)

    def _land(self, vm: Vm) -> None:
        """The destination takes the VM, or refuses: then the engine tries another one."""
        target = self._model.hosts[vm.migrating_to]
        refused = (
            self.vdsm("before_vm_migrate_destination", target, vm)
            if target.powered
            else "it is off"
        )
        with self._model.lock:
            if vm.migrating_to != target.id:
                return
            vm.migrating_to = ""
            if not refused:
                vm.host, vm.boots, vm.tried = target.id, target.boots, []
                text = f"Migration completed (VM: {vm.name}, Destination: {target.name})."
                self._model.log(audit_log.MIGRATION_DONE, text, vm=vm.id, host=target.id)
                return
            vm.tried = [*vm.tried, target.id]
            source = self._model.hosts[vm.host]
        again = self._again(vm, "migrate")
        if again is not None:
            text = (
                f"Failed to migrate VM {vm.name} to Host {target.name}. Trying to migrate to "
                "another Host."
            )
            self._model.log(audit_log.MIGRATION_RERUN, text, "warning", vm=vm.id, host=target.id)
            self._send(vm, again)
            return
        leaving = source.status == "preparing_for_maintenance"
        code = audit_log.MIGRATION_FAILED_IN_MAINTENANCE if leaving else audit_log.MIGRATION_FAILED
        text = (
            f"Migration failed (VM: {vm.name}, Source: {source.name}, Destination: {target.name}): "
            f"{refused}."
        )
        self._model.log(code, text, "error", vm=vm.id, host=source.id)

    def _again(self, vm: Vm, purpose: str) -> Optional[Host]:
        """Return another host for a VM that failed on one."""
        if len(vm.tried) >= MAX_TRIES:
            return None
        try:
            return self._scheduling.schedule(vm, purpose)
        except Fault:
            return None

    def _down(self, vm: Vm, why: str) -> None:
        vm.status, vm.host, vm.migrating_to, vm.restart, vm.run_once, vm.tried = (
            DOWN,
            "",
            "",
            False,
            None,
            [],
        )
        if vm.next_run is not None:
            vm.custom_properties, vm.next_run = vm.next_run, None
        self._model.log(audit_log.VM_DOWN, f"VM {vm.name} is down. Exit message: {why}", vm=vm.id)
