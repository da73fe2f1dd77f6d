# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""All attestation servers, or all hosts, are silent for ten verdict lives: nobody is moved, nobody
leaves, nobody starts, all returns.

Real SDK, broker, filterd and files, against the simulated engine, whose enforcer looks twice a
second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import audit_log, model
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.messages.result import Level
from tests import soak
from tests.broker import filterd
from tests.broker.site import ADMINISTRATOR, EVERYBODY, PASSWORD, Site, until

LIVES = soak.part(10, least=2)
LIFE_MS = 1500
# Between the filter's answer and the engine's note of its choice.
NOTED_WITHIN_S = 0.2


class Administrator:
    """Tries to start a VM that is down, again and again, through the real SDK, and stops it when it
    runs."""

    def __init__(self, site: Site, vm: model.SimulatedVm) -> None:
        self._site, self._vm, self._over = site, vm, threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        ca_file, url = str(self._site.pki / "ca.pem"), self._site.engine.url
        connection = ovirtsdk4.Connection(
            url=url, username=ADMINISTRATOR, password=PASSWORD, ca_file=ca_file
        )
        vm = connection.system_service().vms_service().vm_service(self._vm.id)
        while not self._over.wait(0.02):
            with contextlib.suppress(ovirtsdk4.Error):
                vm.stop() if self._vm.status == "up" else vm.start()
        connection.close(logout=False)


@pytest.fixture
def site(tmp_path: Path, site_pki: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        url = filterd.start(stack.enter_context(Processes(tmp_path)), tmp_path)
        vms = [
            {"name": f"vm{n}", "host": f"h{n}", "high_availability": n == 1} for n in range(1, 6)
        ]
        made = Site(tmp_path, site_pki, 5, [*vms, {"name": "wanted"}], url)
        stack.callback(made.engine.stop)
        tables = made.engine.model
        tables.timings = dataclasses.replace(tables.timings, enforcer=0.5, ha_long_retry=0.5)
        made.engine.rounds.restart()
        made.source.life_ms = LIFE_MS
        made.start()
        stack.callback(made.stop)
        yield made


def chosen(site: Site) -> list[tuple[float, str, str]]:
    """Return when each VM was given a host, for what, and which."""
    with site.engine.model.lock:
        return [
            (one["time"], one["purpose"], one["chosen"])
            for one in site.engine.model.journal
            if one["chosen"]
        ]


@pytest.mark.soak
@pytest.mark.timeout(120)
@pytest.mark.parametrize("server_answers", [False, True])
def test_an_outage_of_servers_or_hosts_moves_and_places_nobody_and_ends_by_itself(
    site: Site, server_answers: bool
) -> None:
    """A server that answers is cut off from the hosts, or has lost its database."""
    tables = site.engine.model
    until(lambda: site.inside() == EVERYBODY and site.trusted_in_snapshot() == EVERYBODY)
    until(lambda: (wall := site.wall()) is not None and set(wall.vms) == set(tables.vms))
    administrator = Administrator(
        site, next(vm for vm in tables.vms.values() if vm.name == "wanted")
    )
    until(lambda: len(chosen(site)) > 2)
    places = {vm.name: vm.host for vm in tables.vms.values() if vm.name != "wanted"}

    if server_answers:
        site.source.levels = {f"{name}.lab": Level.UNKNOWN for name in EVERYBODY}
    else:
        site.source.down = True
    began, began_ms = tables.now(), site.clock.now_ms()
    until(lambda: site.clock.now_ms() >= began_ms + LIVES * LIFE_MS, LIVES * LIFE_MS)

    late = [one for one in chosen(site) if one[0] > began + LIFE_MS / 1000 + NOTED_WITHIN_S]
    assert late == []
    assert {vm.name: vm.host for vm in tables.vms.values() if vm.name in places} == places
    assert [row for row in site.engine.model.events if row.code == audit_log.MIGRATION_START] == []
    assert set(site.statuses().values()) == {"up"}
    assert site.inside() == set()

    lost = next(vm for vm in tables.vms.values() if vm.high_availability)
    site.engine.vms.lose(lost, "it crashed.")
    until(lambda: lost.tries > 1)
    assert lost.status == "down"
    site.source.down = False
    site.source.levels = {}
    before = len(chosen(site))
    until(
        lambda: (
            site.inside() == EVERYBODY and lost.status == "up" and len(chosen(site)) > before + 1
        ),
        90,
    )
    administrator.stop()
    assert set(site.statuses().values()) == {"up"}
    print(
        f"\n{LIVES} lives of {LIFE_MS} ms: 0 migrations, 0 quarantines, 0 placements past the ends"
    )
