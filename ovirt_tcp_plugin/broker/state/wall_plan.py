# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Plans walls. Pure.

A wall is an enforcing positive VM-to-host affinity group with the hosts that are trusted now. The
engine lets a member VM start only on member hosts, and an empty list of hosts means nobody; that
works without us. But its enforcer moves VMs off hosts that are not listed, so a host is taken out
singly only on evidence or while the attestation servers answer. When none answers, the wall stands
until the last verdict ends, and then is emptied at once: an empty group moves nobody.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Verdict, holds
from ovirt_tcp_plugin.placement.inventory import Group
from ovirt_tcp_plugin.placement.pools import Pool

# So many members change singly: one call for all of them carries the whole list, and the engine
# validates each member.
MOST_SINGLE_EDITS = 2
# Of a long list a larger part has to change before one call is cheaper.
MEMBERS_PER_EDIT = 100


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


def hosts_inside(
    up_hosts: Mapping[str, Optional[Verdict]],
    inside: Collection[str],
    servers_answer: bool,
    now_ms: int,
) -> frozenset[str]:
    """Return the ids of the hosts that belong inside the wall.

    Args:
        up_hosts: the verdicts of the pool's hosts that are Up.
        inside: the hosts that are in the wall now.
        servers_answer: whether any attestation server answered when it was last asked.
    """
    trusted: set[str] = set()
    ended: set[str] = set()
    for host_id, verdict in up_hosts.items():
        if verdict is None or verdict.level is not Level.TRUSTED:
            continue
        if holds(verdict, now_ms):
            trusted.add(host_id)
        elif host_id in inside and now_ms >= verdict.end_ms:
            ended.add(host_id)
    if servers_answer or not trusted:
        return frozenset(trusted)
    return frozenset(trusted | ended)


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
    leaving_vms = {vm_id for vm_id in wall.vm_ids if vm_id in known_vms}.difference(vms)
    vm_ids = (wall.vm_ids - leaving_vms).union(vms)
    steps: list[Step] = []
    if not wall.enforcing or wall.host_label_ids:
        steps.append(Step(Edit.REPAIR, host_ids=host_ids, vm_ids=vm_ids))
    steps += _host_steps(wall, host_ids)
    steps += _vm_steps(wall, vm_ids)
    return steps or _steps(Edit.REMOVE_SURPLUS, surplus)


def _host_steps(wall: Group, host_ids: frozenset[str]) -> list[Step]:
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
