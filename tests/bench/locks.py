# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How long the lock of the broker's state is held by any of its operations, at full size.

python -m tests.bench.locks

No verdict, snapshot or call of the API passes while it is held. Only the state is measured, with
a made-up inventory: the processor time of the thread that holds the lock, since the machine is
never alone; pauses of the garbage collector are in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.lasting_objects import LastingObjects
from ovirt_tcp_plugin.broker.state import broker_state
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.filter_unit import NAME
from ovirt_tcp_plugin.placement.inventory import (
    UP,
    Cluster,
    Group,
    Host,
    Listing,
    Policy,
    Unit,
    Vm,
    wall_name,
)
from tests.bench.harness import Benchmark, Sample

HOSTS = 10_000
POOLS = 1_000
VMS = 100_000
ROUNDS = 3


class TimedLock:
    """The lock of the broker's state, which measures how long it is held.

    Attributes:
        holds: seconds of processor time of each hold.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._since_s = 0.0
        self.holds: list[float] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._since_s = time.thread_time()

    def __exit__(self, *_: object) -> None:
        if self._depth == 1:
            self.holds.append(time.thread_time() - self._since_s)
        self._depth -= 1
        self._lock.release()


def listing(hosts: int, pools: int, vms: int) -> Listing:
    """Return what an engine shows of so many, always as new objects."""
    clusters = [f"{n:08}-c" for n in range(pools)]
    listed_hosts = [_host(n, clusters[n % pools]) for n in range(hosts)]
    listed_vms = [
        Vm(f"{n:08}-v", f"vm{n}", clusters[n % pools], UP, f"{n % hosts:08}-h") for n in range(vms)
    ]
    host_ids: dict[str, set[str]] = {cluster_id: set() for cluster_id in clusters}
    for host in listed_hosts:
        host_ids[host.cluster_id].add(host.id)
    vm_ids: dict[str, set[str]] = {cluster_id: set() for cluster_id in clusters}
    for vm in listed_vms:
        vm_ids[vm.cluster_id].add(vm.id)
    walls = {}
    for cluster_id in clusters:
        members = frozenset(host_ids[cluster_id]), frozenset(vm_ids[cluster_id])
        walls[cluster_id] = Group(f"{cluster_id}-w", wall_name(cluster_id), *members)
    return Listing(
        clusters=tuple(Cluster(cluster_id, cluster_id, "policy") for cluster_id in clusters),
        policies=(Policy("policy", "trusted", filter_ids=frozenset({"unit"})),),
        units=(Unit("unit", NAME),),
        hosts=tuple(listed_hosts),
        vms=tuple(listed_vms),
        walls=walls,
    )


def _host(number: int, cluster_id: str) -> Host:
    name = f"h{number:05}"
    return Host(f"{number:08}-h", name, f"{name}.lab", cluster_id, UP)


class Bench:
    """A state that knows everything, and what the broker's threads do with it."""

    def __init__(self) -> None:
        self.lock = TimedLock()
        options = settings.Settings(
            settings.EngineOptions("https://engine.lab", "broker@internal"),
            settings.VerifierOptions(("https://attest.lab",)),
        )
        self._clock = Clock()
        with lock_of_state(self.lock):
            self._state = BrokerState(options, self._clock, random.random)
        self._hosts = [host.id for host in listing(HOSTS, POOLS, 0).hosts]
        self._lasting_objects = LastingObjects()
        # Of each operation, its longest hold in each round, in seconds of processor time.
        self.longest: dict[str, list[float]] = {}

    def run(self) -> None:
        """Do everything a few times, after the first listing: nothing is known before, and so
        nothing waits for the lock."""
        first = listing(HOSTS, POOLS, VMS)
        start = self._state.begin_listing()
        self._state.observe_frame(dataclasses.replace(first, vms=()))
        self._state.observe_hosts(first.hosts)
        self._state.observe_listing(first, start)
        self._state.observe_hosts(first.hosts, start)
        del first
        self._lasting_objects.settle()
        for _ in range(ROUNDS):
            self._round()

    def _round(self) -> None:
        state = self._state
        self._list()
        self._lasting_objects.settle()
        self._measure("begin_stages", state.questions.begin_stages)
        self._measure("stage", self._ask_in_stages)
        self._measure("record", self._record)
        away = [dataclasses.replace(_host(7, f"{7:08}-c"), status="down")]
        self._measure("observe_hosts_not_up, one", lambda: state.observe_hosts_not_up(away))
        self._measure("observe_hosts_not_up, same", lambda: state.observe_hosts_not_up(away))
        self._measure("observe_hosts_not_up, none", lambda: state.observe_hosts_not_up([]))
        self._measure("record", self._record)
        self._measure("due", lambda: state.questions.due(320))
        self._measure("plans", state.walls.due_plans)
        self._measure("plans, none due", state.walls.due_plans)
        self._measure("in_order", lambda: state.walls.in_order(state.pools()))
        self._measure("quarantine", self._quarantine)
        self._measure("old_snapshots", state.changes.old_snapshots)
        self._measure("snapshots", state.snapshots)
        self._measure("encode", state.encode)
        self._measure("listing", state.listing)
        self._measure("host_states", state.host_states)
        self._measure("pool_states", state.pool_states)
        self._measure("case", lambda: state.case("vm99999", "h09999"))
        self._measure("vm reads", self._read_vms)
        self._measure("void", lambda: state.void("engine_restarted", "test", walls_stand=True))
        self._measure("plans, void", state.walls.due_plans)
        self._measure("due, all", lambda: state.questions.due(320))

    def _list(self) -> None:
        fresh = listing(HOSTS, POOLS, VMS)
        start = self._state.begin_listing()
        self._measure("observe_listing", lambda: self._state.observe_listing(fresh, start))
        self._measure("observe_hosts", lambda: self._state.observe_hosts(fresh.hosts, start))

    def _ask_in_stages(self) -> None:
        while self._state.questions.stage(20):
            pass

    def _record(self) -> None:
        for start in range(0, HOSTS, 20):
            now_ms = self._clock.now_ms()
            answers = {}
            for host_id in self._hosts[start : start + 20]:
                answers[host_id] = Answer(Level.TRUSTED, now_ms, 0, 600_000, True)
            self._state.questions.record(answers)

    def _quarantine(self) -> None:
        self._state.quarantine.to_deactivate()
        self._state.quarantine.to_activate()

    def _read_vms(self) -> None:
        for number in range(100):
            self._state.vm_reads.changed(f"{number:08}-v")
            request = self._state.vm_reads.begin()
            assert request is not None
            cluster_id = f"{number % POOLS:08}-c"
            self._state.vm_reads.read(request, Vm(request.vm_id, f"vm{number}", cluster_id, UP))

    def _measure(self, name: str, action: Callable[[], object]) -> None:
        self.lock.holds.clear()
        action()
        self.longest.setdefault(name, []).append(max(self.lock.holds))


@contextlib.contextmanager
def lock_of_state(lock: TimedLock) -> Iterator[None]:
    before = broker_state.threading
    cast("Any", broker_state).threading = SimpleNamespace(RLock=lambda: lock)
    try:
        yield
    finally:
        cast("Any", broker_state).threading = before


@contextlib.contextmanager
def longest_lock_hold() -> Iterator[Callable[[], Sample]]:
    """The longest hold of the operation whose holds are the longest; the median of its rounds."""

    def measure() -> Sample:
        bench = Bench()
        bench.run()
        longest_s = max(map(statistics.median, bench.longest.values()))
        return Sample(longest_s * 1000)

    yield measure


BENCHMARKS = [Benchmark("longest_lock_hold", "ms", longest_lock_hold, most=50, rounds=1)]


def main() -> None:
    """Print how long each operation holds the lock."""
    bench = Bench()
    bench.run()
    for name, holds_s in sorted(bench.longest.items(), key=lambda entry: max(entry[1])):
        shown = " ".join(f"{held_s * 1000:8.1f}" for held_s in holds_s)
        print(f"{name:32} {shown} ms of processor time")


if __name__ == "__main__":
    main()
