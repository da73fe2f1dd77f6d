# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which VMs lost the trust that they were given, or never get what they ask for. Pure: listings come in, warnings go out.

The engine lets anybody with the right import, clone and move a VM out of a trusted pool, or take its mark away. Its own
warnings hang on the flag `trusted_service`, and its events get lost; so two complete listings are compared. What is
remembered of a VM outlives the VM: one that is exported, removed and imported again has the same id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.broker import decision
from ovirt_tcp_plugin.broker.decision import Scope
from ovirt_tcp_plugin.broker.inventory import MARK_PROPERTY, Notice, Vm, shortened
from ovirt_tcp_plugin.broker.pools import Pool

# Records of VMs that are gone; the oldest are forgotten beyond that.
MAX_GONE = 50_000

ADDED, MARKED, MOVED, IMPORTED, CLONED = "vm_added", "vm_marked", "vm_moved", "vm_imported", "vm_cloned"
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
        told: what happened, in words.
        code, fault: what is wrong now and was not told before; empty for nothing.
    """

    name: str
    vm: Vm
    told: str
    code: str = ""
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Seen:
    """A complete listing's VMs, and what the broker makes of their clusters.

    Attributes:
        clusters: names by id.
        pools: the trusted pools by cluster id.
        exempt: ids of VMs that may run anywhere.
    """

    vms: Collection[Vm]
    clusters: Mapping[str, str]
    pools: Mapping[str, Pool]
    exempt: Collection[str]

    def record(self, vm: Vm, warned: str) -> Record:
        """Return what is to be remembered of a VM."""
        pool = self.pools.get(vm.cluster_id)
        rule = decision.VmTrust(vm.marked, vm.id in self.exempt)
        needs_trust = pool is not None and decision.needs_trust(rule, pool.scope)
        return Record(vm.cluster_id, pool.name if pool else "", vm.marked, needs_trust, warned)

    def place(self, vm: Vm) -> str:
        """Return where a VM is, in words."""
        pool, name = self.pools.get(vm.cluster_id), self.clusters.get(vm.cluster_id, vm.cluster_id)
        if pool is None:
            return f"cluster {name}, which is no trusted pool"
        return f"pool {name}, where only marked VMs need trust" if pool.scope is Scope.MARKED_VMS else f"pool {name}"


class VmRecords:
    """The records by VM id. Not thread-safe."""

    def __init__(self, records: Optional[Mapping[str, Record]] = None) -> None:
        self.by_id: dict[str, Record] = dict(records or {})
        self._judged_by: object = None

    def observe(
        self, seen: Seen, causes: Mapping[str, Collection[str]]
    ) -> tuple[list[VmNews], list[Notice], frozenset[str]]:
        """Take a complete listing into account.

        Args:
            causes: names of hooks by VM id: what events told since the last listing.

        Returns:
            the news of VMs, the warnings of whole pools, and the ids whose records changed or are gone for good.
        """
        # Without any record there is nothing to compare with: this is where it begins.
        first = not self.by_id
        # Where pools and exemptions are as before, only VMs that changed themselves are looked into.
        judged_by = (dict(seen.pools), frozenset(seen.exempt))
        same, self._judged_by = judged_by == self._judged_by, judged_by
        news: list[VmNews] = []
        changed: set[str] = set()
        strict: dict[str, list[str]] = {}
        for vm in seen.vms:
            before = self.by_id.get(vm.id)
            if same and before is not None and _is_like(before, vm) and vm.id not in causes:
                continue
            after = seen.record(vm, before.warned if before else "")
            if before == after and vm.id not in causes:
                continue
            found, after = _compare(vm, before, after, seen, causes.get(vm.id, ()))
            if _scope_widened(before, after) and vm.id not in seen.exempt:
                strict.setdefault(vm.cluster_id, []).append(vm.name)
            self.by_id[vm.id] = after
            changed |= {vm.id} if before != after else set()
            news += [one for one in found if one.fault or not first]
        changed |= self._forget({vm.id for vm in seen.vms})
        return news, [_widened(seen.pools[uid], names) for uid, names in strict.items()], frozenset(changed)

    def standing(self, vm: Vm, seen: Seen) -> str:
        """Return what is wrong with a VM now, told or not; empty for nothing."""
        return _outside(vm, seen.record(vm, ""), seen) or (
            f"VM {vm.name} is in {seen.place(vm)}, and needs no trusted host there, though it did before."
            if vm.id in self.by_id and self.by_id[vm.id].warned
            else ""
        )

    def _forget(self, listed: Collection[str]) -> set[str]:
        """Note which VMs are gone, and forget the oldest of these; return whose records changed."""
        changed = set()
        for vm_id, record in list(self.by_id.items()):
            if vm_id not in listed and not record.gone:
                # At the end: the order is that of going.
                del self.by_id[vm_id]
                self.by_id[vm_id] = record._replace(gone=True)
                changed.add(vm_id)
        gone = [vm_id for vm_id, record in self.by_id.items() if record.gone] if changed else []
        for vm_id in gone[: max(len(gone) - MAX_GONE, 0)]:
            del self.by_id[vm_id]
        return changed | set(gone[: max(len(gone) - MAX_GONE, 0)])


def _is_like(record: Record, vm: Vm) -> bool:
    return (record.cluster_id, record.marked, record.gone) == (vm.cluster_id, vm.marked, False)


def _compare(
    vm: Vm, before: Optional[Record], after: Record, seen: Seen, causes: Collection[str]
) -> tuple[list[VmNews], Record]:
    """Return the news of one VM, and its record with the warning that stands from now on."""
    code, fault = _fault(vm, before, after, seen, causes)
    if before is not None and before.cluster_id == after.cluster_id:
        # Told before; or the whole pool ended, which is told of it and not of each VM.
        known = before.warned == code or (before.pool and not after.pool and not before.gone)
        fault = "" if known else fault
    if code:
        after = after._replace(warned=code)
    elif after.needs_trust or (before is not None and before.warned == "vm_marked_outside"):
        after = after._replace(warned="")
    news = [VmNews(name, vm, told) for name, told in _names(vm, before, after, seen, causes)]
    if fault:
        # One hook is told, the first: the same warning twice is one too many.
        first = news[0] if news else VmNews(MARKED, vm, "")
        news[:1] = [dataclasses.replace(first, code=code, fault=fault)]
    return news, after


def _fault(
    vm: Vm, before: Optional[Record], after: Record, seen: Seen, causes: Collection[str]
) -> tuple[str, str]:
    """Return code and sentence of what is wrong with a VM, empty for nothing."""
    outside = _outside(vm, after, seen)
    if outside:
        return "vm_marked_outside", outside
    if after.needs_trust or vm.id in seen.exempt:
        return "", ""
    moved = before is not None and before.cluster_id != after.cluster_id
    if before is not None and before.needs_trust and (moved or before.gone):
        text = f"VM {vm.name} needed a trusted host in pool {before.pool}, and is now in {seen.place(vm)}"
        return "vm_left_trust", f"{text}: it may run on any host."
    if before is not None and before.marked and not after.marked and after.pool:
        text = f"VM {vm.name} lost its mark {MARK_PROPERTY}, and is in {seen.place(vm)}"
        return "vm_unmarked", f"{text}: it may run on any host."
    if FROM_TRUSTED in causes and not (before is not None and before.warned):
        text = f"VM {vm.name} comes from a trusted cluster, as the engine says, and is now in {seen.place(vm)}"
        return FROM_TRUSTED, f"{text}: it may run on any host."
    return "", ""


def _outside(vm: Vm, record: Record, seen: Seen) -> str:
    if not vm.marked or record.pool or vm.id in seen.exempt:
        return ""
    return f"VM {vm.name} is marked by {MARK_PROPERTY}, but is in {seen.place(vm)}: nothing keeps it on trusted hosts."


def _names(
    vm: Vm, before: Optional[Record], after: Record, seen: Seen, causes: Collection[str]
) -> Iterable[tuple[str, str]]:
    """Yield the hooks that a VM's news is for, with what happened in words."""
    place = seen.place(vm)
    if IMPORTED in causes or (before is not None and before.gone):
        yield IMPORTED, f"VM {vm.name} was imported, and is in {place}."
    elif CLONED in causes:
        yield CLONED, f"VM {vm.name} was made from another one's or a template's disks, and is in {place}."
    elif before is None:
        yield ADDED, f"VM {vm.name} is new, and is in {place}."
    elif before.cluster_id != after.cluster_id:
        yield MOVED, f"VM {vm.name} was moved, and is in {place}."
    if FROM_TRUSTED in causes:
        yield FROM_TRUSTED, f"VM {vm.name} comes from a trusted cluster, as the engine says, and is in {place}."
    if before is not None and before.marked is not after.marked:
        yield MARKED, f"VM {vm.name} {'got' if after.marked else 'lost'} the mark {MARK_PROPERTY}, and is in {place}."


def _scope_widened(before: Optional[Record], after: Record) -> bool:
    """Return whether a VM needs no trust any more only because its pool's scope was changed."""
    return (
        before is not None
        and (before.needs_trust, before.cluster_id, before.marked, before.gone)
        == (True, after.cluster_id, after.marked, False)
        and not after.needs_trust
        and bool(after.pool)
    )


def _widened(pool: Pool, names: list[str]) -> Notice:
    text = f"Only marked VMs need trust in pool {pool.name} from now on. These may run on any host: {shortened(names)}."
    return Notice(f"pool_scope {pool.cluster_id}", "warning", text, cluster_id=pool.cluster_id)
