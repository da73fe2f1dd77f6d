# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which untrusted hosts leave service, what keeps some of them, who decides for the guard, and who returns. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.decision import Verdict
from ovirt_tcp_plugin.broker.inventory import Host, Notice, shortened
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.quarantine import REASON_PREFIX, Guard, GuardRule, Quarantine, Taken, ours
from ovirt_tcp_plugin.broker.sight import Sight
from ovirt_tcp_plugin.broker.verdicts import Table
from ovirt_tcp_plugin.clock import Clock


class Evacuation:
    """Quarantine and guards, with the engine as last seen. Not thread-safe: the caller holds its lock."""

    def __init__(self, rule: GuardRule, seen: Sight, table: Table, clock: Clock, tell: Callable[[Notice], None]) -> None:
        self._rule, self._seen, self._table, self._clock, self._tell = rule, seen, table, clock, tell
        self.quarantine = Quarantine()
        self.guards: dict[str, Guard] = {}
        # Hosts that were trusted before: only such a one turns.
        self.known_good: set[str] = set()

    def observe(self, came_up: tuple[str, ...]) -> None:
        """The hosts were listed."""
        self._leave_guards()
        self._adopt()
        self.quarantine.observe(self._seen.hosts, came_up, self._clock.now_ms())

    def observe_vms(self) -> None:
        """The VMs were listed: refused maintenance is asked for again when one left the host."""
        for host_id in self.quarantine.refused_hosts():
            self.quarantine.look_again(host_id, self._vms_on(host_id), self._clock.now_ms())

    def trusted(self, host_id: str) -> None:
        """A host attested well."""
        self.known_good.add(host_id)
        for guard in self.guards.values():
            guard.recovered(host_id)
        self.quarantine.spared.discard(host_id)
        taken = self.quarantine.taken.get(host_id)
        if taken is not None and not taken.asked:
            del self.quarantine.taken[host_id]

    def untrusted(self, host: Host, pool: Pool, verdict: Verdict) -> None:
        """A host was found untrusted."""
        if host.id in self.known_good:
            self.known_good.discard(host.id)
            self._turned(pool, host.id)
        # One that is out already does not return for having attested well before this.
        if host.id in self.quarantine.taken or (host.up and self._table.untrusted(host.id)):
            self.quarantine.take(host.id, verdict.code, verdict.reason)

    def to_deactivate(self, waits: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Return (host id, reason) of the hosts to take out of service now.

        Args:
            waits: whether a cluster's wall has to be made first, by the cluster's id.
        """
        held = {host_id for guard in self.guards.values() for host_id in guard.held}
        now_ms = self._clock.now_ms()
        for one in self.quarantine.stuck(now_ms):
            self._tell_stuck(one)
        chosen = self.quarantine.to_deactivate(self._seen.hosts, held, now_ms)
        walled = [one for one in chosen if not waits(self._seen.hosts[one].cluster_id)]
        return [(one, self._reason(one)) for one in walled if self._table.untrusted(one) and self._may_leave(one)]

    def deactivated(self, host_id: str, refusal: str) -> None:
        """Maintenance was accepted, or refused."""
        if not refusal:
            self.quarantine.asked(host_id, self._clock.now_ms())
            text = f"Host {self._seen.host_name(host_id)} goes to maintenance: it is untrusted."
            self._tell(Notice("quarantined", "normal", text, host_id, event=False))
            return
        number = self.quarantine.refused(host_id, self._clock.now_ms(), self._vms_on(host_id))
        if self.quarantine.is_refusal_told(host_id, refusal, self._clock.now_ms()):
            text = f"Host {self._seen.host_name(host_id)} is untrusted, but maintenance was refused: {refusal}"
            if number > 1:
                text = f"{text} It was asked for {number} times: shut down or move its VMs."
            self._tell(Notice(f"refused {host_id} {refusal}", "error", text, host_id=host_id))

    def activated(self, host_id: str, refusal: str) -> None:
        """A host of ours was activated, or the engine refused that for now."""
        if refusal:
            if self.quarantine.not_returned(host_id, self._clock.now_ms()):
                name = self._seen.host_name(host_id)
                text = f"Host {name} attested well, but its activation was refused: {refusal}"
                text = f"{text} Activate it by hand if the engine goes on refusing."
                self._tell(Notice(f"return_refused {host_id}", "warning", text, host_id=host_id))
            return
        self.quarantine.returned(host_id)
        name = self._seen.host_name(host_id)
        text = f"Host {name} attested well and is activated; it is attested again before it counts."
        self._tell(Notice(f"returned {host_id} {self._clock.now_ms()}", "normal", text, host_id=host_id))

    def decide(self, release: bool, who: str, pool: str) -> list[str]:
        """Release the held hosts into quarantine, or leave them in service but out of placement; return their names.

        Args:
            who: who decided, for the history.
            pool: name or id of the only pool that is meant; empty for all.

        Raises:
            NotFound: there is no such pool.
        """
        meant = [one for one in self._seen.pools.by_cluster.values() if pool in ("", one.name, one.cluster_id)]
        if pool and not meant:
            raise errors.NotFound("trusted pool", pool)
        guards = [self.guards[one.cluster_id] for one in meant if one.cluster_id in self.guards]
        held = {host_id for guard in guards for host_id in guard.release()}
        if not release:
            self.quarantine.spared |= held
        what = "is released into quarantine" if release else "stays in service, out of placement"
        for host_id in sorted(held):
            text = f"Host {self._seen.host_name(host_id)}, held by the guard, {what} by word of {who}."
            self._tell(Notice("guard_decided", "normal", text, host_id, event=False))
        return self._seen.host_names(held)

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {
            "quarantine": self.quarantine.encode(),
            "known_good": sorted(self.known_good),
            "guards": {cluster_id: guard.encode() for cluster_id, guard in self.guards.items()},
        }

    def restore(self, encoded: Mapping[str, Any], same_boot: bool) -> None:
        """Take over what `encode` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        self.quarantine.restore(encoded["quarantine"])
        self.known_good = {str(one) for one in encoded["known_good"]}
        for cluster_id, one in encoded["guards"].items():
            self.guards.setdefault(str(cluster_id), Guard(self._rule)).restore(one, same_boot)

    def _vms_on(self, host_id: str) -> frozenset[str]:
        host = self._seen.hosts.get(host_id)
        vms = () if host is None else self._seen.vms_of.get(host.cluster_id, ())
        return frozenset(vm.id for vm in vms if vm.host_id == host_id)

    def _turned(self, pool: Pool, host_id: str) -> None:
        guard = self.guards.setdefault(pool.cluster_id, Guard(self._rule))
        if guard.turned(host_id, len(self._seen.hosts_of[pool.cluster_id]), self._clock.now_ms()):
            names = shortened(self._seen.host_names(guard.held))
            text = (
                f"Many hosts of cluster {pool.name} turned untrusted at once: {names}. "
                "They get no VMs, but stay in service until an administrator decides: ovirt-tcp guard release, or reject."
            )
            self._tell(Notice(f"guard {pool.cluster_id} {self._clock.now_ms()}", "error", text, cluster_id=pool.cluster_id))

    def _may_leave(self, host_id: str) -> bool:
        """Return whether a host may leave; an event tells what keeps it in service, if that lasts."""
        now_ms, why = self._clock.now_ms(), self._why_kept(host_id)
        if why and self.quarantine.kept(host_id, why, now_ms):
            text = f"Host {self._seen.host_name(host_id)} is untrusted, but stays in service: {why}. It gets no VMs."
            self._tell(Notice(f"kept {host_id} {now_ms}", "error", text, host_id=host_id))
        return not why

    def _why_kept(self, host_id: str) -> str:
        """Return why a host has to stay in service, empty if it may leave."""
        now_ms, own = self._clock.now_ms(), self._seen.hosts_of[self._seen.hosts[host_id].cluster_id]
        others = {one.id for one in own if one.id != host_id and self._table.holds(one.id, now_ms)}
        if not others:
            return "no other host of its pool is trusted, so its VMs have nowhere to go"
        carries_engine = any(vm.hosted_engine and vm.host_id == host_id for vm in self._seen.listing.vms)
        if carries_engine and not others & self._seen.listing.engine_hosts:
            return "it carries the engine's own VM, and no other trusted host that can take it is Up"
        return ""

    def _tell_stuck(self, host_id: str) -> None:
        text = (
            f"Host {self._seen.host_name(host_id)} is untrusted and does not reach maintenance: some VM cannot leave it. "
            "It gets no VMs; move or stop those that run there. Maintenance is asked for again and again."
        )
        self._tell(Notice(f"stuck {host_id} {self._clock.now_ms()}", "error", text, host_id=host_id))

    def _leave_guards(self) -> None:
        """A host that is gone, or of another pool now, is nobody to decide about: a guard would wait for it for ever."""
        for cluster_id, guard in self.guards.items():
            for host_id in guard.held - {host.id for host in self._seen.hosts_of.get(cluster_id, ())}:
                guard.recovered(host_id)

    def _adopt(self) -> None:
        """Know hosts of ours again by the reason of their maintenance, whatever state was lost."""
        for host in self._seen.hosts.values():
            if ours(host) and self._seen.pool_of(host.id) is not None:
                taken = Taken("adopted", host.status_detail[len(REASON_PREFIX) :])
                self.quarantine.taken.setdefault(host.id, taken).asked = True

    def _reason(self, host_id: str) -> str:
        taken = self.quarantine.taken[host_id]
        return f"{REASON_PREFIX}not trusted ({taken.code}): {taken.reason}"
