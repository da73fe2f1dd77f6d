# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The walls as last read or edited, the plans for them, and what is reported of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Optional

from ovirt_tcp_plugin.broker.state import foreign_edits, wall_plan
from ovirt_tcp_plugin.broker.state.foreign_edits import WallNews
from ovirt_tcp_plugin.broker.state.settled_walls import PlanInputs, SettledWalls
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.broker.state.turns import in_turns
from ovirt_tcp_plugin.broker.state.verdicts import CachedVerdict
from ovirt_tcp_plugin.broker.state.wall_plan import Edit, WallPlan
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Group, Listing, Notice
from ovirt_tcp_plugin.placement.pools import Pool


class Walls:
    """Thread-safe, under the lock of the broker's state.

    Args:
        servers_answer: whether any attestation server answered when one was last asked.
    """

    def __init__(self, shared: SharedState, servers_answer: Callable[[], bool]) -> None:
        self._lock = shared.lock
        self._shared = shared
        self._inventory = shared.inventory
        self._servers_answer = servers_answer
        self._news = WallNews()
        self._settled = SettledWalls()
        self._edits = 0
        # Ids of the VMs that belong behind each pool's wall, worked out once for each listing.
        self._members: dict[str, frozenset[str]] = {}
        # Ids of the clusters whose hosts nearly all are silent, as reported.
        self._silent_pools: set[str] = set()

    # Plans

    def due_plans(self, cluster_ids: Optional[Collection[str]] = None) -> list[WallPlan]:
        """Return the plans for walls, but for those that are as they have to be.

        Each is made as the pool is when it is its turn.

        Args:
            cluster_ids: of the pools to look at; None for all.
        """
        with self._lock:
            pool_ids = self._inventory.pools.by_cluster
            self._settled.keep(pool_ids)
            chosen = list(pool_ids if cluster_ids is None else cluster_ids)
        return in_turns(self._lock, chosen, self._plan_if_due)

    def plans_before_listing(self) -> list[WallPlan]:
        """Return plans that only put hosts out of walls that are known not to be trusted.

        For a broker that has not listed the VMs yet: whose marks decide who is to be behind a wall,
        and not who is out of it.
        """
        with self._lock:
            plans: list[WallPlan] = []
            for pool in self._inventory.pools.by_cluster.values():
                group = self._inventory.walls.get(pool.cluster_id)
                if group is None:
                    continue
                staying = frozenset(filter(self._may_stay, group.host_ids))
                steps = wall_plan.host_steps(group, staying)
                if steps:
                    plans.append(WallPlan(pool, group, steps))
            return plans

    def take_over(self) -> None:
        """This broker is in charge from now on: what was edited before is nobody's edit."""
        with self._lock:
            self._news = WallNews()
            self._shared.changes.request_plans()

    # Edits of ours

    def edits(self) -> int:
        """Return how many edits of walls were made so far."""
        with self._lock:
            return self._edits

    def edited(self, cluster_id: str, group: Group) -> Optional[Group]:
        """A wall is now like this; return what was known of it before."""
        with self._lock:
            self._edits += 1
            known = self._inventory.walls.get(cluster_id)
            self._inventory.walls[cluster_id] = group
            return known

    def gone(self, cluster_id: str, group_id: str) -> None:
        """The engine does not list a wall any more; a new one is due."""
        with self._lock:
            known = self._inventory.walls.get(cluster_id)
            if known is not None and known.id == group_id:
                self._edits += 1
                del self._inventory.walls[cluster_id]
                self._news.edited(cluster_id, "it was removed")
                self._shared.changes.request_plans()

    def surplus_left(self, cluster_id: str, group_id: str) -> None:
        """A wall was replaced, and goes when the new one is as it has to be."""
        with self._lock:
            self._edits += 1
            surplus = self._inventory.surplus_of(cluster_id)
            self._inventory.surplus_walls[cluster_id] = surplus | {group_id}

    def surplus_removed(self, cluster_id: str, group_id: str) -> None:
        """Such a wall is gone."""
        with self._lock:
            self._edits += 1
            surplus = self._inventory.surplus_of(cluster_id)
            self._inventory.surplus_walls[cluster_id] = surplus - {group_id}

    def removed(self, cluster_id: str, group_id: str) -> None:
        """A wall is gone, and no new one is due: its pool was ended."""
        with self._lock:
            self._edits += 1
            known = self._inventory.walls.get(cluster_id)
            if known is not None and known.id == group_id:
                del self._inventory.walls[cluster_id]
            surplus = self._inventory.surplus_of(cluster_id)
            self._inventory.surplus_walls[cluster_id] = surplus - {group_id}

    # What is reported

    def refused_at_first(self, cluster_id: str, reason: str) -> None:
        """The engine refused the simplest edit of a wall; others are tried."""
        with self._lock:
            self._news.refused_at_first(cluster_id, reason)

    def refused(self, cluster_id: str, edit: Edit, reason: str) -> None:
        """The engine refuses an edit of a wall again and again."""
        with self._lock:
            pool = self._inventory.pools.by_cluster.get(cluster_id)
            if pool is not None:
                self._tell(self._news.refused(pool, edit, reason))

    def in_order(self, cluster_ids: Iterable[str]) -> None:
        """The walls of these clusters are as they have to be."""
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            for cluster_id in self._news.waiting().intersection(cluster_ids):
                pool = self._inventory.pools.by_cluster.get(cluster_id)
                # A listing may have shown an edit after the plan was made.
                if pool is not None and not self._plan(pool, now_ms).steps:
                    self._tell(self._news.in_order(pool))

    # Listings: the caller holds the lock

    def observe(self, listing: Listing, edits: int, changed: Collection[str]) -> None:
        """Take the walls of a complete listing into account.

        Args:
            edits: `edits` of when the reading began. If walls were edited meanwhile, what was read
                of them may be older than what is known; the next listing will tell.
            changed: ids of the clusters whose walls are listed otherwise than they were known then.
        """
        self._members.clear()
        if edits == self._edits:
            self._note_foreign_edits(listing, changed)
            self._inventory.see_walls(listing)

    def forget_members(self, cluster_id: str) -> None:
        """A VM of a cluster is new, gone or changed: who belongs behind its wall is to be seen."""
        self._members.pop(cluster_id, None)

    def _note_foreign_edits(self, listing: Listing, changed: Collection[str]) -> None:
        now_ms = self._shared.clock.now_ms()

        def is_trusted(host_id: str) -> bool:
            return self._shared.holds(host_id, now_ms)

        for pool in self._inventory.pools.by_cluster.values():
            cluster_id = pool.cluster_id
            if cluster_id not in changed or cluster_id in listing.unreadable_walls:
                continue
            known = self._inventory.walls.get(cluster_id)
            if known is None:
                continue
            listed = listing.walls.get(cluster_id)
            hosts = self._inventory.hosts_of.get(cluster_id, ())
            vms = self._inventory.vms_needing_trust(pool)
            done = foreign_edits.foreign(known, listed, hosts, is_trusted, vms)
            if done:
                self._news.edited(cluster_id, done)

    def _plan_if_due(self, cluster_id: str) -> Optional[WallPlan]:
        """Return the plan for a pool's wall, None for one that is as it has to be, or gone."""
        pool = self._inventory.pools.by_cluster.get(cluster_id)
        if pool is None:
            return None
        now_ms = self._shared.clock.now_ms()
        inputs = self._inputs(pool)
        if not self._news.has_any(cluster_id) and self._settled.is_settled(inputs, now_ms):
            return None
        plan = self._plan(pool, now_ms)
        self._settled.planned(inputs, bool(plan.steps), now_ms)
        return plan

    def _inputs(self, pool: Pool) -> PlanInputs:
        cluster_id = pool.cluster_id
        hosts = self._inventory.hosts_of.get(cluster_id, ())
        return PlanInputs(
            pool,
            self._inventory.walls.get(cluster_id),
            self._inventory.surplus_of(cluster_id),
            self._members_of(pool),
            hosts,
            [self._shared.verdicts.verdict(host.id) for host in hosts],
            self._inventory.shared_names,
        )

    def _plan(self, pool: Pool, now_ms: int) -> WallPlan:
        group = self._inventory.walls.get(pool.cluster_id)
        if group is None and self._has_to_wait(pool.cluster_id):
            return WallPlan(pool, group, ())
        inside = group.host_ids if group else frozenset[str]()
        up_hosts = self._up_hosts(pool)
        hosts = wall_plan.hosts_inside(up_hosts, inside, self._servers_answer(), now_ms)
        self._watch_silence(pool, hosts.unheard, now_ms)
        vms = self._members_of(pool)
        surplus = self._inventory.surplus_of(pool.cluster_id)
        steps = wall_plan.plan(
            group, hosts.host_ids, vms, self._inventory.vms.by_id.keys(), surplus
        )
        return WallPlan(pool, group, steps)

    def _has_to_wait(self, cluster_id: str) -> bool:
        """Return whether a wall that is not there is not to be made yet.

        It is made once, with all hosts that are trusted then: the engine would move VMs onto the
        first few. And not where the cluster itself may be gone.
        """
        is_missed = self._inventory.pools.is_missed(cluster_id)
        return is_missed or self._shared.is_starting(cluster_id)

    def _up_hosts(self, pool: Pool) -> dict[str, CachedVerdict]:
        """Return what is known of a pool's hosts that are Up.

        One that shares its name is left out: what is known may be of the other host.
        """
        up_hosts: dict[str, CachedVerdict] = {}
        for host in self._inventory.hosts_of.get(pool.cluster_id, ()):
            entry = self._shared.verdicts.entry(host.id)
            is_usable = host.up and host.id not in self._inventory.shared_names
            if is_usable and entry is not None:
                up_hosts[host.id] = entry
        return up_hosts

    def _may_stay(self, host_id: str) -> bool:
        """Return whether nothing that is known of a host has it leave its wall."""
        if host_id in self._inventory.shared_names:
            return False
        entry = self._shared.verdicts.entry(host_id)
        return entry is None or (entry.up and entry.verdict.level is not Level.UNTRUSTED)

    def _watch_silence(self, pool: Pool, unheard: Collection[str], now_ms: int) -> None:
        """Report once that hosts stay inside because nearly no host of their pool answers."""
        cluster_id = pool.cluster_id
        if not unheard:
            self._silent_pools.discard(cluster_id)
            return
        if cluster_id in self._silent_pools:
            return
        self._silent_pools.add(cluster_id)
        text = (
            f"Hardly any host of cluster {pool.name} gives evidence, though an attestation server "
            "answers. The hosts stay inside the wall, so that no VM is moved, but get no VMs past "
            "the end of their verdicts. See that the attestation server knows the hosts and that "
            "they reach it: ovirt-tcp verdicts."
        )
        key = f"hosts_silent {cluster_id} {now_ms}"
        self._tell(Notice(key, "warning", text, cluster_id=cluster_id))

    def _members_of(self, pool: Pool) -> frozenset[str]:
        """Return the ids of the VMs that belong behind a pool's wall."""
        members = self._members.get(pool.cluster_id)
        if members is None:
            members = frozenset(vm.id for vm in self._inventory.vms_needing_trust(pool))
            self._members[pool.cluster_id] = members
        return members

    def _tell(self, notice: Optional[Notice]) -> None:
        if notice is not None:
            self._shared.reporter.tell(notice)
