# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What hosts do, at once or in time: maintenance, activation, loss, and coming up.

Sources: `MaintenanceNumberOfVdssCommand`, `MaintenanceVdsCommand`, `ActivateVdsCommand`,
`HostMonitoring`, `InitVdsOnUpCommand`, `HandleVdsVersionCommand`,
`VdsNotRespondingTreatmentCommand`.
"""

from __future__ import annotations

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
    Host,
    Model,
    Vm,
)
from ovirt_tcp_plugin.lab.engine.vms import Vms

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
_MAINTENANCE = "Cannot switch Host to Maintenance mode"


class Hosts:
    """The commands, and the passing of time (`tick`)."""

    def __init__(self, tables: Model, vms: Vms) -> None:
        self._model = tables
        self._vms = vms
        # (when InitVdsOnUp runs, host): a host is Up before it.
        self._coming_up: list[tuple[float, Host]] = []

    # Commands

    def deactivate(self, host: Host, reason: str, internal: bool = False) -> None:
        """Begin maintenance: every VM is told to move away, once. Reached when the last one has
        left.

        Args:
            internal: it is the engine's own repetition, which leaves alone VMs that only users may
                move.

        Raises:
            Fault: refused, or a VM can go nowhere; then the host is on its way to maintenance all
                the same.
        """
        with self._model.lock:
            refused = self._model.faults.refused_maintenance.get(host.name) or self._why_not(
                host, internal
            )
            if refused:
                self._model.log(
                    audit_log.REFUSED, refused, "error"
                )  # it names the host, but links to nothing
                raise refusal(refused)
            for vm in self._model.vms.of(host.cluster):
                vm.migrating_to = "" if vm.migrating_to == host.id else vm.migrating_to
            if host.status in (NON_RESPONSIVE, DOWN):
                self._in_maintenance(host)
                return
            if host.status != PREPARING:
                host.status, host.status_detail = PREPARING, reason
                text = f"Host {host.name} was switched to Maintenance mode. Reason: {reason}"
                self._model.log(audit_log.HOST_TO_MAINTENANCE, text, host=host.id)
            host.due = self._model.now() + self._model.timings.evacuation_retry
        stuck = [vm for vm in self._model.vms_on(host.id) if not self._evacuate(vm)]
        if stuck:
            text = (
                f"Host {host.name} cannot change into maintenance mode - not all VMs have been "
                "migrated successfully."
            )
            self._model.log(audit_log.HOST_STUCK, text, "warning", host=host.id)
            text = (
                "There is no host that satisfies current scheduling constraints. See below for "
                "details:"
            )
            raise refusal(f"Cannot migrate VM. {text}")

    def activate(self, host: Host) -> None:
        """Begin activation. Raises Fault."""
        with self._model.lock:
            if host.status == UP:
                raise refusal("Cannot activate Host. Host in Up status.")
            if host.status not in _ACTIVATION_FROM:
                wanted = "one of Maintenance, Non Operational"
                raise refusal(
                    "Cannot activate Host. Operation can be performed only when Host status is "
                    f"{wanted}."
                )
            self._begin_initialization(host)
            self._model.log(
                audit_log.HOST_ACTIVATED, f"Activation of host {host.name} initiated.", host=host.id
            )

    # The outside world

    def power(self, host: Host, powered: bool) -> None:
        """Switch a host on or off, behind the engine's back. What runs on it ends."""
        with self._model.lock:
            host.boots += host.powered and not powered
            host.powered = powered

    # Time

    def tick(self) -> None:
        """Let everything happen that is due."""
        now = self._model.now()
        with self._model.lock:
            died = self._died()
            for host in self._model.hosts.values():
                self._watch(host, now, host.id in died)
            for due, host in [one for one in self._coming_up if now >= one[0]]:
                self._coming_up.remove((due, host))
                self._came_up(host)
            stuck = [
                host
                for host in self._model.hosts.values()
                if host.status == PREPARING and now >= host.due
            ]
        for host in stuck:
            host.due = now + self._model.timings.evacuation_retry
            try:
                self.deactivate(host, host.status_detail, internal=True)
            except Fault:
                continue  # it has been logged; the engine does not tell anybody else

    def recover(self) -> None:
        """Activate what is not operational, silently (AutoRecoveryManager)."""
        with self._model.lock:
            for host in self._model.hosts.values():
                if host.status == NON_OPERATIONAL:
                    self._begin_initialization(host)
                    text = f"Host {host.name} was autorecovered."
                    self._model.log(audit_log.HOST_RECOVERS, text, host=host.id)

    def restart(self) -> None:
        """The engine starts: what it was about to do is forgotten, and `trusted_service` takes its
        toll."""
        with self._model.lock:
            self._coming_up.clear()
            for host in self._model.hosts.values():
                if host.status == PREPARING:
                    host.due = self._model.now() + self._model.timings.evacuation_retry
                if host.status == UP and self._model.clusters[host.cluster].trusted_service:
                    # Backend.initAttestation, whose client has reached no server since 2019.
                    host.status, host.status_detail = NON_OPERATIONAL, "uninitialized"

    def _why_not(self, host: Host, internal: bool) -> str:
        """Return why a host may not leave service, empty if it may."""
        vms = self._model.vms_on(host.id)
        if host.status == MAINTENANCE:
            return f"{_MAINTENANCE}. Host is already in Maintenance mode."
        if host.status not in _MAINTENANCE_FROM:
            return f"{_MAINTENANCE}, Host is not operational."
        if host.status == NON_RESPONSIVE and vms:
            return (
                f"{_MAINTENANCE}.\nHost still has running VMs on it and is in Non Responsive state."
            )
        if any(vm.hosted_engine and self._next_for_engine(vm) is None for vm in vms):
            text = (
                "None of the hosts capable of running the engine VM has score more than 0 and is "
                "in Up state."
            )
            return f"Cannot switch the Host(s) to Maintenance mode.\n{text}"
        fixed = [vm for vm in vms if vm.pinned or (internal and vm.affinity != "migratable")]
        fixed = [vm for vm in fixed if not vm.hosted_engine]
        if fixed:
            names = ", ".join(vm.name for vm in fixed)
            text = (
                "One or more running VMs are indicated as non-migratable. The non-migratable VMs "
                f"are: {names}."
            )
            return f"Cannot switch the following Hosts to Maintenance mode: {host.name}.\n{text}"
        if vms and not [other for other in self._model.up_hosts(host.cluster) if other is not host]:
            cluster = self._model.clusters[host.cluster].name
            return (
                "The following Hosts have running VMs and cannot be switched to maintenance mode: "
                f"{host.name}.\n"
                "Please ensure that the following Clusters have at least one Host in UP state: "
                f"{cluster}."
            )
        return ""

    def _evacuate(self, vm: Vm) -> bool:
        """Tell a VM to leave its host; return False where validation finds no host. A filter's
        refusal is not told."""
        if vm.hosted_engine:
            target = self._next_for_engine(vm)  # its HA agents move it, no scheduler is asked
            with self._model.lock:
                vm.host = target.id if target is not None else vm.host
            return target is not None
        try:
            self._vms.migrate(vm, "evacuate", force=True)
        except Fault as e:
            return e.status != 409 or vm.migrating_to != "" or vm.status != UP
        return True

    def _next_for_engine(self, vm: Vm) -> Optional[Host]:
        others = [
            host
            for host in self._model.up_hosts(vm.cluster)
            if host.hosted_engine and host.id != vm.host
        ]
        return next(iter(others), None)

    def _watch(self, host: Host, now: float, died: bool) -> None:
        if host.status in ("unassigned", "initializing") and now >= host.due:
            self._initialized(host, now)
        elif host.status == PREPARING and host.powered and not self._model.vms_on(host.id):
            if host.name not in self._model.faults.hanging_maintenance:
                self._in_maintenance(host)
        elif host.status in (CONNECTING, NON_RESPONSIVE):
            if host.powered:
                self._answers_again(host)
            elif host.status == CONNECTING and now >= host.due:
                self._lost(host)
        elif host.status not in _NOT_WATCHED and (died or not host.powered):
            host.status, host.due = CONNECTING, now + self._model.timings.not_responding_after
            text = (
                f"Host {host.name} is not responding. It will stay in Connecting state for a grace "
                "period."
            )
            self._model.log(audit_log.HOST_CONNECTING, text, "warning", host=host.id)

    def _died(self) -> set[str]:
        """Return the hosts that rebooted since one of their VMs was started."""
        hosts = self._model.hosts
        running = [
            vm for vm in self._model.vms.values() if vm.host and vm.status not in NOT_RUNNING
        ]
        return {vm.host for vm in running if vm.host in hosts and vm.boots != hosts[vm.host].boots}

    def _initialized(self, host: Host, now: float) -> None:
        if not host.powered:
            host.status = NON_RESPONSIVE
        elif set(self._model.clusters[host.cluster].features) - host.features:
            host.status, host.status_detail = (
                NON_OPERATIONAL,
                "host_features_incompatibile_with_cluster",
            )
            text = f"Host {host.name} does not support the cluster's additional features."
            self._model.log(audit_log.HOST_LACKS_FEATURES, text, "error", host=host.id)
        else:
            host.status = UP
            self._coming_up.append((now + self._model.timings.event_after_up, host))

    def _came_up(self, host: Host) -> None:
        """InitVdsOnUp: the host has been Up for a while."""
        if host.status != UP:
            return
        if self._model.clusters[host.cluster].trusted_service:
            host.status, host.status_detail = NON_OPERATIONAL, "untrusted"
            text = (
                f"Host {host.name} was set to non-operational. Host is not trusted by the "
                "attestation service."
            )
            self._model.log(audit_log.HOST_UNTRUSTED, text, "error", host=host.id)
            return
        self._model.log(
            audit_log.HOST_DETECTED, f"Status of host {host.name} was set to Up.", host=host.id
        )

    def _lost(self, host: Host) -> None:
        """Nobody answers: the host is fenced and its VMs are free, unless its external status
        forbids that."""
        host.status = NON_RESPONSIVE
        self._model.log(
            audit_log.HOST_NOT_RESPONDING,
            f"Host {host.name} is not responding.",
            "warning",
            host=host.id,
        )
        fenced = host.external_status == "ok"
        if not fenced:
            text = (
                f"Host {host.name} was not fenced: its external status is {host.external_status}."
            )
            self._model.log(audit_log.HOST_NOT_FENCED, text, "warning", host=host.id)
        for vm in self._model.vms_on(host.id):
            if fenced:
                self._vms.lose(vm, "its host was lost.")
            else:
                vm.status, vm.migrating_to = "unknown", ""

    def _answers_again(self, host: Host) -> None:
        for vm in self._model.vms_on(host.id):
            if vm.boots != host.boots:
                self._vms.lose(vm, "its host rebooted.")
            elif vm.status == "unknown":
                vm.status = UP
        self._begin_initialization(host)

    def _begin_initialization(self, host: Host) -> None:
        host.status, host.status_detail = "unassigned", ""
        host.due = self._model.now() + self._model.timings.host_initialization

    def _in_maintenance(self, host: Host) -> None:
        host.status = MAINTENANCE
        text = f"Host {host.name} is in maintenance mode."
        self._model.log(audit_log.HOST_IN_MAINTENANCE, text, host=host.id)
