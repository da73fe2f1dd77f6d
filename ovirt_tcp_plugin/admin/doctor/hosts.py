# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges the hosts: their gates, and which of them are out of placement or service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, warning
from ovirt_tcp_plugin.admin.doctor.observations import BrokerView, ObservedSite
from ovirt_tcp_plugin.engine.inspection import Hooks

GATE = "50_ovirt_tcp_gate.py"
GATE_POINTS = ("before_vm_start", "before_vm_migrate_destination", "before_vm_dehibernate")
# A hexadecimal SHA-256; old releases of VDSM reported MD5.
_CHECKSUM_LENGTH = 64

_COPY = (
    "copy libexec/vdsm/hooks of this installation over /usr/libexec/vdsm/hooks/ there, executable, then put the host into "
    "maintenance and activate it: only then the engine reads what it has"
)


def gates(site: ObservedSite, hooks: Mapping[str, Hooks], checksum: str) -> Iterable[DoctorFinding]:
    """Judge whether the pools' hosts report the gate, unaltered. A host that lies about it is not found out here.

    Args:
        hooks: what each host reports, by host id.
        checksum: SHA-256 of the gate of this installation.
    """
    absent: list[str] = []
    for host in site.listing.hosts:
        if host.id not in hooks:
            continue
        reported = {point: hooks[host.id].get((point, GATE), "") for point in GATE_POINTS}
        missing = [point for point, one in reported.items() if not one]
        altered = {point for point, one in reported.items() if one and one != checksum}
        unproven = {point for point in altered if len(reported[point]) != _CHECKSUM_LENGTH}
        if len(missing) == len(GATE_POINTS):
            absent.append(host.name)
        elif missing:
            text = f"Host {host.name} has the gate, but not at {named(missing)}: VMs pass there."
            yield fail("gate_incomplete", text, _COPY)
        if altered - unproven:
            text = f"The gate of host {host.name} at {named(altered - unproven)} is not the one of this installation."
            yield fail("gate_altered", text, f"{_COPY}; if nobody installed another release there, investigate the host")
        elif unproven:
            text = f"Host {host.name} reports its gate with a checksum of another kind than SHA-256."
            yield warning("gate_unproven", text, "compare /usr/libexec/vdsm/hooks there by hand, or update VDSM")
    if absent:
        text = f"Hosts without the gate: {named(absent)}. A VM's first start there is not refused while filterd is down."
        yield warning("gate_missing", text, _COPY)


def placement(site: ObservedSite, broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether every pool has trusted hosts, and which hosts get no VMs."""
    for pool in site.pools.values():
        up = {host.id for host in site.hosts(pool) if host.up}
        own = [broker.hosts[host.id] for host in site.hosts(pool) if host.id in broker.hosts]
        doubtful = {host.name: host.code for host in own if host.id in up and not host.trusted and not host.quarantined}
        if own and not any(host.trusted for host in own):
            text = f"Cluster {pool.name} has no trusted host: no VM that needs one starts there."
            yield fail("no_trusted_host", text, "see why: ovirt-tcp verdicts, and ovirt-tcp explain HOST")
        elif doubtful:
            told = named(f"{name} ({code})" for name, code in doubtful.items())
            text = f"Hosts of cluster {pool.name} that get no VMs: {told}."
            yield warning("not_trusted", text, "see why: ovirt-tcp explain HOST")


def quarantine(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether hosts were taken out of service."""
    names = [host.name for host in broker.hosts.values() if host.quarantined]
    if names:
        text = f"Hosts that were taken out of service because they are untrusted: {named(names)}."
        yield warning("quarantined", text, "see why: ovirt-tcp explain HOST; each returns by itself once it attests well")


def guards(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether a guard waits for a decision."""
    for pool, held in broker.held.items():
        text = f"Many hosts of cluster {pool} turned untrusted at once, and stay in service without new VMs: {named(held)}."
        step = "find out why; then ovirt-tcp guard release takes them out of service, and guard reject leaves them in"
        yield warning("guard_tripped", text, step)
