# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which walls are as they have to be, so that they need no plan until something changes. Pure.

At a thousand pools nearly all plans have no steps. What a plan follows from is compared with what
it was then, so that whoever changes it has nothing to report and nothing can be forgotten; the time
is in it as the moment at which the first verdict ends. Each wall is planned again after a minute
all the same: should a plan follow from more than is compared, a wall is wrong no longer than that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.placement.decision import Verdict, holds
from ovirt_tcp_plugin.placement.inventory import Group, Host
from ovirt_tcp_plugin.placement.pools import Pool

PLAN_AGAIN_MS = 60_000


class PlanInputs(NamedTuple):
    """What the plan for a pool's wall follows from, but for the time.

    Attributes:
        group: the wall, None if there is none.
        surplus: ids of further walls.
        vm_ids: of the VMs that belong behind the wall.
        hosts: of the pool.
        verdicts: theirs, in the same order.
        shared_names: ids of hosts that share their name at the attestation server.
    """

    pool: Pool
    group: Optional[Group]
    surplus: frozenset[str]
    vm_ids: frozenset[str]
    hosts: Sequence[Host]
    verdicts: Sequence[Optional[Verdict]]
    shared_names: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Settled:
    """The inputs of a plan without steps, and when time alone may bring one with some."""

    inputs: PlanInputs
    until_ms: int


class SettledWalls:
    """By cluster id. Not thread-safe."""

    def __init__(self) -> None:
        self._settled: dict[str, _Settled] = {}

    def is_settled(self, inputs: PlanInputs, now_ms: int) -> bool:
        """Return whether a plan made now would have no steps."""
        settled = self._settled.get(inputs.pool.cluster_id)
        return settled is not None and now_ms < settled.until_ms and settled.inputs == inputs

    def planned(self, inputs: PlanInputs, has_steps: bool, now_ms: int) -> None:
        """A plan was made.

        It settles the wall if nothing but the end of a verdict can outdate it.
        """
        cluster_id = inputs.pool.cluster_id
        until_ms = None if has_steps else _until_ms(inputs, now_ms)
        if until_ms is None:
            self._settled.pop(cluster_id, None)
        else:
            self._settled[cluster_id] = _Settled(inputs, until_ms)

    def keep(self, cluster_ids: Collection[str]) -> None:
        """Forget the walls of other clusters: they are no pools any more."""
        for cluster_id in self._settled.keys() - cluster_ids:
            del self._settled[cluster_id]


def _until_ms(inputs: PlanInputs, now_ms: int) -> Optional[int]:
    """Return until when a wall stays settled; None for a wall that has to be looked at each time.

    That is where a host is inside without a verdict, since it depends on the other hosts and on the
    servers how long it stays; and a VM that the engine does not list, which may be listed again.
    """
    group = inputs.group
    if group is None or group.vm_ids != inputs.vm_ids:
        return None
    until_ms = now_ms + PLAN_AGAIN_MS
    for host, verdict in zip(inputs.hosts, inputs.verdicts):
        if host.id not in group.host_ids:
            continue
        if verdict is None or not holds(verdict, now_ms):
            return None
        until_ms = min(until_ms, verdict.end_ms)
    return until_ms
