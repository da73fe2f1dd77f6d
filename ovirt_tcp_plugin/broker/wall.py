# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The wall: an enforcing positive VM-to-host affinity group with the hosts that are trusted now. Pure: it plans.

The engine lets a member VM start only on member hosts, and an empty list of hosts means nobody; that works without us.
But its enforcer moves VMs off hosts that are not listed, so a host is taken out singly only on evidence or while the
attestation servers answer. When none answers, the wall stands until the last verdict ends, and then is emptied at once:
an empty group moves nobody.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Optional

from ovirt_tcp_plugin.broker.decision import Verdict, holds
from ovirt_tcp_plugin.broker.inventory import Group
from ovirt_tcp_plugin.messages.result import Level


class Edit(enum.Enum):
    """One call to the engine. The order is the order of execution: who must leave leaves first, hosts before VMs."""

    REPAIR = 0
    REMOVE_LABEL = 1
    REMOVE_HOST = 2
    CREATE = 3
    ADD_HOST = 4
    ADD_VM = 5
    REMOVE_VM = 6


@dataclasses.dataclass(frozen=True)
class Step:
    """An edit and its subject: the id of a label, a host or a VM, empty for CREATE and REPAIR.

    Attributes:
        host_ids, vm_ids: the members that a wall is made with: one call for all of them.
    """

    edit: Edit
    subject: str = ""
    host_ids: frozenset[str] = frozenset()
    vm_ids: frozenset[str] = frozenset()


def hosts_inside(
    up_hosts: Mapping[str, Optional[Verdict]], inside: Collection[str], servers_answer: bool, now_ms: int
) -> frozenset[str]:
    """Return the ids of the hosts that belong inside the wall.

    Args:
        up_hosts: the verdicts of the pool's hosts that are Up.
        inside: the hosts that are in the wall now.
        servers_answer: whether any attestation server answered when it was last asked.
    """
    good = {host_id for host_id, verdict in up_hosts.items() if verdict is not None and holds(verdict, now_ms)}
    if servers_answer or not good:
        return frozenset(good)
    ended = {
        host_id
        for host_id in inside
        for verdict in [up_hosts.get(host_id)]
        if verdict is not None and verdict.level is Level.TRUSTED and now_ms >= verdict.end_ms
    }
    return frozenset(good | ended)


def plan(wall: Optional[Group], hosts: Collection[str], vms: Collection[str], known_vms: Collection[str]) -> list[Step]:
    """Return the steps from the wall as it is to one with these hosts and VMs.

    Args:
        known_vms: every VM that the engine listed; a member that is not among them is left alone.
    """
    if wall is None:
        return [Step(Edit.CREATE, host_ids=frozenset(hosts), vm_ids=frozenset(vms))]
    steps = [] if wall.enforcing else [Step(Edit.REPAIR)]
    steps += _steps(Edit.REMOVE_LABEL, wall.host_label_ids)
    steps += _steps(Edit.REMOVE_HOST, wall.host_ids - set(hosts))
    steps += _steps(Edit.ADD_HOST, set(hosts) - wall.host_ids)
    steps += _steps(Edit.ADD_VM, set(vms) - wall.vm_ids)
    steps += _steps(Edit.REMOVE_VM, {vm for vm in wall.vm_ids if vm in known_vms} - set(vms))
    return steps


def _steps(edit: Edit, subjects: Iterable[str]) -> list[Step]:
    return [Step(edit, subject) for subject in sorted(subjects)]
