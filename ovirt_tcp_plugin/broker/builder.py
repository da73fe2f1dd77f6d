# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries out the plans for the walls of all pools: several pools at once, each wall step by step."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine import Engine
from ovirt_tcp_plugin.broker.inventory import Group, wall_name
from ovirt_tcp_plugin.broker.knowledge import Knowledge, WallPlan
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.wall import Edit, Step

log = logging.getLogger("broker.builder")

# Calls to the engine at once. More would only keep its other users waiting.
CONNECTIONS = 4
# Who leaves a wall leaves first in all pools; then walls are made; then others enter.
_ROUNDS = (
    frozenset({Edit.REPAIR, Edit.REMOVE_LABEL, Edit.REMOVE_HOST}),
    frozenset({Edit.CREATE}),
    frozenset({Edit.ADD_HOST, Edit.ADD_VM, Edit.REMOVE_VM}),
)
_ENTERING = _ROUNDS[-1]


class Builder:
    """The walls' builder. `listing_due` is called when the engine's walls are not as they were thought to be."""

    def __init__(self, knowledge: Knowledge, engine: Engine, metrics: Metrics, listing_due: Callable[[], None]) -> None:
        self._knowledge, self._engine, self._metrics, self._listing_due = knowledge, engine, metrics, listing_due
        self._pool = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)

    def stop(self) -> None:
        """Wait for the calls under way."""
        self._pool.shutdown()

    def build(self, plans: Sequence[WallPlan], late: Callable[[], bool]) -> bool:
        """Carry out the plans; return whether all left who had to, and walls stand where they have to.

        The plans are outdated when somebody loses trust, and when it is `late`, since verdicts end by themselves; then
        there are better ones at the next look. Each wall is remembered step by step: a failure loses nothing. The engine
        may fail at one wall only, so the others are gone on with; if it fails at two, it is away.

        Raises:
            Unavailable: the engine failed.
        """
        failed: list[errors.Unavailable] = []

        def outdated() -> bool:
            return self._knowledge.worse.is_set() or late() or len(failed) > 1

        def build_one(plan: WallPlan, edits: frozenset[Edit], groups: dict[str, Group]) -> None:
            cluster_id = plan.pool.cluster_id
            try:
                for step in plan.steps:
                    if step.edit in edits and not outdated() and (groups[cluster_id].id or step.edit is Edit.CREATE):
                        groups[cluster_id] = self._build(cluster_id, groups[cluster_id], step)
            except errors.Unavailable as e:
                failed.append(e)

        groups = {plan.pool.cluster_id: plan.group or Group("", wall_name(plan.pool.cluster_id)) for plan in plans}
        for edits in _ROUNDS:
            busy = [plan for plan in plans if any(step.edit in edits for step in plan.steps)]
            list(self._pool.map(lambda plan, edits=edits: build_one(plan, edits, groups), busy))
            if len(failed) > 1:
                break
            if self._knowledge.worse.is_set():
                return False
            if busy and late():
                self._knowledge.changed.set()
                return edits is _ENTERING and not failed
        if failed:
            raise failed[0]
        return True

    def _build(self, cluster_id: str, group: Group, step: Step) -> Group:
        # The plan may be old: the engine was slow, or this process stood still.
        if step.edit is Edit.ADD_HOST and not self._knowledge.holds(step.subject):
            return group
        self._metrics.wall_edit(step.edit.name)
        try:
            carry_out = self._create if step.edit is Edit.CREATE else self._edit
            group = carry_out(cluster_id, group, step)
        except (errors.Conflict, errors.NotFound) as e:
            log.warning("wall cluster=%s step=%s subject=%s error=%s", cluster_id, step.edit.name, step.subject, e)
            self._listing_due()
        else:
            self._knowledge.walled(cluster_id, group)
        return group

    def _create(self, cluster_id: str, group: Group, step: Step) -> Group:
        """Make a wall with its members in one call; if the engine refuses one of them, an empty one, to fill singly."""
        host_ids = frozenset(host_id for host_id in step.host_ids if self._knowledge.holds(host_id))
        try:
            made = self._engine.create_wall(cluster_id, host_ids, step.vm_ids)
        except (errors.Conflict, errors.NotFound) as e:
            log.warning("wall cluster=%s is made empty error=%s", cluster_id, e)
            return dataclasses.replace(group, id=self._engine.create_wall(cluster_id))
        return dataclasses.replace(group, id=made, host_ids=host_ids, vm_ids=step.vm_ids)

    def _edit(self, cluster_id: str, group: Group, step: Step) -> Group:
        engine, subject = self._engine, {step.subject}
        if step.edit is Edit.REPAIR:
            engine.repair_wall(cluster_id, group.id)
            return dataclasses.replace(group, enforcing=True)
        if step.edit is Edit.REMOVE_LABEL:
            engine.remove_label(cluster_id, group.id, step.subject)
            return dataclasses.replace(group, host_label_ids=group.host_label_ids - subject)
        if step.edit is Edit.REMOVE_HOST:
            engine.remove_host(cluster_id, group.id, step.subject)
            return dataclasses.replace(group, host_ids=group.host_ids - subject)
        if step.edit is Edit.ADD_HOST:
            engine.add_host(cluster_id, group.id, step.subject)
            return dataclasses.replace(group, host_ids=group.host_ids | subject)
        if step.edit is Edit.ADD_VM:
            engine.add_vm(cluster_id, group.id, step.subject)
            return dataclasses.replace(group, vm_ids=group.vm_ids | subject)
        engine.remove_vm(cluster_id, group.id, step.subject)
        return dataclasses.replace(group, vm_ids=group.vm_ids - subject)
