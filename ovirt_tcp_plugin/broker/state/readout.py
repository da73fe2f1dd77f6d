# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker knows at one moment of a host, of a pool, and of a VM on a host. Pure.

Plain values for people, programs and metrics; nothing is decided here.
"""

from __future__ import annotations

import dataclasses
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.verdicts import VerdictCache
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import decision
from ovirt_tcp_plugin.placement.decision import Decision, Verdict
from ovirt_tcp_plugin.placement.inventory import Group, Host, Vm
from ovirt_tcp_plugin.placement.pools import Pool
from ovirt_tcp_plugin.placement.snapshot import Snapshot


@dataclasses.dataclass(frozen=True)
class HostState:
    """A pool's host at one moment.

    Attributes:
        now_ms: that moment, on the clock that the verdict is dated by.
        verifier_name: its name at the attestation server; empty if it shares that with others.
        verdict: as placement has to see it.
        trusted: whether it counts as trusted now.
        last_failure: why the last question brought no verdict, empty if it did.
        inside_wall: whether the wall lists it, as last seen or edited.
        stays_inside: whether it does so though the host is not trusted, by rule: its pool or the
            attestation servers are silent, or the engine has just started.
        quarantined: whether we took it out of service.
    """

    now_ms: int
    host: Host
    verifier_name: str
    verdict: Verdict
    trusted: bool
    last_failure: str
    inside_wall: bool
    stays_inside: bool
    quarantined: bool

    @property
    def level(self) -> Level:
        """The level now: a trusted verdict that ended is none."""
        ended = self.verdict.level is Level.TRUSTED and not self.trusted
        return Level.UNKNOWN if ended else self.verdict.level


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A pool at one moment; hosts by name.

    Attributes:
        observation: it keeps all its hosts for now, as a new pool does.
        guard_tripped: its guard waits for an administrator.
        held: the hosts whose quarantine one of the two delays.
    """

    pool: Pool
    hosts_inside: tuple[str, ...]
    vms_inside: int
    observation: bool
    guard_tripped: bool
    held: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ChargeState:
    """Which broker is in charge at the engine, at one moment.

    Attributes:
        machine: where this one runs.
        acts: whether this one changes anything at the engine.
        others: the machines of other brokers at the same engine.
    """

    machine: str
    acts: bool
    others: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A VM and a host at one moment: all that the answer to "why not there?" is made of.

    Attributes:
        vm_id: as it was asked for, if the broker knows no such VM.
        needs_trust: whether the VM must run on a trusted host in the host's pool.
        decision: the rule's; None if the host is in no pool.
        pool, group: the host's pool and its wall.
        intent: what becomes of the host: "", "quarantine" (meant or carried out), "held" by the
            guard, or by the "observation" of its pool, "waiting" in case others turn, too,
            "spared" by an administrator.
    """

    vm_id: str
    vm: Optional[Vm]
    needs_trust: bool
    host: HostState
    decision: Optional[Decision]
    pool: Optional[Pool]
    group: Optional[Group]
    intent: str


def host_state(
    inventory: InventoryView,
    verdicts: VerdictCache,
    quarantine: QuarantineController,
    host: Host,
    now_ms: int,
) -> HostState:
    """Return a pool's host as it is at `now_ms`."""
    entry = verdicts.entry(host.id)
    group = inventory.walls.get(host.cluster_id)
    inside_wall = group is not None and host.id in group.host_ids
    verdict = inventory.shown(host.id, verdicts, now_ms)
    trusted = decision.holds(verdict, now_ms)
    may_stay = host.up and entry is not None and entry.inside_until_ms() is not None
    return HostState(
        now_ms=now_ms,
        host=host,
        verifier_name=inventory.names.get(host.id, ""),
        verdict=verdict,
        trusted=trusted,
        last_failure=entry.failing_reason if entry else "",
        inside_wall=inside_wall,
        stays_inside=inside_wall and may_stay and not trusted,
        quarantined=quarantine.is_taken_out(host.id),
    )


def pool_state(inventory: InventoryView, quarantine: QuarantineController, pool: Pool) -> PoolState:
    """Return a pool as it is now."""
    group = inventory.walls.get(pool.cluster_id)
    guard = quarantine.guard(pool.cluster_id)
    return PoolState(
        pool=pool,
        hosts_inside=tuple(inventory.host_names(group.host_ids)) if group else (),
        vms_inside=len(group.vm_ids) if group else 0,
        observation=quarantine.in_observation(pool.cluster_id),
        guard_tripped=guard is not None and guard.tripped,
        held=tuple(inventory.host_names(guard.held)) if guard else (),
    )


def snapshot(
    inventory: InventoryView, verdicts: VerdictCache, pool: Pool, boot_id: str, now_ms: int
) -> Snapshot:
    """Return what filterd needs of a pool at `now_ms`, which is of the boot `boot_id`."""
    hosts = inventory.hosts_of.get(pool.cluster_id, ())
    vms = inventory.vms.of(pool.cluster_id)
    return Snapshot(
        pool.cluster_id,
        pool.scope,
        boot_id,
        now_ms,
        {host.id: inventory.shown(host.id, verdicts, now_ms) for host in hosts},
        {vm.id: vm.marked for vm in vms},
        inventory.exempt,
    )


def explanation(
    inventory: InventoryView,
    verdicts: VerdictCache,
    quarantine: QuarantineController,
    vm_name: str,
    host_name: str,
    now_ms: int,
) -> Explanation:
    """Return all that is known at `now_ms` of a VM and a host.

    Args:
        vm_name, host_name: names or ids. A VM that is not known counts as one that needs trust.

    Raises:
        NotFound: the engine has no such host.
    """
    host = inventory.find_host(host_name)
    if host is None:
        raise errors.NotFound("host", host_name)
    vm = inventory.find_vm(vm_name, host.cluster_id)
    vm_id = vm.id if vm else vm_name
    vm_trust = inventory.vm(vm_id)
    pool = inventory.pool_of(host.id)
    state = host_state(inventory, verdicts, quarantine, host, now_ms)
    ruling = None
    needs_trust = False
    if pool is not None:
        ruling = decision.decide(vm_trust, pool.scope, state.verdict, now_ms)
        needs_trust = decision.needs_trust(vm_trust, pool.scope)
    return Explanation(
        vm_id=vm_id,
        vm=vm,
        needs_trust=needs_trust,
        host=state,
        decision=ruling,
        pool=pool,
        group=inventory.walls.get(host.cluster_id),
        intent=quarantine.intent(host),
    )
