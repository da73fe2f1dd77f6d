# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Why can this VM not run on that host? The answer of each line of enforcement. Pure.

It decides nothing: the rule is in `decision`, and what each line does is said as far as the broker
has seen it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Optional

from ovirt_tcp_plugin.broker.state.readout import Explanation
from ovirt_tcp_plugin.placement.decision import Decision
from ovirt_tcp_plugin.placement.pools import PolicyState, Pool

YES = "yes"
NO = "no"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class LineVerdict:
    """What one line of enforcement says: `says` is yes, no or unknown."""

    line: str
    says: str
    code: str
    reason: str


def explain(explanation: Explanation) -> dict[str, Any]:
    """Return the answer; in front what stops the VM first, or else the rule's own word."""
    lines = list(_lines(explanation))
    refusals = [line for line in lines if line.says == NO]
    first = refusals[0] if refusals else lines[0]
    return {
        "allowed": not refusals,
        "code": first.code,
        "reason": first.reason,
        "vm": _describe_vm(explanation),
        "host": _describe_host(explanation),
        "lines": [dataclasses.asdict(line) for line in lines],
    }


def _describe_vm(explanation: Explanation) -> dict[str, Any]:
    vm = explanation.vm
    return {
        "id": explanation.vm_id,
        "name": vm.name if vm else "",
        "known": vm is not None,
        "needs_trust": explanation.needs_trust,
    }


def _describe_host(explanation: Explanation) -> dict[str, Any]:
    host = explanation.host.host
    pool = explanation.pool
    return {
        "id": host.id,
        "name": host.name,
        "status": host.status,
        "level": explanation.host.level.value,
        "pool": pool.name if pool else "",
    }


def _lines(explanation: Explanation) -> Iterator[LineVerdict]:
    ruling = explanation.decision
    if ruling is None:
        reason = "the host is in no trusted pool: nothing of ovirt-tcp stops the VM there"
        yield LineVerdict("filter", YES, "no_pool", reason)
    else:
        yield _filter(explanation.pool, ruling)
        yield _wall(explanation)
        yield _quarantine(explanation)
        reason = "the host, if it has the gate, goes by the signed verdict that it holds"
        yield LineVerdict("gate", UNKNOWN, "at_the_host", reason)
    yield _engine(explanation)


def _filter(pool: Optional[Pool], ruling: Decision) -> LineVerdict:
    if pool is not None and pool.policy_state in (PolicyState.UPGRADE, PolicyState.OTHER):
        reason = f"the engine does not ask it: scheduling policy {pool.policy} is not the pool's"
        return LineVerdict("filter", YES, "not_asked", reason)
    says = YES if ruling.allowed else NO
    return LineVerdict("filter", says, ruling.code, ruling.reason)


def _wall(explanation: Explanation) -> LineVerdict:
    group = explanation.group
    if not explanation.needs_trust:
        reason = "the VM needs no trusted host, and so no wall"
        return LineVerdict("wall", YES, "needs_no_trust", reason)
    if group is None:
        return LineVerdict("wall", YES, "no_wall", "there is no wall yet; it will be made at once")
    if not group.enforcing:
        reason = "somebody changed the wall: it stops nobody until it is repaired"
        return LineVerdict("wall", YES, "not_enforcing", reason)
    if explanation.vm_id not in group.vm_ids:
        return LineVerdict("wall", YES, "not_member", "the VM is not behind the wall yet")
    if explanation.host.inside_wall:
        reason = "the VM is behind the wall, and the host inside"
        return LineVerdict("wall", YES, "inside", reason)
    reason = "the VM is behind the wall, and the host is not inside"
    return LineVerdict("wall", NO, "outside", reason)


def _quarantine(explanation: Explanation) -> LineVerdict:
    if explanation.host.quarantined:
        reason = "the broker took the host out of service"
        return LineVerdict("quarantine", NO, "quarantined", reason)
    if explanation.intent == "held":
        reason = "the guard delays it until an administrator decides: ovirt-tcp guard"
        return LineVerdict("quarantine", YES, "held", reason)
    if explanation.intent == "observation":
        reason = "the host's pool is in observation, in which no host leaves: ovirt-tcp guard"
        return LineVerdict("quarantine", YES, "observation", reason)
    if explanation.intent == "waiting":
        reason = (
            "the host did not restart since it attested well, so the reference values may have "
            "changed: it leaves in some minutes unless many others turn untrusted, too"
        )
        return LineVerdict("quarantine", YES, "waiting", reason)
    if explanation.intent == "spared":
        reason = "an administrator left the host in service, out of placement"
        return LineVerdict("quarantine", YES, "spared", reason)
    if explanation.intent == "quarantine":
        reason = "the broker is about to take the host out of service"
        return LineVerdict("quarantine", NO, "leaving", reason)
    reason = "the broker did not take the host out of service"
    return LineVerdict("quarantine", YES, "in_service", reason)


def _engine(explanation: Explanation) -> LineVerdict:
    host = explanation.host.host
    vm = explanation.vm
    if vm is not None and vm.cluster_id != host.cluster_id:
        reason = "the VM is in another cluster than the host"
        return LineVerdict("engine", NO, "other_cluster", reason)
    if not host.up:
        return LineVerdict("engine", NO, "not_up", f"the host is not Up, but {host.status}")
    reason = "the host is Up; what else the engine looks at is not known here"
    return LineVerdict("engine", YES, "up", reason)
