# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's threads: one looks at the engine, one asks about hosts, one enforces, one writes snapshots.

They meet only in BrokerState. Each is the outermost edge for its own errors: it logs, goes on, and extends no trust.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import hooks
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.metrics import Ages, Metrics
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.answer import Source
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.filter_watch import FilterWatch
from ovirt_tcp_plugin.broker.state.retries import FAILURES_TOLD, Retries
from ovirt_tcp_plugin.broker.store.history import History
from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers import vm_monitor
from ovirt_tcp_plugin.broker.workers.attest import AttestationWorker
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.events import EventWriter
from ovirt_tcp_plugin.broker.workers.vm_monitor import VmWatch
from ovirt_tcp_plugin.broker.workers.wall_builder import WallBuilder
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.engine.client import MAX_EVENTS, Engine
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.engine.starts import EngineStarts
from ovirt_tcp_plugin.placement.inventory import Event, Listing, Notice, Unit
from ovirt_tcp_plugin.placement.snapshot import Snapshot

log = logging.getLogger("broker.service")

TICK_S = 0.1
SNAPSHOT_EVERY_MS = 1000
# Renewed verdicts are saved this often: one that is lost is asked for again, and no more.
SAVE_EVERY_MS = 10_000
# Verdicts end without any news, so walls are looked at this often even if nothing happened.
ENFORCE_EVERY_MS = 1000
# An engine that was away for longer may have restarted hosts behind our back.
MAX_ENGINE_SILENCE_MS = 10_000
# Events may become visible out of order: the last ones are read again each time, and known ones passed over.
EVENT_OVERLAP = 50


class Service:
    """The running broker. Also what hooks may ask for (`hooks.HookApi`)."""

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        engine: Engine,
        source: Source,
        writer: SnapshotWriter,
        memory: StateFile,
        history: History,
        vms: VmWatch,
        handles: Mapping[str, hooks.Handle],
        clock: Clock,
    ) -> None:
        self._options, self._state, self._engine = options, state, engine
        self._writer, self._memory, self._handles, self._clock = writer, memory, handles, clock
        self._stopping, self._listing_due = threading.Event(), threading.Event()
        # Hosts and pools are known; and everything else, too.
        self._begun, self._listed = threading.Event(), threading.Event()
        self._last_engine_ms: Optional[int] = None
        self._last_full_ms: Optional[int] = None
        self._written_ms: dict[str, int] = {}
        # Revision and moment of what was saved last.
        self._saved = (-1, 0)
        self._publishing = threading.Lock()
        self._enforced_ms = 0
        self._ended_walls: list[tuple[str, str]] = []
        self._ended_wall_retries = Retries()
        self.metrics = Metrics()
        self._calls = Calls()
        due = self._listing_due.set
        self._builder = WallBuilder(state, engine, self.metrics, self._calls, clock, due)
        self._asker = AttestationWorker(options, state, source, self.metrics, clock)
        self._vms = vms
        self._filter_watch = FilterWatch(clock)
        self._starts = EngineStarts(clock, memory.engine_started_ms)
        self._event_writer = EventWriter(state.outbox, history, engine, self.metrics, clock)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        wait = self._stopping.wait
        loops: dict[str, tuple[Callable[[], None], float, Callable[[float], object]]] = {
            "observe": (self._observe, self._options.intervals.poll_s, wait),
            "attest": (self._attest, TICK_S, self._asker.wait),
            "enforce": (self._enforce, TICK_S, wait),
            "snapshot": (self._write_snapshots, TICK_S, wait),
            "events": (self._event_writer.step, TICK_S, wait),
        }
        for name, loop in loops.items():
            thread = threading.Thread(target=self._loop, args=(name, *loop), name=name)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the threads, and save what is known."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._asker.stop()
        self._calls.stop()
        self.save_all()

    def save_all(self) -> None:
        """Save what is known, and what happened: when this returns, it survives a crash."""
        self._memory.save(self._state)
        self._event_writer.record()

    def ages(self) -> Ages:
        """Return how long ago the engine was heard."""
        now_ms, heard, listed = self._clock.now_ms(), self._last_engine_ms, self._last_full_ms
        return Ages(None if heard is None else now_ms - heard, None if listed is None else now_ms - listed)

    def run_hook(self, event: HookEvent) -> None:
        """Run the hook of an event. Raises NotFound when there is none of that name."""
        if event.name not in self._handles:
            raise errors.NotFound("engine hook", event.name)
        log.info("hook name=%s host=%s vm=%s", event.name, event.host_id or "-", event.vm_id or "-")
        self._handles[event.name](event, self)

    def run_hook_by_hand(self, name: str, host: str, vm: str) -> None:
        """Run a hook for a pool's host or a VM, each by name or id or empty. Raises NotFound."""
        if vm:
            self.run_hook(self._vms.by_hand(name, vm, self._state.listing()))
        else:
            self.run_hook(HookEvent(name, self._state.host_id(host) if host else ""))

    def warn(self, event: HookEvent) -> None:
        """Write a warning event of the VM's fault, if it has one."""
        if event.fault:
            self._state.tell(vm_monitor.warning(event))

    def attest_in_stages(self) -> None:
        """Attest every Up host of every pool, first a small stage, then larger ones."""
        self._asker.attest_in_stages()

    def attest_host(self, host_id: str) -> None:
        """Attest one host before it counts."""
        self._state.wanted(host_id)

    def _loop(self, name: str, step: Callable[[], None], pause_s: float, wait: Callable[[float], object]) -> None:
        refusal = ""
        while not self._stopping.is_set():
            try:
                step()
                if name == "observe":
                    self.metrics.access(refused=False)
            except errors.AccessRefused as e:
                # It stays so until an administrator changes something: it is logged once.
                self.metrics.access(refused=True)
                if str(e) != refusal:
                    log.warning("loop=%s error=%s", name, e)
                refusal = str(e)
            except errors.Error as e:
                log.warning("loop=%s error=%s", name, e)
            except Exception:
                log.exception("loop=%s failed; it goes on, and no trust was extended", name)
            wait(pause_s)

    # The engine

    def _observe(self) -> None:
        now_ms = self._clock.now_ms()
        self._read_events()
        self._see_start(now_ms)
        full_ms = int(self._options.intervals.full_s * 1000)
        if not self._begun.is_set():
            self._begin()
        if self._filter_watch.is_due():
            self._watch_filter()
        due = self._listing_due.is_set() or self._last_full_ms is None or now_ms - self._last_full_ms >= full_ms
        if due:
            self._listing_due.clear()
            wall_edits = self._state.wall_edits
            try:
                listing = self._engine.listing()
            except errors.Error:
                self._listing_due.set()
                raise
            if wall_edits != self._state.wall_edits:
                self._listing_due.set()
            for pool in self._state.observe_listing(listing, wall_edits):
                self._writer.remove(pool.cluster_id)
                for wall_id in listing.wall_ids(pool.cluster_id):
                    self._ended_walls.append((pool.cluster_id, wall_id))
            self._last_full_ms = now_ms
            self._observe_filter(listing.units)
            came_up = self._state.observe_hosts(listing.hosts)
        else:
            came_up = self._state.observe_hosts_not_up(self._engine.hosts_not_up())
        for host_id in came_up:
            self.run_hook(HookEvent("init_vds_on_up", host_id))
        self._listed.set()
        self._last_engine_ms = self._clock.now_ms()
        if due:
            # Last, since it only warns, and writes to a disk that may be slow.
            self._watch_vms(self._state.listing())

    def _see_start(self, now_ms: int) -> None:
        """See whether the engine started, though no event that was read just now tells of it."""
        heard_ms = self._last_engine_ms
        silence_ms = max(MAX_ENGINE_SILENCE_MS, int(2000 * self._options.intervals.poll_s))
        if heard_ms is not None and now_ms - heard_ms > silence_ms:
            # Told once for this absence, even if the lists that come next fail again and again.
            self._last_engine_ms = now_ms
            if self._starts.is_new_by_silence(heard_ms):
                reason = "the engine was out of reach, so hosts may have changed behind our back"
                self._engine_restarted(reason)
        written = started_at(self._options.engine.start_file)
        if self._starts.is_new_by_file(written, heard_ms):
            self._engine_restarted("the engine's service was started again")

    def _begin(self) -> None:
        """Begin with the startup attestation before all VMs are listed, which takes long where there are many."""
        frame = self._engine.listing_without_vms()
        self._state.observe_frame(frame)
        self._state.observe_hosts(frame.hosts)
        try:
            self.run_hook(HookEvent("backend_initialize"))
        finally:
            self._begun.set()

    def _watch_filter(self) -> None:
        """See whether the engine asks the filter: before any listing, which may take minutes."""
        try:
            units = self._engine.units()
        except errors.Error as e:
            log.warning("the engine's policy units cannot be read error=%s", e)
        else:
            self._observe_filter(units)

    def _observe_filter(self, units: Sequence[Unit]) -> None:
        started = started_at(self._options.engine.start_file)
        notice = self._filter_watch.observe(units, started)
        if notice is not None and self._state.has_pools():
            self._state.tell(notice)

    def _watch_vms(self, listing: Listing) -> None:
        for event in self._vms.observe(listing):
            try:
                self.run_hook(event)
            except Exception:
                log.exception("hook name=%s vm=%s failed; its warning is written all the same", event.name, event.vm_id)
                self.warn(event)
        try:
            # In this order: a warning that is written twice is better than one that is not.
            self._event_writer.record()
            self._vms.save()
        except errors.Unavailable as e:
            log.error("records of VMs not saved error=%s", e)

    def _read_events(self) -> None:
        """Take new events into account. Ids may become visible out of order, so the last ones are read again."""
        last = self._memory.last_event
        if last is None:
            last = self._engine.last_event_id()
            self._memory.seen = frozenset(range(last - EVENT_OVERLAP, last + 1))
        recent = self._engine.events(max(last - EVENT_OVERLAP, 0))
        if len(recent) >= MAX_EVENTS and recent[0].id > last + 1:
            # More happened than one answer holds, while we were away: any host may have rebooted.
            self._starts.conclude()
            self._engine_restarted("events of the engine were missed")
        newest = recent[-1].id if recent else self._engine.last_event_id()
        if not recent and 0 < newest < last:
            self._starts.conclude()
            self._engine_restarted("the engine's events begin anew, as after a restored backup")
        for event in recent:
            if event.id not in self._memory.seen:
                self._take_event(event)
        # Followed back, too: ids that are shown no more will be other events' ids. An empty log says nothing.
        self._memory.last_event = newest or last
        kept = range(self._memory.last_event - 2 * EVENT_OVERLAP + 1, self._memory.last_event + 1)
        seen = self._memory.seen.union(event.id for event in recent)
        self._memory.seen = frozenset(one for one in seen if one in kept)

    def _take_event(self, event: Event) -> None:
        if self._starts.is_new_by_event(event.code):
            self._engine_restarted("the engine restarted")
        # As far as we saw, a host was Up all the time. What was before our own start we did not
        # see.
        came_up = event.code in events.HOST_CAME_UP and not self._listed.is_set()
        if event.host_id and (event.code in events.HOST_LEFT_UP or came_up):
            self._state.host_restarted(event.host_id)
        self._vms.take_event(event)
        # Where an exempt VM runs is told.
        arrived = event.code in events.VM_ARRIVED and self._state.is_exempt(event.vm_id)
        if event.code in events.LISTING_DUE or arrived:
            self._listing_due.set()

    def _engine_restarted(self, reason: str) -> None:
        """Do what every start of the engine asks for; nothing else has to notice one.

        Called once for each start, by the thread that looks at the engine.
        """
        # First: it is saved with the verdicts that end now.
        self._memory.engine_started_ms = self._starts.last_ms
        log.info("engine started reason=%s", reason)
        self._state.void("engine_restarted", reason)
        self._filter_watch.engine_started()
        self.run_hook(HookEvent("backend_initialize"))

    # The attestation server

    def _attest(self) -> None:
        if self._begun.is_set():
            self._asker.step()

    # Enforcement

    def _enforce(self) -> None:
        due = self._clock.now_ms() - self._enforced_ms >= ENFORCE_EVERY_MS
        if not self._listed.is_set() or not (due or self._state.changed.is_set()):
            return
        self._enforced_ms = self._clock.now_ms()
        self._state.changed.clear()
        self._state.worse.clear()
        blocked = self._builder.build(self._state.plans(), self._is_late)
        self._quarantine(blocked)
        self._remove_ended_walls()

    def _is_late(self) -> bool:
        return self._clock.now_ms() - self._enforced_ms >= ENFORCE_EVERY_MS

    def _quarantine(self, blocked: Collection[str]) -> None:
        """Ask for maintenance and for activation, each host on its own.

        Args:
            blocked: clusters of which nobody leaves now. Nobody is asked to leave service while
                somebody untrusted is inside the wall of his pool: VMs of another host could come.
        """
        leaving, returning = self._state.to_deactivate(blocked), self._state.to_activate()
        if not leaving and not returning:
            return
        # Out of the snapshot first: the VMs that leave this host may not be placed on another of
        # its kind.
        self._publish()
        self._save()
        away = threading.Event()
        jobs: dict[str, Callable[[], None]] = {}
        for host_id, reason in leaving:
            jobs[host_id] = functools.partial(self._deactivate, host_id, reason, away)
        for host_id in returning:
            jobs[host_id] = functools.partial(self._activate, host_id, away)
        self._calls.run(jobs)
        self._save()
        if away.is_set():
            raise errors.Unavailable("the engine", "it answers nothing")

    def _deactivate(self, host_id: str, reason: str, away: threading.Event) -> None:
        if away.is_set():
            return
        try:
            self._engine.deactivate(host_id, reason[:1000])
        except errors.NotFound:
            self._listing_due.set()
            self._state.not_deactivated(host_id)
        except (errors.Conflict, errors.Unavailable) as e:
            if self._is_away(e):
                away.set()
                return
            self._state.deactivated(host_id, str(e))
            self.metrics.quarantine(accepted=False)
        else:
            self._state.deactivated(host_id)
            self.metrics.quarantine(accepted=True)

    def _activate(self, host_id: str, away: threading.Event) -> None:
        if away.is_set():
            return
        try:
            self._engine.activate(host_id)
        except (errors.Conflict, errors.NotFound, errors.Unavailable) as e:
            if self._is_away(e):
                away.set()
                return
            log.warning("activate host=%s error=%s", host_id, e)
            self._state.activated(host_id, str(e))
        else:
            self._state.activated(host_id)
            self.metrics.returned()

    def _is_away(self, error: errors.Error) -> bool:
        """Return whether the engine is away, and not only failed at one thing."""
        return isinstance(error, errors.Unavailable) and not self._engine.answers()

    def _remove_ended_walls(self) -> None:
        """Remove the walls of clusters that are no pools any more, each on its own."""
        jobs = {}
        for wall in list(self._ended_walls):
            cluster_id, group_id = wall
            if self._state.is_pool(cluster_id):
                # A pool again by now, with this very wall.
                self._ended_walls.remove(wall)
            elif self._ended_wall_retries.due(group_id, self._clock.now_ms()):
                jobs[group_id] = functools.partial(self._remove_ended_wall, cluster_id, group_id)
        self._calls.run(jobs)

    def _remove_ended_wall(self, cluster_id: str, group_id: str) -> None:
        try:
            self._engine.remove_wall(cluster_id, group_id)
        except (errors.Conflict, errors.NotFound, errors.Unavailable) as e:
            if self._is_away(e):
                return
            number = self._ended_wall_retries.failed(group_id, self._clock.now_ms())
            log.warning("wall not removed cluster=%s group=%s error=%s", cluster_id, group_id, e)
            if number == FAILURES_TOLD:
                text = (
                    f"The wall of cluster {cluster_id}, which is no trusted pool any more, could "
                    f"not be removed: {e} Its VMs start only on the hosts that it lists: remove "
                    f"affinity group {group_id} by hand."
                )
                notice = Notice(f"wall_left {group_id}", "error", text, cluster_id=cluster_id)
                self._state.tell(notice)
            return
        self._ended_wall_retries.succeeded(group_id)
        if (cluster_id, group_id) in self._ended_walls:
            self._ended_walls.remove((cluster_id, group_id))

    # Snapshots

    def _write_snapshots(self) -> None:
        """Write what changed: at once where trust was taken away, else at most once a second for each pool."""
        if not self._asker.begun.is_set():
            return
        now_ms = self._clock.now_ms()
        old, too_trusting = self._state.old_snapshots()
        trust_lost = bool(too_trusting)
        if not self._listed.is_set():
            # A file of an earlier run knows the VMs' marks, and its verdicts end by themselves.
            old, too_trusting = self._writer.without_file(old), frozenset[str]()
        calm = {pool_id for pool_id in old if now_ms - self._written_ms.get(pool_id, 0) >= SNAPSHOT_EVERY_MS}
        if calm or too_trusting:
            self._publish(calm | too_trusting)
        # Now, too: whoever lost trust may not have it again because we were killed.
        revision, saved_ms = self._saved
        if revision != self._state.revision and (trust_lost or now_ms - saved_ms >= SAVE_EVERY_MS):
            self._save()

    def _publish(self, pool_ids: Optional[Collection[str]] = None) -> None:
        """Write these pools' snapshots, or all that are old. One that fails keeps no other back, and is tried again."""
        with self._publishing:
            chosen = self._state.old_snapshots()[0] if pool_ids is None else pool_ids
            self._state.written(chosen)
            for one in self._state.snapshots(chosen):
                self._written_ms[one.pool_id] = self._clock.now_ms()
                if not self._write(one):
                    self._state.not_written(one.pool_id)

    def _write(self, one: Snapshot) -> bool:
        try:
            self._writer.write(one)
        except OSError as e:
            log.error("snapshot not written pool=%s error=%s", one.pool_id, e)
            self.metrics.snapshot(written=False)
            return False
        self.metrics.snapshot(written=True)
        return True

    def _save(self) -> None:
        """Save what is known. Without room on the disk, enforcement goes on by what is known now."""
        self._saved = (self._state.revision, self._clock.now_ms())
        try:
            self._memory.save(self._state)
        except OSError as e:
            log.error("state not saved error=%s", e)
