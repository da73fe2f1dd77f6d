# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker with 10,000 hosts in 100 pools: a process of its own, between a simulated engine and
an attestation server.

All figures are of one site, which is built once: a cold start, sweeps over all hosts, a steady
state, changes of single hosts, dead servers, and a restart.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import functools
import http.client
import json
import logging
import math
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Optional

import requests
import yaml

from ovirt_tcp_plugin import config
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from tests.bench.attestation import PATH
from tests.bench.harness import Benchmark, Sample
from tests.bench.pools import PASSWORD, USER

log = logging.getLogger("bench.broker")

HOSTS, POOLS, VMS = 10_000, 100, 20_000
BATCH, CONNECTIONS = 20, 16
TAKES_S = 0.05
# Every 20th host is untrusted.
UNTRUSTED_EVERY = 20
UNTRUSTED = HOSTS // UNTRUSTED_EVERY
FIRST_STAGE = 10
SWEEPS = 3
STEADY_S = 300.0
DEAD_S = 60.0
CHANGES = 20
WITHIN_S = 240.0
HOOKS = Path(__file__).parents[2] / "hooks" / "engine"


class Site:
    """The processes, and what can be seen of them from outside."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate, key = Authority.create(directory, now).issue_server(["127.0.0.1"], now)
        (directory / "engine.pem").write_bytes(certificate)
        write_key(directory / "engine.key", key)
        (directory / "password").write_text(PASSWORD)
        self.engine, self.control, self.attestation, self.api = free_ports(4)
        self._start("pools", HOSTS, POOLS, VMS, self.engine, self.control, port=self.engine)
        self._start(
            "attestation", self.attestation, TAKES_S, UNTRUSTED_EVERY, port=self.attestation
        )
        url = f"https://127.0.0.1:{self.engine}/ovirt-engine/api"
        options = broker_options(directory, url, self.attestation, self.api)
        (directory / "broker.yaml").write_text(yaml.safe_dump(options))
        command = [*self._broker, "token", "add", "--role", "operator"]
        self._token = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()

    def start_broker(self) -> float:
        """Start the broker; return when."""
        began = time.monotonic()
        self.processes.start("broker", [*self._broker, "run"])
        return began

    @property
    def _broker(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.broker.main",
            "--config-dir",
            str(self.directory),
        ]

    def until(self, holds: Callable[[], object], pause_s: float = 0.02) -> float:
        """Wait; return when it came true."""
        deadline = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < deadline, self.processes.log_tail("broker")
            assert self.processes.running("broker"), self.processes.log_tail("broker")
            time.sleep(pause_s)
        return time.monotonic()

    def walls(self) -> Mapping[str, int]:
        """Return how many hosts and VMs are inside the engine's walls."""
        groups = self._of_engine("groups").values()
        return {"hosts": sum(hosts for hosts, _ in groups), "vms": sum(vms for _, vms in groups)}

    def statuses(self) -> Mapping[str, str]:
        """Return the status of each host at the engine, by name."""
        found: Mapping[str, str] = self._of_engine("state")["hosts"]
        return found

    def edits(self) -> int:
        """Return how many requests that change something the engine has had."""
        return sum(
            number
            for call, number in self._of_engine("calls").items()
            if not call.startswith("GET")
        )

    def trusted_in_snapshots(self) -> int:
        """Return how many hosts filterd would call trusted."""
        files = (self.directory / "snapshot.d").glob("*.json")
        return sum(file.read_bytes().count(b'["trusted"') for file in files)

    def questions(self) -> list[tuple[float, float, int]]:
        """Return the questions so far: beginning, end and number of hosts."""
        url = f"https://127.0.0.1:{self.attestation}/control"
        answer = requests.get(url, verify=str(self.directory / "ca.pem"), timeout=10)
        found: list[tuple[float, float, int]] = answer.json()["taken"]
        return found

    def tell_attestation(self, **switches: object) -> None:
        """Switch the attestation server."""
        url = f"https://127.0.0.1:{self.attestation}/control"
        requests.post(
            url, params=switches, verify=str(self.directory / "ca.pem"), timeout=10
        ).raise_for_status()

    def hook(self, name: str, host: str = "") -> None:
        """Run an engine hook by hand."""
        url = f"http://127.0.0.1:{self.api}/v1/hooks/{name}"
        headers = {"Authorization": f"Bearer {self._token}"}
        requests.post(
            url, params={"host": host} if host else {}, headers=headers, timeout=30
        ).raise_for_status()

    def cpu_s(self) -> float:
        """Return the seconds of one core that the broker used so far."""
        ticks = (
            Path(f"/proc/{self.processes.pid('broker')}/stat")
            .read_text()
            .rpartition(")")[2]
            .split()[11:13]
        )
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Return the most memory that the broker had resident."""
        status = Path(f"/proc/{self.processes.pid('broker')}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def _of_engine(self, what: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.control}/{what}", timeout=30).json()["answer"]

    def _start(self, module: str, *arguments: object, port: int) -> None:
        given = [str(one) for one in (self.directory, *arguments)]
        self.processes.start(
            module, [sys.executable, "-m", f"tests.bench.{module}", *given], lambda: listens(port)
        )


def broker_options(directory: Path, engine_url: str, attestation: int, api: int) -> dict[str, Any]:
    """Return a broker's options, with all its files in one directory. Takes two ports."""
    return {
        "engine": {
            "url": engine_url,
            "username": USER,
            "password_file": str(directory / "password"),
            "ca_file": str(directory / "ca.pem"),
        },
        "verifier": {
            "urls": [f"https://127.0.0.1:{attestation}"],
            "kind": "oat-2",
            "ca_file": str(directory / "ca.pem"),
        },
        # Many hosts are untrusted here, and leave service without a decision.
        "guard": {"hosts": HOSTS, "series_s": 0},
        "api": {"port": api},
        "hooks": {"directory": str(HOOKS)},
        "snapshot": {"directory": str(directory / "snapshot.d")},
        "state": {"directory": str(directory / "state")},
    }


@functools.lru_cache(maxsize=1)
def _figures() -> Mapping[str, Sample]:
    """Build the site and take every figure, up to the first that cannot be taken."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Processes(Path(name)) as processes:
        site = Site(Path(name), processes)
        figures: dict[str, Sample] = {}
        try:
            for stage in (_cold_start, _sweeps, _steady, _changes, _dead, _reload):
                figures.update(stage(site))
        except Exception:
            log.exception("the figures of the broker are not complete")
        return figures


def _cold_start(site: Site) -> dict[str, Sample]:
    """From the start of the process; there is no snapshot and no wall yet."""
    good = FIRST_STAGE - 1
    began = site.start_broker()
    first = site.until(lambda: site.trusted_in_snapshots() >= good)
    trusted = HOSTS - UNTRUSTED

    def done() -> bool:
        statuses = site.statuses()
        gone = sum(status != "up" for status in statuses.values())
        return site.walls() == {"hosts": trusted, "vms": VMS} and gone == UNTRUSTED

    end = site.until(done, 0.5)
    return {
        "sweep_10000_first_stage": Sample(first - began),
        "sweep_10000_all": Sample(end - began),
    }


def _sweeps(site: Site) -> dict[str, Sample]:
    """All hosts that are Up are attested anew, with everything else of a running broker; and the
    bare questions."""
    time.sleep(5)
    ours, floors = [], []
    for _ in range(SWEEPS):
        before = len(site.questions())
        asked = time.monotonic()
        site.hook("backend_initialize")

        def swept(before: int = before) -> bool:
            return sum(hosts for _, _, hosts in site.questions()[before:]) >= HOSTS - UNTRUSTED

        site.until(swept, 0.1)
        taken = site.questions()[before:]
        ours.append(max(end for _, end, _ in taken) - asked)
        time.sleep(2)
        floors.append(_bare(site, HOSTS - UNTRUSTED))
        time.sleep(2)
    middle = sorted(range(SWEEPS), key=lambda one: ours[one] / floors[one])[SWEEPS // 2]
    return {"sweep_10000_attest": Sample(ours[middle], floors[middle])}


def _bare(site: Site, hosts: int) -> float:
    """Return the seconds that the same questions take when nothing is done with the answers."""
    names = [f"h{n:05}.lab" for n in range(hosts)]
    batches = iter([names[start : start + BATCH] for start in range(0, hosts, BATCH)])
    tls = ssl.create_default_context(cafile=str(site.directory / "ca.pem"))

    def work(_: int) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", site.attestation, context=tls)
        for batch in batches:
            connection.request("POST", PATH, json.dumps(oat.encode_poll(oat.Poll(tuple(batch)))))
            connection.getresponse().read()
        connection.close()

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(work, range(CONNECTIONS)))
    return time.monotonic() - began


def _steady(site: Site) -> dict[str, Sample]:
    """One whole life of half the verdicts' life: everybody is renewed once, full lists are read
    every minute."""
    before, used, began = len(site.questions()), site.cpu_s(), time.monotonic()
    time.sleep(STEADY_S)
    share = (site.cpu_s() - used) / (time.monotonic() - began)
    taken = site.questions()[before:]
    asked = sum(hosts for _, _, hosts in taken)
    return {
        "broker_10000_steady_cpu": Sample(share),
        "broker_10000_rss": Sample(site.peak_mib()),
        "posts_per_refresh_cycle": Sample(len(taken) / asked * HOSTS),
    }


def _changes(site: Site) -> dict[str, Sample]:
    """Hosts turn untrusted, one in each of some pools: out of the wall, an event, maintenance."""
    edits = site.edits()
    names = [f"h{pool * HOSTS // POOLS:05}" for pool in range(CHANGES)]
    site.tell_attestation(bad=",".join(names))
    for name in names:
        site.hook("init_vds_on_up", name)
    site.until(lambda: all(site.statuses()[name] != "up" for name in names), 0.5)
    time.sleep(2)
    return {"rest_calls_per_verdict_change": Sample((site.edits() - edits) / len(names))}


def _dead(site: Site) -> dict[str, Sample]:
    """No answer is one, and all 10,000 hosts are wanted at once."""
    site.tell_attestation(open="0")
    site.hook("backend_initialize")
    time.sleep(5)
    before = len(site.questions())
    time.sleep(DEAD_S)
    return {"calls_per_second_to_a_dead_server": Sample((len(site.questions()) - before) / DEAD_S)}


def _reload(site: Site) -> dict[str, Sample]:
    """Milliseconds from the state file to what is known; the broker's own code, without its
    start."""
    site.processes.stop("broker")
    options = config.load(settings.Settings, "broker", site.directory)
    times = []
    for _ in range(5):
        state = BrokerState(options, Clock(), random.random)
        began = time.perf_counter()
        StateFile(options.state.directory).load(state)
        times.append((time.perf_counter() - began) * 1000)
        assert len(state.encode()["verdicts"]) > HOSTS // 2
    return {"verdicts_reload_10000": Sample(sorted(times)[len(times) // 2])}


def _figure(name: str) -> Callable[[], AbstractContextManager[Callable[[], Sample]]]:
    @contextmanager
    def start() -> Iterator[Callable[[], Sample]]:
        yield lambda: _figures()[name]

    return start


def _benchmark(
    name: str, unit: str, most: Optional[float] = None, most_ratio: Optional[float] = None
) -> Benchmark:
    return Benchmark(name, unit, _figure(name), most=most, most_ratio=most_ratio, rounds=1)


BENCHMARKS = [
    _benchmark("sweep_10000_first_stage", "s", most=2),
    _benchmark("sweep_10000_attest", "s", most_ratio=1.5),
    _benchmark("sweep_10000_all", "s", most=60),
    _benchmark("broker_10000_rss", "MiB", most=300),
    _benchmark("broker_10000_steady_cpu", "core", most=0.2),
    _benchmark("rest_calls_per_verdict_change", "calls", most=3),
    _benchmark("posts_per_refresh_cycle", "posts", most=math.ceil(HOSTS / BATCH)),
    _benchmark("calls_per_second_to_a_dead_server", "1/s", most=1),
    _benchmark("verdicts_reload_10000", "ms", most=150),
]
