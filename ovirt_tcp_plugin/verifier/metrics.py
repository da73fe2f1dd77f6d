# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the server counts, for Prometheus. Labels come from this program, never from a peer: their number is bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ovirt_tcp_plugin.messages.result import AttestationResult, Level

_P = "ovirt_tcp_verifier_"
# From a read out of memory to the end of every statement.
_STORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._appraised = Counter(_P + "appraised", "Evidence that was appraised, by level.", ["level"], registry=registry)
        self._challenges = Counter(_P + "challenges", "Challenges that were handed out.", registry=registry)
        self._discarded = Counter(_P + "discarded", "Evidence that proved nothing, by code.", ["code"], registry=registry)
        self._requests = Counter(_P + "requests", "Answered requests.", ["route", "status"], registry=registry)
        what = "What the store took, waiting included."
        self._store = Histogram(_P + "store_seconds", what, ["work"], buckets=_STORE_BUCKETS, registry=registry)
        self._hosts = Gauge(_P + "hosts", "Enrolled hosts, by level of the last result.", ["level"], registry=registry)
        self._unreadable = Gauge(_P + "unreadable_records", "Hosts whose record is corrupt.", registry=registry)
        what = "Sets of reference values whose row is corrupt."
        self._unreadable_sets = Gauge(_P + "unreadable_reference_sets", what, registry=registry)
        self._oldest = Gauge(_P + "oldest_trusted_seconds", "Age of the oldest trusted result.", registry=registry)
        self._connections = Gauge(_P + "connections", "Open ones, by a known caller or not.", ["known"], registry=registry)

    def challenged(self) -> None:
        """Count the beginning of a round."""
        self._challenges.inc()

    def stored(self, work: str, seconds: float) -> None:
        """Count a piece of work of the store, "read" or "write"."""
        self._store.labels(work).observe(seconds)

    def appraised(self, level: Level) -> None:
        """Count evidence that was authentic."""
        self._appraised.labels(level.value).inc()

    def discarded(self, code: str) -> None:
        """Count evidence that was not. `code` is of a finding."""
        self._discarded.labels(code).inc()

    def request(self, route: str, status: int) -> None:
        """Count an answered request. `route` is the name of its handler."""
        self._requests.labels(route, f"{status // 100}xx").inc()

    def render(
        self, hosts: Sequence[AttestationResult], unreadable_sets: int, connections: Mapping[str, int]
    ) -> bytes:
        """Return the text for Prometheus.

        Args:
            hosts: the last results on all enrolled hosts.
            unreadable_sets: number of sets of reference values that cannot be read.
            connections: open connections, by "yes" and "no": whether a caller was known on it.
        """
        for level in Level:
            self._hosts.labels(level.value).set(sum(one.level is level for one in hosts))
        unreadable = (any(finding.code == "record_unreadable" for finding in one.findings) for one in hosts)
        self._unreadable.set(sum(unreadable))
        self._unreadable_sets.set(unreadable_sets)
        ages = (one.age_ms for one in hosts if one.level is Level.TRUSTED and one.age_ms is not None)
        self._oldest.set(max(ages, default=0) / 1000)
        for known, count in connections.items():
            self._connections.labels(known).set(count)
        return generate_latest(self._registry)
