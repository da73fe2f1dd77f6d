# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter unit `TrustedHosts`: which of these hosts may this VM run on? Pure: it answers from a snapshot."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence, Set
from typing import Optional

from ovirt_tcp_plugin.broker.decision import Scope, Vm, decide, passing
from ovirt_tcp_plugin.broker.snapshot import Snapshot

NAME = "TrustedHosts"
DESCRIPTION = "Runs VMs only on hosts whose boot was measured and appraised (ovirt-tcp)"
SCOPE_PROPERTY = "trust_scope"
PROPERTIES = f"{SCOPE_PROPERTY}=^({'|'.join(scope.value for scope in Scope)})$"

# The engine writes each reason as an event of its own.
MAX_REASONS = 10


@dataclasses.dataclass(frozen=True)
class Accepted:
    """The hosts that the VM may run on, in the order asked, and why others may not: at most MAX_REASONS sentences."""

    hosts: tuple[str, ...]
    reasons: tuple[str, ...]


def accept(
    pools: Mapping[str, Snapshot], hosts: Sequence[str], vm_id: str, properties: Mapping[str, str], now_ms: int
) -> Accepted:
    """Return which of `hosts` the VM may run on.

    Args:
        pools: the snapshot of each host's pool, by host id.
        properties: those of the engine's call. A scope that is stricter than the snapshot's wins, a laxer one does
            not: it may be newer, but the broker decides who is let out.
    """
    snapshot = next((pools[host] for host in hosts if host in pools), None)
    if snapshot is None:
        return Accepted((), ("the broker knows none of these hosts: is ovirt-tcp-broker running?",))
    scope = Scope.MARKED_VMS if _lax(snapshot, properties) else Scope.ALL_VMS
    vm = snapshot.vm(vm_id)
    accepted = passing(vm, scope, hosts, snapshot.hosts, now_ms)
    if len(accepted) == len(hosts):
        return Accepted(tuple(accepted), ())
    if any(pools.get(host, snapshot) is not snapshot for host in hosts):
        return Accepted((), ("the hosts are of several pools, which the engine never asks for at once",))
    return Accepted(tuple(accepted), tuple(_reasons(snapshot, scope, vm, hosts, set(accepted), now_ms)))


def _reasons(
    snapshot: Snapshot, scope: Scope, vm: Vm, hosts: Sequence[str], accepted: Set[str], now_ms: int
) -> list[str]:
    """Return why hosts were left out: a sentence for each of the first MAX_REASONS."""
    refused = itertools.islice((host for host in hosts if host not in accepted), MAX_REASONS)
    return [_reason(host, snapshot, scope, vm, now_ms) for host in refused]


def _reason(host: str, snapshot: Snapshot, scope: Scope, vm: Vm, now_ms: int) -> str:
    if host not in snapshot.hosts:
        return f"host {host} refused (unknown_host): the broker knows no such host in this pool"
    decision = decide(vm, scope, snapshot.hosts[host], now_ms)
    return f"host {host} refused ({decision.code}): {decision.reason}"


def _lax(snapshot: Snapshot, properties: Mapping[str, str]) -> bool:
    asked: Optional[str] = properties.get(SCOPE_PROPERTY)
    return snapshot.scope is Scope.MARKED_VMS and asked in (None, "", Scope.MARKED_VMS.value)
