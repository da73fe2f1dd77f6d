# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Why can this VM not run on that host? The answer of each line of enforcement, as far as the broker knows it. Pure.

It decides nothing: the rule is in `decision`, and what each line does is told from what was last seen of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.decision import Decision, decide, needs_trust
from ovirt_tcp_plugin.broker.inventory import Group, Host, Vm
from ovirt_tcp_plugin.broker.overview import HostState, host_state
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.quarantine import Guard, Quarantine
from ovirt_tcp_plugin.broker.sight import Sight
from ovirt_tcp_plugin.broker.verdicts import Table

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclasses.dataclass(frozen=True)
class Case:
    """A VM and a host at one moment.

    Attributes:
        vm_id: as it was asked for, if the broker knows no such VM.
        needs_trust: whether the VM must run on a trusted host in the host's pool.
        decision: the rule's; None if the host is in no pool.
        pool, group: the host's pool and its wall.
        intent: what becomes of the host: "", "quarantine" (meant or carried out), "held" by the guard, "spared".
    """

    vm_id: str
    vm: Optional[Vm]
    needs_trust: bool
    host: HostState
    decision: Optional[Decision]
    pool: Optional[Pool]
    group: Optional[Group]
    intent: str


def case(
    seen: Sight, table: Table, quarantine: Quarantine, guards: Mapping[str, Guard], vm: str, host: str, now_ms: int
) -> Case:
    """Return all that is known at `now_ms` of a VM and a host, each by name or id.

    Raises:
        NotFound: the engine has no such host.
    """
    found, known = seen.find_host(host), seen.find_vm(vm)
    if found is None:
        raise errors.NotFound("host", host)
    vm_id, pool = known.id if known else vm, seen.pool_of(found.id)
    rule, state = seen.vm(vm_id), host_state(seen, table, quarantine, found, now_ms)
    return Case(
        vm_id,
        known,
        pool is not None and needs_trust(rule, pool.scope),
        state,
        decide(rule, pool.scope, state.verdict, now_ms) if pool else None,
        pool,
        seen.walls.get(found.cluster_id),
        _intent(found, quarantine, guards.get(found.cluster_id)),
    )


def _intent(host: Host, quarantine: Quarantine, guard: Optional[Guard]) -> str:
    if guard is not None and host.id in guard.held:
        return "held"
    if host.id in quarantine.spared:
        return "spared"
    return "quarantine" if host.id in quarantine.taken else ""


@dataclasses.dataclass(frozen=True)
class Line:
    """What one line of enforcement says: `says` is yes, no or unknown."""

    line: str
    says: str
    code: str
    reason: str


def explain(case: Case) -> dict[str, Any]:
    """Return the answer; in front what stops the VM first, or else the rule's own word."""
    lines = list(_lines(case))
    first = next((one for one in lines if one.says == NO), lines[0])
    return {
        "allowed": first.says != NO,
        "code": first.code,
        "reason": first.reason,
        "vm": {
            "id": case.vm_id,
            "name": case.vm.name if case.vm else "",
            "known": case.vm is not None,
            "needs_trust": case.needs_trust,
        },
        "host": {
            "id": case.host.host.id,
            "name": case.host.host.name,
            "status": case.host.host.status,
            "level": case.host.level.value,
            "pool": case.pool.name if case.pool else "",
        },
        "lines": [dataclasses.asdict(one) for one in lines],
    }


def _lines(case: Case) -> Iterator[Line]:
    if case.pool is None or case.decision is None:
        yield Line("filter", YES, "no_pool", "the host is in no trusted pool: nothing of ovirt-tcp stops the VM there")
    else:
        decision = case.decision
        yield Line("filter", YES if decision.allowed else NO, decision.code, decision.reason)
        yield _wall(case, case.group)
        yield _quarantine(case)
        yield Line("gate", UNKNOWN, "at_the_host", "the host, if it has the gate, goes by the signed verdict that it holds")
    yield _engine(case)


def _wall(case: Case, group: Optional[Group]) -> Line:
    if not case.needs_trust:
        return Line("wall", YES, "needs_no_trust", "the VM needs no trusted host, and so no wall")
    if group is None:
        return Line("wall", YES, "no_wall", "there is no wall yet; it will be made at once")
    if not group.enforcing:
        return Line("wall", YES, "not_enforcing", "somebody changed the wall: it stops nobody until it is repaired")
    if case.vm_id not in group.vm_ids:
        return Line("wall", YES, "not_member", "the VM is not behind the wall yet")
    if case.host.inside_wall:
        return Line("wall", YES, "inside", "the VM is behind the wall, and the host inside")
    return Line("wall", NO, "outside", "the VM is behind the wall, and the host is not inside")


def _quarantine(case: Case) -> Line:
    if case.host.quarantined:
        return Line("quarantine", NO, "quarantined", "the broker took the host out of service")
    if case.intent == "held":
        return Line("quarantine", YES, "held", "the guard delays it until an administrator decides: ovirt-tcp guard")
    if case.intent == "spared":
        return Line("quarantine", YES, "spared", "an administrator left the host in service, out of placement")
    if case.intent == "quarantine":
        return Line("quarantine", NO, "leaving", "the broker is about to take the host out of service")
    return Line("quarantine", YES, "in_service", "the broker did not take the host out of service")


def _engine(case: Case) -> Line:
    host = case.host.host
    if case.vm is not None and case.vm.cluster_id != host.cluster_id:
        return Line("engine", NO, "other_cluster", "the VM is in another cluster than the host")
    if not host.up:
        return Line("engine", NO, "not_up", f"the host is not Up, but {host.status}")
    return Line("engine", YES, "up", "the host is Up; what else the engine looks at is not known here")
