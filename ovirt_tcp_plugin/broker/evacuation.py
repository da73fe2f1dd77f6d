# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which untrusted hosts leave service, what keeps some of them, and which of ours return. No I/O.

Quarantine and guard plan for themselves; here they meet the engine's inventory and the verdicts,
and what happens to hosts becomes events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.decision import Verdict
from ovirt_tcp_plugin.broker.guard import Guard, GuardRule
from ovirt_tcp_plugin.broker.inventory import Host, Notice, shortened
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.quarantine import REASON_PREFIX, Quarantine, Quarantined, ours
from ovirt_tcp_plugin.broker.sight import Sight
from ovirt_tcp_plugin.broker.verdicts import VerdictCache
from ovirt_tcp_plugin.clock import Clock


class QuarantineController:
    """Quarantine and guards, with the engine as last seen.

    Not thread-safe: the caller holds its lock.

    Attributes:
        guards: by cluster id.
        known_good: ids of hosts that were trusted before: only such a host *turns* untrusted.
    """

    def __init__(
        self,
        rule: GuardRule,
        seen: Sight,
        verdicts: VerdictCache,
        clock: Clock,
        tell: Callable[[Notice], None],
    ) -> None:
        self._rule = rule
        self._seen = seen
        self._verdicts = verdicts
        self._clock = clock
        self._tell = tell
        self.quarantine = Quarantine()
        self.guards: dict[str, Guard] = {}
        self.known_good: set[str] = set()

    # What happened

    def observe(self, came_up: tuple[str, ...]) -> None:
        """The engine's hosts were listed.

        Args:
            came_up: ids of hosts that came Up since the last time.
        """
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
        self.quarantine.exempted_by_admin.discard(host_id)
        quarantined = self.quarantine.quarantined.get(host_id)
        if quarantined is not None and not quarantined.asked:
            del self.quarantine.quarantined[host_id]

    def untrusted(self, host: Host, pool: Pool, verdict: Verdict) -> None:
        """A host was found untrusted."""
        if host.id in self.known_good:
            self.known_good.discard(host.id)
            self._turned(pool, host.id)
        # A host already in quarantine does not return for having attested well before this.
        is_out = host.id in self.quarantine.quarantined
        if is_out or (host.up and self._verdicts.untrusted(host.id)):
            self.quarantine.take(host.id, verdict.code, verdict.reason)

    def deactivated(self, host_id: str, refusal: str) -> None:
        """Maintenance was accepted, or refused: `refusal` says why."""
        name = self._seen.host_name(host_id)
        now_ms = self._clock.now_ms()
        if not refusal:
            self.quarantine.asked(host_id, now_ms)
            text = f"Host {name} goes to maintenance: it is untrusted."
            self._tell(Notice("quarantined", "normal", text, host_id, event=False))
            return
        number = self.quarantine.refused(host_id, now_ms, self._vms_on(host_id))
        if self.quarantine.is_refusal_told(host_id, refusal, now_ms):
            text = f"Host {name} is untrusted, but maintenance was refused: {refusal}"
            if number > 1:
                text = f"{text} It was asked for {number} times: shut down or move its VMs."
            key = f"refused {host_id} {refusal}"
            self._tell(Notice(key, "error", text, host_id=host_id))

    def activated(self, host_id: str, refusal: str) -> None:
        """A host of ours was activated, or the engine refused that for now."""
        now_ms = self._clock.now_ms()
        if refusal:
            if self.quarantine.not_returned(host_id, now_ms):
                name = self._seen.host_name(host_id)
                text = f"Host {name} attested well, but its activation was refused: {refusal}"
                text = f"{text} Activate it by hand if the engine goes on refusing."
                self._tell(Notice(f"return_refused {host_id}", "warning", text, host_id=host_id))
            return
        self.quarantine.returned(host_id)
        name = self._seen.host_name(host_id)
        text = f"Host {name} attested well and is activated; it is attested again before it counts."
        self._tell(Notice(f"returned {host_id} {now_ms}", "normal", text, host_id=host_id))

    def decide(self, release: bool, who: str, pool: str) -> list[str]:
        """Release the held hosts into quarantine, or leave them in service but out of placement.

        Args:
            who: who decided, for the history.
            pool: name or id of the only pool that this is about; empty for all.

        Returns:
            the names of the hosts that were held.

        Raises:
            NotFound: there is no such pool.
        """
        held: set[str] = set()
        for guard in self._guards_of(pool):
            held |= guard.release()
        if not release:
            self.quarantine.exempted_by_admin |= held
        outcome = "is released into quarantine" if release else "stays in service, out of placement"
        for host_id in sorted(held):
            name = self._seen.host_name(host_id)
            text = f"Host {name}, held by the guard, {outcome}: {who} decided so."
            self._tell(Notice("guard_decided", "normal", text, host_id, event=False))
        return self._seen.host_names(held)

    # Plans

    def to_deactivate(self, waits_for_wall: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Return (host id, reason) of the hosts to take out of service now.

        Args:
            waits_for_wall: whether a cluster's wall has to be made first, by the cluster's id.
        """
        now_ms = self._clock.now_ms()
        for host_id in self.quarantine.stuck(now_ms):
            self._tell_stuck(host_id)
        leaving: list[tuple[str, str]] = []
        for host_id in self.quarantine.to_deactivate(self._seen.hosts, self._held(), now_ms):
            if waits_for_wall(self._seen.hosts[host_id].cluster_id):
                continue
            if self._verdicts.untrusted(host_id) and self._may_leave(host_id):
                leaving.append((host_id, self._reason(host_id)))
        return leaving

    # The state file

    def encode(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {
            "quarantine": self.quarantine.encode(),
            "known_good": sorted(self.known_good),
            "guards": {cluster_id: guard.encode() for cluster_id, guard in self.guards.items()},
        }

    def restore(self, encoded: Mapping[str, Any], same_boot: bool) -> None:
        """Take over what `encode` gave.

        Args:
            same_boot: it was written in this boot of this machine.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        self.quarantine.restore(encoded["quarantine"])
        self.known_good = {str(host_id) for host_id in encoded["known_good"]}
        for cluster_id, members in encoded["guards"].items():
            self._guard(str(cluster_id)).restore(members, same_boot)

    # Guards

    def _guard(self, cluster_id: str) -> Guard:
        if cluster_id not in self.guards:
            self.guards[cluster_id] = Guard(self._rule)
        return self.guards[cluster_id]

    def _held(self) -> set[str]:
        """Return the ids of the hosts that any guard holds."""
        held: set[str] = set()
        for guard in self.guards.values():
            held |= guard.held
        return held

    def _guards_of(self, pool: str) -> Iterable[Guard]:
        """Return the guards of the pool with this name or id, of all pools if it is empty.

        Raises:
            NotFound: there is no such pool.
        """
        guards: list[Guard] = []
        is_known = not pool
        for known in self._seen.pools.by_cluster.values():
            if pool and pool not in (known.name, known.cluster_id):
                continue
            is_known = True
            if known.cluster_id in self.guards:
                guards.append(self.guards[known.cluster_id])
        if not is_known:
            raise errors.NotFound("trusted pool", pool)
        return guards

    def _vms_on(self, host_id: str) -> frozenset[str]:
        host = self._seen.hosts.get(host_id)
        vms = () if host is None else self._seen.vms_of.get(host.cluster_id, ())
        return frozenset(vm.id for vm in vms if vm.host_id == host_id)

    def _turned(self, pool: Pool, host_id: str) -> None:
        guard = self._guard(pool.cluster_id)
        now_ms = self._clock.now_ms()
        pool_size = len(self._seen.hosts_of[pool.cluster_id])
        if not guard.turned(host_id, pool_size, now_ms):
            return
        names = shortened(self._seen.host_names(guard.held))
        text = (
            f"Many hosts of cluster {pool.name} turned untrusted at once: {names}. "
            "They get no VMs, but stay in service until an administrator decides: "
            "ovirt-tcp guard release, or reject."
        )
        key = f"guard {pool.cluster_id} {now_ms}"
        self._tell(Notice(key, "error", text, cluster_id=pool.cluster_id))

    def _leave_guards(self) -> None:
        """Take out of the guards the hosts that are gone, or in another pool now.

        There is nothing to decide about them, and a guard would wait for them for ever.
        """
        for cluster_id, guard in self.guards.items():
            present = {host.id for host in self._seen.hosts_of.get(cluster_id, ())}
            for host_id in guard.held - present:
                guard.recovered(host_id)

    # What keeps a host in service

    def _may_leave(self, host_id: str) -> bool:
        """Return whether a host may leave; an event says what keeps it, if that lasts."""
        why = self._why_kept(host_id)
        if not why:
            return True
        now_ms = self._clock.now_ms()
        if self.quarantine.kept_in_service(host_id, why, now_ms):
            name = self._seen.host_name(host_id)
            text = f"Host {name} is untrusted, but stays in service: {why}. It gets no VMs."
            self._tell(Notice(f"kept {host_id} {now_ms}", "error", text, host_id=host_id))
        return False

    def _why_kept(self, host_id: str) -> str:
        """Return why a host has to stay in service, empty if it may leave."""
        others = self._trusted_others(host_id)
        if not others:
            return "no other host of its pool is trusted, so its VMs have nowhere to go"
        can_take_engine = others & self._seen.listing.engine_hosts
        if self._carries_engine(host_id) and not can_take_engine:
            reason = "no other trusted host that can take it is Up"
            return f"it carries the engine's own VM, and {reason}"
        return ""

    def _trusted_others(self, host_id: str) -> set[str]:
        """Return the ids of the other hosts of a host's cluster that are trusted now."""
        now_ms = self._clock.now_ms()
        cluster_id = self._seen.hosts[host_id].cluster_id
        return {
            host.id
            for host in self._seen.hosts_of[cluster_id]
            if host.id != host_id and self._verdicts.holds(host.id, now_ms)
        }

    def _carries_engine(self, host_id: str) -> bool:
        vms = self._seen.listing.vms
        return any(vm.hosted_engine and vm.host_id == host_id for vm in vms)

    def _tell_stuck(self, host_id: str) -> None:
        text = (
            f"Host {self._seen.host_name(host_id)} is untrusted and does not reach maintenance: "
            "some VM cannot leave it. It gets no VMs; move or stop those that run there. "
            "Maintenance is asked for again and again."
        )
        key = f"stuck {host_id} {self._clock.now_ms()}"
        self._tell(Notice(key, "error", text, host_id=host_id))

    def _adopt(self) -> None:
        """Know hosts of ours again by the reason of their maintenance, whatever state was lost."""
        for host in self._seen.hosts.values():
            if not ours(host) or self._seen.pool_of(host.id) is None:
                continue
            if host.id not in self.quarantine.quarantined:
                reason = host.status_detail[len(REASON_PREFIX) :]
                self.quarantine.quarantined[host.id] = Quarantined("adopted", reason)
            self.quarantine.quarantined[host.id].asked = True

    def _reason(self, host_id: str) -> str:
        quarantined = self.quarantine.quarantined[host_id]
        return f"{REASON_PREFIX}not trusted ({quarantined.code}): {quarantined.reason}"
