# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the server counts, for Prometheus. Labels come from this program, never from a peer: their number is bounded."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from ovirt_tcp_plugin.messages.result import AttestationResult, Level
from ovirt_tcp_plugin.verifier.shared_metrics import SharedMetrics

_P = "ovirt_tcp_verifier_"
# From a read out of memory to the end of every statement.
_STORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5)
TELL_INTERVAL_S = 1.0
# What each process has for itself; everything else is of the database, and the same for all.
_OWN = ("counter", "histogram")
_OWN_GAUGE = _P + "connections"

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """Counters of one server.

    Args:
        number: of this process, among those that share their metrics.
        shared_metrics: None if there is only this one.
    """

    def __init__(self, number: int = 0, shared_metrics: Optional[SharedMetrics] = None) -> None:
        self._number, self._shared_metrics = number, shared_metrics
        self._registry = registry = CollectorRegistry()
        self._appraised = Counter(
            _P + "appraised", "Evidence that was appraised, by level.", ["level"], registry=registry
        )
        self._challenges = Counter(
            _P + "challenges", "Challenges that were handed out.", registry=registry
        )
        self._discarded = Counter(
            _P + "discarded", "Evidence that proved nothing, by code.", ["code"], registry=registry
        )
        self._requests = Counter(
            _P + "requests", "Answered requests.", ["route", "status"], registry=registry
        )
        what = "What the store took, waiting included."
        self._store = Histogram(
            _P + "store_seconds", what, ["work"], buckets=_STORE_BUCKETS, registry=registry
        )
        self._hosts = Gauge(
            _P + "hosts",
            "Enrolled hosts, by level of the last result.",
            ["level"],
            registry=registry,
        )
        self._unreadable = Gauge(
            _P + "unreadable_records", "Hosts whose record is corrupt.", registry=registry
        )
        what = "Sets of reference values whose row is corrupt."
        self._unreadable_sets = Gauge(_P + "unreadable_reference_sets", what, registry=registry)
        self._oldest = Gauge(
            _P + "oldest_trusted_seconds", "Age of the oldest trusted result.", registry=registry
        )
        # Looked up some ten times for each report: the library does so under a lock, and makes texts of what is one.
        self._store_of = functools.lru_cache(maxsize=None)(self._store.labels)
        self._requests_of = functools.lru_cache(maxsize=None)(self._requests.labels)
        self._connections = Gauge(
            _P + "connections", "Open ones, by a known caller or not.", ["known"], registry=registry
        )

    def challenged(self) -> None:
        """Count the beginning of a round."""
        self._challenges.inc()

    def stored(self, work: str, seconds: float) -> None:
        """Count a piece of work of the store, "read" or "write"."""
        self._store_of(work).observe(seconds)

    def appraised(self, level: Level) -> None:
        """Count evidence that was authentic."""
        self._appraised.labels(level.value).inc()

    def discarded(self, code: str) -> None:
        """Count evidence that was not. `code` is of a finding."""
        self._discarded.labels(code).inc()

    def request(self, route: str, status: int) -> None:
        """Count an answered request. `route` is the name of its handler."""
        self._requests_of(route, f"{status // 100}xx").inc()

    def render(
        self,
        hosts: Sequence[AttestationResult],
        unreadable_sets: int,
        connections: Mapping[str, int],
    ) -> bytes:
        """Return the text for Prometheus.

        Args:
            hosts: the last results on all enrolled hosts.
            unreadable_sets: number of sets of reference values that cannot be read.
            connections: open connections, by "yes" and "no": whether a caller was known on it.
        """
        for level in Level:
            self._hosts.labels(level.value).set(sum(one.level is level for one in hosts))
        unreadable = (
            any(finding.code == "record_unreadable" for finding in one.findings) for one in hosts
        )
        self._unreadable.set(sum(unreadable))
        self._unreadable_sets.set(unreadable_sets)
        ages = (
            one.age_ms for one in hosts if one.level is Level.TRUSTED and one.age_ms is not None
        )
        self._oldest.set(max(ages, default=0) / 1000)
        self._tell(connections)
        if self._shared_metrics is None:
            return generate_latest(self._registry)
        whole = CollectorRegistry()
        whole.register(_Sum(self._registry, self._shared_metrics.others(self._number)))
        return generate_latest(whole)

    async def keep_telling(self, connections: Callable[[], Mapping[str, int]]) -> None:
        """Tell the other processes what was counted here, again and again, until cancelled."""
        while True:
            self._tell(connections())
            await asyncio.sleep(TELL_INTERVAL_S)

    def _tell(self, connections: Mapping[str, int]) -> None:
        for known, count in connections.items():
            self._connections.labels(known).set(count)
        if self._shared_metrics is not None:
            # Whoever answers the next time counts no less than we do now.
            own = {
                one.name: [(*_key(sample), sample.value) for sample in one.samples]
                for one in _own(self._registry)
            }
            self._shared_metrics.write(self._number, json.dumps(own).encode())


class _Sum:
    """A collector: what is counted here, and what the others told."""

    def __init__(self, registry: CollectorRegistry, told: Sequence[bytes]) -> None:
        self._registry = registry
        self._told = [json.loads(text) for text in told if text]

    def collect(self) -> Iterator[Metric]:
        for one in self._registry.collect():
            if _is_own(one):
                yield self._sum(one)
            else:
                yield one

    def _sum(self, one: Metric) -> Metric:
        values: dict[_Key, list[float]] = {}
        for sample in one.samples:
            values.setdefault(_key(sample), []).append(sample.value)
        for told in self._told:
            for name, labels, value in told.get(one.name, []):
                values.setdefault((name, tuple((key, text) for key, text in labels)), []).append(
                    value
                )
        whole = Metric(one.name, one.documentation, one.type)
        for (name, labels), all_values in values.items():
            # The moment at which counting began is the first of all.
            whole.add_sample(
                name,
                dict(labels),
                min(all_values) if name.endswith("_created") else sum(all_values),
            )
        return whole


def _own(registry: CollectorRegistry) -> Iterator[Metric]:
    return filter(_is_own, registry.collect())


def _is_own(one: Metric) -> bool:
    return one.type in _OWN or one.name == _OWN_GAUGE


def _key(sample: Any) -> _Key:
    return sample.name, tuple(sample.labels.items())
