# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker counts, for Prometheus. Labels come from this program, never from a peer: their number is bounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ovirt_tcp_plugin.broker.overview import HostState, PoolState
from ovirt_tcp_plugin.messages.result import Level

_P = "ovirt_tcp_broker_"


@dataclasses.dataclass(frozen=True)
class Ages:
    """Milliseconds since the engine was last heard; None for never.

    Attributes:
        engine_ms: since any answer of it.
        listing_ms: since the last complete listing was read.
    """

    engine_ms: Optional[int]
    listing_ms: Optional[int]


class Metrics:
    """Counters of one broker. Thread-safe."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(_P + name, what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(_P + name, what, labels, registry=registry)

        self._questions = counter("questions", "Questions to the attestation servers.", "outcome")
        self._wall_edits = counter("wall_edits", "Calls to the engine that edited a wall.", "edit")
        self._quarantines = counter("quarantines", "Hosts that maintenance was asked for.", "outcome")
        self._returns = counter("returns", "Hosts of ours that were activated again.")
        self._events = counter("events", "Events that the engine took, or never will.", "outcome")
        self._snapshots = counter("snapshot_writes", "Snapshots for filterd.", "outcome")
        self._hosts = gauge("hosts", "Hosts of trusted pools, by level as placement sees it.", "level")
        self._inside = gauge("hosts_inside_walls", "Hosts that the walls list.")
        self._quarantined = gauge("hosts_quarantined", "Hosts that the broker took out of service.")
        self._pools = gauge("pools", "Trusted pools.")
        self._tripped = gauge("guards_tripped", "Pools whose guard waits for an administrator.")
        self._held = gauge("hosts_held", "Untrusted hosts whose quarantine a guard delays.")
        self._answering = gauge("attestation_servers_answer", "1 if one answered when last asked, else 0.")
        self._refused = gauge(
            "engine_access_refused", "1 if the engine refuses our password or user, else 0."
        )
        self._engine_age = gauge("engine_answer_age_seconds", "Since the engine's last answer; -1 for never.")
        self._listing_age = gauge("listing_age_seconds", "Since the last complete listing of the engine; -1 for never.")

    def access(self, refused: bool) -> None:
        """Take note whether the engine lets the broker's user work."""
        self._refused.set(refused)

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

    def render(self, hosts: Sequence[HostState], pools: Sequence[PoolState], servers_answer: bool, ages: Ages) -> bytes:
        """Return the text for Prometheus."""
        for level in Level:
            self._hosts.labels(level.value).set(sum(one.level is level for one in hosts))
        self._inside.set(sum(one.inside_wall for one in hosts))
        self._quarantined.set(sum(one.quarantined for one in hosts))
        self._pools.set(len(pools))
        self._tripped.set(sum(one.guard_tripped for one in pools))
        self._held.set(sum(len(one.held) for one in pools))
        self._answering.set(servers_answer)
        self._engine_age.set(-1 if ages.engine_ms is None else ages.engine_ms / 1000)
        self._listing_age.set(-1 if ages.listing_ms is None else ages.listing_ms / 1000)
        return generate_latest(self._registry)
