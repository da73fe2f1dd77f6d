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
from ovirt_tcp_plugin.lab.engine.model import DOWN, PREPARING, UP, Model, SimulatedHost, SimulatedVm
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling

# A host refuses or fails; so many are tried before the engine gives up (MaxRerunVmOnVdsCount).
MAX_TRIES = 3
# Statuses of VMs, beside those that hosts have, too.
SUSPENDED = "suspended"
LAUNCHING = "wait_for_launch"
RESUMING = "restoring_state"
SAVING = "saving_state"
UNKNOWN = "unknown"
_NO_HOST = (
    "Cannot {what} VM. There is no host that satisfies current scheduling constraints. See below "
    "for details:"
)

# What a host's VDSM answers to a hook point, a host and a VM: why it refuses, or nothing. Called
# without the tables' lock.
Vdsm = Callable[[str, SimulatedHost, SimulatedVm], str]


def _title(vm: SimulatedVm) -> str:
    """Return a VM's status as the engine's messages write it (`VMStatus`): WaitForLaunch, Up."""
    status = "migrating_from" if vm.migrating_to else vm.status
    return "".join(word.capitalize() for word in status.split("_"))


class VmLifecycle:
    """Commands, and the passing of time (`tick`).

    Attributes:
        vdsm: what the hosts say: by their real hooks, if they have any.
    """

    def __init__(self, tables: Model, scheduling: Scheduling) -> None:
        self._model = tables
        self._scheduling = scheduling
        self.vdsm: Vdsm = self._run_hooks

    # Commands

    def start(
        self, vm: SimulatedVm, purpose: str = "start", run_once: Optional[Mapping[str, str]] = None
    ) -> None:
        """Start a VM that is down, or resume one that is suspended. Raises Fault.

        Args:
            run_once: custom properties in place of the VM's own, for this run.
        """
        with self._model.lock:
            if vm.status not in (DOWN, SUSPENDED) or vm.busy:
                raise refusal(f"Cannot run VM because the VM is in {_title(vm)} status.")
            vm.busy = True
            vm.tried = []
            vm.run_once = None if run_once is None else dict(run_once)
            if vm.status == SUSPENDED:
                purpose = "resume"
        try:
            host = self._choose(vm, purpose, None, "run", audit_log.VM_START_FAILED)
        finally:
            vm.busy = False
        self._launch(vm, host)

    def migrate(
        self,
        vm: SimulatedVm,
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
        target = self._choose(vm, purpose, hosts, "migrate", audit_log.NO_HOST_TO_MIGRATE_TO)
        self._send(vm, target)

    def suspend(self, vm: SimulatedVm) -> None:
        """Write a running VM to disk. Raises Fault."""
        with self._model.lock:
            if vm.status != UP or vm.migrating_to:
                raise refusal("Cannot hibernate VM. VM is not running.")
            vm.status = SAVING
            vm.change_ends_at = self._model.now() + self._model.timings.vm_suspend

    def stop(self, vm: SimulatedVm) -> None:
        """Stop a VM: a user's will, so nothing restarts it."""
        with self._model.lock:
            if vm.status == DOWN:
                raise refusal("Cannot stop VM. VM is not running.")
            self._down(vm, "User stopped VM.")

    def lose(self, vm: SimulatedVm, why: str) -> None:
        """A VM ended by nobody's will: a highly available one is restarted."""
        with self._model.lock:
            self._down(vm, why)
            vm.restart = vm.high_availability
            vm.tries = 0
            vm.retry_at = self._model.now()

    # Time

    def tick(self) -> None:
        """End the starts, suspensions and migrations whose time has come."""
        with self._model.lock:
            ended = self._with_ended_changes()
            for vm in ended:
                if vm.status == SAVING:
                    self._suspended(vm)
            launched = [vm for vm in ended if vm.status in (LAUNCHING, RESUMING)]
            sent = [vm for vm in ended if vm.migrating_to]
        for vm in launched:
            self._arrive(vm)
        for vm in sent:
            self._land(vm)

    def _with_ended_changes(self) -> list[SimulatedVm]:
        now = self._model.now()
        ended: list[SimulatedVm] = []
        for vm in self._model.vms.values():
            changes = vm.migrating_to or vm.status not in (UP, DOWN)
            if changes and now >= vm.change_ends_at:
                ended.append(vm)
        return ended

    def _suspended(self, vm: SimulatedVm) -> None:
        vm.status = SUSPENDED
        vm.host = ""
        self._model.log(audit_log.VM_SUSPENDED, f"VM {vm.name} was suspended.", vm=vm.id)

    # Hosts

    def _run_hooks(self, point: str, host: SimulatedHost, vm: SimulatedVm) -> str:
        failing = self._model.faults.failing_starts
        if point == "before_vm_migrate_destination":
            failing = self._model.faults.failing_migrations
        if host.name in failing:
            return f"{point}: it fails"
        if not host.hook_directory:
            return ""
        hooks = Path(host.hook_directory)
        domain = f"<domain type='kvm'><name>{vm.name}</name><uuid>{vm.id}</uuid></domain>"
        outcome = vdsm.run_hooks(hooks, point, domain, vm.id, vm.running_properties)
        return f"Hook Error: ({outcome.failure})" if outcome.failure else ""

    def _choose(
        self, vm: SimulatedVm, purpose: str, hosts: Optional[Sequence[str]], what: str, code: int
    ) -> SimulatedHost:
        """Return the host for a VM.

        Args:
            what: the engine does, in the refusal.
            code: of the event without a host.

        Raises:
            Fault: no host; validation and scheduling refuse in different words, as in the engine.
        """
        validated = self._scheduling.can_schedule(vm, hosts)
        host = self._scheduling.schedule(vm, purpose, hosts) if validated else None
        if host is not None:
            return host
        text = f"Failed to {what} VM {vm.name}: no host was found."
        self._model.log(code, text, "error", vm=vm.id)
        if validated:
            raise Fault(400, "Operation Failed", "[]")
        raise refusal(_NO_HOST.format(what=what))

    def _choose_again(self, vm: SimulatedVm, purpose: str) -> Optional[SimulatedHost]:
        """Return another host for a VM that failed on one."""
        if len(vm.tried) >= MAX_TRIES:
            return None
        try:
            return self._scheduling.schedule(vm, purpose)
        except Fault:
            return None

    # Starts

    def _launch(self, vm: SimulatedVm, host: SimulatedHost) -> None:
        with self._model.lock:
            resumes = vm.status in (SUSPENDED, RESUMING)
            vm.status = RESUMING if resumes else LAUNCHING
            vm.host = host.id
            vm.boots = host.boots
            vm.change_ends_at = self._model.now() + self._model.timings.vm_start
            code = audit_log.VM_RESUMED if resumes else audit_log.VM_STARTED
            text = f"VM {vm.name} was started on Host {host.name}."
            self._model.log(code, text, vm=vm.id, host=host.id)

    def _arrive(self, vm: SimulatedVm) -> None:
        """The host runs the VM, or refuses: then the engine tries another one."""
        host = self._model.hosts.get(vm.host)
        resumes = vm.status == RESUMING
        if host is None:
            return  # it was stopped while another VM's host was asked
        refusal_text = self.vdsm("before_vm_start", host, vm)
        if resumes and not refusal_text:
            refusal_text = self.vdsm("before_vm_dehibernate", host, vm)
        with self._model.lock:
            if vm.host != host.id or vm.status not in (LAUNCHING, RESUMING):
                return
            if not refusal_text:
                vm.status = UP
                vm.restart = False
                vm.tries = 0
                return
            self._refused_by(vm, host, refusal_text)
        self._launch_elsewhere(vm, host, resumes)

    def _refused_by(self, vm: SimulatedVm, host: SimulatedHost, refusal_text: str) -> None:
        text = f"VM {vm.name} is down with error. Exit message: {refusal_text}."
        self._model.log(audit_log.VM_DOWN_ERROR, text, "error", vm=vm.id, host=host.id)
        vm.host = ""
        vm.tried = [*vm.tried, host.id]

    def _launch_elsewhere(self, vm: SimulatedVm, refuser: SimulatedHost, resumes: bool) -> None:
        host = self._choose_again(vm, "resume" if resumes else "start")
        if host is not None:
            text = f"Failed to run VM {vm.name} on Host {refuser.name}."
            code = audit_log.VM_START_FAILED_ON_HOST
            self._model.log(code, text, "warning", vm=vm.id, host=refuser.id)
            self._launch(vm, host)
            return
        with self._model.lock:
            vm.status = SUSPENDED if resumes else DOWN
            vm.tried = []
            text = f"Failed to run VM {vm.name}."
            self._model.log(audit_log.VM_START_FAILED, text, "error", vm=vm.id)

    # Migrations

    def _send(self, vm: SimulatedVm, host: SimulatedHost) -> None:
        with self._model.lock:
            vm.migrating_to = host.id
            vm.change_ends_at = self._model.now() + self._model.timings.migration
            text = f"Migration started (VM: {vm.name}, Destination: {host.name})."
            self._model.log(audit_log.MIGRATION_START, text, vm=vm.id, host=vm.host)

    def _land(self, vm: SimulatedVm) -> None:
        """The destination takes the VM, or refuses: then the engine tries another one."""
        target = self._model.hosts.get(vm.migrating_to)
        if target is None:
            return  # it was stopped while another VM's host was asked
        refusal_text = "it is off"
        if target.powered:
            refusal_text = self.vdsm("before_vm_migrate_destination", target, vm)
        with self._model.lock:
            if vm.migrating_to != target.id:
                return
            vm.migrating_to = ""
            if not refusal_text:
                self._landed(vm, target)
                return
            vm.tried = [*vm.tried, target.id]
            source = self._model.hosts[vm.host]
        self._send_elsewhere(vm, source, target, refusal_text)

    def _landed(self, vm: SimulatedVm, target: SimulatedHost) -> None:
        vm.host = target.id
        vm.boots = target.boots
        vm.tried = []
        text = f"Migration completed (VM: {vm.name}, Destination: {target.name})."
        self._model.log(audit_log.MIGRATION_DONE, text, vm=vm.id, host=target.id)

    def _send_elsewhere(
        self, vm: SimulatedVm, source: SimulatedHost, refuser: SimulatedHost, refusal_text: str
    ) -> None:
        host = self._choose_again(vm, "migrate")
        if host is not None:
            failure = f"Failed to migrate VM {vm.name} to Host {refuser.name}."
            text = f"{failure} Trying to migrate to another Host."
            self._model.log(audit_log.MIGRATION_RERUN, text, "warning", vm=vm.id, host=refuser.id)
            self._send(vm, host)
            return
        code = audit_log.MIGRATION_FAILED
        if source.status == PREPARING:
            code = audit_log.MIGRATION_FAILED_IN_MAINTENANCE
        way = f"VM: {vm.name}, Source: {source.name}, Destination: {refuser.name}"
        text = f"Migration failed ({way}): {refusal_text}."
        self._model.log(code, text, "error", vm=vm.id, host=source.id)

    # Ends

    def _down(self, vm: SimulatedVm, why: str) -> None:
        vm.status = DOWN
        vm.host = ""
        vm.migrating_to = ""
        vm.restart = False
        vm.run_once = None
        vm.tried = []
        if vm.next_run is not None:
            vm.custom_properties = vm.next_run
            vm.next_run = None
        text = f"VM {vm.name} is down. Exit message: {why}"
        self._model.log(audit_log.VM_DOWN, text, vm=vm.id)
