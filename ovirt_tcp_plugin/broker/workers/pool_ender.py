# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Gives back what we did where a person ended a pool: its wall, hosts in quarantine, its snapshot.

The end is saved first. Whatever is interrupted goes on after a restart.
"""

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
from ovirt_tcp_plugin.broker.state.retries import FAILURES_REPORTED, Retries
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.workers.calls import Calls
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.placement.pools import PolicyState

log = logging.getLogger("broker.service")

# Who ended a pool by a request, for the history.
SETUP = "`ovirt-tcp setup --remove`"
# A listing that began before a request was written may show the policy of before; so may the one
# that was under way when the request was read.
LISTINGS_TO_DROP = 2


class PoolPublisher(Protocol):
    """Who keeps the state file and the snapshots of pools."""

    def save(self) -> None:
        """Save the state."""

    def forget(self, pool_id: str) -> None:
        """Remove a pool's snapshot."""


class PoolEnder:
    """For one thread's use; its calls run in others.

    Args:
        listing_due: called when everything is to be listed again.
    """

    def __init__(
        self,
        state: BrokerState,
        engine: EngineEnforcement,
        contact: EngineContact,
        requests: EndRequests,
        publisher: PoolPublisher,
        metrics: Metrics,
        calls: Calls,
        clock: Clock,
        listing_due: Callable[[], None],
    ) -> None:
        self._ends = state.pool_ends
        self._walls = state.walls
        self._engine = engine
        self._contact = contact
        self._requests = requests
        self._publisher = publisher
        self._metrics = metrics
        self._calls = calls
        self._clock = clock
        self._listing_due = listing_due
        self._retries = Retries()
        # Jobs end in threads of their own, several at once.
        self._retrying = threading.Lock()
        self._forgotten: set[str] = set()
        # By cluster id, the number of listings when a request met a policy with our unit.
        self._contradicted: dict[str, int] = {}

    def take_requests(self) -> None:
        """End the pools that requests name: before walls are built, which setup removes."""
        try:
            self._take_requests()
        except OSError as e:
            log.error("requests to end pools cannot be read or removed error=%s", e)

    def give_back(self) -> None:
        """Give back what is still to be given back where pools ended."""
        cluster_ids = self._ends.cluster_ids()
        self._forget_snapshots(cluster_ids)
        if not cluster_ids:
            return
        jobs = self._jobs()
        if jobs:
            # First: a broker that is killed now must not take the cluster for a pool again.
            self._publisher.save()
            self._calls.run(jobs)
            self._listing_due()
        self._ends.conclude()

    # Requests

    def _take_requests(self) -> None:
        """End the pools that requests name, unless they would begin again. Raises OSError."""
        cluster_ids = self._requests.cluster_ids()
        self._contradicted = {
            cluster_id: number
            for cluster_id, number in self._contradicted.items()
            if cluster_id in cluster_ids
        }
        for cluster_id in cluster_ids:
            policy_state = self._ends.policy_state(cluster_id)
            if policy_state is PolicyState.UPGRADE:
                continue  # afterwards its own policy says what is meant
            if policy_state is PolicyState.TRUSTED and not self._is_outdated(cluster_id):
                continue
            if policy_state in (PolicyState.OTHER, PolicyState.UNKNOWN):
                self._ends.end(cluster_id, SETUP)
                self._publisher.save()
            self._requests.remove(cluster_id)

    def _is_outdated(self, cluster_id: str) -> bool:
        """Return whether somebody gave a cluster a policy with our unit after a request."""
        now = self._ends.listings()
        first = self._contradicted.setdefault(cluster_id, now)
        return now - first >= LISTINGS_TO_DROP

    # Giving back

    def _forget_snapshots(self, cluster_ids: Collection[str]) -> None:
        self._forgotten.intersection_update(cluster_ids)
        for cluster_id in cluster_ids:
            if cluster_id in self._forgotten:
                continue
            try:
                self._publisher.forget(cluster_id)
            except OSError as e:
                log.error("snapshot not removed pool=%s error=%s", cluster_id, e)
            else:
                self._forgotten.add(cluster_id)

    def _jobs(self) -> dict[str, Callable[[], None]]:
        """Return what is to be done at the engine now, each thing on its own."""
        now_ms = self._clock.now_ms()
        jobs: dict[str, Callable[[], None]] = {}
        for cluster_id, group_id in self._ends.walls():
            if self._is_due(group_id, now_ms):
                jobs[group_id] = functools.partial(self._remove_wall, cluster_id, group_id)
        for host_id in self._ends.hosts():
            if self._is_due(host_id, now_ms):
                jobs[host_id] = functools.partial(self._activate, host_id)
        return jobs

    def _is_due(self, subject: str, now_ms: int) -> bool:
        with self._retrying:
            is_due = self._retries.due(subject, now_ms)
        return is_due and not self._calls.is_under_way(subject)

    def _remove_wall(self, cluster_id: str, group_id: str) -> None:
        try:
            self._engine.remove_wall(cluster_id, group_id)
        except (errors.Conflict, errors.NotFound, errors.Unavailable) as e:
            log.warning("wall not removed cluster=%s group=%s error=%s", cluster_id, group_id, e)
            if self._failures(group_id, e) == FAILURES_REPORTED:
                self._ends.wall_refused(cluster_id, group_id, str(e))
        else:
            self._succeeded(group_id)
            self._walls.removed(cluster_id, group_id)
            self._ends.wall_removed(cluster_id)

    def _activate(self, host_id: str) -> None:
        try:
            self._engine.activate(host_id)
        except (errors.Conflict, errors.NotFound, errors.Unavailable) as e:
            log.warning("activate host=%s error=%s", host_id, e)
            if self._failures(host_id, e) >= FAILURES_REPORTED:
                self._succeeded(host_id)
                self._ends.activated(host_id, str(e))
        else:
            self._succeeded(host_id)
            self._ends.activated(host_id)
            self._metrics.returned()

    def _failures(self, subject: str, error: errors.Error) -> int:
        """Return how often something failed while the engine answered, this time included."""
        if self._contact.is_away(error):
            return 0
        with self._retrying:
            return self._retries.failed(subject, self._clock.now_ms())

    def _succeeded(self, subject: str) -> None:
        with self._retrying:
            self._retries.succeeded(subject)
