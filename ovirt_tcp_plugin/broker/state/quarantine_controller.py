# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which untrusted hosts leave service, what keeps some of them, and which of ours return. No I/O.

Quarantine and guard plan for themselves; here they meet the engine's inventory and the verdicts,
and what happens to hosts becomes events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.broker.state.guard import Guard, GuardRule
from ovirt_tcp_plugin.broker.state.guard_watch import GuardWatch, SavedGuards
from ovirt_tcp_plugin.broker.state.quarantine import Quarantine, Quarantined
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.placement.decision import Verdict
from ovirt_tcp_plugin.placement.inventory import (
    REASON_PREFIX,
    Host,
    Notice,
    is_quarantined,
)
from ovirt_tcp_plugin.placement.pools import Pool


@dataclasses.dataclass(frozen=True)
class SavedQuarantine:
    """What a state file held of quarantine and guards, read as a whole."""

    quarantine: Quarantine
    guards: SavedGuards


class QuarantineController:
    """Quarantine and guards, with the engine as last seen.

    Thread-safe, under the lock of the broker's state.
    """

    def __init__(self, shared: SharedState, rule: GuardRule) -> None:
        self._lock = shared.lock
        self._shared = shared
        self._clock = shared.clock
        self._inventory = shared.inventory
        self._verdicts = shared.verdicts
        self._reporter = shared.reporter
        self._quarantine = Quarantine()
        self._guard_watch = GuardWatch(shared, rule)

    # Plans, and what came of them

    def to_deactivate(self, blocked: Collection[str] = ()) -> list[tuple[str, str]]:
        """Return (host id, reason) of the hosts to take out of service now.

        Args:
            blocked: ids of clusters whose walls may still let in a host that is not trusted.
        """
        with self._lock:
            now_ms = self._clock.now_ms()
            for host_id in self._quarantine.stuck(now_ms):
                self._tell_stuck(host_id, now_ms)
            held = self._guard_watch.delayed(now_ms)
            leaving: list[tuple[str, str]] = []
            for host_id in self._quarantine.to_deactivate(self._inventory.hosts, held, now_ms):
                cluster_id = self._inventory.hosts[host_id].cluster_id
                if cluster_id in blocked or self._shared.waits_for_wall(cluster_id):
                    continue
                if self.in_observation(cluster_id):
                    continue
                if self._verdicts.untrusted(host_id) and self._may_leave(host_id, now_ms):
                    leaving.append((host_id, self._reason(host_id)))
            return leaving

    def deactivated(self, host_id: str, refusal: str = "") -> None:
        """Maintenance was accepted, or refused: `refusal` says why."""
        with self._lock:
            now_ms = self._clock.now_ms()
            if refusal:
                self._deactivation_refused(host_id, refusal, now_ms)
                return
            self._quarantine.asked(host_id, now_ms)
            name = self._inventory.host_name(host_id)
            text = f"Host {name} goes to maintenance: it is untrusted."
            self._reporter.note("quarantined", text, host_id)

    def not_deactivated(self, host_id: str) -> None:
        """The engine does not know the host any more."""
        with self._lock:
            self._quarantine.refused(host_id, self._clock.now_ms())

    def to_activate(self) -> list[str]:
        """Return the hosts of ours that may return now."""
        with self._lock:
            return self._quarantine.to_activate(self._inventory.hosts, self._clock.now_ms())

    def activated(self, host_id: str, refusal: str = "") -> None:
        """A host of ours was activated, or the engine refused that for now."""
        with self._lock:
            now_ms = self._clock.now_ms()
            name = self._inventory.host_name(host_id)
            if not refusal:
                self._quarantine.returned(host_id)
                text = f"Host {name} attested well and is activated"
                text = f"{text}; it is attested again before it counts."
                key = f"returned {host_id} {now_ms}"
                self._reporter.tell(Notice(key, "normal", text, host_id=host_id))
            elif self._quarantine.not_returned(host_id, now_ms):
                text = f"Host {name} attested well, but its activation was refused: {refusal}"
                text = f"{text} Activate it by hand if the engine goes on refusing."
                key = f"return_refused {host_id}"
                self._reporter.tell(Notice(key, "warning", text, host_id=host_id))

    def decide(self, release: bool, who: str = "an administrator", pool: str = "") -> list[str]:
        """Release the held hosts into quarantine, or leave them in service but out of placement.

        Args:
            who: who decided, for the history.
            pool: name or id of the only pool that this is about; empty for all.

        Returns:
            the names of the hosts that were held.

        Raises:
            NotFound: there is no such pool.
        """
        with self._lock:
            pool_ids = self._inventory.pool_ids(pool)
            if release:
                held = self._guard_watch.release(pool_ids, who)
            else:
                held = self._guard_watch.guards.release(pool_ids)
                self._quarantine.exempted_by_admin |= held
            outcome = "stays in service, out of placement"
            if release:
                outcome = "is released into quarantine"
            for host_id in sorted(held):
                name = self._inventory.host_name(host_id)
                text = f"Host {name}, held by the guard, {outcome}: {who} decided so."
                self._reporter.note("guard_decided", text, host_id)
            self._shared.changes.touch()
            return self._inventory.host_names(held)

    # What happened: the caller holds the lock

    def end(self, cluster_id: str) -> None:
        """A person ended a pool: none of its hosts leaves service or is ours any more."""
        self._guard_watch.pool_ended(cluster_id)
        self._quarantine.forget(host.id for host in self._inventory.hosts_of.get(cluster_id, ()))

    def observe(self, came_up: tuple[str, ...], now_ms: int, whole: bool) -> None:
        """The engine's hosts were listed.

        Args:
            came_up: ids of hosts that came Up since the last time.
            whole: the known hosts are all there are: others are forgotten.
        """
        if whole:
            # In another pool they are judged by the guard of that.
            self._quarantine.judge_again(self._guard_watch.keep_present())
            self._quarantine.keep(self._inventory.hosts)
        self._adopt()
        self._quarantine.observe(self._inventory.hosts, came_up, now_ms)

    def observe_vms(self, now_ms: int) -> None:
        """The VMs were listed: refused maintenance is asked for again when one left the host."""
        for host_id in self._quarantine.refused_hosts():
            self._quarantine.look_again(host_id, self._inventory.vms_on(host_id), now_ms)

    def trusted(self, host_id: str, now_ms: int) -> None:
        """A host attested well; `observe_trust` follows."""
        self._guard_watch.trusted(host_id)
        self._quarantine.well_in_service(host_id, now_ms)
        self._quarantine.exempted_by_admin.discard(host_id)
        quarantined = self._quarantine.quarantined.get(host_id)
        if quarantined is not None and not quarantined.asked:
            del self._quarantine.quarantined[host_id]

    def untrusted(self, host: Host, pool: Pool, verdict: Verdict, now_ms: int) -> None:
        """A host was found untrusted."""
        self._guard_watch.untrusted(host.id)
        # A host already in quarantine does not return for having attested well before this.
        if not self.is_quarantined(host.id):
            if not host.up or not self._verdicts.untrusted(host.id):
                return
            self._guard_watch.check_leaving(host.id, pool, now_ms)
        self._quarantine.take(host.id, verdict.code, verdict.reason)

    def observe_trust(self, host_ids: Iterable[str], now_ms: int) -> None:
        """Hosts answered: the observation of their pools may be over."""
        self._guard_watch.observe_trust(host_ids, now_ms)

    def pool_gone(self, cluster_id: str) -> None:
        """A pool's cluster is gone: its hosts are judged by the pool that they are in now."""
        hosts = self._inventory.hosts_of.get(cluster_id, ())
        self._quarantine.judge_again(host.id for host in hosts)
        self._guard_watch.pool_ended(cluster_id)

    def well_while_away(self, host_id: str, now_ms: int) -> None:
        """A host of ours attested well in maintenance."""
        self._quarantine.well(host_id, now_ms)

    def guard(self, cluster_id: str) -> Optional[Guard]:
        """Return a pool's guard, to be read only; None if no host of it was to leave."""
        return self._guard_watch.guards.by_cluster.get(cluster_id)

    def in_observation(self, cluster_id: str) -> bool:
        """Return whether a pool keeps all its hosts for now, as a new one does."""
        return self._guard_watch.in_observation(cluster_id)

    def intent(self, host: Host) -> str:
        """Return what becomes of a host.

        "quarantine" is meant or carried out; "held" by the guard, or by the "observation" of its
        pool, "waiting" in case others turn, too, "spared" by an administrator; empty for nothing.
        """
        guard = self.guard(host.cluster_id)
        if guard is not None and host.id in guard.held:
            return "observation" if self.in_observation(host.cluster_id) else "held"
        if host.id in self._quarantine.exempted_by_admin:
            return "spared"
        if self._guard_watch.is_waiting(host):
            return "waiting"
        return "quarantine" if self.is_quarantined(host.id) else ""

    def is_taken_out(self, host_id: str) -> bool:
        """Return whether the engine accepted our maintenance of a host."""
        quarantined = self._quarantine.quarantined.get(host_id)
        return quarantined is not None and quarantined.asked

    def is_quarantined(self, host_id: str) -> bool:
        """Return whether a host is, or is meant to be, out of service by us."""
        return host_id in self._quarantine.quarantined

    def ours(self, host_ids: Iterable[str]) -> list[str]:
        """Return those of these hosts that are in quarantine."""
        return [host_id for host_id in host_ids if self.is_quarantined(host_id)]

    # The state file: the caller holds the lock

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {
            "quarantine": self._quarantine.encode(),
            **self._guard_watch.encode(),
        }

    def decode(self, encoded: Mapping[str, Any], same_boot: bool) -> SavedQuarantine:
        """Return what `encode` gave, for `restore`.

        Args:
            same_boot: it was written in this boot of this machine.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        quarantine = Quarantine()
        quarantine.restore(encoded["quarantine"])
        return SavedQuarantine(quarantine, self._guard_watch.decode(encoded, same_boot))

    def restore(self, saved: SavedQuarantine) -> None:
        """Take over what was saved."""
        self._quarantine = saved.quarantine
        self._guard_watch.restore(saved.guards)

    # Inside

    def _deactivation_refused(self, host_id: str, refusal: str, now_ms: int) -> None:
        number = self._quarantine.refused(host_id, now_ms, self._inventory.vms_on(host_id))
        if not self._quarantine.is_refusal_news(host_id, refusal, now_ms):
            return
        name = self._inventory.host_name(host_id)
        text = f"Host {name} is untrusted, but maintenance was refused: {refusal}"
        if number > 1:
            text = f"{text} It was asked for {number} times: shut down or move its VMs."
        key = f"refused {host_id} {refusal}"
        self._reporter.tell(Notice(key, "error", text, host_id=host_id))

    # What keeps a host in service

    def _may_leave(self, host_id: str, now_ms: int) -> bool:
        """Return whether a host may leave; an event says what keeps it, if that lasts."""
        why = self._why_kept(host_id, now_ms)
        if not why:
            return True
        if self._quarantine.kept_in_service(host_id, why, now_ms):
            name = self._inventory.host_name(host_id)
            text = f"Host {name} is untrusted, but stays in service: {why}. It gets no VMs."
            self._reporter.tell(Notice(f"kept {host_id} {now_ms}", "error", text, host_id=host_id))
        return False

    def _why_kept(self, host_id: str, now_ms: int) -> str:
        """Return why a host has to stay in service, empty if it may leave."""
        others = self._trusted_others(host_id, now_ms)
        if not others:
            return "no other host of its pool is trusted, so its VMs have nowhere to go"
        can_take_engine = others & self._inventory.listing.engine_hosts
        if self._inventory.carries_engine(host_id) and not can_take_engine:
            reason = "no other trusted host that can take it is Up"
            return f"it carries the engine's own VM, and {reason}"
        return ""

    def _trusted_others(self, host_id: str, now_ms: int) -> set[str]:
        """Return the ids of the other hosts of a host's cluster that are trusted now."""
        cluster_id = self._inventory.hosts[host_id].cluster_id
        return {
            host.id
            for host in self._inventory.hosts_of[cluster_id]
            if host.id != host_id and self._shared.holds(host.id, now_ms)
        }

    def _tell_stuck(self, host_id: str, now_ms: int) -> None:
        name = self._inventory.host_name(host_id)
        text = (
            f"Host {name} is untrusted and does not reach maintenance: "
            "some VM cannot leave it. It gets no VMs; move or stop those that run there. "
            "Maintenance is asked for again and again."
        )
        key = f"stuck {host_id} {now_ms}"
        self._reporter.tell(Notice(key, "error", text, host_id=host_id))

    def _adopt(self) -> None:
        """Know hosts of ours again by the reason of their maintenance, whatever state was lost."""
        for host in self._inventory.hosts.values():
            if not is_quarantined(host) or self._inventory.pool_of(host.id) is None:
                continue
            if host.id not in self._quarantine.quarantined:
                reason = host.status_detail[len(REASON_PREFIX) :]
                self._quarantine.quarantined[host.id] = Quarantined("adopted", reason)
            self._quarantine.quarantined[host.id].asked = True

    def _reason(self, host_id: str) -> str:
        quarantined = self._quarantine.quarantined[host_id]
        return f"{REASON_PREFIX}not trusted ({quarantined.code}): {quarantined.reason}"
