# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which of these hosts may this VM run on? Pure: it answers from a snapshot."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Optional

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
        return Accepted((), ("the broker knows none of these hosts: is ovirt-tcp-broker running?",))
    scope = Scope.MARKED_VMS if _lax(snapshot, properties) else Scope.ALL_VMS
    vm = snapshot.vm(vm_id)
    accepted = passing(vm, scope, hosts, snapshot.hosts, now_ms)
    if len(accepted) == len(hosts):
        return Accepted(tuple(accepted))
    if any(pools.get(host, snapshot) is not snapshot for host in hosts):
        return Accepted(
            (), ("the hosts are of several pools, which the engine never asks for at once",)
        )
    if accepted:
        return Accepted(tuple(accepted))
    return Accepted((), tuple(_reasons(snapshot, scope, vm, hosts, now_ms)))


def _reasons(
    snapshot: Snapshot, scope: Scope, vm: VmTrust, hosts: Sequence[str], now_ms: int
) -> list[str]:
    """Return why no host passes, hosts of one code together."""
    hosts_by_code: dict[str, list[str]] = collections.defaultdict(list)
    sentence_by_code: dict[str, str] = {}
    for host in itertools.islice(hosts, MAX_EXPLAINED):
        code, sentence = _refusal(host, snapshot, scope, vm, now_ms)
        hosts_by_code[code].append(host)
        sentence_by_code.setdefault(code, sentence)
    codes = sorted(hosts_by_code, key=lambda code: -len(hosts_by_code[code]))[:MAX_REASONS]
    clauses = [_clause(code, sentence_by_code[code], hosts_by_code[code]) for code in codes]
    unexplained = len(hosts) - sum(len(hosts_by_code[code]) for code in codes)
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


def _clause(code: str, sentence: str, hosts: Sequence[str]) -> str:
    if len(hosts) == 1:
        return f"host {hosts[0]} refused ({code}): {sentence}"
    names = ", ".join(hosts[:MAX_HOSTS])
    more = f" and {len(hosts) - MAX_HOSTS} more" if len(hosts) > MAX_HOSTS else ""
    return f"{len(hosts)} hosts refused ({code}): {sentence} (the first of {names}{more})"


def _lax(snapshot: Snapshot, properties: Mapping[str, str]) -> bool:
    asked: Optional[str] = properties.get(SCOPE_PROPERTY)
    return snapshot.scope is Scope.MARKED_VMS and asked in (None, "", Scope.MARKED_VMS.value)
