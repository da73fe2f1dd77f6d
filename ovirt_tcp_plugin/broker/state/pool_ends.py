# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Pools that a person ended, until all that we did there is given back. No I/O.

An end is saved before anything is given back, so a restart goes on with it: the walls are removed,
and the hosts that we took out of service are activated.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.placement.inventory import Listing, Notice, is_quarantined, shortened
from ovirt_tcp_plugin.placement.pools import PolicyState, Pool

# So many complete listings after the last thing that we did show it: one may have begun before, and
# a wall in it would make the cluster a pool again.
LISTINGS_TO_CONCLUDE = 2


@dataclasses.dataclass
class EndedPool:
    """A pool that a person ended.

    Attributes:
        who: who ended it, for people.
        at_ms: when, by the wall clock.
        outcomes: of hosts by id: empty for one that was activated, or else why it was not.
        listings: complete listings since something was given back last, or the broker started.
    """

    cluster_id: str
    name: str
    who: str
    at_ms: int
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    listings: int = 0


class PoolEnds:
    """Thread-safe, under the lock of the broker's state."""

    def __init__(self, shared: SharedState, quarantine: QuarantineController) -> None:
        self._lock = shared.lock
        self._shared = shared
        self._inventory = shared.inventory
        self._quarantine = quarantine
        self._ended: dict[str, EndedPool] = {}
        self._listings = 0

    # Acts of people

    def end(self, name: str, who: str) -> tuple[str, bool]:
        """End a pool; return the cluster's name, and whether it was a pool until now.

        Args:
            name: name or id of the cluster.
            who: who asks for it, for the history.

        Raises:
            NotFound: there is no such cluster.
            Conflict: the pool would begin again; with what to do.
        """
        with self._lock:
            pool = self._find(name)
            if pool is None:
                return self._cluster_name(name), False
            reason = _why_it_would_begin_again(pool)
            if reason:
                raise errors.Conflict(reason)
            self._end(pool, who)
            return pool.name, True

    def policy_state(self, cluster_id: str) -> Optional[PolicyState]:
        """Return what a pool's scheduling policy is; None for a cluster that is no pool."""
        with self._lock:
            pool = self._inventory.pools.by_cluster.get(cluster_id)
            return None if pool is None else pool.policy_state

    def listings(self) -> int:
        """Return how many complete listings there were since the broker's start."""
        with self._lock:
            return self._listings

    # What is to be given back, and what came of it

    def cluster_ids(self) -> frozenset[str]:
        """Return the clusters where something is to be given back, as far as is known."""
        with self._lock:
            return frozenset(self._ended)

    def walls(self) -> list[tuple[str, str]]:
        """Return (cluster id, group id) of the walls to remove."""
        with self._lock:
            return [
                (cluster_id, group_id)
                for cluster_id in self._ended
                for group_id in self._inventory.wall_ids(cluster_id)
            ]

    def hosts(self) -> list[str]:
        """Return the ids of the hosts to activate: those in maintenance for a reason of ours."""
        with self._lock:
            host_ids: list[str] = []
            for ended in self._ended.values():
                for host in self._inventory.hosts_of.get(ended.cluster_id, ()):
                    if is_quarantined(host) and host.id not in ended.outcomes:
                        host_ids.append(host.id)
            return host_ids

    def activated(self, host_id: str, refusal: str = "") -> None:
        """A host was activated, or the engine goes on refusing that."""
        with self._lock:
            host = self._inventory.hosts.get(host_id)
            ended = None if host is None else self._ended.get(host.cluster_id)
            if host is None or ended is None:
                return
            ended.outcomes[host_id] = refusal
            ended.listings = 0
            self._shared.changes.touch(walls=False, pools=())

    def wall_removed(self, cluster_id: str) -> None:
        """A wall is gone."""
        with self._lock:
            ended = self._ended.get(cluster_id)
            if ended is not None:
                ended.listings = 0

    def wall_refused(self, cluster_id: str, group_id: str, reason: str) -> None:
        """The engine refuses again and again to remove a wall."""
        with self._lock:
            ended = self._ended.get(cluster_id)
            name = cluster_id if ended is None else ended.name
            text = (
                f"The wall of cluster {name}, which is no trusted pool any more, could not be "
                f"removed: {reason} Its VMs start only on the hosts that it lists: remove affinity "
                f"group {group_id} by hand."
            )
            notice = Notice(f"wall_left {group_id}", "error", text, cluster_id=cluster_id)
            self._shared.reporter.tell(notice)

    def conclude(self) -> None:
        """Report the ended pools where everything was given back, and forget them."""
        with self._lock:
            walled = {cluster_id for cluster_id, _ in self.walls()}
            waiting = {self._inventory.hosts[host_id].cluster_id for host_id in self.hosts()}
            for ended in list(self._ended.values()):
                if ended.cluster_id in walled | waiting:
                    continue
                if ended.listings >= LISTINGS_TO_CONCLUDE:
                    del self._ended[ended.cluster_id]
                    self._shared.reporter.tell(self._ended_notice(ended))
                    self._shared.changes.touch(walls=False, pools=())

    # Listings: the caller holds the lock

    def observe_listing(self, listing: Listing) -> None:
        """Everything was listed. A pool that began again needs nothing back."""
        self._listings += 1
        for ended in list(self._ended.values()):
            # A wall that the engine failed to list may still stand.
            if ended.cluster_id not in listing.unreadable_walls:
                ended.listings += 1
            if ended.cluster_id in self._inventory.pools.by_cluster:
                del self._ended[ended.cluster_id]

    # The state file: the caller holds the lock

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {ended.cluster_id: _encode(ended) for ended in self._ended.values()}

    def restore(self, ended: Mapping[str, EndedPool]) -> None:
        """Take over what was saved, as `decode` read it."""
        self._ended = dict(ended)

    # Inside

    def _find(self, name: str) -> Optional[Pool]:
        """Return the pool of a cluster with this name or id. Raises Conflict: there are several."""
        try:
            pool_ids = self._inventory.pool_ids(name)
        except errors.NotFound:
            return None
        if len(pool_ids) > 1:
            what = f"several trusted pools are called {name}"
            raise errors.Conflict(f"{what}: name the cluster by its id")
        return self._inventory.pools.by_cluster[pool_ids[0]]

    def _cluster_name(self, name: str) -> str:
        """Return the name of a cluster that is no pool. Raises NotFound."""
        for ended in self._ended.values():
            if name in (ended.name, ended.cluster_id):
                return ended.name
        for cluster in self._inventory.listing.clusters:
            if name in (cluster.name, cluster.id):
                return cluster.name
        raise errors.NotFound("cluster", name)

    def _end(self, pool: Pool, who: str) -> None:
        self._inventory.pools.end(pool.cluster_id)
        at_ms = self._shared.clock.wall_ms()
        self._ended[pool.cluster_id] = EndedPool(pool.cluster_id, pool.name, who, at_ms)
        self._quarantine.end(pool.cluster_id)
        text = f"Pool {pool.name} is ended: {who} decided so. Wall and quarantine are given back."
        self._shared.reporter.note("pool_end", text)
        self._shared.changes.touch(pools=())

    def _ended_notice(self, ended: EndedPool) -> Notice:
        moment = datetime.datetime.fromtimestamp(ended.at_ms // 1000, datetime.timezone.utc)
        text = (
            f"Cluster {ended.name} is no trusted pool any more: {ended.who} ended it at "
            f"{moment:%Y-%m-%dT%H:%M:%SZ}. Its wall is gone, and its VMs may run on any host"
        )
        vms = [vm.name for vm in self._inventory.vms.of(ended.cluster_id)]
        text = f"{text}: {shortened(vms)}."
        text += self._outcomes(ended)
        key = f"pool_ended {ended.cluster_id}"
        return Notice(key, "warning", text, cluster_id=ended.cluster_id)

    def _outcomes(self, ended: EndedPool) -> str:
        """Return what became of the hosts in quarantine, as sentences after others."""
        returned: list[str] = []
        text = ""
        for host_id, refusal in ended.outcomes.items():
            name = self._inventory.host_name(host_id)
            host = self._inventory.hosts.get(host_id)
            # The answer of an activation may have been lost, and the next try refused.
            if refusal and host is not None and is_quarantined(host):
                text += f" Host {name} could not be activated ({refusal}): activate it by hand."
            else:
                returned.append(name)
        return f" Hosts back in service: {shortened(returned)}.{text}" if returned else text


def decode(encoded: Mapping[str, Any]) -> dict[str, EndedPool]:
    """Return what `encode` gave.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
    """
    return {str(cluster_id): _decode(cluster_id, item) for cluster_id, item in encoded.items()}


def _why_it_would_begin_again(pool: Pool) -> str:
    """Return why a pool cannot be ended yet and what to do, empty if it can."""
    way_out = "give the cluster another policy (Compute, Clusters, Edit, Scheduling Policy)"
    if pool.policy_state is PolicyState.TRUSTED:
        return (
            f"the scheduling policy {pool.policy} of cluster {pool.name} has the filter unit "
            f"{filter_unit.NAME}, so the pool would begin again: {way_out}, wait a minute until "
            "the broker has seen that, then end the pool"
        )
    if pool.policy_state is PolicyState.UPGRADE:
        return (
            f"cluster {pool.name} is being upgraded (scheduling policy {pool.policy}) and gets its "
            f"own policy back afterwards, so the pool would begin again: wait until the upgrade "
            f"has ended, {way_out}, then end the pool"
        )
    return ""


def _encode(ended: EndedPool) -> dict[str, Any]:
    return {
        "name": ended.name,
        "who": ended.who,
        "at_ms": ended.at_ms,
        "outcomes": dict(ended.outcomes),
    }


def _decode(cluster_id: str, members: Mapping[str, Any]) -> EndedPool:
    outcomes = {str(host_id): str(outcome) for host_id, outcome in members["outcomes"].items()}
    name = str(members["name"])
    return EndedPool(cluster_id, name, str(members["who"]), int(members["at_ms"]), outcomes)
