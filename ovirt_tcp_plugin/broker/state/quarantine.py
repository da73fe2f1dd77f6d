# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Quarantine: which untrusted hosts leave service now, and which of ours may return. Pure.

Only evidence takes a host out, and only hosts that we took out are brought back: an administrator's
own maintenance is never touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import backoff
from ovirt_tcp_plugin.placement.inventory import (
    MAINTENANCE,
    PREPARING,
    Host,
    is_in_maintenance,
    is_quarantined,
)

# Maintenance that was refused is asked for again after this, doubling to the longest: the engine
# writes an error event of its own each time (14001 where a VM cannot migrate).
FIRST_RETRY_MS = 5_000
LONGEST_RETRY_MS = 21_600_000
# While it goes on being refused, that is reported again after this.
REFUSAL_REPORTED_EVERY_MS = 86_400_000
# A host that still prepares for maintenance after this is stuck: some VM of it cannot move. Asked
# again as often.
STUCK_MS = 600_000
# Why a host has to stay is reported after this: at a start, others may be trusted a moment later.
KEPT_REPORTED_AFTER_MS = 30_000
# A host that returns again and again is brought back ever more slowly.
FIRST_RETURN_MS = 0
NEXT_RETURN_MS = 30_000
LONGEST_RETURN_MS = 3_600_000
# After it attested well for so long its returns are forgotten.
RETURNS_FORGOTTEN_AFTER_MS = 86_400_000


@dataclasses.dataclass
class Quarantined:
    """A host that we took, or mean to take, out of service.

    Attributes:
        code, reason: of the verdict.
        asked: maintenance was asked for and accepted.
        shown: the engine showed it on its way there, for our reason.
        failures: refusals so far; next_ms: when to ask again, CLOCK_BOOTTIME.
        well: it attested well since; return_ms: when it may return.
        since_ms: since when it is kept in service, or prepares for maintenance.
        reported: why it is still here, as was reported last.
        refusal_reported_ms: when the last refusal of maintenance was reported.
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
    reported: str = ""
    refusal_reported_ms: Optional[int] = None
    vm_ids: frozenset[str] = frozenset()
    returns_refused: int = 0

    def stuck(self, now_ms: int) -> bool:
        """Return whether maintenance was accepted long ago and is not reached."""
        return self.asked and self.since_ms is not None and now_ms - self.since_ms >= STUCK_MS

    def is_news(self, why: str) -> bool:
        """Remember why it is still here; return whether that was not reported last."""
        changed = self.reported != why
        self.reported = why
        return changed

    def may_return(self, host: Host, now_ms: int) -> bool:
        """Return whether to activate the host now: from maintenance, or stuck on its way there."""
        if not self.asked or not self.well or now_ms < self.return_ms:
            return False
        if host.status == PREPARING:
            return self.stuck(now_ms)
        return host.status == MAINTENANCE

    def has_to_leave(self, host: Host, now_ms: int) -> bool:
        """Return whether to ask for maintenance now, the first time or again."""
        if now_ms < self.next_ms:
            return False
        if self.stuck(now_ms):
            return True
        return not self.asked and host.status not in (MAINTENANCE, PREPARING)

    def see(self, host: Host, now_ms: int) -> None:
        """The engine shows the host like this after it accepted our maintenance."""
        self.shown = self.shown or is_quarantined(host)
        if host.status != PREPARING:
            self.since_ms = None
        elif self.since_ms is None:
            self.since_ms = now_ms


class Quarantine:
    """What we took out of service. Not thread-safe.

    Attributes:
        quarantined: by host id.
        returns: how often each host was brought back, by its id, unless it attested well for a day
            since.
        exempted_by_admin: ids of hosts that an administrator leaves in service though untrusted
            (`guard reject`): they are out of placement only.
    """

    def __init__(self) -> None:
        self.quarantined: dict[str, Quarantined] = {}
        self.returns: dict[str, int] = {}
        # Since when hosts that were brought back attest well, by their id.
        self._well_since_ms: dict[str, int] = {}
        self.exempted_by_admin: set[str] = set()

    def take(self, host_id: str, code: str, reason: str) -> None:
        """Mean to take a host out; one that was meant to leave before keeps its retries."""
        self._well_since_ms.pop(host_id, None)
        host = self.quarantined.get(host_id)
        if host is None:
            self.quarantined[host_id] = Quarantined(code, reason)
            return
        host.code = code
        host.reason = reason
        host.well = False

    def judge_again(self, host_ids: Iterable[str]) -> None:
        """Forget that these hosts are meant to leave; those that we took out stay ours."""
        for host_id in host_ids:
            host = self.quarantined.get(host_id)
            if host is not None and not host.asked:
                del self.quarantined[host_id]

    def to_deactivate(
        self, hosts: Mapping[str, Host], held: Collection[str], now_ms: int
    ) -> list[str]:
        """Return the hosts to ask maintenance for now, also those stuck on their way there.

        Args:
            held: ids of hosts whose quarantine a guard delays.
        """
        leaving: list[str] = []
        for host_id, quarantined in self.quarantined.items():
            if host_id in held or host_id in self.exempted_by_admin:
                continue
            if host_id in hosts and quarantined.has_to_leave(hosts[host_id], now_ms):
                leaving.append(host_id)
        return leaving

    def asked(self, host_id: str, now_ms: int) -> None:
        """The engine accepted maintenance."""
        host = self.quarantined.get(host_id)
        if host is None:
            return
        if not host.asked:
            host.since_ms = None
            host.reported = ""
        host.asked = True
        host.next_ms = now_ms + STUCK_MS

    def refused(self, host_id: str, now_ms: int, vm_ids: frozenset[str] = frozenset()) -> int:
        """The engine refused, or failed at this host; return how often it did.

        Args:
            vm_ids: the VMs that run on the host.
        """
        host = self.quarantined.get(host_id)
        if host is None:
            return 0
        pause_ms = backoff.pause_ms(FIRST_RETRY_MS, LONGEST_RETRY_MS, host.failures)
        host.next_ms = now_ms + pause_ms
        host.failures += 1
        host.vm_ids = vm_ids
        return host.failures

    def is_refusal_news(self, host_id: str, why: str, now_ms: int) -> bool:
        """Return whether a refusal has to be reported now: the first one, and then one a day."""
        host = self.quarantined.get(host_id)
        if host is None:
            return False
        reported_ms = host.refusal_reported_ms
        if reported_ms is not None and now_ms - reported_ms < REFUSAL_REPORTED_EVERY_MS:
            return False
        host.refusal_reported_ms = now_ms
        host.reported = why
        return True

    def refused_hosts(self) -> list[str]:
        """Return the hosts whose maintenance was refused last."""
        return [
            host_id
            for host_id, host in self.quarantined.items()
            if host.failures and not host.asked
        ]

    def look_again(self, host_id: str, vm_ids: frozenset[str], now_ms: int) -> None:
        """Ask for maintenance again at once, if a VM left the host that may have kept it."""
        host = self.quarantined[host_id]
        if host.vm_ids - vm_ids:
            host.vm_ids = vm_ids
            host.next_ms = min(host.next_ms, now_ms)

    def kept_in_service(self, host_id: str, why: str, now_ms: int) -> bool:
        """The host must not leave; return whether that has to be reported now."""
        host = self.quarantined[host_id]
        if host.since_ms is None:
            host.since_ms = now_ms
        if now_ms - host.since_ms < KEPT_REPORTED_AFTER_MS:
            return False
        return host.is_news(why)

    def stuck(self, now_ms: int) -> list[str]:
        """Return the hosts that are stuck on their way to maintenance, each once."""
        newly_stuck: list[str] = []
        for host_id, host in self.quarantined.items():
            if host.stuck(now_ms) and not host.reported:
                host.reported = "stuck"
                newly_stuck.append(host_id)
        return newly_stuck

    def well(self, host_id: str, now_ms: int) -> None:
        """A host attested well while it was away."""
        host = self.quarantined.get(host_id)
        if host is None or host.well:
            return
        host.well = True
        host.return_ms = now_ms + _pause_ms(self.returns.get(host_id, 0))

    def well_in_service(self, host_id: str, now_ms: int) -> None:
        """A host attested well: in time, its returns are forgotten."""
        if host_id not in self.returns:
            return
        since_ms = self._well_since_ms.setdefault(host_id, now_ms)
        if now_ms - since_ms >= RETURNS_FORGOTTEN_AFTER_MS:
            del self.returns[host_id]
            del self._well_since_ms[host_id]

    def to_activate(self, hosts: Mapping[str, Host], now_ms: int) -> list[str]:
        """Return the hosts of ours that attested well and may return now."""
        return [
            host_id
            for host_id, quarantined in self.quarantined.items()
            if host_id in hosts and quarantined.may_return(hosts[host_id], now_ms)
        ]

    def returned(self, host_id: str) -> None:
        """We activated a host of ours."""
        if self.quarantined.pop(host_id, None) is not None:
            self.returns[host_id] = self.returns.get(host_id, 0) + 1

    def forget(self, host_ids: Iterable[str]) -> None:
        """These hosts are not ours any more, nor did anybody decide about them."""
        for host_id in host_ids:
            self.quarantined.pop(host_id, None)
            self.exempted_by_admin.discard(host_id)

    def not_returned(self, host_id: str, now_ms: int) -> bool:
        """The engine refused to activate a host of ours; return whether that has to be reported."""
        host = self.quarantined.get(host_id)
        if host is None:
            return False
        pause_ms = backoff.pause_ms(NEXT_RETURN_MS, LONGEST_RETURN_MS, host.returns_refused)
        host.return_ms = now_ms + pause_ms
        host.returns_refused += 1
        return host.returns_refused == 1

    def keep(self, hosts: Mapping[str, Host]) -> None:
        """Forget all other hosts: they are gone."""
        for host_id in list(self.quarantined):
            if host_id not in hosts:
                del self.quarantined[host_id]

    def observe(self, hosts: Mapping[str, Host], came_up: Collection[str], now_ms: int) -> None:
        """Forget hosts that are an administrator's again.

        Those are the ones that somebody else activated, or put into a maintenance of his own. They
        are not ours until they are judged again.
        """
        for host_id, quarantined in list(self.quarantined.items()):
            host = hosts.get(host_id)
            if host is not None and quarantined.asked:
                is_others = is_in_maintenance(host) and not is_quarantined(host)
                if host_id in came_up or (quarantined.shown and is_others):
                    del self.quarantined[host_id]
                else:
                    quarantined.see(host, now_ms)

    def encode(self) -> dict[str, Any]:
        """Return what a restart of the broker needs.

        Moments are not kept: everything is due at once then. The names of the members are those of
        the state file's first version.
        """
        return {
            "taken": {host_id: _encode(host) for host_id, host in self.quarantined.items()},
            "returns": dict(self.returns),
            "spared": sorted(self.exempted_by_admin),
        }

    def restore(self, encoded: Mapping[str, Any]) -> None:
        """Take over what `encode` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not what `encode` gives.
        """
        hosts = encoded["taken"].items()
        self.quarantined = {str(host_id): _decode(members) for host_id, members in hosts}
        returns = encoded["returns"].items()
        self.returns = {str(host_id): int(times) for host_id, times in returns}
        self.exempted_by_admin = {str(host_id) for host_id in encoded["spared"]}


def _pause_ms(returns: int) -> int:
    """Return how long a host that came back so often stays away after it attested well."""
    if returns == 0:
        return FIRST_RETURN_MS
    return backoff.pause_ms(NEXT_RETURN_MS, LONGEST_RETURN_MS, returns - 1)


def _encode(host: Quarantined) -> dict[str, Any]:
    return {
        "code": host.code,
        "reason": host.reason,
        "asked": host.asked,
        "shown": host.shown,
    }


def _decode(members: Mapping[str, Any]) -> Quarantined:
    return Quarantined(
        code=str(members["code"]),
        reason=str(members["reason"]),
        asked=bool(members["asked"]),
        shown=bool(members.get("shown")),
    )
