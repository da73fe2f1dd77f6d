# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's inventory as last seen: hosts, VMs, walls and pools. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state import host_names
from ovirt_tcp_plugin.broker.state.verdicts import VerdictCache
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import pools
from ovirt_tcp_plugin.placement.decision import Verdict, VmTrust
from ovirt_tcp_plugin.placement.inventory import UP, Group, Host, Listing, Vm
from ovirt_tcp_plugin.placement.pools import Pool

# A host's cluster and its name at the attestation server: a verdict is of one of these.
Place = tuple[str, Optional[str]]


class VmIndex:
    """VMs by id and by cluster: walls and snapshots of all pools are made every second.

    Making it takes long for many VMs, so that is done without the lock of the broker's state. Not
    thread-safe.
    """

    def __init__(self, vms: Iterable[Vm] = ()) -> None:
        self._by_id: dict[str, Vm] = {}
        self._by_cluster: dict[str, dict[str, Vm]] = {}
        self._engine_vm_ids: set[str] = set()
        for vm in vms:
            if vm.id in self._by_id:
                self.remove(vm.id)
            self._add(vm)

    @property
    def by_id(self) -> Mapping[str, Vm]:
        """The VMs by id."""
        return self._by_id

    def of(self, cluster_id: str) -> Collection[Vm]:
        """Return a cluster's VMs."""
        return self._by_cluster.get(cluster_id, {}).values()

    def engine_vms(self) -> list[Vm]:
        """Return the VMs that carry the engine itself."""
        return [self._by_id[vm_id] for vm_id in self._engine_vm_ids]

    def put(self, vm: Vm) -> None:
        """Add a VM, or take over how it is now."""
        self.remove(vm.id)
        self._add(vm)

    def remove(self, vm_id: str) -> None:
        """Forget a VM, if it is there."""
        known = self._by_id.pop(vm_id, None)
        if known is not None:
            del self._by_cluster[known.cluster_id][vm_id]
            self._engine_vm_ids.discard(vm_id)

    def _add(self, vm: Vm) -> None:
        self._by_id[vm.id] = vm
        self._by_cluster.setdefault(vm.cluster_id, {})[vm.id] = vm
        if vm.hosted_engine:
            self._engine_vm_ids.add(vm.id)


class InventoryView:
    """Hosts, VMs, walls and pools. Not thread-safe.

    Attributes:
        hosts: by id.
        hosts_of: the same by cluster id.
        vms: as the last complete listing showed them, or what was read of single ones since.
        names: names at the attestation server by host id.
        shared_names: ids of hosts that share such a name.
        exempt: ids of VMs that may run anywhere.
        walls: by cluster id, as last read or edited.
        surplus_walls: ids of further ones, in the same way.
    """

    def __init__(self, exempt: Collection[str]) -> None:
        self.pools = pools.Pools()
        self.listing = Listing((), (), (), (), ())
        self.hosts: dict[str, Host] = {}
        self.vms = VmIndex()
        self.hosts_of: Mapping[str, Sequence[Host]] = {}
        self.names: dict[str, str] = {}
        self.shared_names: frozenset[str] = frozenset()
        self._always_exempt = frozenset(exempt)
        self.exempt = self._always_exempt
        self.walls: dict[str, Group] = {}
        self.surplus_walls: dict[str, frozenset[str]] = {}

    def see_hosts(self, hosts: Iterable[Host], configured: Mapping[str, str]) -> None:
        """Take over the engine's hosts. `configured`: the option `host_names`."""
        self.hosts = {host.id: host for host in hosts}
        self.hosts_of = _by_cluster(self.hosts.values())
        self.names, self.shared_names = host_names.names(self.hosts.values(), configured)

    def changed_statuses(self, listed: Sequence[Host]) -> Optional[list[Host]]:
        """Return the hosts of a list whose status differs from what is known.

        None if there is more to it: hosts are new or gone, or have another name, address or
        cluster.
        """
        if len(listed) != len(self.hosts):
            return None
        changed: list[Host] = []
        for host in listed:
            known = self.hosts.get(host.id)
            if known is host or known == host:
                continue
            if known is None or not _is_same_place(known, host):
                return None
            changed.append(host)
        return changed

    def see_statuses(self, changed: Iterable[Host]) -> None:
        """Take over known hosts that only have another status."""
        hosts = dict(self.hosts)
        concerned = set[str]()
        for host in changed:
            hosts[host.id] = host
            concerned.add(host.cluster_id)
        if not concerned:
            return
        hosts_of = dict(self.hosts_of)
        for cluster_id in concerned:
            hosts_of[cluster_id] = [hosts[host.id] for host in self.hosts_of[cluster_id]]
        self.hosts = hosts
        self.hosts_of = hosts_of

    def see_listing(self, listing: Listing, vms: VmIndex) -> None:
        """Take over a complete listing, and the VMs in it."""
        self.listing = listing
        self.vms = vms
        self._see_exempt()

    def see_vm(self, vm_id: str, vm: Optional[Vm]) -> None:
        """Take over how a single VM is now, None for one that is gone."""
        if vm is None:
            self.vms.remove(vm_id)
        else:
            self.vms.put(vm)
        self._see_exempt()

    def see_walls(self, listing: Listing) -> None:
        """Take over the walls of a listing."""
        walls = dict(listing.walls)
        surplus_walls = dict(listing.surplus_walls)
        for cluster_id in listing.unreadable_walls:
            if cluster_id in self.walls:
                walls[cluster_id] = self.walls[cluster_id]
            surplus_walls[cluster_id] = self.surplus_of(cluster_id)
        self.walls = walls
        self.surplus_walls = surplus_walls

    def hosts_none_up(self) -> list[Host]:
        """Return the known hosts as if none were Up."""
        return [dataclasses.replace(host, status="") for host in self.hosts.values()]

    def as_polled(self, not_up: Sequence[Host]) -> list[Host]:
        """Return all hosts, by the list of those that are not Up: every other known one is."""
        listed_ids = {host.id for host in not_up}
        hosts = list(not_up)
        for host in self.hosts.values():
            if host.id in listed_ids:
                continue
            if host.up:
                hosts.append(host)
            else:
                hosts.append(dataclasses.replace(host, status=UP, status_detail=""))
        return hosts

    def find_host(self, host: str) -> Optional[Host]:
        """Return a host by its name or id."""
        for known in self.hosts.values():
            if host in (known.id, known.name):
                return known
        return None

    def find_vm(self, vm: str, cluster_id: str) -> Optional[Vm]:
        """Return a VM by its id or name.

        Names are unique in a data centre only: of several VMs, that of the cluster is returned.
        """
        known = self.vms.by_id.get(vm)
        if known is not None:
            return known
        namesakes = [other for other in self.vms.by_id.values() if other.name == vm]
        namesakes.sort(key=lambda namesake: namesake.cluster_id != cluster_id)
        return namesakes[0] if namesakes else None

    def pool_of(self, host_id: str) -> Optional[Pool]:
        """Return the trusted pool that a host is in."""
        host = self.hosts.get(host_id)
        return None if host is None else self.pools.by_cluster.get(host.cluster_id)

    def pool_ids(self, pool: str) -> list[str]:
        """Return the id of the pool with this name or id, of all pools if it is empty.

        Raises:
            NotFound: there is no such pool.
        """
        pool_ids: list[str] = []
        for known in self.pools.by_cluster.values():
            if not pool or pool in (known.name, known.cluster_id):
                pool_ids.append(known.cluster_id)
        if pool and not pool_ids:
            raise errors.NotFound("trusted pool", pool)
        return pool_ids

    def pools_of(self, host_ids: Iterable[str]) -> list[str]:
        """Return the ids of the trusted pools that hosts are in."""
        pool_ids: list[str] = []
        for host_id in host_ids:
            pool = self.pool_of(host_id)
            if pool is not None:
                pool_ids.append(pool.cluster_id)
        return pool_ids

    def pool_hosts(self) -> list[Host]:
        """Return the hosts of all trusted pools."""
        return [host for host in self.hosts.values() if host.cluster_id in self.pools.by_cluster]

    def wall_ids(self, cluster_id: str) -> list[str]:
        """Return the ids of all walls of a cluster, as last read or edited."""
        wall = self.walls.get(cluster_id)
        usual = [] if wall is None else [wall.id]
        return usual + sorted(self.surplus_of(cluster_id))

    def surplus_of(self, cluster_id: str) -> frozenset[str]:
        """Return the ids of a cluster's further walls."""
        return self.surplus_walls.get(cluster_id, frozenset())

    def host_name(self, host_id: str) -> str:
        """Return a host's name for people, its id if it is gone."""
        return self.hosts[host_id].name if host_id in self.hosts else host_id

    def host_names(self, host_ids: Iterable[str]) -> list[str]:
        """Return the names of hosts, sorted."""
        return sorted(self.host_name(host_id) for host_id in host_ids)

    def vms_on(self, host_id: str) -> frozenset[str]:
        """Return the ids of the VMs that run on a host."""
        host = self.hosts.get(host_id)
        vms = () if host is None else self.vms.of(host.cluster_id)
        return frozenset(vm.id for vm in vms if vm.host_id == host_id)

    def carries_engine(self, host_id: str) -> bool:
        """Return whether the engine's own VM runs on a host."""
        return any(vm.host_id == host_id for vm in self.vms.engine_vms())

    def vm(self, vm_id: str) -> VmTrust:
        """Return a VM as the rule sees it."""
        known = self.vms.by_id.get(vm_id)
        return VmTrust(None if known is None else known.marked, vm_id in self.exempt)

    def vms_needing_trust(self, pool: Pool) -> list[Vm]:
        """Return a pool's VMs that need a trusted host."""
        vms = self.vms.of(pool.cluster_id)
        return [vm for vm in vms if pools.needs_trust(vm, pool, self.exempt)]

    def places(self) -> dict[str, Place]:
        """Return each host's cluster and name at the attestation server."""
        places: dict[str, Place] = {}
        for host in self.hosts.values():
            places[host.id] = (host.cluster_id, self.names.get(host.id))
        return places

    def shown(self, host_id: str, verdicts: VerdictCache, now_ms: int) -> Verdict:
        """Return a host's verdict as placement has to see it."""
        if host_id in self.shared_names:
            reason = (
                "another host has the same name at the attestation server: "
                "give them different ones in host_names"
            )
            return _unknown(now_ms, "name_shared", reason)
        verdict = verdicts.verdict(host_id)
        if verdict is None:
            return _unknown(now_ms, "not_attested", "the host has not been attested yet")
        counts = verdict.level is Level.TRUSTED and now_ms < verdict.end_ms
        if counts and not verdicts.holds(host_id, now_ms):
            return _unknown(now_ms, "not_up", "the host is not Up")
        return verdict

    def _see_exempt(self) -> None:
        self.exempt = pools.exempt_vms(self._always_exempt, self.vms.engine_vms())


def _is_same_place(known: Host, host: Host) -> bool:
    """Return whether a host is where it was, under the same name at the attestation server."""
    before = (known.name, known.address, known.cluster_id)
    return before == (host.name, host.address, host.cluster_id)


def _unknown(now_ms: int, code: str, reason: str) -> Verdict:
    return Verdict(Level.UNKNOWN, now_ms, now_ms, code, reason)


def _by_cluster(hosts: Iterable[Host]) -> Mapping[str, Sequence[Host]]:
    grouped: dict[str, list[Host]] = {}
    for host in hosts:
        grouped.setdefault(host.cluster_id, []).append(host)
    return grouped
