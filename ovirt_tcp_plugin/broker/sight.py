# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine as it was last seen: hosts, VMs, walls and pools, and how to find one's way among them. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional, TypeVar

from ovirt_tcp_plugin.broker import pools
from ovirt_tcp_plugin.broker.decision import Verdict, Vm, needs_trust
from ovirt_tcp_plugin.broker.inventory import Group, Host, Listing
from ovirt_tcp_plugin.broker.inventory import Vm as InventoryVm
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.verdicts import Table
from ovirt_tcp_plugin.messages.result import Level

_InCluster = TypeVar("_InCluster", Host, InventoryVm)


class Sight:
    """Not thread-safe.

    Attributes:
        hosts, vms: by id.
        hosts_of, vms_of: the same by cluster id: walls and snapshots of all pools are made every second.
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
        self.vms: dict[str, InventoryVm] = {}
        self.hosts_of: Mapping[str, Sequence[Host]] = {}
        self.vms_of: Mapping[str, Sequence[InventoryVm]] = {}
        self.names: dict[str, str] = {}
        self.shared_names: frozenset[str] = frozenset()
        self.exempt = self._always_exempt = frozenset(exempt)
        self.walls: dict[str, Group] = {}
        self.surplus_walls: dict[str, frozenset[str]] = {}

    def see_hosts(self, hosts: Iterable[Host], configured: Mapping[str, str]) -> None:
        """Take over the engine's hosts. `configured`: the option `host_names`."""
        hosts = list(hosts)
        self.hosts = {host.id: host for host in hosts}
        self.hosts_of = _by_cluster(hosts)
        self.names, self.shared_names = pools.names(hosts, configured)

    def see_listing(self, listing: Listing) -> None:
        """Take over the VMs of a complete listing."""
        self.listing = listing
        self.vms = {vm.id: vm for vm in listing.vms}
        self.vms_of = _by_cluster(listing.vms)
        self.exempt = self._always_exempt | {vm.id for vm in listing.vms if vm.hosted_engine}

    def find_host(self, host: str) -> Optional[Host]:
        """Return a host by its name or id."""
        return next((one for one in self.hosts.values() if host in (one.id, one.name)), None)

    def find_vm(self, vm: str) -> Optional[InventoryVm]:
        """Return a VM by its name or id."""
        return next((one for one in self.vms.values() if vm in (one.id, one.name)), None)

    def pool_of(self, host_id: str) -> Optional[Pool]:
        """Return the trusted pool that a host is in."""
        host = self.hosts.get(host_id)
        return None if host is None else self.pools.by_cluster.get(host.cluster_id)

    def pools_of(self, host_ids: Iterable[str]) -> list[str]:
        """Return the ids of the trusted pools that hosts are in."""
        return [pool.cluster_id for pool in map(self.pool_of, host_ids) if pool is not None]

    def host_name(self, host_id: str) -> str:
        """Return a host's name for people, its id if it is gone."""
        return self.hosts[host_id].name if host_id in self.hosts else host_id

    def host_names(self, host_ids: Iterable[str]) -> list[str]:
        """Return the names of hosts, sorted."""
        return sorted(self.host_name(one) for one in host_ids)

    def vm(self, vm_id: str) -> Vm:
        """Return a VM as the rule sees it."""
        known = self.vms.get(vm_id)
        return Vm(None if known is None else known.marked, vm_id in self.exempt)

    def needy(self, pool: Pool) -> list[InventoryVm]:
        """Return a pool's VMs that need a trusted host."""
        return [vm for vm in self.vms_of.get(pool.cluster_id, ()) if needs_trust(self.vm(vm.id), pool.scope)]

    def places(self) -> dict[str, tuple[str, Optional[str]]]:
        """Return each host's cluster and name at the attestation server."""
        return {host.id: (host.cluster_id, self.names.get(host.id)) for host in self.hosts.values()}

    def shown(self, host_id: str, table: Table, now_ms: int) -> Verdict:
        """Return a host's verdict as placement has to see it."""
        if host_id in self.shared_names:
            reason = "another host has the same name at the attestation server: give them different ones in host_names"
            return Verdict(Level.UNKNOWN, now_ms, now_ms, "name_shared", reason)
        verdict = table.verdict(host_id)
        if verdict is None:
            return Verdict(Level.UNKNOWN, now_ms, now_ms, "not_attested", "the host has not been attested yet")
        if verdict.level is Level.TRUSTED and not table.holds(host_id, now_ms) and now_ms < verdict.end_ms:
            return Verdict(Level.UNKNOWN, now_ms, now_ms, "not_up", "the host is not Up")
        return verdict


def _by_cluster(things: Iterable[_InCluster]) -> Mapping[str, Sequence[_InCluster]]:
    grouped: dict[str, list[_InCluster]] = {}
    for one in things:
        grouped.setdefault(one.cluster_id, []).append(one)
    return grouped
