# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is told of walls. Pure. Who edited one that was not us? It is put right all the same.

An edit of ours whose answer got lost looks like somebody else's. So only that is told which we would not have done: a host
let in that is not trusted, one put out that is, a VM let out that needs trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from ovirt_tcp_plugin.broker.inventory import Group, Host, Notice, Vm, shortened
from ovirt_tcp_plugin.broker.pools import Pool
from ovirt_tcp_plugin.broker.wall import Edit

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
    known: Group, seen: Optional[Group], hosts: Iterable[Host], trusted: Callable[[str], bool], needy: Iterable[Vm]
) -> str:
    """Return what somebody else did to a wall, in words; empty for nothing.

    Args:
        known: the wall as we left it.
        seen: as the engine lists it, None if it is gone.
        hosts: the pool's.
        trusted: whether a host counts as trusted, by id.
        needy: the pool's VMs that need trust.
    """
    if seen is None:
        return "it was removed"
    return "; ".join(_changes(known, seen, hosts, trusted, needy))


def _changes(
    known: Group, seen: Group, hosts: Iterable[Host], trusted: Callable[[str], bool], needy: Iterable[Vm]
) -> Iterator[str]:
    if known.enforcing and not seen.enforcing:
        yield "it was made to stop nobody"
    if seen.host_label_ids - known.host_label_ids:
        yield "hosts were let in by a label"
    own = [(host.name, host.id) for host in hosts]
    let_in = [name for name, uid in own if uid in seen.host_ids - known.host_ids and not trusted(uid)]
    put_out = [name for name, uid in own if uid in known.host_ids - seen.host_ids and trusted(uid)]
    let_out = [vm.name for vm in needy if vm.id in known.vm_ids - seen.vm_ids]
    for names, what in ((let_in, "let in that are not trusted"), (put_out, "put out that are trusted")):
        if names:
            yield f"hosts were {what}: {shortened(names)}"
    if let_out:
        yield f"VMs were let out: {shortened(let_out)}"


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
        uid = pool.cluster_id
        done = self._edited.pop(uid, "")
        reason = self._refused_at_first.pop(uid, "")
        refused = self._refused.pop(uid, None)
        if done:
            text = f"Somebody edited the wall of pool {pool.name}: {done}. It is put right."
            if reason:
                text = f"{text} That took several steps: {reason}"
            return Notice(f"wall_edited {uid}", "warning", text, cluster_id=uid)
        if refused:
            text = f"The wall of pool {pool.name} is as it has to be again."
            return Notice(f"wall_restored {uid}", "normal", text, cluster_id=uid)
        return None
