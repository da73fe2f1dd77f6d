# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The marks of VMs' next-run configurations, which no list shows: one call for each such VM.

After a change of a cluster's level all its running VMs have one. So what was read is kept, until an
event says that the VM changed; and of the rest a few are read again with each listing, since an
event may be lost.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineListings
from ovirt_tcp_plugin.broker.state.vm_reads import VmReads
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.placement.inventory import Listing, Vm

# So many are read again with each listing, those that were read longest ago first.
READ_AGAIN = 20
# After so many faults in one listing the rest counts as marked until it is read one by one.
MAX_FAULTS = 3


class NextRuns:
    """One thread calls `complete`; `forget` may be called by others."""

    def __init__(self, engine: EngineListings, vm_reads: VmReads, contact: EngineContact) -> None:
        self._engine = engine
        self._contact = contact
        self._vm_reads = vm_reads
        self._lock = threading.Lock()
        # Marks by VM id, those that were read longest ago first.
        self._marks: dict[str, bool] = {}
        self._forgotten: set[str] = set()

    def forget(self, vm_id: str) -> None:
        """A VM changed: what was read of it does not count any more."""
        with self._lock:
            self._marks.pop(vm_id, None)
            self._forgotten.add(vm_id)

    def complete(self, listing: Listing) -> Listing:
        """Return a listing whose VMs are marked also if their next-run configuration is.

        VMs whose configuration cannot be read count as marked.

        Raises:
            Unavailable: the engine does not answer other questions either.
            AccessRefused: it does not let the broker's user read it.
        """
        concerned = {vm.id for vm in listing.vms if vm.next_run and not vm.marked}
        waiting = self._vm_reads.waiting()
        again = self._begin(concerned)
        faults = 0
        unreadable: set[str] = set()
        vms: list[Vm] = []
        for vm in listing.vms:
            if vm.id not in concerned:
                vms.append(vm)
                continue
            mark = self._known(vm.id)
            is_due = vm.id in again or (mark is None and vm.id not in waiting)
            if is_due and faults < MAX_FAULTS:
                mark = self._read(vm.id)
                if mark is None:
                    faults += 1
            if mark is None:
                unreadable.add(vm.id)
            vms.append(dataclasses.replace(vm, marked=mark is not False))
        return dataclasses.replace(
            listing, vms=tuple(vms), unreadable_vms=listing.unreadable_vms | unreadable
        )

    def _begin(self, vm_ids: set[str]) -> frozenset[str]:
        """Forget all other VMs; return those that are to be read again."""
        with self._lock:
            self._forgotten.clear()
            kept = {vm_id: mark for vm_id, mark in self._marks.items() if vm_id in vm_ids}
            self._marks = kept
            return frozenset(list(kept)[:READ_AGAIN])

    def _known(self, vm_id: str) -> Optional[bool]:
        with self._lock:
            return self._marks.get(vm_id)

    def _read(self, vm_id: str) -> Optional[bool]:
        """Return whether a VM's next-run configuration is marked, None if it cannot be read."""
        with self._lock:
            self._marks.pop(vm_id, None)
            self._forgotten.discard(vm_id)
        try:
            mark = self._engine.vm(vm_id).marked
        except errors.NotFound:
            mark = False
        except errors.AccessRefused:
            raise
        except errors.Error as e:
            if self._contact.is_away(e):
                raise
            return None
        with self._lock:
            if vm_id not in self._forgotten:
                self._marks[vm_id] = mark
        return mark
