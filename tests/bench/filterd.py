# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter as the engine calls it: over a socket that is kept, with the very bytes that the Java
client sends.

They are encoded before, and the answers only looked at: a client in Python would cost more than the
call. The floor is the standard library's threaded server with a dict, in a process of its own, in
turns with ours.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ovirt_tcp_plugin.broker.store.snapshot_writer import SnapshotWriter
from ovirt_tcp_plugin.lab.engine.external_scheduler import request
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from tests.bench.harness import Benchmark, Sample, percentile
from tests.bench.snapshots import host_ids, pool

POOL = str(uuid.UUID(int=1))
POOL_SIZE = 10_000
VM = str(uuid.UUID(int=2))
CALLS = 400
LOADED_S = 4.0
TURN_S = 1.0
TURNS = 4
SIZES = (10, 100, 1000, 3000, 10_000)
CLIENTS = (1, 4, 16)


def call(hosts: int) -> bytes:
    """Return a request for the first `hosts` of the pool, head and body."""
    body = request("runFilters", [["TrustedHosts"], host_ids(hosts), VM, {}])
    return (
        b"POST / HTTP/1.1\r\nContent-Type: text/xml\r\nUser-Agent: Apache XML RPC 3.1.3 (Sun HTTP "
        b"Transport)\r\n"
        b"Host: localhost\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, sent: bytes) -> bytes:
        """Return the answer's body."""
        self._socket.sendall(sent)
        got = self._socket.recv(65536)
        while b"\r\n\r\n" not in got:
            got += self._socket.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        fields = head.lower().split(b"content-length:")
        left = int(fields[1].split(b"\r\n")[0]) - len(body)
        parts = [body]
        while left > 0:
            parts.append(self._socket.recv(min(left, 1 << 20)))
            left -= len(parts[-1])
        return b"".join(parts)

    def ask_ms(self, sent: bytes) -> float:
        """Return how long an answer takes."""
        began = time.perf_counter()
        self.ask(sent)
        return (time.perf_counter() - began) * 1000

    def close(self) -> None:
        self._socket.close()


class Servers:
    """filterd with a pool of 10,000 trusted hosts, and the floor with a dict of them."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.snapshots, self.processes = directory / "snapshot.d", processes
        SnapshotWriter(self.snapshots).write(pool(POOL, POOL_SIZE))
        self.ours, self.floor = free_ports(2)
        options = {
            "server": {"port": self.ours},
            "snapshots": {"directory": str(self.snapshots), "owner": ""},
        }
        (directory / "filterd.yaml").write_text(json.dumps(options))
        command = [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.scheduler.main",
            "--config-dir",
            str(directory),
            "run",
        ]
        processes.start("filterd", command, lambda: listens(self.ours))
        (directory / "ends").write_text(
            json.dumps({one: time.monotonic() + 3600 for one in host_ids(POOL_SIZE)})
        )
        command = [
            sys.executable,
            "-m",
            "tests.bench.dict_filter",
            str(self.floor),
            str(directory / "ends"),
        ]
        processes.start("floor", command, lambda: listens(self.floor))
        for port in (self.ours, self.floor):
            self._check(port)

    def _check(self, port: int) -> None:
        client = Client(port)
        assert client.ask(call(POOL_SIZE)).count(b"<string>") == POOL_SIZE
        client.close()

    @contextlib.contextmanager
    def sweeping(self) -> Iterator[None]:
        """Have a broker's work beside them, and a new snapshot each second."""
        command = [
            sys.executable,
            "-m",
            "tests.bench.snapshots",
            str(self.snapshots),
            POOL,
            str(POOL_SIZE),
        ]
        self.processes.start("sweep", command)
        time.sleep(1)
        yield
        self.processes.stop("sweep")


@contextlib.contextmanager
def servers() -> Iterator[Servers]:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        Processes(Path(directory)) as processes,
    ):
        yield Servers(Path(directory), processes)


@contextlib.contextmanager
def run_filters_1000() -> Iterator[Callable[[], Sample]]:
    """p50 of a call, beside the floor's."""
    with servers() as running:
        yield lambda: _medians(running, 1000, CALLS // 2)


def _medians(running: Servers, hosts: int, calls: int) -> Sample:
    ours, floor, sent = Client(running.ours), Client(running.floor), call(hosts)
    taken: list[tuple[float, float]] = [
        (ours.ask_ms(sent), floor.ask_ms(sent)) for _ in range(calls)
    ]
    ours.close()
    floor.close()
    return Sample(*(statistics.median(one) for one in zip(*taken)))


@contextlib.contextmanager
def run_filters_1000_p99() -> Iterator[Callable[[], Sample]]:
    with servers() as running:
        yield lambda: Sample(percentile(_idle(running), 99))


def _idle(running: Servers) -> list[float]:
    client, sent = Client(running.ours), call(1000)
    taken = [client.ask_ms(sent) for _ in range(CALLS)]
    client.close()
    return taken


@contextlib.contextmanager
def run_filters_1000_loaded_p99() -> Iterator[Callable[[], Sample]]:
    """p99 while a broker sweeps 10,000 hosts and writes a snapshot of them each second; the floor
    is p99 without that."""
    with servers() as running:
        yield lambda: Sample(_loaded(running), percentile(_idle(running), 99))


def _loaded(running: Servers) -> float:
    with running.sweeping():
        client, sent, taken, end = Client(running.ours), call(1000), [], time.monotonic() + LOADED_S
        while time.monotonic() < end:
            taken.append(client.ask_ms(sent))
        client.close()
    return percentile(taken, 99)


@contextlib.contextmanager
def run_filters_1000_4_clients() -> Iterator[Callable[[], Sample]]:
    with servers() as running:
        yield lambda: Sample(_rate(running.ours, 1000, 4, TURN_S)[0])


def _rate(port: int, hosts: int, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return calls a second of so many clients, and how many milliseconds each took."""
    sent, taken, end = call(hosts), [], time.monotonic() + seconds

    def keep_on() -> None:
        client = Client(port)
        while time.monotonic() < end:
            taken.append(client.ask_ms(sent))
        client.close()

    threads = [threading.Thread(target=keep_on) for _ in range(clients)]
    began = time.monotonic()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return len(taken) / (time.monotonic() - began), taken


@contextlib.contextmanager
def run_filters_100_16_clients_p99() -> Iterator[Callable[[], Sample]]:
    """p99 of sixteen clients at once, each for the 100 hosts of a usual cluster; with a table of
    all sizes and numbers."""
    with servers() as running:
        yield lambda: _table(running)


def _table(running: Servers) -> Sample:
    columns = f"{'p50 ms':>8} {'p99 ms':>8} {'calls/s':>8}"
    print(f"{'hosts':>6} {'clients':>7} {columns} | floor {columns}")
    found = {}
    for hosts, clients in itertools.product(SIZES, CLIENTS):
        found[hosts, clients] = _turns(running, hosts, clients)
        told = [f"{p50:8.2f} {p99:8.2f} {rate:8.0f}" for p50, p99, rate in found[hosts, clients]]
        print(f"{hosts:6} {clients:7} {told[0]} |       {told[1]}")
    ours, floor = found[100, 16]
    return Sample(ours[1], floor[1])


def _turns(running: Servers, hosts: int, clients: int) -> list[tuple[float, float, float]]:
    """Return p50, p99 and calls a second of ours and of the floor, from short turns of one after
    the other."""
    rates: list[list[float]] = [[], []]
    taken: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for position, port in enumerate((running.ours, running.floor)):
            rate, each = _rate(port, hosts, clients, TURN_S / TURNS)
            rates[position].append(rate)
            taken[position] += each
    pairs = zip(rates, taken)
    return [
        (statistics.median(each), percentile(each, 99), statistics.median(rate))
        for rate, each in pairs
    ]


BENCHMARKS = [
    Benchmark("run_filters_1000", "ms", run_filters_1000, most_ratio=0.35),
    Benchmark("run_filters_1000_p99", "ms", run_filters_1000_p99, most=3),
    Benchmark("run_filters_1000_loaded_p99", "ms", run_filters_1000_loaded_p99, most_ratio=2.5),
    Benchmark("run_filters_1000_4_clients", "calls/s", run_filters_1000_4_clients, least=600),
    Benchmark(
        "run_filters_100_16_clients_p99",
        "ms",
        run_filters_100_16_clients_p99,
        most_ratio=1,
        rounds=1,
    ),
]
