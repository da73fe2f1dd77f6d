# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How soon a large site's broker acts on hosts that leave Up and VMs that are marked or new, while
everything is being listed.

python -m tests.bench.watching --hosts 10000 --pools 1000 --vms 100000 --page-s 3

Not part of `make bench`: at full size it takes most of an hour on two processors. The simulated
engine is a process of its own; broker, threads, files and SDK are the real ones, with the intervals
of an installation. Attestation is scripted.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state import broker_state
from ovirt_tcp_plugin.lab.engine import audit_log, model
from ovirt_tcp_plugin.lab.engine.server import Config, EngineSimulator
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from tests.broker.site import ADMINISTRATOR, Site, make_pools
from tests.site_pki import PASSWORD

WITHIN_S = 60.0


class Engine:
    """The simulated engine in its process, which obeys messages (name, arguments)."""

    def __init__(self, pki: Path, options: argparse.Namespace) -> None:
        clusters = [f"C{n}" for n in range(options.pools)]
        hosts = [
            {"name": f"h{n}", "address": f"h{n}.lab", "cluster": f"C{n % options.pools}"}
            for n in range(options.hosts)
        ]
        vms = [{"name": f"vm{n}", "cluster": f"C{n % options.pools}"} for n in range(options.vms)]
        self._simulator = EngineSimulator(
            Config(
                str(pki / "engine.pem"),
                str(pki / "engine.key"),
                {ADMINISTRATOR: PASSWORD},
                directory={"broker@internal": PASSWORD},
                clusters=clusters,
                hosts=hosts,
                vms=vms,
            )
        )
        self._tables = self._simulator.model
        make_pools(self._tables)
        for cluster in self._tables.clusters.values():
            cluster.properties = {"trust_scope": "marked_vms"}
        self._hosts = {host.name: host for host in self._tables.hosts.values()}
        self._vms = {vm.name: vm for vm in self._tables.vms.values()}
        self._simulator.start()

    def serve(self, connection: Connection) -> None:
        connection.send(self._simulator.url)
        while True:
            name, *arguments = connection.recv()
            if name == "stop":
                self._simulator.stop()
                return
            connection.send(getattr(self, name)(*arguments))

    def slow(self, seconds: float) -> None:
        self._simulator.faults.slow_answers = {"api/vms": seconds} if seconds else {}

    def calls(self) -> dict[str, int]:
        return dict(self._simulator.rest.calls)

    def leave(self, name: str) -> tuple[str, str]:
        host = self._hosts[name]
        with self._tables.lock:
            host.status = "non_operational"
            self._tables.log(audit_log.HOST_LACKS_FEATURES, f"{name} left Up", host=host.id)
        return host.id, host.cluster

    def mark(self, name: str) -> tuple[str, str]:
        vm = self._vms[name]
        with self._tables.lock:
            vm.custom_properties = {MARK_PROPERTY: "true"}
            self._tables.log(audit_log.VM_UPDATED, f"VM {name} was updated.", vm=vm.id)
        return vm.id, vm.cluster

    def add(self, name: str, cluster: str) -> tuple[str, str]:
        cluster_id = next(one.id for one in self._tables.clusters.values() if one.name == cluster)
        vm = model.SimulatedVm(model.new_id(), name, cluster_id)
        vm.custom_properties = {MARK_PROPERTY: "true"}
        with self._tables.lock:
            self._tables.vms[vm.id] = vm
            self._tables.log(audit_log.VM_ADDED, f"VM {name} was created.", vm=vm.id)
        return vm.id, cluster_id

    def members(self, cluster_id: str) -> tuple[list[str], list[str]]:
        """Return the hosts and VMs of a cluster's wall."""
        for group in list(self._tables.groups.values()):
            if group.cluster == cluster_id:
                return list(group.hosts), list(group.vms)
        return [], []


def _engine_process(pki: Path, options: argparse.Namespace, connection: Connection) -> None:
    Engine(pki, options).serve(connection)


class TimedLock:
    """The lock of the broker's state, which measures how long it is held."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._since = (0.0, 0.0)
        # (seconds by the clock, seconds of processor time) of each long hold.
        self.long_holds: list[tuple[float, float]] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._since = (time.perf_counter(), time.thread_time())

    def __exit__(self, *_: object) -> None:
        if self._depth == 1:
            held_s = time.perf_counter() - self._since[0]
            if held_s > 0.01:
                self.long_holds.append((held_s, time.thread_time() - self._since[1]))
        self._depth -= 1
        self._lock.release()


class Bench:
    def __init__(self, site: Site, connection: Connection, options: argparse.Namespace) -> None:
        self._site = site
        self._connection = connection
        self._options = options
        self._random = random.Random(options.seed)

    def ask(self, *message: object) -> Any:
        self._connection.send(message)
        return self._connection.recv()

    def start(self) -> None:
        began = time.monotonic()
        self._site.start()
        self._wait(self._site.service.observation.all_known.is_set, 3600)
        print(f"all is known after {time.monotonic() - began:.0f} s", flush=True)
        pools = self._site.knowledge.pools()
        self._wait(lambda: len(list(self._directory.glob("*-*.json"))) == len(pools), 3600)
        self._wait(lambda: not self._plans(), 3600)
        print(f"all walls stand after {time.monotonic() - began:.0f} s", flush=True)

    def measure(self, rounds: int) -> None:
        self.ask("slow", self._options.page_s)
        numbers = self._random.sample(range(min(self._options.hosts, self._options.vms)), rounds)
        left: list[float] = []
        out: list[float] = []
        held: list[float] = []
        behind: list[float] = []
        new: list[float] = []
        for index, number in enumerate(numbers):
            time.sleep(self._random.uniform(0, 1.5))
            self._measure_host(number, left, out)
            self._measure_mark(number, held, behind)
            self._measure_new(number, f"new{index}", new)
        report("host left Up -> out of the snapshot", left)
        report("host left Up -> out of the wall", out)
        report("VM marked -> held in the snapshot", held)
        report("VM marked -> behind the wall", behind)
        report("VM new (held at once) -> behind the wall", new)

    def _measure_host(self, number: int, left: list[float], out: list[float]) -> None:
        host_id, cluster_id = self.ask("leave", f"h{number}")
        began = time.monotonic()
        self._wait(lambda: not self._is_trusted(cluster_id, host_id))
        left.append(time.monotonic() - began)
        self._wait(lambda: host_id not in self.ask("members", cluster_id)[0])
        out.append(time.monotonic() - began)

    def _measure_mark(self, number: int, held: list[float], behind: list[float]) -> None:
        vm_id, cluster_id = self.ask("mark", f"vm{number}")
        began = time.monotonic()
        self._wait(lambda: self._snapshot(cluster_id).vms.get(vm_id) is not False)
        held.append(time.monotonic() - began)
        self._wait(lambda: vm_id in self.ask("members", cluster_id)[1])
        behind.append(time.monotonic() - began)

    def _measure_new(self, number: int, name: str, new: list[float]) -> None:
        vm_id, cluster_id = self.ask("add", name, f"C{number % self._options.pools}")
        began = time.monotonic()
        assert self._snapshot(cluster_id).vms.get(vm_id) is not False
        self._wait(lambda: vm_id in self.ask("members", cluster_id)[1])
        new.append(time.monotonic() - began)

    def count_calls(self, seconds: float) -> None:
        """Print the calls of a minute in which nothing happens."""
        self.ask("slow", 0.0)
        before = self.ask("calls")
        time.sleep(seconds)
        after = self.ask("calls")
        print(f"calls in {seconds:.0f} s:")
        for call in sorted(after):
            count = after[call] - before.get(call, 0)
            if count:
                print(f"  {count * 60 / seconds:7.1f} a minute  {call}")

    @property
    def _directory(self) -> Path:
        return self._site.options.snapshot.directory

    def _plans(self) -> int:
        return sum(bool(plan.steps) for plan in self._site.knowledge.walls.plans())

    def _snapshot(self, cluster_id: str) -> snapshot.Snapshot:
        content = (self._directory / f"{cluster_id}.json").read_bytes()
        return snapshot.decode(content, self._site.clock.boot_id)

    def _is_trusted(self, cluster_id: str, host_id: str) -> bool:
        return self._snapshot(cluster_id).hosts[host_id].level is Level.TRUSTED

    def _wait(self, holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError("it did not happen in time")
            time.sleep(0.02)


def report(name: str, values: Sequence[float]) -> None:
    ordered = sorted(values)
    p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    print(
        f"{name:45} n={len(ordered)} median {statistics.median(ordered):.2f} s "
        f"p99 {p99:.2f} s worst {ordered[-1]:.2f} s",
        flush=True,
    )


def make_pki(directory: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1"], now)
    (directory / "engine.pem").write_bytes(certificate)
    write_key(directory / "engine.key", key)
    (directory / "password").write_text(PASSWORD, encoding="utf-8")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("hosts", 200), ("pools", 20), ("vms", 2000), ("rounds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page-s", type=float, default=3.0)
    parser.add_argument("--idle-s", type=float, default=60.0)
    options = parser.parse_args()
    lock = TimedLock()
    cast("Any", broker_state).threading = SimpleNamespace(RLock=lambda: lock)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_pki(directory)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=_engine_process, args=(directory, options, theirs))
        process.start()
        engine = SimpleNamespace(url=ours.recv())
        site = Site(directory, directory, 0, engine=cast("EngineSimulator", engine))
        site.options = dataclasses.replace(
            site.options,
            engine=dataclasses.replace(site.options.engine, timeout_s=120.0),
            intervals=settings.IntervalOptions(),
            startup=settings.StartupOptions(),
            verdicts=settings.VerdictOptions(),
        )
        bench = Bench(site, ours, options)
        try:
            bench.start()
            lock.long_holds.clear()
            bench.measure(options.rounds)
            holds = lock.long_holds or [(0.0, 0.0)]
            worst = max(holds)
            print(f"longest hold of the lock {worst[0]:.3f} s ({worst[1]:.3f} s of processor time)")
            print(f"holds above 50 ms: {sum(held > 0.05 for held, _ in holds)}")
            busy = sum(busy > 0.05 for _, busy in holds)
            print(f"holds above 50 ms of processor time: {busy}", flush=True)
            bench.count_calls(options.idle_s)
        finally:
            site.stop()
            ours.send(("stop",))
            process.join()


if __name__ == "__main__":
    main()
