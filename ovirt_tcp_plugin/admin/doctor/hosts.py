# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges the hosts: their gates, and which of them are out of placement or service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, warning
from ovirt_tcp_plugin.admin.doctor.observations import BrokerView, ObservedSite
from ovirt_tcp_plugin.engine.inspection import Hooks
from ovirt_tcp_plugin.messages.findings import FindingCode

GATE = "50_ovirt_tcp_gate.py"
GATE_POINTS = ("before_vm_start", "before_vm_migrate_destination", "before_vm_dehibernate")
# A hexadecimal SHA-256; old releases of VDSM reported MD5.
_CHECKSUM_LENGTH = 64

_COPY = (
    "copy libexec/vdsm/hooks of this installation over /usr/libexec/vdsm/hooks/ there, executable,"
    " then put the host into maintenance and activate it: only then the engine reads what it has"
)


def gates(site: ObservedSite, hooks: Mapping[str, Hooks], checksum: str) -> Iterable[DoctorFinding]:
    """Judge whether the pools' hosts report the gate, unaltered.

    A host that lies about it is not found out here.

    Args:
        hooks: what each host reports, by host id.
        checksum: SHA-256 of the gate of this installation.
    """
    absent: list[str] = []
    for host in site.listing.hosts:
        if host.id not in hooks:
            continue
        reported = _gate_checksums(hooks[host.id])
        if reported:
            yield from _judge_gate(host.name, reported, checksum)
        else:
            absent.append(host.name)
    if absent:
        text = (
            f"Hosts without the gate: {named(absent)}. A VM's first start there is not refused"
            " while filterd is down."
        )
        yield warning("gate_missing", text, _COPY)


def placement(site: ObservedSite, broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether every pool has trusted hosts, and which hosts get no VMs."""
    for pool in site.pools.values():
        members = [host for host in site.hosts(pool) if host.id in broker.hosts]
        views = [broker.hosts[host.id] for host in members]
        doubtful: list[str] = []
        for host in members:
            view = broker.hosts[host.id]
            if host.up and not view.trusted and not view.quarantined:
                doubtful.append(f"{view.name} ({view.code})")
        if views and not any(view.trusted for view in views):
            text = f"Cluster {pool.name} has no trusted host: no VM that needs one starts there."
            step = "see why: ovirt-tcp verdicts, and ovirt-tcp explain HOST"
            yield fail("no_trusted_host", text, step)
        elif doubtful:
            text = f"Hosts of cluster {pool.name} that get no VMs: {named(doubtful)}."
            yield warning("not_trusted", text, "see why: ovirt-tcp explain HOST")


def lockdown(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether Secure Boot keeps the logs of measured launches from being read."""
    code = FindingCode.LOG_LOCKED_DOWN
    names = [host.name for host in broker.hosts.values() if host.code == code.code]
    if names:
        text = (
            "Hosts whose kernel is locked down, as under Secure Boot, so that nobody can read the"
            f" log of their measured launch: {named(names)}."
        )
        yield fail("host_locked_down", text, code.next_step)


def quarantine(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether hosts were taken out of service."""
    names = [host.name for host in broker.hosts.values() if host.quarantined]
    if names:
        text = f"Hosts that were taken out of service because they are untrusted: {named(names)}."
        step = "see why: ovirt-tcp explain HOST; each returns by itself once it attests well"
        yield warning("quarantined", text, step)


def charge(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether another broker is at the same engine."""
    if not broker.others:
        return
    where = named(broker.others)
    if broker.acts:
        text = (
            f"A second broker runs for this engine, on {where}; the one on {broker.machine} is in"
            " charge, and the other changes nothing."
        )
    else:
        text = (
            f"The broker on {broker.machine} changes nothing at the engine: another one, on"
            f" {where}, is in charge."
        )
    step = "stop the one that is too many there: systemctl disable --now ovirt-tcp-broker"
    yield fail("second_broker", text, step)


def guards(broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether a guard waits for a decision, and which pools are in observation."""
    for pool_name, host_names in broker.held.items():
        text = (
            f"Many hosts of cluster {pool_name} turned untrusted at once, and stay in service"
            f" without new VMs: {named(host_names)}."
        )
        step = (
            "find out why; then ovirt-tcp guard release takes them out of service, and guard reject"
            " leaves them in"
        )
        yield warning("guard_tripped", text, step)
    for pool_name, host_names in broker.observed.items():
        yield _observation(pool_name, host_names)


def _observation(pool_name: str, host_names: Sequence[str]) -> DoctorFinding:
    untrusted = f": {named(host_names)}" if host_names else ""
    text = (
        f"Cluster {pool_name} is in observation, because less than half of its hosts attested well"
        f" so far: untrusted hosts stay in service without new VMs{untrusted}."
    )
    step = (
        "see why: ovirt-tcp verdicts; it ends by itself when half of the hosts attest well, or by"
        f" ovirt-tcp guard release --pool {pool_name}"
    )
    return warning("observation", text, step)


def _gate_checksums(hooks: Hooks) -> dict[str, str]:
    """Return the checksums of the gate's files that a host reports, by hook point."""
    checksums: dict[str, str] = {}
    for point in GATE_POINTS:
        checksum = hooks.get((point, GATE), "")
        if checksum:
            checksums[point] = checksum
    return checksums


def _judge_gate(
    host_name: str, reported: Mapping[str, str], checksum: str
) -> Iterable[DoctorFinding]:
    missing = [point for point in GATE_POINTS if point not in reported]
    other = [point for point in reported if reported[point] != checksum]
    altered = [point for point in other if len(reported[point]) == _CHECKSUM_LENGTH]
    if missing:
        text = f"Host {host_name} has the gate, but not at {named(missing)}: VMs pass there."
        yield fail("gate_incomplete", text, _COPY)
    if altered:
        where = named(altered)
        text = f"The gate of host {host_name} at {where} is not the one of this installation."
        step = f"{_COPY}; if nobody installed another release there, investigate the host"
        yield fail("gate_altered", text, step)
    elif other:
        text = f"Host {host_name} reports its gate with a checksum of another kind than SHA-256."
        step = "compare /usr/libexec/vdsm/hooks there by hand, or update VDSM"
        yield warning("gate_unproven", text, step)
