# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What engine, broker, filterd and attestation server showed, as values for the judges. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.placement import pools
from ovirt_tcp_plugin.placement.inventory import Host, Listing, Vm
from ovirt_tcp_plugin.placement.pools import Pool, Pools
from ovirt_tcp_plugin.placement.snapshot import Snapshot


@dataclasses.dataclass(frozen=True)
class ObservedSite:
    """The engine's inventory, and what follows from it.

    Attributes:
        pools: the trusted pools by cluster id.
        exempt: ids of the VMs that may run anywhere.
    """

    listing: Listing
    pools: Mapping[str, Pool]
    exempt: frozenset[str]

    def hosts(self, pool: Pool) -> list[Host]:
        """Return a pool's hosts."""
        return [host for host in self.listing.hosts if host.cluster_id == pool.cluster_id]

    def host_names(self, host_ids: Collection[str]) -> list[str]:
        """Return the names of hosts; of one that is not listed, its id."""
        names = {host.id: host.name for host in self.listing.hosts}
        return [names.get(host_id, host_id) for host_id in host_ids]

    def needs_trust(self, vm: Vm) -> bool:
        """Return whether a VM may run on trusted hosts only."""
        return pools.needs_trust(vm, self.pools.get(vm.cluster_id), self.exempt)

    def engine_vms(self) -> list[Vm]:
        """Return the VMs that carry the engine itself and lie in a trusted pool."""
        return [vm for vm in self.listing.vms if vm.hosted_engine and vm.cluster_id in self.pools]


@dataclasses.dataclass(frozen=True)
class SchedulerOptions:
    """The engine's options of its external scheduler, as they count from its next start."""

    enabled: bool
    host: str
    port: int
    response_ms: int


@dataclasses.dataclass(frozen=True)
class BrokerHost:
    """A pool's host as the broker sees it now.

    Attributes:
        stays_inside: the broker keeps it in the wall for now though it is not trusted.
    """

    id: str
    name: str
    trusted: bool
    code: str
    quarantined: bool
    stays_inside: bool


@dataclasses.dataclass(frozen=True)
class BrokerView:
    """What the broker says.

    Attributes:
        hosts: by host id.
        held: names of the hosts that a tripped guard holds, by pool name.
        observed: names of the untrusted hosts that a pool in observation keeps, by pool name.
        servers_answer: whether an attestation server answered when it was last asked.
        pools: the clusters that it keeps as trusted pools, by id.
        machine: where it runs.
        acts: whether it changes anything at the engine.
        others: the machines of other brokers at the same engine.
    """

    hosts: Mapping[str, BrokerHost]
    held: Mapping[str, Sequence[str]]
    observed: Mapping[str, Sequence[str]]
    servers_answer: bool
    pools: Mapping[str, Pool] = dataclasses.field(default_factory=dict)
    machine: str = ""
    acts: bool = True
    others: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class ObservedSnapshots:
    """The snapshot files as filterd would take them.

    Attributes:
        by_host: the newest good snapshot of the host's pool.
        faults: what is wrong with a file, by its name.
        closed: files, or their directory, that not every user may read.
        now_ms: CLOCK_BOOTTIME when they were read.
        broker_directory: where the broker writes them.
        filterd_directory: where filterd reads them.
    """

    by_host: Mapping[str, Snapshot]
    faults: Mapping[str, str]
    closed: Collection[str]
    now_ms: int
    broker_directory: str
    filterd_directory: str


@dataclasses.dataclass(frozen=True)
class ServerView:
    """One attestation server.

    Attributes:
        fault: why there was no answer, empty if there was one.
        bad_certificate: whether its certificate is why.
        status: of HTTP, of the answer to a question about no host.
        good: whether a server of its kind that takes our token answers so.
        certificate_ends_s: seconds until its certificate ends.
        authorities_end_s: seconds until the last authority of the broker's ca_file ends; None if
            it cannot be read.
        duties: what the server itself says is to be done in time: sentence and next step.
        ahead_s: its clock against this machine's, in seconds; None if it does not tell the time.
    """

    url: str
    fault: str = ""
    bad_certificate: bool = False
    status: int = 0
    good: bool = False
    certificate_ends_s: float = 0.0
    authorities_end_s: Optional[float] = None
    duties: tuple[tuple[str, str], ...] = ()
    ahead_s: Optional[float] = None


def observed_site(
    listing: Listing, exempt_vms: Collection[str], kept: Optional[Mapping[str, Pool]] = None
) -> ObservedSite:
    """Return the inventory with its trusted pools.

    Args:
        exempt_vms: the broker's option of this name.
        kept: the pools that the broker keeps, whatever their policies; None if it does not say.
            Then a wall shows a pool.
    """
    known = Pools()
    ended: set[str] = set()
    if kept is not None:
        cluster_ids = {cluster.id for cluster in listing.clusters}
        known.by_cluster = {key: pool for key, pool in kept.items() if key in cluster_ids}
        ended = cluster_ids.difference(kept)
    known.update(listing, ended)
    exempt = pools.exempt_vms(exempt_vms, listing.vms)
    return ObservedSite(listing, dict(known.by_cluster), exempt)
