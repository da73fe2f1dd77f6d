# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker counts, for Prometheus.

Labels come from this program, never from a peer: their number is bounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ovirt_tcp_plugin.broker.state.readout import HostState, PoolState
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.pools import PolicyState

_PREFIX = "ovirt_tcp_broker_"


@dataclasses.dataclass(frozen=True)
class Ages:
    """Milliseconds since the engine last answered; None for never.

    Attributes:
        engine_ms: since any answer of it.
        listing_ms: since the last complete listing was read.
    """

    engine_ms: Optional[int]
    listing_ms: Optional[int]


class Metrics:
    """Counters of one broker. Thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges = _Gauges(self._registry)
        self._questions = self._counter(
            "questions", "Questions to the attestation servers.", "outcome"
        )
        self._wall_edits = self._counter(
            "wall_edits", "Calls to the engine that edited a wall.", "edit"
        )
        self._quarantines = self._counter(
            "quarantines", "Hosts that maintenance was asked for.", "outcome"
        )
        self._returns = self._counter("returns", "Hosts of ours that were activated again.")
        self._events = self._counter(
            "events", "Events that the engine took, or never will.", "outcome"
        )
        self._snapshots = self._counter("snapshot_writes", "Snapshots for filterd.", "outcome")

    def access(self, refused: bool) -> None:
        """Take note whether the engine lets the broker's user work."""
        self._gauges.set_access(refused)

    def question(self, answered: bool) -> None:
        """Count a question about some hosts."""
        self._questions.labels("answered" if answered else "failed").inc()

    def wall_edit(self, edit: str) -> None:
        """Count an edit; `edit` is the name of a `wall.Edit`."""
        self._wall_edits.labels(edit.lower()).inc()

    def quarantine(self, accepted: bool) -> None:
        """Count a request for maintenance."""
        self._quarantines.labels("accepted" if accepted else "refused").inc()

    def returned(self) -> None:
        """Count a host that was activated again."""
        self._returns.inc()

    def event(self, written: bool, count: int = 1) -> None:
        """Count events that the engine took, or never will."""
        self._events.labels("written" if written else "lost").inc(count)

    def snapshot(self, written: bool) -> None:
        """Count a snapshot."""
        self._snapshots.labels("written" if written else "failed").inc()

    def render(
        self,
        hosts: Sequence[HostState],
        pools: Sequence[PoolState],
        servers_answer: bool,
        ages: Ages,
        in_charge: bool = True,
    ) -> bytes:
        """Return the text for Prometheus."""
        self._gauges.set_hosts(hosts)
        self._gauges.set_pools(pools)
        self._gauges.set_peers(servers_answer, ages)
        self._gauges.set_charge(in_charge)
        return generate_latest(self._registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, what, labels, registry=self._registry)


class _Gauges:
    """What is measured when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._hosts = self._gauge(
            "hosts", "Hosts of trusted pools, by level as placement sees it.", "level"
        )
        self._inside = self._gauge("hosts_inside_walls", "Hosts that the walls list.")
        self._quarantined = self._gauge(
            "hosts_quarantined", "Hosts that the broker took out of service."
        )
        self._pools = self._gauge("pools", "Trusted pools.")
        self._policies = self._gauge(
            "pools_by_policy",
            "Trusted pools, by what their scheduling policy is: trusted is ours.",
            "policy",
        )
        self._tripped = self._gauge(
            "guards_tripped", "Pools whose guard waits for an administrator."
        )
        self._observed = self._gauge(
            "pools_in_observation", "Pools that keep all their hosts for now, as new ones do."
        )
        self._held = self._gauge("hosts_held", "Untrusted hosts whose quarantine a guard delays.")
        self._answering = self._gauge(
            "attestation_servers_answer", "1 if one answered when last asked, else 0."
        )
        self._refused = self._gauge(
            "engine_access_refused", "1 if the engine refuses our password or user, else 0."
        )
        self._in_charge = self._gauge(
            "in_charge", "1 if this broker edits walls and moves hosts, 0 if another one does."
        )
        self._engine_age = self._gauge(
            "engine_answer_age_seconds", "Since the engine's last answer; -1 for never."
        )
        self._listing_age = self._gauge(
            "listing_age_seconds", "Since the last complete listing of the engine; -1 for never."
        )

    def set_hosts(self, hosts: Sequence[HostState]) -> None:
        for level in Level:
            self._hosts.labels(level.value).set(sum(host.level is level for host in hosts))
        self._inside.set(sum(host.inside_wall for host in hosts))
        self._quarantined.set(sum(host.quarantined for host in hosts))

    def set_pools(self, pools: Sequence[PoolState]) -> None:
        self._pools.set(len(pools))
        for policy_state in PolicyState:
            number = sum(pool.pool.policy_state is policy_state for pool in pools)
            self._policies.labels(policy_state.value).set(number)
        self._tripped.set(sum(pool.guard_tripped for pool in pools))
        self._observed.set(sum(pool.observation for pool in pools))
        self._held.set(sum(len(pool.held) for pool in pools))

    def set_peers(self, servers_answer: bool, ages: Ages) -> None:
        self._answering.set(servers_answer)
        self._engine_age.set(_seconds(ages.engine_ms))
        self._listing_age.set(_seconds(ages.listing_ms))

    def set_charge(self, in_charge: bool) -> None:
        self._in_charge.set(in_charge)

    def set_access(self, refused: bool) -> None:
        self._refused.set(refused)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, what, labels, registry=self._registry)


def _seconds(age_ms: Optional[int]) -> float:
    return -1 if age_ms is None else age_ms / 1000
