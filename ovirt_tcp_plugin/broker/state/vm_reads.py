# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Single VMs that are read between two listings, and what a listing may not undo. No I/O.

An event says that a VM is new or changed. Until the VM is read it counts as marked, and a listing
that was begun before does not show it as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import Optional

from ovirt_tcp_plugin.broker.state.inventory_view import VmIndex
from ovirt_tcp_plugin.broker.state.retries import FAILURES_REPORTED, Retries
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.placement.inventory import Listing, Notice, Vm

# An event comes in a transaction of its own, perhaps before the change (`AuditLogDirector`).
AGAIN_MS = 1_000


@dataclasses.dataclass(frozen=True)
class VmRequest:
    """A VM to read.

    Attributes:
        number: of the latest news of it; an answer is of the VM as it was then or later.
    """

    vm_id: str
    number: int


@dataclasses.dataclass
class _Awaited:
    """A VM that is to be read.

    Attributes:
        number: of the latest news of it.
        missing: a listing did not show it, which alone proves nothing.
        in_flight: it is being read, as it was at news `asked_number` or later.
        again: it was read once since the last event.
    """

    number: int
    missing: bool = False
    in_flight: bool = False
    asked_number: int = 0
    again: bool = False


class VmReads:
    """Thread-safe, under the lock of the broker's state.

    Args:
        forget_members: has the members of a cluster's wall worked out again.
    """

    def __init__(self, shared: SharedState, forget_members: Callable[[str], None]) -> None:
        self._lock = shared.lock
        self._shared = shared
        self._inventory = shared.inventory
        self._forget_members = forget_members
        # Numbers news of VMs and listings in their order.
        self._last_number = 0
        self._awaited: dict[str, _Awaited] = {}
        # When VMs that were read are read once more.
        self._again_ms: dict[str, int] = {}
        self._retries = Retries()
        # What became known of single VMs, with its number; None for those that are gone.
        self._news: dict[str, tuple[int, Optional[Vm]]] = {}
        # The VMs whose faults were reported.
        self._reported: set[str] = set()

    def changed(self, vm_id: str) -> None:
        """An event says that a VM is new or changed: it counts as marked until it is read."""
        with self._lock:
            self._await(vm_id)
            self._awaited[vm_id].again = False
            vm = self._inventory.vms.by_id.get(vm_id)
            if vm is not None and not vm.marked:
                self._see(vm_id, dataclasses.replace(vm, marked=True))

    def begin(self, failing: bool = False) -> Optional[VmRequest]:
        """Return the VM that waits longest for being read, None for none; it is being read now.

        Args:
            failing: one that could not be read before, or one that was not tried yet.
        """
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            self._await_again(now_ms)
            for vm_id, awaited in self._awaited.items():
                if awaited.in_flight or (self._retries.number(vm_id) > 0) is not failing:
                    continue
                if self._retries.due(vm_id, now_ms):
                    awaited.in_flight = True
                    awaited.asked_number = awaited.number
                    return VmRequest(vm_id, awaited.number)
            return None

    def read(self, request: VmRequest, vm: Vm) -> None:
        """A VM is like this."""
        with self._lock:
            awaited = self._take_answer(request)
            if awaited is None:
                return
            if awaited.number == request.number:
                self._settle_answer(request.vm_id, awaited)
                self._see(vm.id, vm)
            else:
                # It changed again after this was asked for.
                self._see(vm.id, dataclasses.replace(vm, marked=True))

    def gone(self, request: VmRequest) -> None:
        """The engine has no such VM."""
        with self._lock:
            awaited = self._take_answer(request)
            if awaited is not None and awaited.number == request.number:
                self._settle_answer(request.vm_id, awaited)
                self._see(request.vm_id, None)

    def unreadable(self, request: VmRequest, reason: str, answers: bool) -> None:
        """A VM could not be read: it counts as marked, and is read again later.

        Args:
            answers: whether the engine answers other questions; if not, nobody is told of the VM.
        """
        with self._lock:
            vm_id = request.vm_id
            awaited = self._awaited.get(vm_id)
            if awaited is None or awaited.asked_number != request.number:
                return
            awaited.in_flight = False
            # Behind the others: several that hang would be due again before these had a turn.
            self._awaited[vm_id] = self._awaited.pop(vm_id)
            failures = self._retries.failed(vm_id, self._shared.clock.now_ms())
            if answers and failures >= FAILURES_REPORTED and vm_id not in self._reported:
                self._reported.add(vm_id)
                self._shared.reporter.tell(_unreadable(vm_id, self._name(vm_id), reason))

    def waiting(self) -> frozenset[str]:
        """Return the ids of the VMs that are still to be read."""
        with self._lock:
            return frozenset(self._awaited)

    # Listings

    def begin_listing(self) -> int:
        """Return the number of a listing that is begun now: later news are newer than all of it."""
        with self._lock:
            return self._last_number

    def merge(self, listing: Listing, vms: VmIndex, number: int, missing: Collection[str]) -> None:
        """Correct the VMs of a listing by what is newer, and by what it does not prove.

        The caller holds the lock.

        Args:
            vms: of the listing; corrected in place.
            number: of the listing, as `begin_listing` returned it.
            missing: ids of the VMs that were known then and are not listed.
        """
        self._settle(listing, vms, number)
        for vm_id, (news_number, vm) in list(self._news.items()):
            if news_number <= number:
                del self._news[vm_id]
            elif vm is None:
                vms.remove(vm_id)
            else:
                vms.put(vm)
        for vm_id in listing.unreadable_vms:
            if vm_id not in self._awaited:
                self._await(vm_id)
        for vm_id in self._awaited:
            listed = vms.by_id.get(vm_id)
            if listed is not None and not listed.marked:
                vms.put(dataclasses.replace(listed, marked=True))
        self._keep_missing(listing, vms, missing)

    # Inside

    def _settle(self, listing: Listing, vms: VmIndex, number: int) -> None:
        """Forget what was to be read of VMs before a listing began which shows them."""
        for vm_id, awaited in list(self._awaited.items()):
            if vm_id not in vms.by_id or vm_id in listing.unreadable_vms:
                continue
            if awaited.number <= number:
                self._forget(vm_id)
            else:
                awaited.missing = False

    def _keep_missing(self, listing: Listing, vms: VmIndex, missing: Collection[str]) -> None:
        """Keep the known VMs that a listing does not show.

        Pages are cut out of a list that changes meanwhile: one VM less on an earlier page, and the
        first one of the next page is on none. So a VM is gone if it is not there when it is asked
        for, or if two complete listings in a row do not show it.
        """
        known = self._inventory.vms.by_id
        for vm_id in missing:
            if vm_id in vms.by_id or vm_id not in known:
                # It is known since, or known to be gone.
                continue
            awaited = self._awaited.get(vm_id)
            if awaited is not None and awaited.missing and listing.is_complete:
                self._forget(vm_id)
                continue
            if awaited is None:
                self._await(vm_id)
            self._awaited[vm_id].missing = True
            vm = known[vm_id]
            vms.put(vm if listing.is_complete else dataclasses.replace(vm, marked=True))

    def _await(self, vm_id: str) -> None:
        self._last_number += 1
        awaited = self._awaited.get(vm_id)
        if awaited is None:
            self._awaited[vm_id] = _Awaited(self._last_number)
        else:
            awaited.number = self._last_number

    def _take_answer(self, request: VmRequest) -> Optional[_Awaited]:
        """Take note that a VM was read; return it, None if nobody waits for the answer any more.

        A younger listing has shown it meanwhile, or another answer came first.
        """
        awaited = self._awaited.get(request.vm_id)
        if awaited is None or not awaited.in_flight or awaited.asked_number != request.number:
            return None
        awaited.in_flight = False
        self._retries.succeeded(request.vm_id)
        self._reported.discard(request.vm_id)
        return awaited

    def _settle_answer(self, vm_id: str, awaited: _Awaited) -> None:
        """Forget that a VM is to be read, but for once more: its event may have come too early."""
        self._forget(vm_id)
        if not awaited.again:
            self._again_ms[vm_id] = self._shared.clock.now_ms() + AGAIN_MS

    def _await_again(self, now_ms: int) -> None:
        due = [vm_id for vm_id, again_ms in self._again_ms.items() if now_ms >= again_ms]
        for vm_id in due:
            del self._again_ms[vm_id]
            if vm_id not in self._awaited:
                self._await(vm_id)
                self._awaited[vm_id].again = True

    def _forget(self, vm_id: str) -> None:
        self._awaited.pop(vm_id, None)
        self._retries.succeeded(vm_id)
        self._reported.discard(vm_id)

    def _see(self, vm_id: str, vm: Optional[Vm]) -> None:
        """Take over how a VM is now."""
        self._last_number += 1
        self._news[vm_id] = (self._last_number, vm)
        before = self._inventory.vms.by_id.get(vm_id)
        if vm == before:
            return
        exempt = self._inventory.exempt
        self._inventory.see_vm(vm_id, vm)
        clusters = {known.cluster_id for known in (before, vm) if known is not None}
        for cluster_id in clusters:
            self._forget_members(cluster_id)
        # Each pool's snapshot has the exempt VMs of all.
        touched = clusters if exempt == self._inventory.exempt else None
        self._shared.changes.touch(pools=self._pools(touched), too_free=_needs_more(before, vm))

    def _pools(self, cluster_ids: Optional[Iterable[str]]) -> Optional[list[str]]:
        if cluster_ids is None:
            return None
        pools = self._inventory.pools.by_cluster
        return [cluster_id for cluster_id in cluster_ids if cluster_id in pools]

    def _name(self, vm_id: str) -> str:
        vm = self._inventory.vms.by_id.get(vm_id)
        return vm.name if vm else vm_id


def _needs_more(before: Optional[Vm], vm: Optional[Vm]) -> bool:
    """Return whether a VM perhaps needs trust that needed none as it was before."""
    if vm is None or before is None:
        return False
    return vm.marked and not before.marked


def _unreadable(vm_id: str, name: str, reason: str) -> Notice:
    text = (
        f"VM {name} cannot be read at the engine: {reason.rstrip('.')}. "
        "Until it can be, it counts as marked, so it starts on trusted hosts only. "
        "Look for its id in /var/log/ovirt-engine/engine.log at the engine."
    )
    return Notice(f"vm_unreadable {vm_id}", "warning", text, vm_id=vm_id)
