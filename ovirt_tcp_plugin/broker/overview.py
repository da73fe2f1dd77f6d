# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker knows, for people and programs: plain values in, JSON objects out. Pure; it decides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovirt_tcp_plugin.broker.decision import Verdict
from ovirt_tcp_plugin.broker.inventory import Host
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.quarantine import Guard, Quarantine
from ovirt_tcp_plugin.broker.sight import Sight
from ovirt_tcp_plugin.broker.verdicts import Table
from ovirt_tcp_plugin.messages.result import Level


@dataclasses.dataclass(frozen=True)
class HostState:
    """A pool's host at one moment.

    Attributes:
        now_ms: that moment, on the clock that the verdict is dated by.
        verdict: as placement has to see it.
        trusted: whether it counts as trusted now.
        last_failure: why the last question brought no verdict, empty if it did.
        inside_wall: whether the wall lists it, as last seen or edited.
        quarantined: whether we took it out of service.
    """

    now_ms: int
    host: Host
    verdict: Verdict
    trusted: bool
    last_failure: str
    inside_wall: bool
    quarantined: bool

    @property
    def level(self) -> Level:
        """The level now: a trusted verdict that ended is none."""
        ended = self.verdict.level is Level.TRUSTED and not self.trusted
        return Level.UNKNOWN if ended else self.verdict.level


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A pool at one moment; hosts by name. `held`: those whose quarantine the guard delays."""

    pool: Pool
    hosts_inside: tuple[str, ...]
    vms_inside: int
    guard_tripped: bool
    held: tuple[str, ...]


def describe_host(state: HostState) -> dict[str, Any]:
    """Return a host."""
    host, verdict = state.host, state.verdict
    ended = verdict.level is not state.level
    return {
        "id": host.id,
        "name": host.name,
        "status": host.status,
        "level": state.level.value,
        "code": "verdict_ended" if ended else verdict.code,
        "reason": "the last verdict ended" if ended else verdict.reason,
        "age_ms": max(state.now_ms - verdict.born_ms, 0),
        "ends_in_ms": verdict.end_ms - state.now_ms if state.trusted else None,
        "boot_id": verdict.boot_id,
        "last_failure": state.last_failure,
        "inside_wall": state.inside_wall,
        "quarantined": state.quarantined,
    }


def describe_pool(state: PoolState) -> dict[str, Any]:
    """Return a pool."""
    return {
        "cluster_id": state.pool.cluster_id,
        "name": state.pool.name,
        "scope": state.pool.scope.value,
        "hosts_inside": list(state.hosts_inside),
        "vms_inside": state.vms_inside,
        "guard_tripped": state.guard_tripped,
        "held": list(state.held),
    }


def host_state(seen: Sight, table: Table, quarantine: Quarantine, host: Host, now_ms: int) -> HostState:
    """Return a pool's host as it is at `now_ms`."""
    group, entry, taken = seen.walls.get(host.cluster_id), table.entry(host.id), quarantine.taken.get(host.id)
    return HostState(
        now_ms,
        host,
        seen.shown(host.id, table, now_ms),
        table.holds(host.id, now_ms),
        entry.failing_reason if entry else "",
        group is not None and host.id in group.host_ids,
        taken is not None and taken.asked,
    )


def pool_state(seen: Sight, guards: Mapping[str, Guard], pool: Pool) -> PoolState:
    """Return a pool as it is now."""
    group, guard = seen.walls.get(pool.cluster_id), guards.get(pool.cluster_id)
    return PoolState(
        pool,
        tuple(seen.host_names(group.host_ids)) if group else (),
        len(group.vm_ids) if group else 0,
        bool(guard and guard.tripped),
        tuple(seen.host_names(guard.held)) if guard else (),
    )
