# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Quarantine and guard: which untrusted hosts leave service now, and which of ours may return. Pure: it plans.

Only evidence takes a host out, and only hosts that we took out are brought back: an administrator's own maintenance is
never touched. The guard delays quarantine, never the refusal of placement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.broker.inventory import MAINTENANCE, PREPARING, Host

# What our maintenance reasons begin with: by it we know a host of ours again, whatever else was lost.
REASON_PREFIX = "ovirt-tcp: "
# Maintenance that was refused is asked for again after this, doubling to the longest: the engine
# writes an error event of its own each time (14001 where a VM cannot migrate).
FIRST_RETRY_MS = 5_000
LONGEST_RETRY_MS = 21_600_000
# While it goes on being refused, that is said again after this.
REFUSAL_TOLD_EVERY_MS = 86_400_000
# A host that still prepares for maintenance after this is stuck: some VM of it cannot move. Asked again as often.
STUCK_MS = 600_000
# Why a host may not leave is said after this: at a start, others may be trusted a moment later.
KEPT_TOLD_MS = 30_000
# A host that returns again and again is brought back ever more slowly.
FIRST_RETURN_MS = 0
NEXT_RETURN_MS = 30_000
LONGEST_RETURN_MS = 3_600_000


@dataclasses.dataclass
class Taken:
    """A host that we took, or mean to take, out of service.

    Attributes:
        code, reason: of the verdict.
        asked: maintenance was asked for and accepted.
        shown: the engine showed it on its way there, for our reason.
        failures: refusals so far; next_ms: when to ask again, CLOCK_BOOTTIME.
        well: it attested well since; return_ms: when it may return.
        since_ms: since when it is kept in service, or prepares for maintenance.
        told: why it is still here, as was said last.
        refusal_told_ms: when the last refusal of maintenance was said.
        vm_ids: the VMs that ran on it when maintenance was refused.
        returns_refused: refusals of its activation since it attested well.
    """

    code: str
    reason: str
    asked: bool = False
    failures: int = 0
    next_ms: int = 0
    well: bool = False
    return_ms: int = 0
    shown: bool = False
    since_ms: Optional[int] = None
    told: str = ""
    refusal_told_ms: Optional[int] = None
    vm_ids: frozenset[str] = frozenset()
    returns_refused: int = 0

    def stuck(self, now_ms: int) -> bool:
        """Return whether maintenance was accepted long ago and is not reached."""
        return self.asked and self.since_ms is not None and now_ms - self.since_ms >= STUCK_MS

    def news(self, why: str) -> bool:
        """Remember why it is still here; return whether that has not been said yet."""
        news, self.told = self.told != why, why
        return news


@dataclasses.dataclass(frozen=True)
class GuardRule:
    """More than max(hosts, share of the pool) that turn untrusted within window_ms trip the guard."""

    hosts: int = 2
    share: float = 0.2
    window_ms: int = 600_000


class Guard:
    """One pool's guard. A host *turns* when it was trusted before; one that never was is no surprise."""

    def __init__(self, rule: GuardRule) -> None:
        self._rule = rule
        self._turned: dict[str, int] = {}
        self.tripped = False
        self.held: set[str] = set()

    def turned(self, host_id: str, pool_size: int, now_ms: int) -> bool:
        """Take note that a host turned untrusted; return whether this trips the guard."""
        self._turned[host_id] = now_ms
        recent = {host for host, at_ms in self._turned.items() if now_ms - at_ms < self._rule.window_ms}
        self._turned = {host: self._turned[host] for host in recent}
        limit = max(self._rule.hosts, self._rule.share * pool_size)
        trips = not self.tripped and len(recent) > limit
        if trips:
            self.tripped = True
        if self.tripped:
            self.held |= recent
        return trips

    def recovered(self, host_id: str) -> None:
        """A host attests well again. Once all that were held do, there is nothing left to decide."""
        self.held.discard(host_id)
        self._turned.pop(host_id, None)
        self.tripped = self.tripped and bool(self.held)

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs: it may not release anybody."""
        return {"turned": dict(self._turned), "tripped": self.tripped, "held": sorted(self.held)}

    def restore(self, encoded: Mapping[str, Any], same_boot: bool) -> None:
        """Take over what `encode` gave; its moments count only in the boot that they are of.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        if same_boot:
            self._turned = {str(h): int(at_ms) for h, at_ms in encoded["turned"].items()}
        self.tripped, self.held = bool(encoded["tripped"]), {str(h) for h in encoded["held"]}

    def release(self) -> set[str]:
        """End the delay; return the hosts that were held."""
        held, self.held, self.tripped = self.held, set(), False
        self._turned.clear()
        return held


class Quarantine:
    """What we took out of service, by host id. Not thread-safe."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.returns: dict[str, int] = {}
        # Hosts that an administrator leaves in service though untrusted (`guard reject`): out of placement only.
        self.spared: set[str] = set()

    def take(self, host_id: str, code: str, reason: str) -> None:
        """Mean to take a host out; what was meant before keeps its retries."""
        known = self.taken.get(host_id)
        if known is None:
            self.taken[host_id] = Taken(code, reason)
        else:
            known.code, known.reason, known.well = code, reason, False

    def to_deactivate(self, hosts: Mapping[str, Host], held: Collection[str], now_ms: int) -> list[str]:
        """Return the hosts to ask maintenance for now, those that are stuck on their way there among them."""
        return [
            host_id
            for host_id, taken in self.taken.items()
            if now_ms >= taken.next_ms and host_id not in held and host_id not in self.spared and host_id in hosts
            if taken.stuck(now_ms) or not (taken.asked or hosts[host_id].status in (MAINTENANCE, PREPARING))
        ]

    def asked(self, host_id: str, now_ms: int) -> None:
        """The engine accepted."""
        taken = self.taken.get(host_id)
        if taken is not None:
            if not taken.asked:
                taken.since_ms, taken.told = None, ""
            taken.asked, taken.next_ms = True, now_ms + STUCK_MS

    def refused(self, host_id: str, now_ms: int, vm_ids: frozenset[str] = frozenset()) -> int:
        """The engine refused, or failed at this host; return how often it did.

        Args:
            vm_ids: the VMs that run on the host.
        """
        taken = self.taken.get(host_id)
        if taken is None:
            return 0
        pause_ms = FIRST_RETRY_MS * 2 ** min(taken.failures, 20)
        taken.next_ms = now_ms + min(pause_ms, LONGEST_RETRY_MS)
        taken.failures += 1
        taken.vm_ids = vm_ids
        return taken.failures

    def is_refusal_told(self, host_id: str, why: str, now_ms: int) -> bool:
        """Return whether a refusal has to be said now: the first one, and then one a day."""
        taken = self.taken.get(host_id)
        if taken is None:
            return False
        told_ms = taken.refusal_told_ms
        if told_ms is not None and now_ms - told_ms < REFUSAL_TOLD_EVERY_MS:
            return False
        taken.refusal_told_ms = now_ms
        taken.told = why
        return True

    def refused_hosts(self) -> list[str]:
        """Return the hosts whose maintenance was refused last."""
        return [uid for uid, taken in self.taken.items() if taken.failures and not taken.asked]

    def look_again(self, host_id: str, vm_ids: frozenset[str], now_ms: int) -> None:
        """Ask for maintenance again at once, if a VM left the host that may have kept it."""
        taken = self.taken[host_id]
        if taken.vm_ids - vm_ids:
            taken.vm_ids = vm_ids
            taken.next_ms = min(taken.next_ms, now_ms)

    def kept(self, host_id: str, why: str, now_ms: int) -> bool:
        """The host may not leave; return whether that has to be said now."""
        taken = self.taken[host_id]
        taken.since_ms = now_ms if taken.since_ms is None else taken.since_ms
        return now_ms - taken.since_ms >= KEPT_TOLD_MS and taken.news(why)

    def stuck(self, now_ms: int) -> list[str]:
        """Return the hosts that are stuck on their way to maintenance, each once."""
        return [host_id for host_id, one in self.taken.items() if one.stuck(now_ms) and not one.told and one.news("stuck")]

    def well(self, host_id: str, now_ms: int) -> None:
        """A host attested well while it was away."""
        taken = self.taken.get(host_id)
        if taken is not None and not taken.well:
            taken.well = True
            times = self.returns.get(host_id, 0)
            pause_ms = NEXT_RETURN_MS * 2 ** min(times - 1, 10) if times else FIRST_RETURN_MS
            taken.return_ms = now_ms + min(pause_ms, LONGEST_RETURN_MS)

    def to_activate(self, hosts: Mapping[str, Host], now_ms: int) -> list[str]:
        """Return the hosts of ours that attested well and may return now, from maintenance or stuck on the way there."""
        return [
            host_id
            for host_id, taken in self.taken.items()
            if taken.asked and taken.well and now_ms >= taken.return_ms
            if host_id in hosts
            if hosts[host_id].status == MAINTENANCE or (hosts[host_id].status == PREPARING and taken.stuck(now_ms))
        ]

    def returned(self, host_id: str) -> None:
        """A host of ours was activated by us."""
        if self.taken.pop(host_id, None) is not None:
            self.returns[host_id] = self.returns.get(host_id, 0) + 1

    def not_returned(self, host_id: str, now_ms: int) -> bool:
        """The engine refused to activate a host of ours; return whether that has to be said."""
        taken = self.taken.get(host_id)
        if taken is None:
            return False
        pause_ms = NEXT_RETURN_MS * 2 ** min(taken.returns_refused, 10)
        taken.return_ms = now_ms + min(pause_ms, LONGEST_RETURN_MS)
        taken.returns_refused += 1
        return taken.returns_refused == 1

    def observe(self, hosts: Mapping[str, Host], came_up: Collection[str], now_ms: int) -> None:
        """Forget hosts that are gone, and those that somebody else activated or put into maintenance of his own.

        They are his now, until judged anew.
        """
        for host_id, taken in list(self.taken.items()):
            host = hosts.get(host_id)
            if host is None or (taken.asked and (host_id in came_up or (taken.shown and _others(host)))):
                del self.taken[host_id]
            elif taken.asked:
                taken.shown |= ours(host)
                preparing = host.status == PREPARING
                taken.since_ms = (now_ms if taken.since_ms is None else taken.since_ms) if preparing else None

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs. Moments are not kept: everything is due at once then."""
        return {
            "taken": {
                host_id: {"code": one.code, "reason": one.reason, "asked": one.asked, "shown": one.shown}
                for host_id, one in self.taken.items()
            },
            "returns": dict(self.returns),
            "spared": sorted(self.spared),
        }

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        self.taken = {
            str(h): Taken(str(t["code"]), str(t["reason"]), bool(t["asked"]), shown=bool(t.get("shown")))
            for h, t in encoded["taken"].items()
        }
        self.returns = {str(h): int(n) for h, n in encoded["returns"].items()}
        self.spared = {str(h) for h in encoded["spared"]}


def ours(host: Host) -> bool:
    """Return whether a host is in maintenance, or on its way there, for a reason of ours."""
    return host.status in (MAINTENANCE, PREPARING) and host.status_detail.startswith(REASON_PREFIX)


def _others(host: Host) -> bool:
    return host.status in (MAINTENANCE, PREPARING) and not ours(host)
