# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""All that the broker knows, under one lock, and what follows from it. No I/O: threads bring news and take plans."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state import exemptions, foreign_edits, readout, verdicts, wall_plan
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.broker.state.evacuation import QuarantineController
from ovirt_tcp_plugin.broker.state.guard import GuardRule
from ovirt_tcp_plugin.broker.state.outbox import Outbox
from ovirt_tcp_plugin.broker.state.readout import Explanation, HostState, PoolState, explanation
from ovirt_tcp_plugin.broker.state.site import Sight
from ovirt_tcp_plugin.broker.state.verdicts import Outcome
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Verdict
from ovirt_tcp_plugin.placement.inventory import UP, Group, Host, Listing, Notice, shortened
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.placement.snapshot import Snapshot

# The wall clock may run ahead of CLOCK_BOOTTIME by so much between two looks; more means that this machine was paused.
MAX_PAUSE_MS = 60_000

# Of several questions under way some may be answered and some not; that is one event, not one each time it turns.
SILENCE_TOLD_EVERY_MS = 60_000


@dataclasses.dataclass(frozen=True)
class WallPlan:
    """What to do to one pool's wall."""

    pool: Pool
    group: Optional[Group]
    steps: Sequence[wall_plan.Step]


@dataclasses.dataclass
class Progress:
    """How far the startup attestation is."""

    stage: int = 0
    asked: int = 0
    total: int = 0
    done: bool = False


class BrokerState:
    """The one state. Every public method takes the lock; none waits for anybody.

    Args:
        draw: gives a random number in [0, 1), to spread questions.
    """

    def __init__(self, options: Settings, clock: Clock, draw: Callable[[], float]) -> None:
        lifetimes = verdicts.Lifetimes(
            int(options.verdicts.lifetime_s * 1000),
            options.verdicts.refresh,
            options.verdicts.jitter,
            int(options.verdicts.untrusted_refresh_s * 1000),
        )
        self._options = options
        self._clock = clock
        self._draw = draw
        self._table = verdicts.VerdictCache(lifetimes)
        self._seen = Sight(options.pools.exempt_vms)
        self._evacuation = self._nobody_leaves()
        self._drift_ms: Optional[int] = None
        # Keys of notices of a state that lasts, so that it is said once.
        self._standing: frozenset[str] = frozenset()
        self._exemptions_used: frozenset[str] = frozenset()
        # Hosts of the startup attestation: still to be asked, in their order; and without an answer yet.
        self._staged: set[str] = set()
        self._stages: collections.deque[str] = collections.deque()
        self._starting: set[str] = set()
        self._members: dict[str, frozenset[str]] = {}
        self.servers_answer = True
        self.wall_edits = 0
        # Walls of clusters that are no pools any more: cluster ids by those of the affinity groups.
        self._ended_walls: dict[str, str] = {}
        self._wall_news = foreign_edits.WallNews()
        self._silence_told_ms = -SILENCE_TOLD_EVERY_MS
        self.progress = Progress()
        self.lock = threading.RLock()
        self.outbox = Outbox()
        # Walls may have to show something new; and somebody lost trust, so that a plan which lets others in can wait.
        self.changed, self.worse = threading.Event(), threading.Event()
        self.revision = 0
        # Pools whose snapshot is old, and those among them that call somebody trusted who is not.
        self._old: set[str] = set()
        self._too_trusting: set[str] = set()

    # News

    def observe_hosts(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take the engine's list of hosts into account; return the pool hosts that came Up or moved."""
        with self.lock:
            now_ms = self._clock.now_ms()
            places = self._seen.places()
            # An empty list is no evidence that all are gone, with what is known of them; but nobody counts as Up by it.
            hosts = hosts or [dataclasses.replace(host, status="") for host in self._seen.hosts.values()]
            self._seen.see_hosts(hosts, self._options.pools.host_names)
            self._table.look_again()
            seen = self._table.observe({host.id: host.up for host in hosts}, now_ms)
            came_up = (*seen.came_up, *self._moved(places))
            self._evacuation.observe(seen.came_up)
            # One of ours may have attested well a moment before it was seen to be away, which counts
            # for nothing: it would wait for its next turn in maintenance.
            ours = self._evacuation.quarantine.quarantined.keys() & seen.left_up
            self._table.ask_soon(ours, self._clock.now_ms())
            self._watch_exemptions()
            if seen.came_up or seen.left_up or seen.removed:
                of = None if seen.removed else self._seen.pools_of([*seen.came_up, *seen.left_up])
                self._touch(worse=bool(seen.left_up or seen.removed), pools=of)
                self._starting.intersection_update(self._seen.hosts)
                self._note_hosts(seen)
            return tuple(host_id for host_id in came_up if self._seen.pool_of(host_id) is not None)

    def observe_hosts_not_up(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Take the engine's list of hosts that are not Up into account: every other known one is. Returns as before."""
        with self.lock:
            others = {host.id: host for host in hosts}
            up = [host for host in self._seen.hosts.values() if host.id not in others]
            up = [host if host.up else dataclasses.replace(host, status=UP, status_detail="") for host in up]
            return self.observe_hosts([*up, *hosts])

    def observe_frame(self, listing: Listing) -> None:
        """Take note of the pools and their walls in a first listing, which has no VMs yet and ends nothing."""
        with self.lock:
            self._seen.pools.update(dataclasses.replace(listing, walls={}))
            self._see_walls(listing)

    def observe_listing(self, listing: Listing, edits: int) -> tuple[Pool, ...]:
        """Take a complete listing into account; return the pools that ended.

        Args:
            edits: `wall_edits` of when the reading began. If walls were edited meanwhile, what was read of them
                may be older than what is known; the next listing will tell.
        """
        with self.lock:
            self._seen.see_listing(listing)
            self._evacuation.observe_vms()
            self._members.clear()
            self._table.look_again()
            if edits == self.wall_edits:
                self._note_foreign_edits(listing)
                self._see_walls(listing)
            change = self._seen.pools.update(listing)
            for notice in change.notices:
                if notice.key not in self._standing:
                    self._tell(notice)
            self._standing = frozenset(notice.key for notice in change.notices)
            for pool in change.ended:
                for group_id in listing.wall_ids(pool.cluster_id):
                    self._ended_walls[group_id] = pool.cluster_id
            self._touch()
            return change.ended

    def ended_walls(self) -> list[tuple[str, str]]:
        """Return (cluster id, group id) of the walls to remove: their clusters are no pools now."""
        with self.lock:
            for group_id, cluster_id in list(self._ended_walls.items()):
                if cluster_id in self._seen.pools.by_cluster:
                    # A pool again by now, with this very wall.
                    del self._ended_walls[group_id]
            return [(cluster_id, group_id) for group_id, cluster_id in self._ended_walls.items()]

    def ended_wall_removed(self, group_id: str) -> None:
        """The wall of a cluster that is no pool any more is gone."""
        with self.lock:
            self._ended_walls.pop(group_id, None)

    def ended_wall_refused(self, cluster_id: str, group_id: str, reason: str) -> None:
        """The engine refuses again and again to remove such a wall."""
        text = (
            f"The wall of cluster {cluster_id}, which is no trusted pool any more, could "
            f"not be removed: {reason} Its VMs start only on the hosts that it lists: remove "
            f"affinity group {group_id} by hand."
        )
        self.tell(Notice(f"wall_left {group_id}", "error", text, cluster_id=cluster_id))

    def is_exempt(self, vm_id: str) -> bool:
        """Return whether a VM may run anywhere."""
        with self.lock:
            return vm_id in self._seen.exempt

    def host_restarted(self, host_id: str) -> None:
        """An event told that the host left Up, whatever the listings show."""
        with self.lock:
            self._table.restarted(host_id, self._clock.now_ms())
            self._touch(worse=True, pools=self._seen.pools_of([host_id]))

    def void(self, code: str, reason: str) -> None:
        """Void every verdict that was born before now."""
        with self.lock:
            now_ms = self._clock.now_ms()
            self._table.void(now_ms, now_ms, code, reason)
            self._note("voided", f"All verdicts are void: {reason}.")
            self._touch(worse=True)

    def watch_clock(self) -> bool:
        """Void all verdicts if this machine was paused; return whether it was."""
        with self.lock:
            drift_ms = self._clock.wall_ms() - self._clock.now_ms()
            ahead_ms = 0 if self._drift_ms is None else drift_ms - self._drift_ms
            self._drift_ms = drift_ms
        if ahead_ms <= MAX_PAUSE_MS:
            return False
        self.void("clock_jump", f"the wall clock went {ahead_ms // 1000} s ahead: this machine was paused, or the clock set")
        return True

    # Questions to the attestation server

    def stage(self, size: int) -> Optional[list[str]]:
        """Return up to `size` hosts of the startup attestation, to be asked now; None when there are no more."""
        with self.lock:
            ready: list[str] = []
            while self._stages and len(ready) < size:
                host_id = self._stages.popleft()
                self._staged.discard(host_id)
                if self._is_asked(host_id):
                    ready.append(host_id)
                else:
                    self._starting.discard(host_id)
            if not ready:
                self.progress.done = True
                self._table.look_again()
                return None
            chosen = self._table.begin(ready)
            self.progress.stage += 1
            self.progress.asked += len(ready)
            names = self._seen.host_names(ready)
            self._note("stage", f"Stage {self.progress.stage} of the startup attestation asks: {shortened(names)}.")
            return chosen

    def begin_stages(self) -> int:
        """Mean to attest every Up host of every pool, stage by stage and pool by pool; return their number."""
        with self.lock:
            now_ms = self._clock.now_ms()
            order = {pool.cluster_id: pool.name for pool in self._seen.pools.by_cluster.values()}
            hosts = [host for host in self._seen.hosts.values() if host.up and self._is_asked(host.id)]
            hosts.sort(key=lambda host: (order[host.cluster_id], host.name))
            self._stages = collections.deque(host.id for host in hosts)
            self._staged = set(self._stages)
            self._starting = {host_id for host_id in self._staged if not self._table.holds(host_id, now_ms)}
            self.progress = Progress(total=len(self._staged))
            return len(self._staged)

    def due(self, most: int, failing: bool = True) -> list[str]:
        """Return up to `most` hosts to ask now; they are being asked from now on.

        Hosts that answer and hosts that did not come in different questions: a silent one delays its whole question.

        Args:
            failing: give those that did not, if no other is due.
        """

        def judged(host_id: str) -> bool:
            return host_id not in self._staged and self._is_asked(host_id)

        with self.lock:
            now_ms, size = self._clock.now_ms(), self._options.verifier.batch_size
            chosen = self._table.due(judged, now_ms, False, most, size)
            if failing and not chosen:
                chosen = self._table.due(judged, now_ms, True, most, size)
            return self._table.begin(chosen)

    def has_pools(self) -> bool:
        """Return whether there is any trusted pool."""
        with self.lock:
            return bool(self._seen.pools.by_cluster)

    def is_pool(self, cluster_id: str) -> bool:
        """Return whether a cluster is a trusted pool."""
        with self.lock:
            return cluster_id in self._seen.pools.by_cluster

    def holds(self, host_id: str) -> bool:
        """Return whether a host is trusted now."""
        with self.lock:
            return host_id not in self._seen.shared_names and self._table.holds(host_id, self._clock.now_ms())

    def wanted(self, host_id: str) -> None:
        """Ask this host as soon as possible."""
        with self.lock:
            self._table.ask_soon([host_id], self._clock.now_ms())

    def name(self, host_id: str) -> Optional[str]:
        """Return the host's name at the attestation server."""
        with self.lock:
            return self._seen.names.get(host_id)

    def record(self, answers: Mapping[str, Answer]) -> None:
        """Take answers by host id into account."""
        with self.lock:
            again, self.servers_answer = not self.servers_answer, True
            if again:
                # Whoever was due meanwhile waits no longer, and walls stood still.
                self._table.ask_soon(self._table.missed("no_server"), self._clock.now_ms())
                self._touch()
            for host_id, answer in answers.items():
                held = self._table.holds(host_id, self._clock.now_ms())
                self._record(host_id, answer)
                holds = self._table.holds(host_id, self._clock.now_ms())
                started = host_id in self._starting
                self._starting.discard(host_id)
                self._touch(started or holds is not held, held and not holds, self._seen.pools_of([host_id]))

    def not_asked(self, host_ids: Iterable[str]) -> None:
        """These hosts could not be asked about: they have no name any more."""
        with self.lock:
            for host_id in host_ids:
                self._starting.discard(host_id)
                self._table.failed(host_id, self._clock.now_ms(), self._draw(), "no_name", "the host has no name to ask for")

    def nobody_answered(self, host_ids: Iterable[str], reason: str) -> None:
        """No attestation server answered for these hosts: nothing is learnt about them."""
        with self.lock:
            told_ms = self._clock.now_ms() - self._silence_told_ms
            if self.servers_answer and told_ms >= SILENCE_TOLD_EVERY_MS:
                self._silence_told_ms = self._clock.now_ms()
                text = f"No attestation server answers: {reason}. Verdicts hold until their end; no host is taken out."
                self._tell(Notice(f"servers_silent {self._clock.now_ms()}", "warning", text))
            walls, self.servers_answer = self.servers_answer, False
            now_ms, why = self._clock.now_ms(), "no attestation server answers"
            for host_id in host_ids:
                walls = walls or host_id in self._starting
                self._starting.discard(host_id)
                self._table.failed(host_id, now_ms, self._draw(), "no_server", why)
            self._touch(walls, pools=None if walls else self._seen.pools_of(host_ids))

    def tell(self, notice: Notice) -> None:
        """Have this written into the history, and perhaps the engine's events."""
        with self.lock:
            self._tell(notice)

    def pools_and_exempt(self) -> tuple[Mapping[str, Pool], frozenset[str]]:
        """Return the trusted pools by cluster id, and the ids of VMs that may run anywhere."""
        with self.lock:
            return dict(self._seen.pools.by_cluster), self._seen.exempt

    def listing(self) -> Listing:
        """Return the last complete listing."""
        with self.lock:
            return self._seen.listing

    # Plans

    def plans(self) -> list[WallPlan]:
        """Return the plan for each pool's wall."""
        with self.lock:
            return [self._plan(pool) for pool in self._seen.pools.by_cluster.values()]

    def walled(self, cluster_id: str, group: Group) -> Optional[Group]:
        """A wall is now like this; return what was known of it before."""
        with self.lock:
            self.wall_edits += 1
            known = self._seen.walls.get(cluster_id)
            self._seen.walls[cluster_id] = group
            return known

    def wall_gone(self, cluster_id: str, group_id: str) -> None:
        """The engine does not list a wall any more; a new one is due."""
        with self.lock:
            known = self._seen.walls.get(cluster_id)
            if known is not None and known.id == group_id:
                self.wall_edits += 1
                del self._seen.walls[cluster_id]
                self._wall_news.edited(cluster_id, "it was removed")
                self.changed.set()

    def surplus_left(self, cluster_id: str, group_id: str) -> None:
        """A wall was replaced, and goes when the new one is as it has to be."""
        with self.lock:
            self.wall_edits += 1
            self._seen.surplus_walls[cluster_id] = self._surplus(cluster_id) | {group_id}

    def surplus_removed(self, cluster_id: str, group_id: str) -> None:
        """Such a wall is gone."""
        with self.lock:
            self.wall_edits += 1
            self._seen.surplus_walls[cluster_id] = self._surplus(cluster_id) - {group_id}

    def wall_refused_at_first(self, cluster_id: str, reason: str) -> None:
        """The engine refused the simplest edit of a wall; others are tried."""
        with self.lock:
            self._wall_news.refused_at_first(cluster_id, reason)

    def wall_refused(self, cluster_id: str, edit: wall_plan.Edit, reason: str) -> None:
        """The engine refuses an edit of a wall again and again."""
        with self.lock:
            pool = self._seen.pools.by_cluster.get(cluster_id)
            notice = None if pool is None else self._wall_news.refused(pool, edit, reason)
            if notice is not None:
                self._tell(notice)

    def walls_in_order(self, cluster_ids: Iterable[str]) -> None:
        """The walls of these clusters are as they have to be."""
        with self.lock:
            for cluster_id in self._wall_news.waiting().intersection(cluster_ids):
                pool = self._seen.pools.by_cluster.get(cluster_id)
                # A listing may have shown an edit after the plan was made.
                if pool is None or self._plan(pool).steps:
                    continue
                notice = self._wall_news.in_order(pool)
                if notice is not None:
                    self._tell(notice)

    def to_deactivate(self, blocked: Collection[str] = ()) -> list[tuple[str, str]]:
        """Return (host id, reason) of the hosts to take out of service now.

        Args:
            blocked: clusters whose walls may still let somebody in who is not trusted.
        """
        with self.lock:
            return self._evacuation.to_deactivate(
                lambda uid: uid in blocked or self._waits_for_wall(uid)
            )

    def deactivated(self, host_id: str, refusal: str = "") -> None:
        """Maintenance was accepted, or refused."""
        with self.lock:
            self._evacuation.deactivated(host_id, refusal)

    def to_activate(self) -> list[str]:
        """Return the hosts of ours that may return now."""
        with self.lock:
            return self._evacuation.quarantine.to_activate(self._seen.hosts, self._clock.now_ms())

    def not_deactivated(self, host_id: str) -> None:
        """The engine does not know the host any more."""
        with self.lock:
            self._evacuation.quarantine.refused(host_id, self._clock.now_ms())

    def activated(self, host_id: str, refusal: str = "") -> None:
        """A host of ours was activated, or the engine refused that for now."""
        with self.lock:
            self._evacuation.activated(host_id, refusal)

    def snapshots(self, of: Optional[Collection[str]] = None) -> list[Snapshot]:
        """Return the snapshots of these pools, None for all."""
        with self.lock:
            pools = self._seen.pools.by_cluster.values()
            return [self._snapshot(pool) for pool in pools if of is None or pool.cluster_id in of]

    def old_snapshots(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the pools whose snapshot is old, and those of them whose snapshot calls somebody trusted who is not."""
        with self.lock:
            return frozenset(self._old), frozenset(self._too_trusting)

    def written(self, pools: Iterable[str]) -> None:
        """The snapshots of these pools are about to be written."""
        with self.lock:
            self._old.difference_update(pools)
            self._too_trusting.difference_update(pools)

    def not_written(self, pool_id: str) -> None:
        """A snapshot could not be written after all."""
        with self.lock:
            self._old.add(pool_id)

    # Questions of people

    def case(self, vm: str, host: str) -> Explanation:
        """Return all that is known of a VM and a host, each by name or id. Raises NotFound: no such host."""
        with self.lock:
            now_ms = self._clock.now_ms()
            leaving = self._evacuation
            return explanation(self._seen, self._table, leaving.quarantine, leaving.guards, vm, host, now_ms)

    def host_id(self, host: str) -> str:
        """Return the id of a pool's host by its name or id. Raises NotFound."""
        with self.lock:
            found = self._seen.find_host(host)
            if found is None or self._seen.pool_of(found.id) is None:
                raise errors.NotFound("host of a trusted pool", host)
            return found.id

    def host_states(self) -> list[HostState]:
        """Return every pool host as it is now, by name."""
        with self.lock:
            now_ms = self._clock.now_ms()
            own = [host for host in self._seen.hosts.values() if host.cluster_id in self._seen.pools.by_cluster]
            own.sort(key=lambda host: host.name)
            return [readout.host_state(self._seen, self._table, self._evacuation.quarantine, host, now_ms) for host in own]

    def pool_states(self) -> list[PoolState]:
        """Return every pool as it is now."""
        with self.lock:
            pools = self._seen.pools.by_cluster.values()
            return [readout.pool_state(self._seen, self._evacuation.guards, pool) for pool in pools]

    def guard(self, release: bool, who: str = "an administrator", pool: str = "") -> list[str]:
        """Release the held hosts into quarantine, or leave them in service but out of placement; return their names.

        Args:
            who: who decided, for the history.
            pool: name or id of the only pool that is meant; empty for all.

        Raises:
            NotFound: there is no such pool.
        """
        with self.lock:
            held = self._evacuation.decide(release, who, pool)
            self._touch()
            return held

    # Memory

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        with self.lock:
            return {
                "boot_id": self._clock.boot_id,
                "drift_ms": self._clock.wall_ms() - self._clock.now_ms(),
                "verdicts": self._table.encode(),
                "exemptions_used": sorted(self._exemptions_used),
                **self._evacuation.encode(),
            }

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        with self.lock:
            # Read as a whole before anything is taken over.
            exemptions_used = frozenset(str(one) for one in encoded.get("exemptions_used", ()))
            same_boot, drift_ms = encoded["boot_id"] == self._clock.boot_id, int(encoded["drift_ms"])
            evacuation = self._nobody_leaves()
            evacuation.restore(encoded, same_boot)
            self._table.restore(encoded["verdicts"], same_boot, self._clock.now_ms())
            self._evacuation, self._exemptions_used = evacuation, exemptions_used
            self._drift_ms = drift_ms if same_boot else None
        # CLOCK_BOOTTIME stood still while this machine was paused, and with it the ages of what was saved.
        self.watch_clock()

    # Inside

    def _nobody_leaves(self) -> QuarantineController:
        guard = self._options.guard
        rule = GuardRule(guard.hosts, guard.share, int(guard.window_s * 1000))
        return QuarantineController(rule, self._seen, self._table, self._clock, self._tell)

    def _record(self, host_id: str, answer: Answer) -> None:
        before = self._table.verdict(host_id)
        outcome = self._table.record(host_id, answer, self._clock.now_ms(), self._draw())
        if outcome is Outcome.TRUSTED:
            self._trusted(host_id, before)
        elif outcome is Outcome.UNTRUSTED:
            self._untrusted(host_id, before)
        elif outcome is Outcome.WELL_WHILE_AWAY:
            self._evacuation.quarantine.well(host_id, self._clock.now_ms())

    def _trusted(self, host_id: str, before: Optional[Verdict]) -> None:
        self._evacuation.trusted(host_id)
        if before is None or before.level is not Level.TRUSTED:
            self._note("trusted", f"Host {self._seen.host_name(host_id)} is trusted.", host_id)

    def _untrusted(self, host_id: str, before: Optional[Verdict]) -> None:
        verdict, pool, host = self._table.verdict(host_id), self._seen.pool_of(host_id), self._seen.hosts.get(host_id)
        if verdict is None or pool is None or host is None:
            return
        news = before is None or before.level is not Level.UNTRUSTED or before.reason != verdict.reason
        if news:
            text = f"Host {host.name} is untrusted ({verdict.code}): {verdict.reason}. It gets no VMs."
            key = f"untrusted {host_id} {verdict.born_ms}"
            self._tell(Notice(key, "error", text, host_id=host_id, cluster_id=pool.cluster_id))
        self._evacuation.untrusted(host, pool, verdict)

    def _watch_exemptions(self) -> None:
        """Tell of each exempt VM that runs on a host which is not trusted, once for as long as it does."""
        if not self._seen.listing.clusters:
            return  # VMs are not listed yet: what was told before a restart still stands
        scopes = {pool.cluster_id: pool.scope for pool in self._seen.pools.by_cluster.values()}
        vms = [self._seen.vms[vm_id] for vm_id in self._seen.exempt if vm_id in self._seen.vms]
        hosts = [self._seen.hosts[vm.host_id] for vm in vms if self._refused(vm.host_id) and vm.host_id in self._seen.hosts]
        used = exemptions.uses(vms, scopes, {host.id: (host, self._shown(host.id)) for host in hosts})
        for key, notice in used.items():
            if key not in self._exemptions_used:
                self._tell(notice)
        self._exemptions_used = frozenset(used)

    def _refused(self, host_id: str) -> bool:
        """Return whether a host has been asked about since it last came Up, and is not trusted."""
        entry = self._table.entry(host_id)
        asked = entry is not None and (entry.failures > 0 or entry.verdict.level in (Level.UNTRUSTED, Level.TRUSTED))
        return asked and not self._table.holds(host_id, self._clock.now_ms())

    def _see_walls(self, listing: Listing) -> None:
        self._seen.walls = dict(listing.walls)
        self._seen.surplus_walls = dict(listing.surplus_walls)

    def _surplus(self, cluster_id: str) -> frozenset[str]:
        return self._seen.surplus_walls.get(cluster_id, frozenset())

    def _note_foreign_edits(self, listing: Listing) -> None:
        for pool in self._seen.pools.by_cluster.values():
            known, uid = self._seen.walls.get(pool.cluster_id), pool.cluster_id
            if known is None or known == listing.walls.get(uid):
                continue
            hosts = self._seen.hosts_of.get(uid, ())
            needing_trust = self._seen.vms_needing_trust(pool)
            done = foreign_edits.foreign(known, listing.walls.get(uid), hosts, self.holds, needing_trust)
            if done:
                self._wall_news.edited(uid, done)

    def _moved(self, before: Mapping[str, tuple[str, Optional[str]]]) -> list[str]:
        """Have hosts in another cluster or of another name attest anew; return those. A verdict is of one place and name."""
        moved = [host_id for host_id, place in self._seen.places().items() if before.get(host_id, place) != place]
        for host_id in moved:
            self._table.restarted(host_id, self._clock.now_ms())
            self._touch(worse=True)
        return [host_id for host_id in moved if self._seen.hosts[host_id].up]

    def _plan(self, pool: Pool) -> WallPlan:
        group = self._seen.walls.get(pool.cluster_id)
        up = {one.id: self._table.verdict(one.id) for one in self._seen.hosts_of.get(pool.cluster_id, ()) if one.up}
        if group is None and self._is_starting(pool.cluster_id):
            # It is made once, with all hosts that are trusted then: the engine would move VMs onto the first few.
            return WallPlan(pool, group, ())
        inside = group.host_ids if group else frozenset()
        hosts = wall_plan.hosts_inside(up, inside, self.servers_answer, self._clock.now_ms())
        if pool.cluster_id not in self._members:
            self._members[pool.cluster_id] = frozenset(vm.id for vm in self._seen.vms_needing_trust(pool))
        members = self._members[pool.cluster_id]
        surplus = self._surplus(pool.cluster_id)
        steps = wall_plan.plan(group, hosts, members, self._seen.vms.keys(), surplus)
        return WallPlan(pool, group, steps)

    def _waits_for_wall(self, cluster_id: str) -> bool:
        return cluster_id not in self._seen.walls and self._is_starting(cluster_id)

    def _is_starting(self, cluster_id: str) -> bool:
        """Return whether the startup attestation has not gone through a pool yet."""
        return any(host.id in self._starting for host in self._seen.hosts_of.get(cluster_id, ()))

    def _snapshot(self, pool: Pool) -> Snapshot:
        hosts = {one.id: self._shown(one.id) for one in self._seen.hosts_of.get(pool.cluster_id, ())}
        return Snapshot(
            pool.cluster_id,
            pool.scope,
            self._clock.boot_id,
            self._clock.now_ms(),
            hosts,
            {vm.id: vm.marked for vm in self._seen.vms_of.get(pool.cluster_id, ())},
            self._seen.exempt,
        )

    def _shown(self, host_id: str) -> Verdict:
        return self._seen.shown(host_id, self._table, self._clock.now_ms())

    def _is_asked(self, host_id: str) -> bool:
        """Return whether the attestation server is asked about a host."""
        host = self._seen.hosts.get(host_id)
        return (
            host is not None
            and host.cluster_id in self._seen.pools.by_cluster
            and (host.up or host_id in self._evacuation.quarantine.quarantined)
            and host_id not in self._seen.shared_names
        )

    def _touch(self, walls: bool = True, worse: bool = False, pools: Optional[Iterable[str]] = None) -> None:
        """Something changed that snapshots have to show, and perhaps walls.

        Args:
            worse: somebody lost trust.
            pools: whose snapshots; None for all.
        """
        self.revision += 1
        touched = list(self._seen.pools.by_cluster if pools is None else pools)
        self._old.update(touched)
        if worse:
            self._too_trusting.update(touched)
        if walls or worse:
            self.changed.set()
        if worse:
            self.worse.set()

    def _tell(self, notice: Notice) -> None:
        host, vm = self._seen.hosts.get(notice.host_id), self._seen.vms.get(notice.vm_id)
        host_name, vm_name = host.name if host else "", vm.name if vm else ""
        self.outbox.put(dataclasses.replace(notice, at_ms=self._clock.wall_ms(), host=host_name, vm=vm_name))

    def _note(self, code: str, text: str, host_id: str = "") -> None:
        """For the history only."""
        self._tell(Notice(code, "normal", text, host_id, event=False))

    def _note_hosts(self, seen: verdicts.Changes) -> None:
        for host_id in seen.came_up:
            self._note("came_up", f"Host {self._seen.host_name(host_id)} is Up.", host_id)
        for host_id in seen.left_up:
            self._note("left_up", f"Host {self._seen.host_name(host_id)} is not Up any more.", host_id)

