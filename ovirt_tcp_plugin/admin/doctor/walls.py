# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges the walls, what contradicts them, and who stands on the wrong side. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, not_checked, warning
from ovirt_tcp_plugin.admin.doctor.observations import BrokerView, ObservedSite, ObservedSnapshots
from ovirt_tcp_plugin.engine.affinity_conflicts import SeparatingGroup, conflicts
from ovirt_tcp_plugin.engine.scheduling_policies import CLUSTER_MAINTENANCE
from ovirt_tcp_plugin.placement.inventory import Group, is_quarantined
from ovirt_tcp_plugin.placement.pools import Pool

# What the broker says of a host whose last verdict was trusted, until it ended.
ENDED = "verdict_ended"

_BROKER = "the broker repairs this within seconds if it runs: journalctl -u ovirt-tcp-broker"


def walls(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether every pool has its wall, which enforces, with all VMs that need it."""
    for pool in site.pools.values():
        wall = site.listing.walls.get(pool.cluster_id)
        if wall is None:
            yield fail("wall_missing", f"Cluster {pool.name} has no wall.", _BROKER)
            continue
        if not wall.enforcing:
            text = f"The wall of cluster {pool.name} was edited: it is no enforcing positive rule of VMs to hosts any more."
            yield fail("wall_weakened", text, _BROKER)
        outside = _outside(site, pool, wall)
        if outside:
            text = f"VMs of cluster {pool.name} that need a trusted host are not behind its wall: {named(outside)}."
            yield fail("wall_vms", text, _BROKER)


def left(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge what the broker left where there is no trusted pool: walls, and hosts in quarantine."""
    pools = set(site.pools) | {
        # During an upgrade the cluster has a policy of the engine's own, and its wall protects it.
        cluster.id
        for cluster in site.listing.clusters
        if cluster.policy_id == CLUSTER_MAINTENANCE
    }
    for cluster in site.listing.clusters:
        wall = site.listing.walls.get(cluster.id)
        if wall is None or cluster.id in pools:
            continue
        text = (
            f"Cluster {cluster.name} is no trusted pool, but a wall is left there: its VMs run on "
            f"the {len(wall.host_ids)} hosts in it and nowhere else, and nobody updates it."
        )
        step = (
            "a broker that runs and has its role removes it within two minutes; otherwise remove "
            f"the affinity group {wall.name} of this cluster"
        )
        yield fail("wall_left", text, step)
    away = [host.name for host in site.listing.hosts if is_quarantined(host) and host.cluster_id not in pools]
    if away:
        text = (
            f"Hosts that the broker took out of service, in clusters that are no trusted pools: "
            f"{named(away)}. Nobody brings them back."
        )
        step = "activate them (Compute > Hosts > Management > Activate)"
        yield warning("quarantine_left", text, step)


def wall_hosts(site: ObservedSite, broker: BrokerView) -> Iterable[DoctorFinding]:
    """Judge whether the walls let in the hosts that the broker trusts, and no others."""
    for pool in site.pools.values():
        wall = site.listing.walls.get(pool.cluster_id)
        if wall is None:
            continue
        names = {host.id: host.name for host in site.listing.hosts}
        own = {host.id: broker.hosts[host.id] for host in site.hosts(pool) if host.id in broker.hosts}
        trusted = {host.id for host in own.values() if host.trusted}
        staying = {host.id for host in own.values() if host.code == ENDED and not broker.servers_answer} & wall.host_ids
        wide, narrow = wall.host_ids - trusted - staying, trusted - wall.host_ids
        if staying:
            text = f"No attestation server answers, so hosts whose verdict ended stay inside: {_names(staying, names)}."
            yield warning("wall_stands", text, "bring an attestation server back; the filter refuses these hosts meanwhile")
        if wide:
            text = f"The wall of cluster {pool.name} lets in hosts that are not trusted: {_names(wide, names)}."
            yield fail("wall_wide", text, _BROKER)
        if wall.host_label_ids:
            text = f"The wall of cluster {pool.name} lets in whoever bears an affinity label that somebody put into it."
            yield fail("wall_labels", text, _BROKER)
        if narrow:
            text = f"The wall of cluster {pool.name} keeps out hosts that are trusted: {_names(narrow, names)}."
            yield warning("wall_narrow", text, _BROKER)


def rules(site: ObservedSite, groups: Iterable[SeparatingGroup]) -> Iterable[DoctorFinding]:
    """Judge whether administrators' own affinity groups contradict the walls."""
    for one in conflicts(site.pools, site.listing.vms, groups, site.exempt):
        yield warning("rule_conflict", one.text, one.next_step)


def exempt(site: ObservedSite, vm_ids: Collection[str]) -> Iterable[DoctorFinding]:
    """Judge whether the option `pools.exempt_vms` names VMs that there are."""
    unknown = set(vm_ids) - {vm.id for vm in site.listing.vms}
    if unknown:
        text = f"pools.exempt_vms names what is no VM's id here: {named(unknown)}."
        yield warning("exempt_unknown", text, "see the VM's id in its General tab, and correct broker.yaml")


def engine_vm(site: ObservedSite, snapshots: ObservedSnapshots) -> Iterable[DoctorFinding]:
    """Judge whether the VM that carries the engine may run anywhere: a pool that stops it stops its own repair."""
    for vm in site.engine_vms():
        wall = site.listing.walls.get(vm.cluster_id)
        if wall is not None and vm.id in wall.vm_ids:
            text = f"The engine's own VM {vm.name} is behind the wall: without a trusted host the engine does not start."
            yield fail("engine_vm_walled", text, f"take {vm.name} out of affinity group {wall.name}; {_BROKER}")
        files = {id(one): one for one in snapshots.by_host.values() if one.pool_id == vm.cluster_id}
        if not files:
            yield not_checked(f"No snapshot says whether the engine's own VM {vm.name} is exempt for the filter.")
        elif any(vm.id not in one.exempt for one in files.values()):
            text = f"The engine's own VM {vm.name} is not exempt for the filter."
            yield fail("engine_vm_filtered", text, _BROKER)


def places(
    site: ObservedSite, addresses: Mapping[str, Collection[str]], servers: Mapping[str, Collection[str]]
) -> Iterable[DoctorFinding]:
    """Judge whether engine or attestation server is a VM of a pool that depends on it.

    Args:
        addresses: names and addresses of VMs in lower case, by VM id.
        servers: names and addresses of what is looked for, such as `attestation server`, by that.
    """
    for vm in site.listing.vms:
        if not site.needs_trust(vm):
            continue
        known, pool = {one for one in addresses.get(vm.id, ()) if _tells(one)}, site.pools[vm.cluster_id]
        for what, wanted in servers.items():
            text = f"VM {vm.name} of cluster {pool.name}, which needs a trusted host itself, "
            step = f"move it to a cluster that is no pool, or put its id {vm.id} into pools.exempt_vms of broker.yaml"
            if known & set(wanted):
                yield fail("server_inside", f"{text}is the {what}: after an outage neither comes back.", step)
            elif vm.name.lower() in {one.partition(".")[0] for one in wanted if _tells(one)}:
                yield warning("server_inside_perhaps", f"{text}has the name of the {what}: is it?", f"if so, {step}")


def _outside(site: ObservedSite, pool: Pool, wall: Group) -> list[str]:
    own = [vm for vm in site.listing.vms if vm.cluster_id == pool.cluster_id]
    return [vm.name for vm in own if site.needs_trust(vm) and vm.id not in wall.vm_ids]


def _names(host_ids: Iterable[str], names: Mapping[str, str]) -> str:
    return named(names.get(one, one) for one in host_ids)


def _tells(name: str) -> bool:
    """Return whether a name or address is one machine's, and not what every machine calls itself."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.partition(".")[0] != "localhost"
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
