# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How soon a large site's broker acts on hosts that leave Up and VMs that are marked or new, while
everything is being listed.

python -m tests.bench.watching --hosts 10000 --pools 1000 --vms 100000 --page-s 3

Not part of `make bench`: at full size it takes most of an hour on two processors. Engine, broker
and attestation server are processes of their own; the broker is the real one, with the intervals
of an installation.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from ovirt_tcp_plugin.broker.workers import watch
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.lab.engine import audit_log, model
from ovirt_tcp_plugin.lab.engine.server import Config, EngineSimulator
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import snapshot
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from tests.bench.broker import broker_options
from tests.broker.site import ADMINISTRATOR, make_pools
from tests.site_pki import PASSWORD

WITHIN_S = 60.0
# What a question to the attestation server takes.
TAKES_S = 0.05


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

    def arrive(self, name: str) -> None:
        host = self._hosts[name]
        with self._tables.lock:
            host.status = "up"
            self._tables.log(audit_log.HOST_DETECTED, f"{name} is Up", host=host.id)

    def place(self, name: str) -> tuple[str, str]:
        host = self._hosts[name]
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

    def edits(self) -> int:
        calls = self.calls().items()
        return sum(number for call, number in calls if not call.startswith("GET"))

    def walled(self) -> int:
        """Return how many hosts are inside of walls."""
        return sum(len(group.hosts) for group in list(self._tables.groups.values()))

    def members(self, cluster_id: str) -> tuple[list[str], list[str]]:
        """Return the hosts and VMs of a cluster's wall."""
        for group in list(self._tables.groups.values()):
            if group.cluster == cluster_id:
                return list(group.hosts), list(group.vms)
        return [], []


def _engine_process(pki: Path, options: argparse.Namespace, connection: Connection) -> None:
    Engine(pki, options).serve(connection)


class Bench:
    """The broker as a process between the simulated engine and an attestation server."""

    def __init__(
        self,
        directory: Path,
        connection: Connection,
        engine: multiprocessing.Process,
        processes: Processes,
        options: argparse.Namespace,
    ) -> None:
        self.directory = directory
        self._connection = connection
        self._engine = engine
        self.processes = processes
        self._options = options
        self._random = random.Random(options.seed)
        self._boot_id = Clock().boot_id
        self.url: str = connection.recv()
        ports = free_ports(2)
        self.attestation = ports[0]
        self.api = ports[1]

    def ask(self, *message: object) -> Any:
        self._connection.send(message)
        return self._connection.recv()

    def start(self) -> None:
        self._start_servers()
        began = time.monotonic()
        command = [sys.executable, "-m", "ovirt_tcp_plugin.broker.main"]
        self.processes.start("broker", [*command, "--config-dir", str(self.directory), "run"])
        everybody = self._options.hosts
        self.wait(lambda: self.ask("walled") == everybody, 3600, 1.0)
        pools = self._options.pools
        self.wait(lambda: len(list(self.snapshots.glob("*-*.json"))) == pools, 3600, 1.0)
        print(f"all walls stand after {time.monotonic() - began:.0f} s", flush=True)

    def _start_servers(self) -> None:
        port = self.attestation
        command = [sys.executable, "-m", "tests.bench.attestation", str(self.directory)]
        arguments = [str(port), str(TAKES_S), "0"]
        self.processes.start("attestation", [*command, *arguments], lambda: listens(port))
        content = broker_options(self.directory, self.url, port, self.api)
        content["engine"]["timeout_s"] = 120
        (self.directory / "broker.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def measure(self, rounds: int) -> None:
        self.ask("slow", self._options.page_s)
        numbers = self._random.sample(range(min(self._options.hosts, self._options.vms)), rounds)
        left: list[float] = []
        out: list[float] = []
        held: list[float] = []
        behind: list[float] = []
        new: list[float] = []
        busy_s = self._busy_s()
        began = time.monotonic()
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
        self._report_busy(busy_s, time.monotonic() - began)

    def add_vms(self, count: int) -> None:
        """Make VMs one after the other; each has to be held from the moment that it is there."""
        held = 0
        for number in range(count):
            cluster = f"C{number % self._options.pools}"
            vm_id, cluster_id = self.ask("add", f"more{number}", cluster)
            held += self._snapshot(cluster_id).vms.get(vm_id) is not False
        print(f"new VMs held before their first start: {held} of {count}", flush=True)

    def _measure_host(self, number: int, left: list[float], out: list[float]) -> None:
        host_id, cluster_id = self.ask("leave", f"h{number}")
        began = time.monotonic()
        self.wait(lambda: not self._is_trusted(cluster_id, host_id))
        left.append(time.monotonic() - began)
        self.wait(lambda: host_id not in self.ask("members", cluster_id)[0])
        out.append(time.monotonic() - began)

    def _measure_mark(self, number: int, held: list[float], behind: list[float]) -> None:
        vm_id, cluster_id = self.ask("mark", f"vm{number}")
        began = time.monotonic()
        self.wait(lambda: self._snapshot(cluster_id).vms.get(vm_id) is not False)
        held.append(time.monotonic() - began)
        self.wait(lambda: vm_id in self.ask("members", cluster_id)[1])
        behind.append(time.monotonic() - began)

    def _measure_new(self, number: int, name: str, new: list[float]) -> None:
        vm_id, cluster_id = self.ask("add", name, f"C{number % self._options.pools}")
        began = time.monotonic()
        assert self._snapshot(cluster_id).vms.get(vm_id) is not False
        self.wait(lambda: vm_id in self.ask("members", cluster_id)[1])
        new.append(time.monotonic() - began)

    def count_calls(self, seconds: float) -> None:
        """Print the calls of a minute in which nothing happens, after one in which nothing did."""
        self.ask("slow", 0.0)
        edits = -1
        while edits != self.ask("edits"):
            edits = self.ask("edits")
            time.sleep(watch.CALM_AFTER_MS / 1000 + 1)
        before = self.ask("calls")
        time.sleep(seconds)
        after = self.ask("calls")
        counts = {call: (after[call] - before.get(call, 0)) * 60 / seconds for call in after}
        print(f"calls a minute: {sum(counts.values()):.1f}")
        for call, count in sorted(counts.items()):
            if count:
                print(f"  {count:7.1f} {call}")

    def report_memory(self) -> None:
        """Print the most memory that the broker had resident."""
        status = Path(f"/proc/{self.processes.pid('broker')}/status").read_text(encoding="ascii")
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        now_kib = int(status.partition("VmRSS:")[2].split()[0])
        print(f"broker RSS: {peak_kib / 1024:.0f} MiB at most, {now_kib / 1024:.0f} MiB now")

    def _pids(self) -> dict[str, int]:
        pids = {name: self.processes.pid(name) for name in ("broker", "attestation")}
        pids["engine"] = self._engine.pid or 0
        pids["bench"] = os.getpid()
        return pids

    def _busy_s(self) -> dict[str, float]:
        """Return the seconds of processor time of each process so far."""
        busy_s: dict[str, float] = {}
        for name, pid in self._pids().items():
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
            user, system = fields.split()[11:13]
            busy_s[name] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return busy_s

    def _report_busy(self, before: dict[str, float], seconds: float) -> None:
        for name, busy_s in self._busy_s().items():
            print(f"  {name}: {(busy_s - before[name]) / seconds:.2f} of a core")
        print(f"  load average: {os.getloadavg()[0]:.1f} of {os.cpu_count()}", flush=True)

    @property
    def snapshots(self) -> Path:
        return self.directory / "snapshot.d"

    def _snapshot(self, cluster_id: str) -> snapshot.Snapshot:
        content = (self.snapshots / f"{cluster_id}.json").read_bytes()
        return snapshot.decode(content, self._boot_id)

    def _is_trusted(self, cluster_id: str, host_id: str) -> bool:
        return self._snapshot(cluster_id).hosts[host_id].level is Level.TRUSTED

    def wait(
        self, holds: Callable[[], object], within_s: float = WITHIN_S, pause_s: float = 0.02
    ) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in time: {self.processes.log_tail('broker')}")
            time.sleep(pause_s)


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


@contextlib.contextmanager
def running(options: argparse.Namespace) -> Iterator[Bench]:
    """Start everything, and wait until all walls stand."""
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as processes:
        directory = Path(name)
        make_pki(directory)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=_engine_process, args=(directory, options, theirs))
        process.start()
        bench = Bench(directory, ours, process, processes, options)
        try:
            bench.start()
            yield bench
        finally:
            ours.send(("stop",))
            process.join()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("hosts", 200), ("pools", 20), ("vms", 2000), ("rounds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page-s", type=float, default=3.0)
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--new-vms", type=int, default=1000)
    options = parser.parse_args()
    with running(options) as bench:
        bench.measure(options.rounds)
        bench.add_vms(options.new_vms)
        bench.report_memory()
        bench.count_calls(options.idle_s)
        bench.report_memory()


if __name__ == "__main__":
    main()
