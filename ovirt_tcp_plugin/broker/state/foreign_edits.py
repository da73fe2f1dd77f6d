# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is reported of walls: edits of somebody else, which are put right, and refusals. Pure.

An edit of ours whose answer got lost looks like somebody else's. So only what we would not have
done is reported: a host let in that is not trusted, one put out that is, a VM let out that needs
trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Optional

from ovirt_tcp_plugin.broker.state.wall_plan import Edit
from ovirt_tcp_plugin.placement.inventory import Group, Host, Notice, Vm, shortened
from ovirt_tcp_plugin.placement.pools import Pool

_BY_HAND = "Edit the affinity group by hand, or take what the engine names out of its way"
# What a wall is like while the engine refuses an edit of it, and what to do about it.
_REFUSED = {
    Edit.REPAIR: (
        "its rules do not bind, or hosts are inside by a label",
        f"{_BY_HAND}; until then filter and gate refuse alone",
    ),
    Edit.REMOVE_HOST: ("hosts that are not trusted are inside", _BY_HAND),
    Edit.CREATE: (
        "it is not there",
        "Take what the engine names out of its way; until then filter and gate refuse alone",
    ),
    Edit.ADD_HOST: ("trusted hosts are outside, and get no VMs", _BY_HAND),
    Edit.ADD_VM: ("VMs that need a trusted host are not behind it", _BY_HAND),
    Edit.REMOVE_VM: ("VMs that need no trusted host are behind it", _BY_HAND),
    Edit.REMOVE_SURPLUS: (
        "another one stays beside it",
        "Remove the affinity group that the broker made before it",
    ),
}
# Those that are one call for all members.
_SINGLE = {
    Edit.REMOVE_HOSTS: Edit.REMOVE_HOST,
    Edit.ADD_HOSTS: Edit.ADD_HOST,
    Edit.CHANGE_VMS: Edit.ADD_VM,
}


def foreign(
    known: Group,
    listed: Optional[Group],
    hosts: Iterable[Host],
    is_trusted: Callable[[str], bool],
    vms_needing_trust: Iterable[Vm],
) -> str:
    """Return what somebody else did to a wall, in words; empty for nothing.

    Args:
        known: the wall as we left it.
        listed: as the engine lists it, None if it is gone.
        hosts: the pool's.
        is_trusted: whether a host counts as trusted, by its id.
        vms_needing_trust: the pool's VMs that do.
    """
    if listed is None:
        return "it was removed"
    changes: list[str] = []
    if known.enforcing and not listed.enforcing:
        changes.append("it was made to stop nobody")
    if listed.host_label_ids - known.host_label_ids:
        changes.append("hosts were let in by a label")
    changes += _host_changes(known, listed, hosts, is_trusted)
    let_out = known.vm_ids - listed.vm_ids
    vm_names = [vm.name for vm in vms_needing_trust if vm.id in let_out]
    if vm_names:
        changes.append(f"VMs were let out: {shortened(vm_names)}")
    return "; ".join(changes)


def _host_changes(
    known: Group, listed: Group, hosts: Iterable[Host], is_trusted: Callable[[str], bool]
) -> list[str]:
    entered = listed.host_ids - known.host_ids
    left = known.host_ids - listed.host_ids
    let_in: list[str] = []
    put_out: list[str] = []
    for host in hosts:
        if host.id in entered and not is_trusted(host.id):
            let_in.append(host.name)
        if host.id in left and is_trusted(host.id):
            put_out.append(host.name)
    changes: list[str] = []
    if let_in:
        changes.append(f"hosts were let in that are not trusted: {shortened(let_in)}")
    if put_out:
        changes.append(f"hosts were put out that are trusted: {shortened(put_out)}")
    return changes


class WallNews:
    """What is still to be told of each wall, by cluster id: each thing once. Not thread-safe."""

    def __init__(self) -> None:
        # What somebody did to a wall, and what the engine said when one call could not mend it.
        self._edited: dict[str, str] = {}
        self._refused_at_first: dict[str, str] = {}
        # Edits whose refusal was told.
        self._refused: dict[str, set[Edit]] = {}

    def waiting(self) -> frozenset[str]:
        """Return the clusters of whose walls something is to be told."""
        return frozenset(self._edited).union(self._refused_at_first, self._refused)

    def has_any(self, cluster_id: str) -> bool:
        """Return whether something is to be told of a cluster's wall."""
        return any(
            cluster_id in news for news in (self._edited, self._refused_at_first, self._refused)
        )

    def edited(self, cluster_id: str, done: str) -> None:
        """Somebody else did this to a wall; it is told when it is put right, or cannot be."""
        before = self._edited.get(cluster_id)
        self._edited[cluster_id] = done if before in (None, done) else f"{before}; {done}"

    def refused_at_first(self, cluster_id: str, reason: str) -> None:
        """The engine refused the simplest edit; there are others."""
        self._refused_at_first[cluster_id] = reason

    def refused(self, pool: Pool, edit: Edit, reason: str) -> Optional[Notice]:
        """The engine refuses an edit again and again; return what to tell."""
        edit = _SINGLE.get(edit, edit)
        edits = self._refused.setdefault(pool.cluster_id, set())
        if edit in edits:
            return None
        edits.add(edit)
        state, next_step = _REFUSED[edit]
        done = self._edited.pop(pool.cluster_id, "")
        if done:
            text = f"Somebody edited the wall of pool {pool.name}: {done}. It is not put right"
        else:
            text = f"The wall of pool {pool.name} is not as it has to be"
        text = f"{text}: {state}. {reason} {next_step}. It is tried again."
        key = f"wall_refused {pool.cluster_id} {edit.name}"
        return Notice(key, "error", text, cluster_id=pool.cluster_id)

    def in_order(self, pool: Pool) -> Optional[Notice]:
        """A wall is as it has to be; return what to tell."""
        cluster_id = pool.cluster_id
        done = self._edited.pop(cluster_id, "")
        reason = self._refused_at_first.pop(cluster_id, "")
        refused = self._refused.pop(cluster_id, None)
        if done:
            text = f"Somebody edited the wall of pool {pool.name}: {done}. It is put right."
            if reason:
                text = f"{text} That took several steps: {reason}"
            return Notice(f"wall_edited {cluster_id}", "warning", text, cluster_id=cluster_id)
        if refused:
            text = f"The wall of pool {pool.name} is as it has to be again."
            return Notice(f"wall_restored {cluster_id}", "normal", text, cluster_id=cluster_id)
        return None
