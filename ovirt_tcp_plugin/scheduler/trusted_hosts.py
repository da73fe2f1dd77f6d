# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which of these hosts may this VM run on? Pure: it answers from a snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ovirt_tcp_plugin.placement.decision import Scope, VmTrust, decide, passing
from ovirt_tcp_plugin.placement.filter_unit import SCOPE_PROPERTY
from ovirt_tcp_plugin.placement.snapshot import Snapshot

# A call may refuse 10,000 hosts under the engine's lock of the cluster: so many are looked at to
# say why, so many reasons are given, each with so many hosts.
MAX_EXPLAINED = 100
MAX_REASONS = 3
MAX_HOSTS = 3


@dataclasses.dataclass(frozen=True)
class Accepted:
    """The hosts that the VM may run on, in the order asked.

    Attributes:
        reasons: why there is none, in at most MAX_REASONS + 1 clauses, that of the most hosts
            first. Empty if there is one: the engine reads reasons only of a refusal.
    """

    hosts: tuple[str, ...]
    reasons: tuple[str, ...] = ()


class _Refused(NamedTuple):
    """The hosts that are refused for one reason, and the sentence that tells it."""

    sentence: str
    hosts: list[str]


_NO_POOL = Accepted((), ("the broker knows none of these hosts: is ovirt-tcp-broker running?",))
_SEVERAL_POOLS = Accepted(
    (), ("the hosts are of several pools, which the engine never asks for at once",)
)


def accept(
    pools: Mapping[str, Snapshot],
    hosts: Sequence[str],
    vm_id: str,
    properties: Mapping[str, str],
    now_ms: int,
) -> Accepted:
    """Return which of `hosts` the VM may run on.

    Args:
        pools: the snapshot of each host's pool, by host id.
        properties: those of the engine's call. A scope that is stricter than the snapshot's wins, a
            laxer one does not: it may be newer, but the broker decides who is let out.
    """
    snapshot = next((pools[host] for host in hosts if host in pools), None)
    if snapshot is None:
        return _NO_POOL
    scope = _scope_in_force(snapshot, properties)
    vm = snapshot.vm(vm_id)
    accepted = tuple(passing(vm, scope, hosts, snapshot.hosts, now_ms))
    if len(accepted) == len(hosts):
        return Accepted(accepted)
    if any(pools.get(host, snapshot) is not snapshot for host in hosts):
        return _SEVERAL_POOLS
    if accepted:
        return Accepted(accepted)
    reasons = _reasons(snapshot, scope, vm, hosts, now_ms)
    return Accepted((), tuple(reasons))


def _reasons(
    snapshot: Snapshot, scope: Scope, vm: VmTrust, hosts: Sequence[str], now_ms: int
) -> list[str]:
    """Return why no host passes, hosts of one code together."""
    by_code: dict[str, _Refused] = {}
    for host in hosts[:MAX_EXPLAINED]:
        code, sentence = _refusal(host, snapshot, scope, vm, now_ms)
        refused = by_code.setdefault(code, _Refused(sentence, []))
        refused.hosts.append(host)
    codes = sorted(by_code, key=lambda code: -len(by_code[code].hosts))
    clauses: list[str] = []
    unexplained = len(hosts)
    for code in codes[:MAX_REASONS]:
        clauses.append(_clause(code, by_code[code]))
        unexplained -= len(by_code[code].hosts)
    if unexplained:
        clauses.append(f"{unexplained} more hosts refused")
    return clauses


def _refusal(
    host: str, snapshot: Snapshot, scope: Scope, vm: VmTrust, now_ms: int
) -> tuple[str, str]:
    """Return code and sentence for why a host does not pass."""
    if host not in snapshot.hosts:
        return "unknown_host", "the broker knows no such host in this pool"
    decision = decide(vm, scope, snapshot.hosts[host], now_ms)
    return decision.code, decision.reason


def _clause(code: str, refused: _Refused) -> str:
    count = len(refused.hosts)
    if count == 1:
        return f"host {refused.hosts[0]} refused ({code}): {refused.sentence}"
    names = ", ".join(refused.hosts[:MAX_HOSTS])
    if count > MAX_HOSTS:
        names = f"{names} and {count - MAX_HOSTS} more"
    return f"{count} hosts refused ({code}): {refused.sentence} (the first of {names})"


def _scope_in_force(snapshot: Snapshot, properties: Mapping[str, str]) -> Scope:
    """Return the stricter of the snapshot's scope and that of the call."""
    asked = properties.get(SCOPE_PROPERTY)
    if asked in (None, "", Scope.MARKED_VMS.value):
        return snapshot.scope
    return Scope.ALL_VMS
