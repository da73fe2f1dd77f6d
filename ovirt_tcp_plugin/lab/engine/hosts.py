# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What hosts do, at once or in time: maintenance, activation, loss, and coming up.

Sources: `MaintenanceNumberOfVdssCommand`, `MaintenanceVdsCommand`, `ActivateVdsCommand`,
`HostMonitoring`, `InitVdsOnUpCommand`, `HandleVdsVersionCommand`,
`VdsNotRespondingTreatmentCommand`.
"""

from __future__ import annotations

import dataclasses
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import (
    CONNECTING,
    DOWN,
    MAINTENANCE,
    NON_OPERATIONAL,
    NON_RESPONSIVE,
    NOT_RUNNING,
    PREPARING,
    UP,
    Model,
    SimulatedHost,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.vms import UNKNOWN, VmLifecycle

_MAINTENANCE_FROM = (
    UP,
    PREPARING,
    NON_OPERATIONAL,
    NON_RESPONSIVE,
    "error",
    DOWN,
    "install_failed",
)
_ACTIVATION_FROM = (MAINTENANCE, PREPARING, NON_OPERATIONAL, DOWN, "install_failed")
# In these the engine does not mind whether a host answers.
_NOT_WATCHED = (MAINTENANCE, DOWN, "install_failed", "unassigned", "initializing")

# The engine's words.
_CANNOT = "Cannot switch Host to Maintenance mode"
_CANNOT_ANY = "Cannot switch the Host(s) to Maintenance mode"
_CANNOT_THESE = "Cannot switch the following Hosts to Maintenance mode"
_NO_HOST_FOR_ENGINE = (
    "None of the hosts capable of running the engine VM has score more than 0 and is in Up state."
)
_FIXED_VMS = (
    "One or more running VMs are indicated as non-migratable. The non-migratable VMs are: {}."
)
_NO_OTHER_HOST = (
    "The following Hosts have running VMs and cannot be switched to maintenance mode: {}.\n"
    "Please ensure that the following Clusters have at least one Host in UP state: {}."
)
_NOT_ALL_MIGRATED = (
    "Host {} cannot change into maintenance mode - not all VMs have been migrated successfully."
)
_NO_TARGET = (
    "Cannot migrate VM. There is no host that satisfies current scheduling constraints. See below "
    "for details:"
)
_CANNOT_ACTIVATE = (
    "Cannot activate Host. Operation can be performed only when Host status is one of Maintenance, "
    "Non Operational."
)


@dataclasses.dataclass(frozen=True)
class _ComingUp:
    """A host that is Up, and when InitVdsOnUp runs for it, on the engine's clock."""

    host: SimulatedHost
    runs_at: float


class HostLifecycle:
    """The commands, and the passing of time (`tick`)."""

    def __init__(self, tables: Model, vms: VmLifecycle) -> None:
        self._model = tables
        self._vms = vms
        self._coming_up: list[_ComingUp] = []

    # Commands

    def deactivate(self, host: SimulatedHost, reason: str, internal: bool = False) -> None:
        """Begin maintenance, which is reached when the last VM has left.

        Every VM is asked to move away, once.

        Args:
            internal: it is the engine's own repetition, which leaves alone VMs that only users may
                move.

        Raises:
            Fault: refused, or a VM can go nowhere; then the host is on its way to maintenance all
                the same.
        """
        with self._model.lock:
            self._check_deactivation(host, internal)
            for vm in self._model.vms.of(host.cluster):
                if vm.migrating_to == host.id:
                    vm.migrating_to = ""
            if host.status in (NON_RESPONSIVE, DOWN):
                self._in_maintenance(host)
                return
            if host.status != PREPARING:
                host.status = PREPARING
                host.status_detail = reason
                text = f"Host {host.name} was switched to Maintenance mode. Reason: {reason}"
                self._log(audit_log.HOST_TO_MAINTENANCE, host, text)
            host.next_step_at = self._model.now() + self._model.timings.evacuation_retry
        stuck = [vm for vm in self._model.vms_on(host.id) if not self._evacuate(vm)]
        if stuck:
            text = _NOT_ALL_MIGRATED.format(host.name)
            self._log(audit_log.HOST_STUCK, host, text, "warning")
            raise refusal(_NO_TARGET)

    def _check_deactivation(self, host: SimulatedHost, internal: bool) -> None:
        reason = self._model.faults.refused_maintenance.get(host.name)
        if not reason:
            reason = self._why_not(host, internal)
        if reason:
            # The event names the host, but links to nothing.
            self._model.log(audit_log.REFUSED, reason, "error")
            raise refusal(reason)

    def activate(self, host: SimulatedHost) -> None:
        """Begin activation. Raises Fault."""
        with self._model.lock:
            if host.status == UP:
                raise refusal("Cannot activate Host. Host in Up status.")
            if host.status not in _ACTIVATION_FROM:
                raise refusal(_CANNOT_ACTIVATE)
            self._begin_initialization(host)
            text = f"Activation of host {host.name} initiated."
            self._log(audit_log.HOST_ACTIVATED, host, text)

    # The outside world

    def power(self, host: SimulatedHost, powered: bool) -> None:
        """Switch a host on or off, behind the engine's back. What runs on it ends."""
        with self._model.lock:
            if host.powered and not powered:
                host.boots += 1
            host.powered = powered

    # Time

    def tick(self) -> None:
        """Take the steps of all hosts whose time has come."""
        now = self._model.now()
        with self._model.lock:
            hosts = self._model.hosts.values()
            rebooted = self._rebooted()
            for host in hosts:
                self._watch(host, now, host.id in rebooted)
            self._bring_up(now)
            stuck = [
                host for host in hosts if host.status == PREPARING and now >= host.next_step_at
            ]
        for host in stuck:
            host.next_step_at = now + self._model.timings.evacuation_retry
            try:
                self.deactivate(host, host.status_detail, internal=True)
            except Fault:
                continue  # it has been logged; the engine reports it nowhere else

    def _bring_up(self, now: float) -> None:
        due = [coming for coming in self._coming_up if now >= coming.runs_at]
        for coming in due:
            self._coming_up.remove(coming)
            self._came_up(coming.host)

    def recover(self) -> None:
        """Activate what is not operational, silently (AutoRecoveryManager)."""
        with self._model.lock:
            for host in self._model.hosts.values():
                if host.status == NON_OPERATIONAL:
                    self._begin_initialization(host)
                    text = f"Host {host.name} was autorecovered."
                    self._log(audit_log.HOST_RECOVERS, host, text)

    def restart(self) -> None:
        """The engine starts: what it was about to do is forgotten.

        Hosts of clusters with `trusted_service` go out of service.
        """
        with self._model.lock:
            self._coming_up.clear()
            for host in self._model.hosts.values():
                if host.status == PREPARING:
                    host.next_step_at = self._model.now() + self._model.timings.evacuation_retry
                if host.status == UP and self._model.clusters[host.cluster].trusted_service:
                    # Backend.initAttestation, whose client has reached no server since 2019.
                    host.status = NON_OPERATIONAL
                    host.status_detail = "uninitialized"

    # Maintenance

    def _why_not(self, host: SimulatedHost, internal: bool) -> str:
        """Return why a host may not leave service, empty if it may."""
        if host.status == MAINTENANCE:
            return f"{_CANNOT}. Host is already in Maintenance mode."
        if host.status not in _MAINTENANCE_FROM:
            return f"{_CANNOT}, Host is not operational."
        vms = self._model.vms_on(host.id)
        if not vms:
            return ""
        if host.status == NON_RESPONSIVE:
            return f"{_CANNOT}.\nHost still has running VMs on it and is in Non Responsive state."
        if any(vm.hosted_engine and self._next_for_engine(vm) is None for vm in vms):
            return f"{_CANNOT_ANY}.\n{_NO_HOST_FOR_ENGINE}"
        fixed = [vm.name for vm in vms if _stays(vm, internal)]
        if fixed:
            return f"{_CANNOT_THESE}: {host.name}.\n{_FIXED_VMS.format(', '.join(fixed))}"
        others = [other for other in self._model.up_hosts(host.cluster) if other is not host]
        if not others:
            cluster = self._model.clusters[host.cluster]
            return _NO_OTHER_HOST.format(host.name, cluster.name)
        return ""

    def _evacuate(self, vm: SimulatedVm) -> bool:
        """Have a VM leave its host; return False where validation finds no host for it.

        A filter's refusal is not reported.
        """
        if vm.hosted_engine:
            return self._evacuate_engine(vm)
        try:
            self._vms.migrate(vm, "evacuate", force=True)
        except Fault as e:
            return e.status != 409 or vm.migrating_to != "" or vm.status != UP
        return True

    def _evacuate_engine(self, vm: SimulatedVm) -> bool:
        # Its HA agents move it, no scheduler is asked.
        target = self._next_for_engine(vm)
        if target is None:
            return False
        with self._model.lock:
            vm.host = target.id
        return True

    def _next_for_engine(self, vm: SimulatedVm) -> Optional[SimulatedHost]:
        for host in self._model.up_hosts(vm.cluster):
            if host.hosted_engine and host.id != vm.host:
                return host
        return None

    def _in_maintenance(self, host: SimulatedHost) -> None:
        host.status = MAINTENANCE
        text = f"Host {host.name} is in maintenance mode."
        self._log(audit_log.HOST_IN_MAINTENANCE, host, text)

    # Monitoring

    def _watch(self, host: SimulatedHost, now: float, rebooted: bool) -> None:
        if host.status in ("unassigned", "initializing"):
            if now >= host.next_step_at:
                self._initialized(host, now)
        elif host.status == PREPARING and host.powered and not self._model.vms_on(host.id):
            if host.name not in self._model.faults.hanging_maintenance:
                self._in_maintenance(host)
        elif host.status in (CONNECTING, NON_RESPONSIVE):
            if host.powered:
                self._answers_again(host)
            elif host.status == CONNECTING and now >= host.next_step_at:
                self._lost(host)
        elif host.status not in _NOT_WATCHED and (rebooted or not host.powered):
            host.status = CONNECTING
            host.next_step_at = now + self._model.timings.not_responding_after
            text = "is not responding. It will stay in Connecting state for a grace period."
            self._log(audit_log.HOST_CONNECTING, host, f"Host {host.name} {text}", "warning")

    def _rebooted(self) -> set[str]:
        """Return the hosts that rebooted since one of their VMs was started."""
        rebooted: set[str] = set()
        for vm in self._model.vms.values():
            host = self._model.hosts.get(vm.host)
            if host is not None and vm.status not in NOT_RUNNING and vm.boots != host.boots:
                rebooted.add(host.id)
        return rebooted

    def _begin_initialization(self, host: SimulatedHost) -> None:
        host.status = "unassigned"
        host.status_detail = ""
        host.next_step_at = self._model.now() + self._model.timings.host_initialization

    def _initialized(self, host: SimulatedHost, now: float) -> None:
        missing = set(self._model.clusters[host.cluster].features) - host.features
        if not host.powered:
            host.status = NON_RESPONSIVE
        elif missing:
            host.status = NON_OPERATIONAL
            host.status_detail = "host_features_incompatibile_with_cluster"
            text = f"Host {host.name} does not support the cluster's additional features."
            self._log(audit_log.HOST_LACKS_FEATURES, host, text, "error")
        else:
            host.status = UP
            runs_at = now + self._model.timings.event_after_up
            self._coming_up.append(_ComingUp(host, runs_at))

    def _came_up(self, host: SimulatedHost) -> None:
        """InitVdsOnUp: the host has been Up for a while."""
        if host.status != UP:
            return
        if self._model.clusters[host.cluster].trusted_service:
            host.status = NON_OPERATIONAL
            host.status_detail = "untrusted"
            text = "was set to non-operational. Host is not trusted by the attestation service."
            self._log(audit_log.HOST_UNTRUSTED, host, f"Host {host.name} {text}", "error")
            return
        text = f"Status of host {host.name} was set to Up."
        self._log(audit_log.HOST_DETECTED, host, text)

    def _lost(self, host: SimulatedHost) -> None:
        """Nobody answers: the host is fenced, and its VMs are free.

        Its external status may forbid that.
        """
        host.status = NON_RESPONSIVE
        text = f"Host {host.name} is not responding."
        self._log(audit_log.HOST_NOT_RESPONDING, host, text, "warning")
        fenced = host.external_status == "ok"
        if not fenced:
            text = f"was not fenced: its external status is {host.external_status}."
            self._log(audit_log.HOST_NOT_FENCED, host, f"Host {host.name} {text}", "warning")
        for vm in self._model.vms_on(host.id):
            if fenced:
                self._vms.lose(vm, "its host was lost.")
            else:
                vm.status = UNKNOWN
                vm.migrating_to = ""

    def _answers_again(self, host: SimulatedHost) -> None:
        for vm in self._model.vms_on(host.id):
            if vm.boots != host.boots:
                self._vms.lose(vm, "its host rebooted.")
            elif vm.status == UNKNOWN:
                vm.status = UP
        self._begin_initialization(host)

    def _log(self, code: int, host: SimulatedHost, text: str, severity: str = "normal") -> None:
        self._model.log(code, text, severity, host=host.id)


def _stays(vm: SimulatedVm, internal: bool) -> bool:
    """Return whether a VM keeps its host in service, because it may not be moved."""
    if vm.hosted_engine:
        return False
    return vm.pinned or (internal and vm.affinity != "migratable")
