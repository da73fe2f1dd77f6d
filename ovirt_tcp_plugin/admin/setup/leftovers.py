# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker left at the engine and the journal does not know: walls, and hosts in quarantine.

The broker takes both back while it runs and has its role. Once the pools end that may be over any
moment, and a wall that nobody keeps stops its VMs from starting: `setup --remove` takes them back
itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.placement.inventory import Cluster, Host, Listing, is_quarantined
from ovirt_tcp_plugin.placement.pools import PolicyState, Pools

# Under these policies a cluster is a pool, or becomes one again after its upgrade.
_LASTING = frozenset({PolicyState.TRUSTED, PolicyState.UPGRADE})


@dataclasses.dataclass(frozen=True)
class Wall:
    """A wall in a cluster whose pool is to end, where there may be several."""

    cluster: Cluster
    group_id: str


@dataclasses.dataclass(frozen=True)
class Leftovers:
    """What the engine shows.

    Attributes:
        pools: the clusters that are trusted pools by their policies; those that are being
            upgraded are among them.
        others: all other clusters. A broker may go on with a pool of before in one of them, until
            it is told that a person ended it.
        walls: in those.
        hosts: in maintenance for a reason of ours, in those.
    """

    pools: tuple[Cluster, ...]
    others: tuple[Cluster, ...]
    walls: tuple[Wall, ...]
    hosts: tuple[Host, ...]


def leftovers(listing: Listing) -> Leftovers:
    """Return what is left in a listing."""
    pool_ids = _lasting_pool_ids(listing)
    pools = [cluster for cluster in listing.clusters if cluster.id in pool_ids]
    others = [cluster for cluster in listing.clusters if cluster.id not in pool_ids]
    walls: list[Wall] = []
    for cluster in others:
        walls += [Wall(cluster, group_id) for group_id in listing.wall_ids(cluster.id)]
    quarantined = [host for host in listing.hosts if is_quarantined(host)]
    hosts = [host for host in quarantined if host.cluster_id not in pool_ids]
    return Leftovers(tuple(pools), tuple(others), tuple(walls), tuple(hosts))


def _lasting_pool_ids(listing: Listing) -> set[str]:
    known = Pools()
    known.update(listing)
    pools = known.by_cluster.values()
    return {pool.cluster_id for pool in pools if pool.policy_state in _LASTING}


def remove_walls(
    engine: AdminClient, walls: tuple[Wall, ...], report: Callable[[str], None]
) -> list[str]:
    """Remove walls; return why some are still there. Raises Unavailable."""
    kept: list[str] = []
    for wall in walls:
        title = f"wall of cluster {wall.cluster.name}"
        try:
            engine.remove_group(wall.cluster.id, wall.group_id)
        except errors.Conflict as e:
            what = f"The {title} is still there, and keeps its VMs from starting ({e.reason})"
            kept.append(f"{what}: remove the affinity group {wall.group_id} there.")
        else:
            report(f"{title}: removed")
    return kept


def give_back(
    engine: AdminClient, hosts: tuple[Host, ...], report: Callable[[str], None]
) -> list[str]:
    """Activate hosts that the broker took out of service; return why some are still out.

    Raises Unavailable.
    """
    kept: list[str] = []
    for host in hosts:
        try:
            engine.activate(host.id)
        except (errors.Conflict, errors.NotFound) as e:
            if not _is_out(engine, host):
                continue  # the broker was faster
            what = f"Host {host.name} is still out of service, where the broker put it ({e})"
            kept.append(f"{what}: activate it under Compute, Hosts, Management.")
        else:
            report(f"host {host.name}: activated; it was out of service, {host.status_detail}")
    return kept


def _is_out(engine: AdminClient, host: Host) -> bool:
    """Return whether a host is still in maintenance for a reason of ours."""
    hosts = engine.listing().hosts
    return any(known.id == host.id and is_quarantined(known) for known in hosts)
