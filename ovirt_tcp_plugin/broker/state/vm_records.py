# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which VMs lost the trust that they were given, or never get what they ask for. Pure.

Listings come in, warnings go out. The engine lets anybody with the right import, clone and move a
VM out of a trusted pool, or take its mark away. Its own warnings hang on the flag
`trusted_service`, and its events get lost; so two complete listings are compared. What is
remembered of a VM outlives the VM: one that is exported, removed and imported again has the same
id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.placement import pools
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY, Notice, Vm, shortened
from ovirt_tcp_plugin.placement.pools import Pool

# Records of VMs that are gone; the oldest are forgotten beyond that.
MAX_GONE = 50_000

# Names of the hooks that a VM's news is for.
ADDED = "vm_added"
MARKED = "vm_marked"
MOVED = "vm_moved"
IMPORTED = "vm_imported"
CLONED = "vm_cloned"
FROM_TRUSTED = "vm_from_trusted_cluster"


class Record(NamedTuple):
    """What is remembered of a VM.

    Attributes:
        pool: name of the trusted pool that it is in, empty for none.
        needs_trust: whether it needs a trusted host there.
        warned: code of the warning that stands, empty for none.
        gone: whether the engine lists it no more.
    """

    cluster_id: str
    pool: str
    marked: bool
    needs_trust: bool
    warned: str = ""
    gone: bool = False


@dataclasses.dataclass(frozen=True)
class VmNews:
    """What happened to a VM.

    Attributes:
        name: of the hook that it is for.
        text: what happened, as a sentence.
        code, fault: what is wrong now and was not reported before; empty for nothing.
    """

    name: str
    vm: Vm
    text: str
    code: str = ""
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class VmListing:
    """A complete listing's VMs, and what the broker makes of their clusters.

    Attributes:
        clusters: names by id.
        pools: the trusted pools by cluster id.
        exempt: ids of VMs that may run anywhere.
        unread: ids of VMs of which nothing is known for sure now.
    """

    vms: Collection[Vm]
    clusters: Mapping[str, str]
    pools: Mapping[str, Pool]
    exempt: Collection[str]
    unread: Collection[str] = frozenset()

    def record(self, vm: Vm, warned: str) -> Record:
        """Return what is to be remembered of a VM."""
        pool = self.pools.get(vm.cluster_id)
        name = pool.name if pool else ""
        needs_trust = pools.needs_trust(vm, pool, self.exempt)
        return Record(vm.cluster_id, name, vm.marked, needs_trust, warned)

    def place(self, vm: Vm) -> str:
        """Return where a VM is, in words."""
        name = self.clusters.get(vm.cluster_id, vm.cluster_id)
        pool = self.pools.get(vm.cluster_id)
        if pool is None:
            return f"cluster {name}, which is no trusted pool"
        if pool.scope is Scope.MARKED_VMS:
            return f"pool {name}, where only marked VMs need trust"
        return f"pool {name}"

    def outside(self, vm: Vm) -> str:
        """Return the fault of a VM that is marked where nothing heeds its mark, empty for none."""
        if not vm.marked or vm.cluster_id in self.pools or vm.id in self.exempt:
            return ""
        return (
            f"VM {vm.name} is marked by {MARK_PROPERTY}, but is in {self.place(vm)}: "
            "nothing keeps it on trusted hosts."
        )


class VmRecords:
    """The records by VM id. Not thread-safe."""

    def __init__(self, records: Optional[Mapping[str, Record]] = None) -> None:
        self.by_id: dict[str, Record] = dict(records or {})
        # Pools and exemptions of the last listing.
        self._judged_by: object = None

    def observe(
        self, listing: VmListing, causes: Mapping[str, Collection[str]]
    ) -> tuple[list[VmNews], list[Notice], frozenset[str]]:
        """Take a complete listing into account.

        Args:
            causes: names of hooks by VM id: what events said since the last listing.

        Returns:
            the news of VMs, the warnings of whole pools, and the ids whose records changed or are
            gone for good.
        """
        # Without any record there is nothing to compare with, and no VM is new.
        first = not self.by_id
        news: list[VmNews] = []
        changed: set[str] = set()
        widened: dict[str, list[str]] = {}
        for comparison in self._comparisons(listing, causes):
            vm = comparison.vm
            if self._remember(comparison):
                changed.add(vm.id)
            if comparison.scope_widened:
                widened.setdefault(vm.cluster_id, []).append(vm.name)
            news += comparison.faults() if first else comparison.news()
        changed |= self._forget({vm.id for vm in listing.vms})
        notices = [_widened(listing.pools[pool_id], names) for pool_id, names in widened.items()]
        return news, notices, frozenset(changed)

    def _remember(self, comparison: _Comparison) -> bool:
        """Keep what is to be remembered of a VM; return whether that changed."""
        record = comparison.record()
        self.by_id[comparison.vm.id] = record
        return record != comparison.before

    def standing(self, vm: Vm, listing: VmListing) -> str:
        """Return what is wrong with a VM now, reported or not; empty for nothing."""
        outside = listing.outside(vm)
        if outside:
            return outside
        record = self.by_id.get(vm.id)
        if record is None or not record.warned:
            return ""
        return (
            f"VM {vm.name} is in {listing.place(vm)}, and needs no trusted host there, "
            "though it did before."
        )

    def _comparisons(
        self, listing: VmListing, causes: Mapping[str, Collection[str]]
    ) -> Iterator[_Comparison]:
        """Yield the VMs that are not as they were, and those that events told of."""
        same_rules = self._is_judged_as_before(listing)
        for vm in listing.vms:
            if vm.id in listing.unread:
                continue
            before = self.by_id.get(vm.id)
            is_silent = vm.id not in causes
            if same_rules and is_silent and before is not None and _is_like(before, vm):
                continue
            after = listing.record(vm, before.warned if before else "")
            if after != before or not is_silent:
                yield _Comparison(listing, vm, before, after, causes.get(vm.id, ()))

    def _is_judged_as_before(self, listing: VmListing) -> bool:
        """Return whether pools and exemptions are those of the last listing.

        Then only VMs that changed themselves are looked into: a listing may have 200,000.
        """
        judged_by = (dict(listing.pools), frozenset(listing.exempt))
        same = judged_by == self._judged_by
        # Who could not be read now is to be looked into next time.
        self._judged_by = None if listing.unread else judged_by
        return same

    def _forget(self, listed: Collection[str]) -> set[str]:
        """Note which VMs are gone, and forget the oldest of these; return whose records changed."""
        changed: set[str] = set()
        for vm_id, record in list(self.by_id.items()):
            if vm_id not in listed and not record.gone:
                # Put at the end: the order of those that are gone is that of going.
                del self.by_id[vm_id]
                self.by_id[vm_id] = record._replace(gone=True)
                changed.add(vm_id)
        if not changed:
            return changed
        gone = [vm_id for vm_id, record in self.by_id.items() if record.gone]
        surplus = max(len(gone) - MAX_GONE, 0)
        for vm_id in gone[:surplus]:
            del self.by_id[vm_id]
            changed.add(vm_id)
        return changed


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """A VM that two listings show differently, or that events told of.

    Attributes:
        before: None for a VM that was never listing.
        after: with the warning that stood before.
        causes: names of hooks: what events said since the last listing.
    """

    listing: VmListing
    vm: Vm
    before: Optional[Record]
    after: Record
    causes: Collection[str]

    @property
    def scope_widened(self) -> bool:
        """Whether the VM needs no trust any more only because its pool's scope was changed."""
        before = self.before
        if before is None or before.gone or not before.needs_trust:
            return False
        if self.after.needs_trust or not self.after.pool or self.vm.id in self.listing.exempt:
            return False
        return not self._moved and before.marked == self.after.marked

    def record(self) -> Record:
        """Return what is to be remembered, with the code of the warning that stands from now on."""
        code, _ = self._fault()
        if code:
            return self.after._replace(warned=code)
        was_outside = self.before is not None and self.before.warned == "vm_marked_outside"
        if self.after.needs_trust or was_outside:
            return self.after._replace(warned="")
        return self.after

    def news(self) -> list[VmNews]:
        """Return all news of the VM; the first has the fault that was not reported before."""
        news = [VmNews(name, self.vm, text) for name, text in self._hooks()]
        code, fault = self._fault()
        if not fault or self._is_reported(code):
            return news
        # Only one hook gets the fault: the same warning twice is one too many.
        first = news[0] if news else VmNews(MARKED, self.vm, "")
        return [dataclasses.replace(first, code=code, fault=fault), *news[1:]]

    def faults(self) -> list[VmNews]:
        """Return the news that have a fault."""
        return [news for news in self.news() if news.fault]

    @property
    def _moved(self) -> bool:
        return self.before is not None and self.before.cluster_id != self.after.cluster_id

    def _is_reported(self, code: str) -> bool:
        """Return whether a fault was reported before, or is reported of the whole pool."""
        before = self.before
        if before is None or self._moved:
            return False
        pool_ended = bool(before.pool) and not self.after.pool and not before.gone
        return before.warned == code or pool_ended

    def _fault(self) -> tuple[str, str]:
        """Return code and sentence of what is wrong with the VM, empty for nothing."""
        outside = self.listing.outside(self.vm)
        if outside:
            return "vm_marked_outside", outside
        if self.after.needs_trust or self.vm.id in self.listing.exempt:
            return "", ""
        return self._lost_trust()

    def _lost_trust(self) -> tuple[str, str]:
        """Return code and sentence of how a VM that needs no trust lost it, empty if it did not."""
        before = self.before
        vm = f"VM {self.vm.name}"
        place = f"in {self.listing.place(self.vm)}: it may run on any host."
        if before is not None and before.needs_trust and (self._moved or before.gone):
            text = f"{vm} needed a trusted host in pool {before.pool}, and is now {place}"
            return "vm_left_trust", text
        if before is not None and before.marked and not self.after.marked and self.after.pool:
            return "vm_unmarked", f"{vm} lost its mark {MARK_PROPERTY}, and is {place}"
        was_warned = before is not None and bool(before.warned)
        if FROM_TRUSTED in self.causes and not was_warned:
            text = f"{vm} comes from a trusted cluster, as the engine says, and is now {place}"
            return FROM_TRUSTED, text
        return "", ""

    def _hooks(self) -> Iterator[tuple[str, str]]:
        """Yield the hooks that the news is for, with what happened in words."""
        vm = f"VM {self.vm.name}"
        place = f"and is in {self.listing.place(self.vm)}."
        before = self.before
        if IMPORTED in self.causes or (before is not None and before.gone):
            yield IMPORTED, f"{vm} was imported, {place}"
        elif CLONED in self.causes:
            yield CLONED, f"{vm} was made from another one's or a template's disks, {place}"
        elif before is None:
            yield ADDED, f"{vm} is new, {place}"
        elif self._moved:
            yield MOVED, f"{vm} was moved, {place}"
        if FROM_TRUSTED in self.causes:
            text = f"{vm} comes from a trusted cluster, as the engine says, {place}"
            yield FROM_TRUSTED, text
        if before is not None and before.marked is not self.after.marked:
            verb = "got" if self.after.marked else "lost"
            yield MARKED, f"{vm} {verb} the mark {MARK_PROPERTY}, {place}"


def _is_like(record: Record, vm: Vm) -> bool:
    """Return whether a record shows the VM as it is."""
    if record.gone:
        return False
    return record.cluster_id == vm.cluster_id and record.marked == vm.marked


def _widened(pool: Pool, names: list[str]) -> Notice:
    text = (
        f"Only marked VMs need trust in pool {pool.name} from now on. "
        f"These may run on any host: {shortened(names)}."
    )
    return Notice(f"pool_scope {pool.cluster_id}", "warning", text, cluster_id=pool.cluster_id)
