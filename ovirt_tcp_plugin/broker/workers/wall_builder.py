# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries out the plans for the walls of all pools: several at once (`wall_work`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence

from ovirt_tcp_plugin.broker.engine_api import EngineWalls
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.retries import Retries
from ovirt_tcp_plugin.broker.state.wall_plan import Edit, WallPlan
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.wall_work import CREATING, ENTERING, LEAVING, WallWork
from ovirt_tcp_plugin.clock import Clock


class WallBuilder:
    """For one thread's use; its calls run in others.

    Args:
        listing_due: called when the engine's walls are not as the state has them.
    """

    def __init__(
        self,
        state: BrokerState,
        engine: EngineWalls,
        contact: EngineContact,
        metrics: Metrics,
        calls: Calls,
        clock: Clock,
        listing_due: Callable[[], None],
    ) -> None:
        self._state = state
        self._changes = state.changes
        self._engine = engine
        self._contact = contact
        self._metrics = metrics
        self._calls = calls
        self._clock = clock
        self._listing_due = listing_due
        self._retries: dict[str, Retries] = {}

    def build(self, plans: Sequence[WallPlan], late: Callable[[], bool]) -> frozenset[str]:
        """Carry out the plans; return the clusters of which nobody may leave service now.

        Those are where somebody who has to leave is still inside the wall, or may be: VMs of
        another host could come to him. The plans are outdated when somebody loses trust, and when
        it is `late`, since verdicts end by themselves; then there are better ones at the next look.
        Each wall is remembered step by step: a failure loses nothing.

        Raises:
            Unavailable: the engine does not answer. One that answers, but fails at a wall, fails at
                that wall only.
        """
        away = threading.Event()
        over = threading.Event()

        def outdated() -> bool:
            return over.is_set() or away.is_set() or self._changes.is_trust_lost() or late()

        try:
            return self._carry_out(plans, away, outdated, late)
        finally:
            # A call that hangs ends later than its plan.
            over.set()

    def _carry_out(
        self,
        plans: Sequence[WallPlan],
        away: threading.Event,
        outdated: Callable[[], bool],
        late: Callable[[], bool],
    ) -> frozenset[str]:
        works = {plan.pool.cluster_id: self._work(plan, away, outdated) for plan in plans}
        # Hosts that leave a wall leave first in all pools; then walls are made; then others enter.
        for edits in (LEAVING, CREATING, ENTERING):
            had_work = self._run(works, edits)
            if self._changes.is_trust_lost():
                # Also of pools without a plan: their walls were as they had to be before.
                return frozenset(self._state.pools())
            if had_work and late():
                self._changes.request_plans()
                break
        done = [cluster_id for cluster_id, work in works.items() if work.is_done()]
        self._state.walls.in_order(done)
        open_walls = [
            cluster_id for cluster_id, work in works.items() if work.may_let_untrusted_in()
        ]
        return frozenset(open_walls)

    def _run(self, works: Mapping[str, WallWork], edits: frozenset[Edit]) -> bool:
        """Carry out the steps of these edits in all pools; return whether there were any.

        Raises:
            Unavailable: the engine does not answer.
        """
        jobs: dict[str, Callable[[], None]] = {}
        for cluster_id, work in works.items():
            if work.has(edits):
                jobs[cluster_id] = functools.partial(work.carry_out, edits)
        self._calls.run(jobs)
        for work in works.values():
            if work.away is not None:
                raise work.away
        return bool(jobs)

    def _work(
        self, plan: WallPlan, away: threading.Event, outdated: Callable[[], bool]
    ) -> WallWork:
        retries = self._retries.setdefault(plan.pool.cluster_id, Retries())
        if not self._calls.is_under_way(plan.pool.cluster_id):
            retries.keep(plan.steps)
        return WallWork(
            plan,
            self._state,
            self._engine,
            self._contact,
            self._metrics,
            retries,
            self._clock,
            away,
            outdated,
            self._listing_due,
        )
