# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter unit `TrustedHosts`: which of these hosts may this VM run on? Pure: it answers from a snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.broker.decision import Scope, decide
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
    found = {id(pools[host]): pools[host] for host in hosts if host in pools}
    if len(found) > 1:
        return Accepted((), ("the hosts are of several pools, which the engine never asks for at once",))
    snapshot = next(iter(found.values()), None)
    if snapshot is None:
        return Accepted((), ("the broker knows none of these hosts: is ovirt-tcp-broker running?",))
    scope = Scope.MARKED_VMS if _lax(snapshot, properties) else Scope.ALL_VMS
    vm = snapshot.vm(vm_id)
    accepted: list[str] = []
    reasons: list[str] = []
    for host in hosts:
        decision = decide(vm, scope, snapshot.hosts.get(host), now_ms)
        if decision.allowed and host in snapshot.hosts:
            accepted.append(host)
        elif len(reasons) < MAX_REASONS:
            reasons.append(f"host {host} refused ({decision.code}): {decision.reason}")
    return Accepted(tuple(accepted), tuple(reasons))


def _lax(snapshot: Snapshot, properties: Mapping[str, str]) -> bool:
    asked: Optional[str] = properties.get(SCOPE_PROPERTY)
    return snapshot.scope is Scope.MARKED_VMS and asked in (None, "", Scope.MARKED_VMS.value)
