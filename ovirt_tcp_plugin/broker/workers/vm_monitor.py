# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Keeps the records of VMs, and makes events for VM hooks of what the engine shows."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.hooks import HookEvent
from ovirt_tcp_plugin.broker.state import vm_records
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.vm_records import Record, VmListing, VmNews, VmRecords
from ovirt_tcp_plugin.broker.store.database import Database
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.placement.inventory import Event, Listing, Notice

# While no listing comes, the last ones are kept.
MAX_RELAYED = 1000


class VmMonitor:
    """The thread that lists everything has it; others may call `take_event` and `by_hand`."""

    def __init__(self, state: BrokerState, database: Database) -> None:
        self._state = state
        self._database = database
        self._records = VmRecords(_load(database))
        # Of what events told, which another thread reads; those of before the listing are apart.
        self._lock = threading.Lock()
        self._new_causes: dict[str, set[str]] = {}
        self._causes: dict[str, set[str]] = {}
        self._unsaved: set[str] = set()
        # For the history; after the listing, because that has the names.
        self._new_relayed: collections.deque[Notice] = collections.deque(maxlen=MAX_RELAYED)
        self._relayed: collections.deque[Notice] = collections.deque(maxlen=MAX_RELAYED)

    def take_event(self, event: Event) -> None:
        """Note what an event tells of a VM; the next listing will show it."""
        if event.code in events.TRUST_MISMATCH:
            text = f"The engine warns ({event.code}): {event.text}"
            code = "engine_trust_mismatch"
            self._relay(Notice(code, "warning", text, vm_id=event.vm_id, event=False))
        if event.code in events.TEMPLATE_IMPORTED:
            text = f"A template was imported: {event.text}"
            text = f"{text} Only what its own properties say marks the VMs made from it."
            self._relay(Notice("template_imported", "normal", text, event=False))
        name = _cause(event.code)
        if name and event.vm_id:
            with self._lock:
                self._new_causes.setdefault(event.vm_id, set()).add(name)

    def begin_listing(self) -> None:
        """A listing is begun: it will show what events told of until now."""
        with self._lock:
            causes = self._new_causes
            self._new_causes = {}
            self._relayed.extend(self._new_relayed)
            self._new_relayed.clear()
        for vm_id, names in causes.items():
            self._causes.setdefault(vm_id, set()).update(names)

    def observe(self, listing: Listing) -> list[HookEvent]:
        """Take a complete listing into account; return the hooks to run.

        VMs that could not be read are left for the next time.
        """
        unread = listing.unreadable_vms
        causes = {vm_id: names for vm_id, names in self._causes.items() if vm_id not in unread}
        self._causes = {vm_id: names for vm_id, names in self._causes.items() if vm_id in unread}
        news, notices, changed = self._records.observe(self._vm_listing(listing), causes)
        self._unsaved |= changed
        for notice in (*self._relayed, *notices):
            self._state.tell(notice)
        self._relayed.clear()
        for item in news:
            if item.text:
                notice = Notice(item.name, "normal", item.text, vm_id=item.vm.id, event=False)
                self._state.tell(notice)
        return [_hook(item) for item in news]

    def save(self) -> None:
        """Keep the records that changed. Raises Unavailable; they are kept the next time then."""
        if not self._unsaved:
            return
        with self._database.transaction() as connection:
            for vm_id in self._unsaved:
                record = self._records.by_id.get(vm_id)
                connection.execute("DELETE FROM vms WHERE id = ?", (vm_id,))
                if record is not None:
                    row = (vm_id, *record)
                    connection.execute("INSERT INTO vms VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._unsaved = set()

    def by_hand(self, name: str, vm_name: str, listing: Listing) -> HookEvent:
        """Return the event to run a hook by hand: what is wrong with the VM now, reported or not.

        Args:
            vm_name: name or id.

        Raises:
            NotFound: there is no such VM.
        """
        for vm in listing.vms:
            if vm_name in (vm.id, vm.name):
                fault = self._records.standing(vm, self._vm_listing(listing))
                return HookEvent(name, vm_id=vm.id, code=name if fault else "", fault=fault)
        raise errors.NotFound("VM", vm_name)

    def _relay(self, notice: Notice) -> None:
        with self._lock:
            self._new_relayed.append(notice)

    def _vm_listing(self, listing: Listing) -> VmListing:
        clusters = {cluster.id: cluster.name for cluster in listing.clusters}
        pools = self._state.pools()
        exempt = self._state.exempt_vms()
        return VmListing(listing.vms, clusters, pools, exempt, listing.unreadable_vms)


def warning(event: HookEvent) -> Notice:
    """Return what to write of a VM with a fault."""
    return Notice(f"{event.code} {event.vm_id}", "warning", event.fault, vm_id=event.vm_id)


def _cause(code: int) -> str:
    """Return the hook of an event's VM that no listing would tell, empty for none."""
    if code in events.VM_CLONED:
        return vm_records.CLONED
    if code in events.VM_IMPORTED:
        return vm_records.IMPORTED
    if code in events.TRUST_LOST:
        return vm_records.FROM_TRUSTED
    return ""


def _hook(news: VmNews) -> HookEvent:
    return HookEvent(news.name, vm_id=news.vm.id, code=news.code, fault=news.fault)


def _load(database: Database) -> Mapping[str, Record]:
    with database.reading() as connection:
        rows = connection.execute("SELECT * FROM vms ORDER BY rowid").fetchall()
    return {
        row["id"]: Record(
            row["cluster_id"],
            row["pool"],
            bool(row["marked"]),
            bool(row["needs_trust"]),
            row["warned"],
            bool(row["gone"]),
        )
        for row in rows
    }
