# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the server counts, for Prometheus.

Labels come from this program, never from a peer: their number is bounded.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import AttestationResult, Level
from ovirt_tcp_plugin.verifier.shared_metrics import SharedMetrics
from ovirt_tcp_plugin.verifier.store import bad_rows
from ovirt_tcp_plugin.verifier.store.bad_rows import BadRow
from ovirt_tcp_plugin.verifier.upkeep import KINDS, End

_PREFIX = "ovirt_tcp_verifier_"
# From a read out of memory to the end of every statement.
_STORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5)
TELL_INTERVAL_S = 1.0

_Key = tuple[str, tuple[tuple[str, str], ...]]


class VerifierMetrics:
    """Counters of one server.

    Args:
        number: of this process, among those that share their metrics.
        shared_metrics: None if there is only this one.
    """

    def __init__(self, number: int = 0, shared_metrics: Optional[SharedMetrics] = None) -> None:
        self._number = number
        self._shared_metrics = shared_metrics
        self._registry = CollectorRegistry()
        # At the last look.
        self.bad_row_count = 0
        self._count_events()
        self._show_states()
        # Looked up some ten times for each report: the library does so under a lock, and makes
        # texts of what is one.
        self._store_of = functools.lru_cache(maxsize=None)(self._store.labels)
        self._requests_of = functools.lru_cache(maxsize=None)(self._requests.labels)

    def _count_events(self) -> None:
        """Make what only grows."""
        self._appraised = self._counter(
            "appraised", "Evidence that was appraised, by level.", "level"
        )
        self._challenges = self._counter("challenges", "Challenges that were handed out.")
        self._discarded = self._counter(
            "discarded", "Evidence that proved nothing, by code.", "code"
        )
        self._requests = self._counter("requests", "Answered requests.", "route", "status")
        self._store = Histogram(
            _PREFIX + "store_seconds",
            "What the store took, waiting included.",
            ["work"],
            buckets=_STORE_BUCKETS,
            registry=self._registry,
        )

    def _show_states(self) -> None:
        """Make what grows and falls."""
        self._hosts = self._gauge(
            "hosts", "Enrolled hosts, by level of the last result, while it counts.", "level"
        )
        self._unreadable = self._gauge("unreadable_records", "Hosts whose record is corrupt.")
        self._unreadable_sets = self._gauge(
            "unreadable_reference_sets", "Sets of reference values whose row is corrupt."
        )
        self._unreadable_rows = self._gauge(
            "unreadable_rows", "Rows that could not be read at the last hourly look.", "table"
        )
        self._oldest = self._gauge("oldest_trusted_seconds", "Age of the oldest trusted result.")
        self._ends = self._gauge("end_seconds", "Until the first of its kind ends.", "kind")
        self._withdrawn = self._gauge(
            "endorsement_faults", "Hosts whose TPM nobody vouches for any more."
        )
        self._connections = self._gauge(
            "connections", "Open ones, by a known caller or not.", "known"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._registry)

    def challenged(self) -> None:
        """Count a challenge."""
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

    def show_upkeep(self, ends: Iterable[End], withdrawn: int, now_s: int) -> None:
        """Show what ends, and how many hosts' TPMs nobody vouches for any more.

        Args:
            now_s: seconds of the UTC epoch.
        """
        first: dict[str, int] = {}
        for end in ends:
            first[end.kind] = min(end.end_s, first.get(end.kind, end.end_s))
        for kind in KINDS:
            if kind in first:
                self._ends.labels(kind).set(first[kind] - now_s)
        self._withdrawn.set(withdrawn)

    def found_bad_rows(self, unreadable: Sequence[BadRow]) -> None:
        """Show how many rows of each table cannot be read."""
        self.bad_row_count = len(unreadable)
        counts = collections.Counter(row.table for row in unreadable)
        for table in bad_rows.TABLES:
            self._unreadable_rows.labels(table).set(counts[table])

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
        self._count_hosts(hosts)
        self._unreadable_sets.set(unreadable_sets)
        self._tell(connections)
        if self._shared_metrics is None:
            return generate_latest(self._registry)
        texts = self._shared_metrics.others(self._number)
        whole = CollectorRegistry()
        others = [json.loads(text) for text in texts if text]
        whole.register(_Sum(self._registry, others))
        return generate_latest(whole)

    async def keep_telling(self, connections: Callable[[], Mapping[str, int]]) -> None:
        """Tell the other processes what was counted here, again and again, until cancelled."""
        while True:
            self._tell(connections())
            await asyncio.sleep(TELL_INTERVAL_S)

    def _count_hosts(self, hosts: Sequence[AttestationResult]) -> None:
        levels = collections.Counter(host.level for host in hosts)
        for level in Level:
            self._hosts.labels(level.value).set(levels[level])
        self._unreadable.set(sum(_is_unreadable(host) for host in hosts))
        oldest_ms = 0
        for host in hosts:
            if host.level is Level.TRUSTED and host.age_ms is not None:
                oldest_ms = max(oldest_ms, host.age_ms)
        self._oldest.set(oldest_ms / 1000)

    def _tell(self, connections: Mapping[str, int]) -> None:
        for known, count in connections.items():
            self._connections.labels(known).set(count)
        if self._shared_metrics is None:
            return
        # Whoever answers the next time counts no less than we do now.
        counted = {}
        for metric in self._registry.collect():
            if _is_of_process(metric):
                samples = [(*_key(sample), sample.value) for sample in metric.samples]
                counted[metric.name] = samples
        self._shared_metrics.write(self._number, json.dumps(counted).encode())


class _Sum:
    """A collector: what is counted here, and what the other processes counted.

    Args:
        others: for each of them, its samples by metric: name, labels, value.
    """

    def __init__(self, registry: CollectorRegistry, others: Sequence[Mapping[str, Any]]) -> None:
        self._registry = registry
        self._others = others

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            yield self._sum(metric) if _is_of_process(metric) else metric

    def _sum(self, metric: Metric) -> Metric:
        whole = Metric(metric.name, metric.documentation, metric.type)
        for (name, pairs), counted in self._values(metric).items():
            # The moment at which counting began is the first of all.
            value = min(counted) if name.endswith("_created") else sum(counted)
            whole.add_sample(name, dict(pairs), value)
        return whole

    def _values(self, metric: Metric) -> Mapping[_Key, Sequence[float]]:
        """Return the value of each sample, here and in the other processes."""
        values: dict[_Key, list[float]] = collections.defaultdict(list)
        for sample in metric.samples:
            values[_key(sample)].append(sample.value)
        for samples in self._others:
            for name, labels, value in samples.get(metric.name, []):
                pairs = tuple((label, text) for label, text in labels)
                values[name, pairs].append(value)
        return values


def _is_of_process(metric: Metric) -> bool:
    """Return whether each process has a number of its own; the others are of the database."""
    return metric.type in ("counter", "histogram") or metric.name == _PREFIX + "connections"


def _is_unreadable(host: AttestationResult) -> bool:
    code = FindingCode.RECORD_UNREADABLE.code
    return any(finding.code == code for finding in host.findings)


def _key(sample: Any) -> _Key:
    return sample.name, tuple(sample.labels.items())
