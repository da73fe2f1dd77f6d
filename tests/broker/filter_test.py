# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter beside a running broker whose attestation server hangs, refuses, fails or is slow: the
engine loses no call."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.verifiers import choose
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.lab.processes import Processes, free_ports
from tests import soak
from tests.broker import filterd
from tests.broker.odd_server import Server, good
from tests.broker.site import Site, until

THREADS = 32
CALLS = soak.part(9600, 320)
# ExternalSchedulerResponseTimeout, as `ovirt-tcp setup` sets it, and what the machine takes beside.
LOCK_S, SLACK_S = 3.0, 0.5

Behaviour = Callable[[Server], str]


def hangs(server: Server) -> str:
    server.body = lambda names: server.over.wait(60)
    return server.url


def refuses(_: Server) -> str:
    return f"https://127.0.0.1:{free_ports(1)[0]}"


def fails(server: Server) -> str:
    server.status = 500
    return server.url


def is_slow(server: Server) -> str:
    def body(names: list[str]) -> object:
        server.over.wait(1)
        return {"hosts": [good(name) for name in names]}

    server.body = body
    return server.url


class Calls:
    """Threads like the engine's, which give up after 100 ms to connect; half of the calls on a
    connection of their own."""

    def __init__(self, url: str, hosts: list[str], vm: str) -> None:
        self._url, self._hosts, self._vm = url, hosts, vm
        self.lost: list[str] = []
        self.answers: list[list[str]] = []

    def make(self, count: int) -> None:
        threads = [
            threading.Thread(target=self._make, args=(count // THREADS,)) for _ in range(THREADS)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    def _make(self, count: int) -> None:
        kept = ExternalScheduler(self._url, LOCK_S)
        for number in range(count):
            engine = kept if number % 2 else ExternalScheduler(self._url, LOCK_S)
            try:
                self.answers.append(
                    engine.run_filters(["TrustedHosts"], self._hosts, self._vm, {}).result
                )
            except NoAnswer as e:
                self.lost.append(str(e))


@pytest.mark.soak
@pytest.mark.parametrize(
    "behave", [hangs, refuses, fails, is_slow], ids=["hangs", "refuses", "answers 500", "after 1 s"]
)
def test_no_call_is_lost(behave: Behaviour, server: Server, site_pki: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url = filterd.start(stack.enter_context(Processes(tmp_path)), tmp_path)
        site = Site(tmp_path, site_pki, 5)
        stack.callback(site.engine.stop)
        options = settings.VerifierOptions(
            (behave(server),),
            ca_file=site_pki / "ca.pem",
            token_file=site_pki / "token",
            deadline_s=6.0,
        )
        site.source = choose.make(options, site.clock)  # type: ignore[assignment]
        site.start()
        stack.callback(site.stop)
        stack.callback(server.over.set)
        tables = site.engine.model
        calls = Calls(url, sorted(tables.hosts), next(iter(tables.vms)))
        if behave is is_slow:
            asked = ["TrustedHosts"], sorted(tables.hosts), next(iter(tables.vms)), {}
            until(
                lambda: (
                    len(ExternalScheduler(url, LOCK_S).run_filters(*asked).result)
                    == len(tables.hosts)
                )
            )
        calls.make(CALLS)
    print(f"filter: {len(calls.answers)} calls answered, {len(calls.lost)} lost")
    assert calls.lost == []
    expected = sorted(tables.hosts) if behave is is_slow else []
    assert calls.answers == [expected] * (CALLS // THREADS * THREADS)


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that accepts and never answers, in filterd's place."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_the_clusters_lock_is_held_no_longer_than_setup_allows(
    silent: str, site_pki: Path, tmp_path: Path
) -> None:
    """It is the engine's own limit that ends the call; its default is 120 s."""
    site = Site(tmp_path, site_pki, 2, [{"name": "vm"}], silent)
    try:
        assert site.engine.model.timings.external_response == LOCK_S
        (unit,) = [one for one in site.engine.model.units.values() if not one.internal]
        until(lambda: not unit.enabled)
        unit.enabled = True  # as after an engine's start with a scheduler that worked then
        (vm,) = site.engine.model.vms.values()
        lock = site.engine.model.clusters[site.cluster].scheduling
        thread = threading.Thread(target=site.engine.vms.start, args=(vm,))
        thread.start()
        until(lock.locked)
        began = time.monotonic()
        with lock:
            held_s = time.monotonic() - began
        thread.join()
        assert 1 < held_s <= LOCK_S + SLACK_S
        assert vm.host
    finally:
        site.engine.stop()
