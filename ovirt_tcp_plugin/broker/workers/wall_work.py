# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries out the plan for one wall, step by step, in whatever thread.

A step that the engine refuses or fails at is tried again ever more slowly, and told of once. What
one call cannot do is done by several: a list of members one by one, a repair by emptying the wall
first, and at last by a new wall beside it.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineWalls
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.retries import FAILURES_REPORTED, Retries
from ovirt_tcp_plugin.broker.state.wall_plan import Edit, Step, WallPlan, single_steps
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.inventory import Group, wall_name

log = logging.getLogger("broker.wall_work")

LEAVING = frozenset({Edit.REPAIR, Edit.REMOVE_HOST, Edit.REMOVE_HOSTS})
CREATING = frozenset({Edit.CREATE})
ENTERING = frozenset(Edit) - LEAVING - CREATING
_HOSTS_LEAVING = frozenset({Edit.REMOVE_HOST, Edit.REMOVE_HOSTS})
_WITH_ALL_MEMBERS = frozenset({Edit.REMOVE_HOSTS, Edit.ADD_HOSTS, Edit.CHANGE_VMS})


class WallWork:
    """One plan. `carry_out` is for one thread at a time.

    Attributes:
        away: set when the engine does not answer at all.
    """

    def __init__(
        self,
        plan: WallPlan,
        state: BrokerState,
        engine: EngineWalls,
        contact: EngineContact,
        metrics: Metrics,
        retries: Retries,
        clock: Clock,
        engine_away: threading.Event,
        outdated: Callable[[], bool],
        listing_due: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._state = state
        self._engine = engine
        self._contact = contact
        self._metrics = metrics
        self._retries = retries
        self._clock = clock
        self._engine_away = engine_away
        self._outdated = outdated
        self._listing_due = listing_due
        self._cluster_id = plan.pool.cluster_id
        self._group = plan.group or Group("", wall_name(self._cluster_id))
        self._known = plan.group
        self._carried_out: set[Step] = set()
        # Steps that were refused, failed, or wait for their next try.
        self._failed: set[Step] = set()
        # The wall is another one than the plan is for: the next plan goes on.
        self._over = False
        self.away: Optional[errors.Unavailable] = None

    def has(self, edits: frozenset[Edit]) -> bool:
        """Return whether the plan has such a step."""
        return not self._over and any(step.edit in edits for step in self._plan.steps)

    def is_done(self) -> bool:
        """Return whether the wall is as it has to be."""
        return bool(self._group.id) and all(step in self._carried_out for step in self._plan.steps)

    def may_let_untrusted_in(self) -> bool:
        """Return whether a host that has to leave is still inside, or nobody looked.

        A wall that the engine refuses to make or to repair keeps nobody in service: it does not get
        better by waiting.
        """
        for step in self._plan.steps:
            if step.edit in _HOSTS_LEAVING and step not in self._carried_out:
                return True
            tried = step in self._carried_out or step in self._failed
            if step.edit in (Edit.REPAIR, Edit.CREATE) and not tried:
                return True
        return False

    def carry_out(self, edits: frozenset[Edit]) -> None:
        """Carry out the steps of these edits, as long as the plan is good."""
        for step in self._plan.steps:
            if self._over or self._outdated():
                return
            if step.edit not in edits or not (self._group.id or step.edit is Edit.CREATE):
                continue
            if self._retries.due(step, self._clock.now_ms()):
                self._try(step)
            else:
                self._failed.add(step)

    def _try(self, step: Step) -> None:
        self._metrics.wall_edit(step.edit.name)
        try:
            if self._carry_out(step):
                self._retries.succeeded(step)
                self._carried_out.add(step)
        except (errors.Conflict, errors.NotFound) as e:
            self._refused(step, e)
        except errors.Unavailable as e:
            self._fails(step, e)

    def _refused(self, step: Step, error: errors.Error) -> None:
        try:
            gone = bool(self._group.id) and not self._is_listed()
        except errors.Unavailable as e:
            self._fails(step, e)
            return
        if gone:
            self._over = True
            self._state.walls.gone(self._cluster_id, self._group.id)
        else:
            self._take_failure(step, error)

    def _fails(self, step: Step, error: errors.Unavailable) -> None:
        """No answer, or one without sense: of the engine as a whole, or at this wall only?"""
        # The other steps wait for the next plan: each may hang as long while a host has to leave.
        self._over = True
        if self._engine_away.is_set() or self._contact.is_away(error):
            self._engine_away.set()
            self.away = error
        else:
            self._take_failure(step, error)

    def _take_failure(self, step: Step, error: errors.Error) -> None:
        self._failed.add(step)
        number = self._retries.failed(step, self._clock.now_ms())
        log.warning(
            "wall cluster=%s step=%s subject=%s try=%d error=%s",
            self._cluster_id,
            step.edit.name,
            step.subject or "-",
            number,
            error,
        )
        if number == 1:
            self._listing_due()
        if number == FAILURES_REPORTED:
            self._state.walls.refused(self._cluster_id, step.edit, str(error))

    # One step: whether it was carried out; if not, the next plan goes on

    def _carry_out(self, step: Step) -> bool:
        if step.edit is Edit.CREATE:
            return self._create(step)
        if step.edit is Edit.REPAIR:
            return self._repair(step)
        if step.edit in _WITH_ALL_MEMBERS:
            return self._set_members(step)
        if step.edit is Edit.REMOVE_SURPLUS:
            self._engine.remove_wall(self._cluster_id, step.subject)
            self._state.walls.surplus_removed(self._cluster_id, step.subject)
            return True
        return self._edit_member(step)

    def _create(self, step: Step) -> bool:
        """Make a wall with its members in one call; if it is refused, an empty one to fill."""
        if self._make(step, spare=False):
            return True
        walls = self._engine.walls(self._cluster_id)
        if walls:
            # Made by a call of ours whose answer got lost.
            self._walled(walls[0])
        else:
            self._make_empty()
        return self._goes_on_later()

    def _make(self, step: Step, spare: bool) -> bool:
        """Make a wall with the members of a step; return whether the engine did."""
        host_ids = frozenset(host_id for host_id in step.host_ids if self._state.holds(host_id))
        try:
            made = self._engine.create_wall(self._cluster_id, host_ids, step.vm_ids, spare)
        except (errors.Conflict, errors.NotFound) as e:
            log.warning("not made with members cluster=%s error=%s", self._cluster_id, e)
            self._state.walls.refused_at_first(self._cluster_id, str(e))
            return False
        self._walled(Group(made, wall_name(self._cluster_id), host_ids, step.vm_ids))
        return True

    def _make_empty(self) -> None:
        try:
            made = self._engine.create_wall(self._cluster_id)
        except (errors.Conflict, errors.NotFound):
            # The usual name may be taken, by a group of whatever cluster.
            made = self._engine.create_wall(self._cluster_id, spare=True)
        self._walled(Group(made, wall_name(self._cluster_id)))

    def _repair(self, step: Step) -> bool:
        for emptied in (False, True):
            try:
                name = self._group.name
                self._engine.repair_wall(self._cluster_id, self._group.id, emptied, name)
            except (errors.Conflict, errors.NotFound) as e:
                if not self._is_listed():
                    raise
                log.warning(
                    "not repaired cluster=%s emptied=%s error=%s", self._cluster_id, emptied, e
                )
                self._state.walls.refused_at_first(self._cluster_id, str(e))
            else:
                repaired = dataclasses.replace(
                    self._group, enforcing=True, host_label_ids=frozenset()
                )
                if emptied:
                    repaired = dataclasses.replace(repaired, host_ids=frozenset())
                self._walled(repaired)
                return self._goes_on_later() if emptied else True
        return self._replace(step)

    def _replace(self, step: Step) -> bool:
        """Make a new wall beside this one, which stays until the new one is complete: both bind."""
        old_id = self._group.id
        if not self._make(step, spare=True):
            made = self._engine.create_wall(self._cluster_id, spare=True)
            self._walled(Group(made, wall_name(self._cluster_id)))
        self._state.walls.surplus_left(self._cluster_id, old_id)
        return self._goes_on_later()

    def _set_members(self, step: Step) -> bool:
        """List all members in one call, and singly when the engine refuses that for one of them."""
        if self._retries.number(step) == 0:
            try:
                self._set_all_members(step)
            except (errors.Conflict, errors.NotFound) as e:
                if not self._is_listed():
                    raise
                log.warning(
                    "refused cluster=%s step=%s error=%s", self._cluster_id, step.edit.name, e
                )
            else:
                return True
        refusal: Optional[errors.Error] = None
        for single in single_steps(self._group, step):
            if self._outdated():
                return self._goes_on_later()
            try:
                self._edit_member(single)
            except (errors.Conflict, errors.NotFound) as e:
                refusal = e
        if refusal is not None:
            raise refusal
        return True

    def _set_all_members(self, step: Step) -> None:
        group = self._group
        if step.edit is Edit.CHANGE_VMS:
            added = step.vm_ids - group.vm_ids
            removed = group.vm_ids - step.vm_ids
            vm_ids = self._engine.change_vms(self._cluster_id, group.id, added, removed)
            self._walled(dataclasses.replace(group, vm_ids=vm_ids))
            return
        # The plan may be old: the engine was slow, or this process stood still.
        newcomers = step.host_ids - group.host_ids
        entering = {host_id for host_id in newcomers if self._state.holds(host_id)}
        host_ids = (step.host_ids & group.host_ids) | entering
        self._engine.set_hosts(self._cluster_id, group.id, host_ids)
        self._walled(dataclasses.replace(group, host_ids=host_ids))

    def _edit_member(self, step: Step) -> bool:
        engine = self._engine
        cluster_id = self._cluster_id
        group = self._group
        subject = step.subject
        if step.edit is Edit.REMOVE_HOST:
            engine.remove_host(cluster_id, group.id, subject)
            self._walled(dataclasses.replace(group, host_ids=group.host_ids - {subject}))
        elif step.edit is Edit.ADD_HOST:
            if not self._state.holds(subject):
                return False
            engine.add_host(cluster_id, group.id, subject)
            self._walled(dataclasses.replace(group, host_ids=group.host_ids | {subject}))
        elif step.edit is Edit.ADD_VM:
            engine.add_vm(cluster_id, group.id, subject)
            self._walled(dataclasses.replace(group, vm_ids=group.vm_ids | {subject}))
        else:
            engine.remove_vm(cluster_id, group.id, subject)
            self._walled(dataclasses.replace(group, vm_ids=group.vm_ids - {subject}))
        return True

    def _is_listed(self) -> bool:
        return self._engine.has_group(self._cluster_id, self._group.id)

    def _walled(self, group: Group) -> None:
        self._group = group
        known = self._state.walls.edited(self._cluster_id, group)
        if known != self._known:
            # It was listed while our call took long: what it is now, only the next listing tells.
            self._listing_due()
        self._known = group

    def _goes_on_later(self) -> bool:
        self._over = True
        self._state.changes.request_plans()
        return False
