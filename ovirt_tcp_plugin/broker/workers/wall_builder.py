# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries out the plans for the walls of all pools: several at once (`wall_work`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

from ovirt_tcp_plugin.broker.engine_api import EngineWalls
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState, WallPlan
from ovirt_tcp_plugin.broker.state.retries import Retries
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.wall_work import CREATING, ENTERING, LEAVING, WallWork
from ovirt_tcp_plugin.clock import Clock


class WallBuilder:
    """The walls' builder. `listing_due` is called when the engine's walls are not as they were thought to be."""

    def __init__(
        self,
        state: BrokerState,
        engine: EngineWalls,
        metrics: Metrics,
        calls: Calls,
        clock: Clock,
        listing_due: Callable[[], None],
    ) -> None:
        self._state, self._engine, self._metrics = state, engine, metrics
        self._calls, self._clock, self._listing_due = calls, clock, listing_due
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
            return over.is_set() or away.is_set() or self._state.worse.is_set() or late()

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
        # Who leaves a wall leaves first in all pools; then walls are made; then others enter.
        for edits in (LEAVING, CREATING, ENTERING):
            jobs = {
                cluster_id: functools.partial(work.carry_out, edits)
                for cluster_id, work in works.items()
                if work.has(edits)
            }
            self._calls.run(jobs)
            for work in works.values():
                if work.away is not None:
                    raise work.away
            if self._state.worse.is_set():
                return frozenset(works)
            if jobs and late():
                self._state.changed.set()
                break
        done = [cluster_id for cluster_id, work in works.items() if work.is_done()]
        self._state.walls_in_order(done)
        open_walls = [
            cluster_id for cluster_id, work in works.items() if work.may_let_untrusted_in()
        ]
        return frozenset(open_walls)

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
            self._metrics,
            retries,
            self._clock,
            away,
            outdated,
            self._listing_due,
        )
