# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How soon a site of 1,000 hosts reacts: a host that comes Up is inside its wall, and one that was
tampered with gets no VM.

Engine, broker, filterd and attestation server are processes of their own, with the intervals of an
installation.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import requests

from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.settings import EngineOptions
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.processes import free_ports, listens
from ovirt_tcp_plugin.messages import oat
from tests.bench import watching
from tests.bench.attestation import PATH
from tests.bench.harness import Benchmark, Sample, percentile
from tests.bench.pools import USER

HOSTS = 1_000
POOLS = 10
VMS = 2_000
ROUNDS = 40
POLL_S = 0.005


class Reactions:
    """A running site, and the changes of single hosts."""

    def __init__(self, site: watching.Bench) -> None:
        self._site = site
        self._random = random.Random(1)
        numbers = self._random.sample(range(HOSTS), 2 * ROUNDS)
        self._coming = [f"h{number}" for number in numbers[:ROUNDS]]
        self._tampered = [f"h{number}" for number in numbers[ROUNDS:]]
        self._ca_file = str(site.directory / "ca.pem")
        self._filterd = free_ports(1)[0]
        self._token = self._add_token()
        self._start_filterd()

    def up_to_trusted(self) -> Sample:
        """Milliseconds from the engine's status Up to the wall, in 95 of 100 cases; and those that
        the calls alone take that this needs."""
        ours = [self._come_up(name) for name in self._coming]
        floors = [self._bare_calls(name) for name in self._coming]
        return Sample(percentile(ours, 95), percentile(floors, 95))

    def tamper_to_refused(self) -> Sample:
        """Milliseconds from the attestation server's answer to the filter's refusal, likewise."""
        self._tell_attestation(self._tampered)
        return Sample(percentile([self._ask_about(name) for name in self._tampered], 95))

    def _come_up(self, name: str) -> float:
        host_id, cluster_id = self._site.ask("leave", name)
        self._site.wait(lambda: not self._is_inside(host_id, cluster_id))
        time.sleep(self._random.uniform(0, 1))
        began_s = time.monotonic()
        self._site.ask("arrive", name)
        self._site.wait(lambda: self._is_inside(host_id, cluster_id), pause_s=POLL_S)
        return (time.monotonic() - began_s) * 1000

    def _is_inside(self, host_id: str, cluster_id: str) -> bool:
        return host_id in self._site.ask("members", cluster_id)[0]

    def _bare_calls(self, name: str) -> float:
        """Return the time of: a look at the hosts, a question, an edit of the wall."""
        host_id, cluster_id = self._site.ask("place", name)
        engine = Engine(engine_access(self._engine_options()))
        wall = engine.walls(cluster_id)[0]
        began_s = time.monotonic()
        engine.hosts_not_up()
        poll = json.dumps(oat.encode_poll(oat.Poll((f"{name}.lab",))))
        self._attestation("POST", PATH, data=poll)
        engine.add_host(cluster_id, wall.id, host_id)
        return (time.monotonic() - began_s) * 1000

    def _ask_about(self, name: str) -> float:
        host_id, _ = self._site.ask("place", name)
        time.sleep(self._random.uniform(0, 1))
        self._run_hook("init_vds_on_up", name)
        self._site.wait(lambda: not self._passes(host_id), pause_s=POLL_S)
        refused_s = time.monotonic()
        told_s: Mapping[str, float] = self._attestation("GET", "/control").json()["told"]
        return (refused_s - told_s[name]) * 1000

    def _passes(self, host_id: str) -> bool:
        return host_id in filterd_client.run_filters("127.0.0.1", self._filterd, [host_id])

    # Processes

    def _engine_options(self) -> EngineOptions:
        directory = self._site.directory
        return EngineOptions(self._site.url, USER, directory / "password", directory / "ca.pem")

    def _start_filterd(self) -> None:
        options = {
            "server": {"port": self._filterd},
            "snapshots": {"directory": str(self._site.snapshots), "owner": ""},
        }
        file = self._site.directory / "filterd.yaml"
        file.write_text(json.dumps(options), encoding="utf-8")
        command = [*self._command("scheduler"), "run"]
        self._site.processes.start("filterd", command, lambda: listens(self._filterd))

    def _command(self, role: str) -> list[str]:
        module = f"ovirt_tcp_plugin.{role}.main"
        return [sys.executable, "-m", module, "--config-dir", str(self._site.directory)]

    def _add_token(self) -> str:
        command = [*self._command("broker"), "token", "add", "--role", "operator"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def _run_hook(self, name: str, host: str) -> None:
        url = f"http://127.0.0.1:{self._site.api}/v1/hooks/{name}"
        headers = {"Authorization": f"Bearer {self._token}"}
        reply = requests.post(url, params={"host": host}, headers=headers, timeout=30)
        reply.raise_for_status()

    def _tell_attestation(self, bad: list[str]) -> None:
        self._attestation("POST", "/control", params={"bad": ",".join(bad)})

    def _attestation(self, verb: str, path: str, **content: Any) -> requests.Response:
        url = f"https://127.0.0.1:{self._site.attestation}{path}"
        reply = requests.request(verb, url, verify=self._ca_file, timeout=10, **content)
        reply.raise_for_status()
        return reply


@functools.lru_cache(maxsize=1)
def _figures() -> Mapping[str, Sample]:
    """Start the site and take both figures."""
    options = argparse.Namespace(hosts=HOSTS, pools=POOLS, vms=VMS, seed=1)
    with watching.running(options) as site:
        reactions = Reactions(site)
        return {
            "up_to_trusted_p95": reactions.up_to_trusted(),
            "tamper_to_refused_p95": reactions.tamper_to_refused(),
        }


def _figure(name: str) -> Callable[[], AbstractContextManager[Callable[[], Sample]]]:
    @contextlib.contextmanager
    def start() -> Iterator[Callable[[], Sample]]:
        yield lambda: _figures()[name]

    return start


BENCHMARKS = [
    Benchmark("up_to_trusted_p95", "ms", _figure("up_to_trusted_p95"), most=2000, rounds=1),
    Benchmark("tamper_to_refused_p95", "ms", _figure("tamper_to_refused_p95"), most=1000, rounds=1),
]
