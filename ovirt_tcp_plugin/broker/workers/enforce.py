# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Carries out what the state plans: walls, quarantine and return, the ends of pools."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Collection
from typing import Protocol

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineEnforcement
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.pool_ender import PoolEnder, PoolPublisher
from ovirt_tcp_plugin.broker.workers.wall_builder import WallBuilder
from ovirt_tcp_plugin.clock import Clock

log = logging.getLogger("broker.service")

# Verdicts end without any news, so walls are looked at this often even if nothing happened.
ENFORCE_EVERY_MS = 1000
# The engine keeps no longer reason of a maintenance.
MAX_REASON_LENGTH = 1000


class Publisher(PoolPublisher, Protocol):
    """Who writes down what has to stand before a host leaves service."""

    def publish(self) -> None:
        """Write all snapshots that are old."""


class EnforcementWorker:
    """One thread calls `step` again and again.

    Args:
        in_charge: whether no other broker is.
        may_begin: whether everything was listed, VMs too.
        listing_due: called when the engine is not as the state has it.
    """

    def __init__(
        self,
        state: BrokerState,
        engine: EngineEnforcement,
        contact: EngineContact,
        requests: EndRequests,
        publisher: Publisher,
        metrics: Metrics,
        clock: Clock,
        in_charge: Callable[[], bool],
        may_begin: Callable[[], bool],
        listing_due: Callable[[], None],
    ) -> None:
        self._changes = state.changes
        self._walls = state.walls
        self._quarantine = state.quarantine
        self._engine = engine
        self._contact = contact
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._in_charge = in_charge
        self._may_begin = may_begin
        self._listing_due = listing_due
        self._calls = Calls()
        self._builder = WallBuilder(
            state, engine, contact, metrics, self._calls, clock, listing_due
        )
        self._pool_ender = PoolEnder(
            state, engine, contact, requests, publisher, metrics, self._calls, clock, listing_due
        )
        self._begun_ms = 0

    def stop(self) -> None:
        """Wait for the calls under way."""
        self._calls.stop()

    def step(self) -> None:
        """Carry out the plans, if something happened or a second passed.

        Before everything was listed, hosts that are known not to be trusted leave their walls, and
        no more.

        Raises:
            Unavailable: the engine does not answer.
        """
        if not self._in_charge() or not (self._is_late() or self._changes.are_plans_due()):
            return
        self._begun_ms = self._clock.now_ms()
        if not self._may_begin():
            self._changes.begin_plans()
            self._builder.build(self._walls.plans_before_listing(), self._is_late)
            return
        self._pool_ender.take_requests()
        trust_lost_in = self._changes.begin_plans()
        if trust_lost_in:
            # Before the other pools are looked at, of which there may be a thousand.
            self._builder.build(self._walls.due_plans(trust_lost_in), self._is_late)
        blocked = self._builder.build(self._walls.due_plans(), self._is_late)
        self._move_hosts(blocked)
        self._pool_ender.give_back()

    def _is_late(self) -> bool:
        return self._clock.now_ms() - self._begun_ms >= ENFORCE_EVERY_MS

    # Quarantine

    def _move_hosts(self, blocked: Collection[str]) -> None:
        """Ask for maintenance and for activation, each host on its own.

        Args:
            blocked: clusters of which no host leaves now: while a host that is not trusted is
                inside the wall of its pool, VMs of one that leaves could come to it.
        """
        leaving = self._quarantine.to_deactivate(blocked)
        returning = self._quarantine.to_activate()
        if not leaving and not returning:
            return
        # Out of the snapshot first: the VMs that leave this host may not be placed on another of
        # its kind.
        self._publisher.publish()
        self._publisher.save()
        away = threading.Event()
        jobs: dict[str, Callable[[], None]] = {}
        for host_id, reason in leaving:
            jobs[host_id] = functools.partial(self._deactivate, host_id, reason, away)
        for host_id in returning:
            jobs[host_id] = functools.partial(self._activate, host_id, away)
        self._calls.run(jobs)
        self._publisher.save()
        if away.is_set():
            raise errors.Unavailable("the engine", "it answers nothing")

    def _deactivate(self, host_id: str, reason: str, away: threading.Event) -> None:
        if away.is_set():
            return
        try:
            self._engine.deactivate(host_id, reason[:MAX_REASON_LENGTH])
        except errors.NotFound:
            self._listing_due()
            self._quarantine.not_deactivated(host_id)
        except (errors.Conflict, errors.Unavailable) as e:
            if self._contact.is_away(e):
                away.set()
                return
            self._quarantine.deactivated(host_id, str(e))
            self._metrics.quarantine(accepted=False)
        else:
            self._quarantine.deactivated(host_id)
            self._metrics.quarantine(accepted=True)

    def _activate(self, host_id: str, away: threading.Event) -> None:
        if away.is_set():
            return
        try:
            self._engine.activate(host_id)
        except (errors.Conflict, errors.NotFound, errors.Unavailable) as e:
            if self._contact.is_away(e):
                away.set()
                return
            log.warning("activate host=%s error=%s", host_id, e)
            self._quarantine.activated(host_id, str(e))
        else:
            self._quarantine.activated(host_id)
            self._metrics.returned()
