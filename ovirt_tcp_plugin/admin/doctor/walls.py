# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges the walls, what contradicts them, and who stands on the wrong side. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, not_checked, warning
from ovirt_tcp_plugin.admin.doctor.observations import BrokerView, ObservedSite, ObservedSnapshots
from ovirt_tcp_plugin.engine.affinity_conflicts import conflicts
from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import Group, is_quarantined
from ovirt_tcp_plugin.placement.pools import Pool

# What the broker says of a host whose last verdict was trusted, until it ended.

_BROKER = "the broker repairs this within seconds if it runs: journalctl -u ovirt-tcp-broker"


def walls(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether every pool has its wall, which enforces, with all VMs that need it."""
    for pool in site.pools.values():
        wall = site.listing.walls.get(pool.cluster_id)
        if wall is None:
            yield fail("wall_missing", f"Cluster {pool.name} has no wall.", _BROKER)
            continue
        if not wall.enforcing:
            text = (
                f"The wall of cluster {pool.name} was edited: it is no longer an enforcing positive"
                " rule of VMs to hosts."
            )
            yield fail("wall_weakened", text, _BROKER)
        outside = _outside(site, pool, wall)
        if outside:
            text = (
                f"VMs of cluster {pool.name} that need a trusted host are not behind its wall:"
                f" {named(outside)}."
            )
            yield fail("wall_vms", text, _BROKER)


def left(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge what the broker left where there is no trusted pool: walls, and hosts in quarantine."""
    for cluster in site.listing.clusters:
        wall = site.listing.walls.get(cluster.id)
        if wall is None or cluster.id in site.pools:
            continue
        text = (
            f"Cluster {cluster.name} is no trusted pool, but a wall is left there: its VMs run on"
            f" the {len(wall.host_ids)} hosts in it and nowhere else, and nobody updates it."
        )
        step = (
            "a broker that runs and has its role removes it within two minutes; otherwise remove"
            f" the affinity group {wall.name} of this cluster"
        )
        yield fail("wall_left", text, step)
    quarantined: list[str] = []
    for host in site.listing.hosts:
        if is_quarantined(host) and host.cluster_id not in site.pools:
            quarantined.append(host.name)
    if quarantined:
        text = (
            "Hosts that the broker took out of service, in clusters that are no trusted pools:"
            f" {named(quarantined)}. Nobody brings them back."
        )
        step = "activate them (Compute > Hosts > Management > Activate)"
        yield warning("quarantine_left", text, step)


def wall_hosts(site: ObservedSite, broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether the walls let in the hosts that the broker trusts, and no others."""
    for pool in site.pools.values():
        wall = site.listing.walls.get(pool.cluster_id)
        if wall is not None:
            yield from _hosts_of_wall(pool, wall, site, broker)


def rules(site: ObservedSite, groups: Iterable[EnforcingGroup]) -> Iterable[DoctorFinding]:
    """Judge whether administrators' own affinity groups contradict the walls."""
    for conflict in conflicts(site.pools, site.listing.vms, groups, site.exempt):
        if conflict.of_hosts:
            yield fail("rule_conflict", conflict.text, conflict.next_step)
        else:
            yield warning("rule_conflict", conflict.text, conflict.next_step)


def exempt(site: ObservedSite, vm_ids: Collection[str]) -> Iterable[DoctorFinding]:
    """Judge whether the option `pools.exempt_vms` names VMs that exist."""
    unknown = set(vm_ids) - {vm.id for vm in site.listing.vms}
    if unknown:
        text = f"pools.exempt_vms names what is no VM's id here: {named(unknown)}."
        step = "see the VM's id in its General tab, and correct broker.yaml"
        yield warning("exempt_unknown", text, step)


def engine_vm(site: ObservedSite, snapshots: ObservedSnapshots) -> Iterable[DoctorFinding]:
    """Judge whether the VM that carries the engine may run anywhere.

    A pool that keeps it from starting keeps its own repair from starting.
    """
    for vm in site.engine_vms():
        wall = site.listing.walls.get(vm.cluster_id)
        if wall is not None and vm.id in wall.vm_ids:
            text = (
                f"The engine's own VM {vm.name} is behind the wall: without a trusted host the"
                " engine does not start."
            )
            step = f"take {vm.name} out of affinity group {wall.name}; {_BROKER}"
            yield fail("engine_vm_walled", text, step)
        of_cluster = [
            snapshot for snapshot in snapshots.by_host.values() if snapshot.pool_id == vm.cluster_id
        ]
        if not of_cluster:
            what = f"the engine's own VM {vm.name} is exempt for the filter"
            yield not_checked(f"No snapshot says whether {what}.")
        elif any(vm.id not in snapshot.exempt for snapshot in of_cluster):
            text = f"The engine's own VM {vm.name} is not exempt for the filter."
            yield fail("engine_vm_filtered", text, _BROKER)


def places(
    site: ObservedSite,
    addresses: Mapping[str, Collection[str]],
    servers: Mapping[str, Collection[str]],
) -> Iterable[DoctorFinding]:
    """Judge whether engine or attestation server is a VM of a pool that depends on it.

    Args:
        addresses: names and addresses of VMs in lower case, by VM id.
        servers: names and addresses of what is looked for, by what it is, such as
            `attestation server`.
    """
    for vm in site.listing.vms:
        if not site.needs_trust(vm):
            continue
        of_vm = {name for name in addresses.get(vm.id, ()) if _is_of_one_machine(name)}
        pool = site.pools[vm.cluster_id]
        subject = f"VM {vm.name} of cluster {pool.name}, which needs a trusted host itself,"
        step = (
            f"move it to a cluster that is no pool, or put its id {vm.id} into pools.exempt_vms of"
            " broker.yaml"
        )
        for role, of_server in servers.items():
            short_names = {name.partition(".")[0] for name in of_server if _is_of_one_machine(name)}
            if of_vm & set(of_server):
                text = f"{subject} is the {role}: after an outage neither comes back."
                yield fail("server_inside", text, step)
            elif vm.name.lower() in short_names:
                text = f"{subject} has the name of the {role}: is it?"
                yield warning("server_inside_perhaps", text, f"if so, {step}")


def _hosts_of_wall(
    pool: Pool, wall: Group, site: ObservedSite, broker: BrokerView
) -> Iterable[DoctorFinding]:
    """Judge whether a wall lets in the hosts that the broker trusts, and no others."""
    trusted: set[str] = set()
    staying: set[str] = set()
    for host in site.hosts(pool):
        view = broker.hosts.get(host.id)
        if view is None:
            continue
        if view.trusted:
            trusted.add(host.id)
        if view.stays_inside and host.id in wall.host_ids:
            staying.add(host.id)
    wide = wall.host_ids - trusted - staying
    narrow = trusted - wall.host_ids
    if staying:
        text = (
            "Hosts without a verdict that counts stay inside, as the attestation servers or nearly"
            " all hosts of the pool are silent, or the engine has just started:"
            f" {named(site.host_names(staying))}."
        )
        step = (
            "see that an attestation server answers and hears of the hosts: ovirt-tcp verdicts; the"
            " filter refuses these hosts meanwhile"
        )
        yield warning("wall_stands", text, step)
    if wide:
        names = named(site.host_names(wide))
        text = f"The wall of cluster {pool.name} lets in hosts that are not trusted: {names}."
        yield fail("wall_wide", text, _BROKER)
    if wall.host_label_ids:
        text = (
            f"The wall of cluster {pool.name} lets in every host that bears an affinity label that"
            " somebody put into it."
        )
        yield fail("wall_labels", text, _BROKER)
    if narrow:
        names = named(site.host_names(narrow))
        text = f"The wall of cluster {pool.name} keeps out hosts that are trusted: {names}."
        yield warning("wall_narrow", text, _BROKER)


def _outside(site: ObservedSite, pool: Pool, wall: Group) -> list[str]:
    """Return the names of a pool's VMs that need trust and are not behind its wall."""
    return [
        vm.name
        for vm in site.listing.vms
        if vm.cluster_id == pool.cluster_id and site.needs_trust(vm) and vm.id not in wall.vm_ids
    ]


def _is_of_one_machine(name: str) -> bool:
    """Return whether a name or address is one machine's, not what every machine calls itself."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.partition(".")[0] != "localhost"
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
