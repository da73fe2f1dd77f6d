# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Plans walls. Pure.

A wall is an enforcing positive VM-to-host affinity group with the hosts that are trusted now. The
engine lets a member VM start only on member hosts, and an empty list of hosts means nobody; that
works without us. But its enforcer moves VMs off hosts that are not listed, so a host is taken out
singly only on evidence, or at its verdict's end while other hosts of its pool give evidence. Where
hardly any does, or no attestation server answers, the wall stands until the last verdict ends, and
then is emptied at once: an empty group moves nobody. After a start of the engine it stands for a
while, too.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.broker.state.verdicts import STANDING_MS, CachedVerdict
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import holds
from ovirt_tcp_plugin.placement.inventory import Group
from ovirt_tcp_plugin.placement.pools import Pool

# So many members change singly: one call for all of them carries the whole list, and the engine
# validates each member.
MOST_SINGLE_EDITS = 2
# Of a long list a larger part has to change before one call is cheaper.
MEMBERS_PER_EDIT = 100
# A pool is silent when fewer than one in so many of its hosts give evidence.
SILENT_IN = 10


class Edit(enum.Enum):
    """A change of a wall, in the order of execution: who must leave leaves first, hosts before VMs.

    REPAIR makes the rules enforcing and takes host labels out. Those in the plural are one call
    that lists the members.
    """

    REPAIR = 0
    REMOVE_HOST = 1
    REMOVE_HOSTS = 2
    CREATE = 3
    ADD_HOST = 4
    ADD_HOSTS = 5
    ADD_VM = 6
    REMOVE_VM = 7
    CHANGE_VMS = 8
    REMOVE_SURPLUS = 9


@dataclasses.dataclass(frozen=True)
class Step:
    """An edit and its subject: the id of a host, a VM or a surplus wall; empty for many members.

    Attributes:
        host_ids, vm_ids: the members that the wall has afterwards, where the edit is one call for
            all of them. For REPAIR, those of a new wall, if this one cannot be repaired.
    """

    edit: Edit
    subject: str = ""
    host_ids: frozenset[str] = frozenset()
    vm_ids: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class WallPlan:
    """What to do to one pool's wall. `group`: the wall as it is, None if there is none."""

    pool: Pool
    group: Optional[Group]
    steps: Sequence[Step]


@dataclasses.dataclass(frozen=True)
class Inside:
    """The ids of the hosts that belong inside a wall.

    Attributes:
        unheard: those of them whose verdicts ended, and that stay only because their pool is silent
            though an attestation server answers.
    """

    host_ids: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()


def hosts_inside(
    up_hosts: Mapping[str, CachedVerdict],
    inside: Collection[str],
    servers_answer: bool,
    now_ms: int,
) -> Inside:
    """Return which hosts belong inside the wall.

    Args:
        up_hosts: the pool's hosts that are Up.
        inside: the hosts that are in the wall now.
        servers_answer: whether any attestation server answered when it was last asked.
    """
    staying: set[str] = set()
    ended: set[str] = set()
    for host_id, host in up_hosts.items():
        if holds(host.verdict, now_ms):
            staying.add(host_id)
            continue
        until_ms = host.inside_until_ms()
        if host_id not in inside or until_ms is None:
            continue
        if now_ms >= until_ms:
            ended.add(host_id)
        elif host.verdict.level is not Level.TRUSTED:
            staying.add(host_id)
    if not staying:
        return Inside()
    if not servers_answer:
        return Inside(frozenset(staying | ended))
    unheard = _unheard(ended, up_hosts, now_ms)
    return Inside(unheard | staying, unheard)


def _unheard(
    ended: Collection[str], up_hosts: Mapping[str, CachedVerdict], now_ms: int
) -> frozenset[str]:
    """Return those of the hosts during whose silence hardly any other host gave evidence.

    Each at the longest for another life of its verdict: the last verdict of a pool that is silent
    as a whole ends before.
    """
    if not ended:
        return frozenset()
    witnesses = [host for host in up_hosts.values() if host.gave_evidence()]
    answers = sorted(host.answered_ms for host in witnesses)
    unheard: set[str] = set()
    for host_id in ended:
        host = up_hosts[host_id]
        earlier = bisect.bisect_right(answers, host.unheard_since_ms(now_ms))
        heard = bisect.bisect_right(answers, host.unheard_until_ms(now_ms)) - earlier
        is_silent = heard * SILENT_IN < len(answers)
        if is_silent and now_ms < _latest_ms(host):
            unheard.add(host_id)
    return frozenset(unheard)


def _latest_ms(host: CachedVerdict) -> int:
    """Return when a host leaves though its pool is silent."""
    verdict = host.verdict
    if verdict.level is Level.TRUSTED:
        return 2 * verdict.end_ms - verdict.born_ms
    return (host.stands_until_ms or 0) + STANDING_MS


def plan(
    wall: Optional[Group],
    hosts: Collection[str],
    vms: Collection[str],
    known_vms: Collection[str],
    surplus: Collection[str] = (),
) -> list[Step]:
    """Return the steps from the wall as it is to one with these hosts and VMs.

    Args:
        known_vms: every VM that the engine listed; a member that is not among them is left alone.
        surplus: ids of further walls of the cluster. They go when this one is as it has to be:
            until then each of them may protect a VM that this one does not.
    """
    host_ids = frozenset(hosts)
    if wall is None:
        return [Step(Edit.CREATE, host_ids=host_ids, vm_ids=frozenset(vms))]
    leaving_vms = {vm_id for vm_id in wall.vm_ids.difference(vms) if vm_id in known_vms}
    vm_ids = (wall.vm_ids - leaving_vms).union(vms)
    steps: list[Step] = []
    if not wall.enforcing or wall.host_label_ids:
        steps.append(Step(Edit.REPAIR, host_ids=host_ids, vm_ids=vm_ids))
    steps += host_steps(wall, host_ids)
    steps += _vm_steps(wall, vm_ids)
    return steps or _steps(Edit.REMOVE_SURPLUS, surplus)


def host_steps(wall: Group, host_ids: frozenset[str]) -> list[Step]:
    """Return the steps to a wall with these hosts: some leave, then others enter."""
    staying = wall.host_ids & host_ids
    leaving = wall.host_ids - staying
    if _in_one_call(len(leaving), len(staying)):
        steps = [Step(Edit.REMOVE_HOSTS, host_ids=staying)]
    else:
        steps = _steps(Edit.REMOVE_HOST, leaving)
    entering = host_ids - staying
    if _in_one_call(len(entering), len(host_ids)):
        return [*steps, Step(Edit.ADD_HOSTS, host_ids=host_ids)]
    return [*steps, *_steps(Edit.ADD_HOST, entering)]


def _vm_steps(wall: Group, vm_ids: frozenset[str]) -> list[Step]:
    """Return the steps to a wall with these VMs."""
    if _in_one_call(len(wall.vm_ids ^ vm_ids), len(vm_ids)):
        return [Step(Edit.CHANGE_VMS, vm_ids=vm_ids)]
    added = _steps(Edit.ADD_VM, vm_ids - wall.vm_ids)
    return added + _steps(Edit.REMOVE_VM, wall.vm_ids - vm_ids)


def single_steps(group: Group, step: Step) -> list[Step]:
    """Return the single edits that do to a wall what one call for all would."""
    if step.edit is Edit.REMOVE_HOSTS:
        return _steps(Edit.REMOVE_HOST, group.host_ids - step.host_ids)
    if step.edit is Edit.ADD_HOSTS:
        return _steps(Edit.ADD_HOST, step.host_ids - group.host_ids)
    added = _steps(Edit.ADD_VM, step.vm_ids - group.vm_ids)
    return added + _steps(Edit.REMOVE_VM, group.vm_ids - step.vm_ids)


def _in_one_call(edits: int, members: int) -> bool:
    """Return whether one call with all members is better than a call for each edit.

    A wall is emptied in one step: while hosts leave one by one, the engine moves VMs onto those
    that are left.
    """
    if members == 0:
        return edits > 1
    return edits > MOST_SINGLE_EDITS and edits * MEMBERS_PER_EDIT >= members


def _steps(edit: Edit, subjects: Iterable[str]) -> list[Step]:
    return [Step(edit, subject) for subject in sorted(subjects)]
