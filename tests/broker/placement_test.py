# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Every way in which a VM comes to a host, with each state of the only host there is, and filterd
up or down.

Real SDK, broker, filterd and files, against the simulated engine. A VM behind the wall runs in the
trusted cells only, 60 of 60; one that the broker has never seen, at its first start, as long as
filterd is up.
"""

from __future__ import annotations

import contextlib
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.messages.result import Level
from tests.broker import filterd
from tests.broker import site as sites
from tests.broker.site import PASSWORD, Site, until
from tests.hooks import gated_host

SOURCE, CANDIDATE = "h1", "h2"
STATES = [
    "trusted",
    "untrusted",
    "unknown",
    "verdict ended",
    "all servers down beyond the last end",
]
SHORT_LIFE_MS = 1500
# By then a VM that may start has started.
STAYS_AWAY_S = 1.0
# Pinned by their placement policy, so that the candidate is the only host for them.
ONLY = {"pinned_to": [CANDIDATE]}
VMS = [
    {"name": "start", **ONLY},
    {"name": "run_once", **ONLY},
    {"name": "ha_restart", "high_availability": True, **ONLY},
    {"name": "resume", **ONLY},
    {"name": "migration", "host": SOURCE},
    {"name": "evacuation", "host": SOURCE},
]


class Cell:
    """A pool of a host that nobody knows, where VMs run, and the candidate in one state."""

    def __init__(self, site: Site, state: str, scheduler: str, filterd: Callable[[], None]) -> None:
        self.site, self.state = site, state
        site.source.levels["h1.lab"] = Level.TIMEOUT
        if state == "untrusted":
            site.source.levels["h2.lab"] = Level.UNTRUSTED
        elif state == "unknown":
            site.source.levels["h2.lab"] = Level.UNKNOWN
        elif state != "trusted":
            site.source.life_ms = SHORT_LIFE_MS
        site.start()
        self._settle()
        proxy, hosts = xmlrpc.client.ServerProxy(scheduler), [site.host(CANDIDATE).id]
        passing = hosts if state == "trusted" else []
        until(
            lambda: (
                proxy.runFilters(["TrustedHosts"], hosts, self.vm("start").id, {})["result"]
                == passing
            )
        )
        site.service.stop()  # what stands now has to hold without the broker, too
        filterd()
        self.connection = ovirtsdk4.Connection(
            url=site.engine.url,
            username=sites.ADMINISTRATOR,
            password=PASSWORD,
            ca_file=str(site.pki / "ca.pem"),
        )
        self.system = self.connection.system_service()

    def _settle(self) -> None:
        site, bad = self.site, self.state == "untrusted"
        until(
            lambda: (
                (wall := site.wall()) is not None and set(wall.vms) == set(site.engine.model.vms)
            )
        )
        if self.state in ("trusted", "verdict ended") or self.state.startswith("all"):
            until(
                lambda: site.inside() == {CANDIDATE} and site.trusted_in_snapshot() == {CANDIDATE}
            )
        if self.state == "verdict ended":
            site.source.levels["h2.lab"] = Level.TIMEOUT
        if self.state.startswith("all"):
            site.source.down = True
        if self.state != "trusted":
            until(lambda: site.inside() == set() and site.asked_for("h2.lab"))
        until(lambda: bool(site.told("is untrusted")) is bad)

    def vm(self, name: str) -> model.SimulatedVm:
        return next(one for one in self.site.engine.model.vms.values() if one.name == name)

    def service(self, name: str) -> Any:
        return self.system.vms_service().vm_service(self.vm(name).id)

    def arrived(self) -> set[str]:
        """Return the VMs that run on the candidate now."""
        candidate, vms = self.site.host(CANDIDATE).id, self.site.engine.model.vms.values()
        return {
            one.name
            for one in vms
            if one.host == candidate and one.status == "up" and not one.migrating_to
        }

    def comes_to_be(self, expected: set[str]) -> bool:
        """Return whether these VMs, and no others, come to run on the candidate."""
        if expected:
            until(lambda: self.arrived() == expected)
        else:
            # The engine has tried to restart more than once by then.
            until(lambda: self.vm("ha_restart").tries != 1)
            with contextlib.suppress(AssertionError):
                until(self.arrived, STAYS_AWAY_S)
        return self.arrived() == expected

    def go_all_paths(self) -> None:
        """Start, run once, restart, resume, migrate and evacuate, each with a VM of its own."""
        self.vm("resume").status = "suspended"
        unmarked = types.Vm(
            custom_properties=[types.CustomProperty(name="trusted_host_flag", value="false")]
        )
        lost = self.vm("ha_restart")
        lost.status, lost.host = "up", self.site.host(CANDIDATE).id
        self.site.engine.vms.lose(lost, "it crashed.")
        source = self.system.hosts_service().host_service(self.site.host(SOURCE).id)
        self._try(lambda: self.service("start").start())
        self._try(lambda: self.service("run_once").start(vm=unmarked))
        self._try(lambda: self.service("resume").start())
        self._try(lambda: self.service("migration").migrate())
        self._try(lambda: source.deactivate(reason="new memory modules"))

    def start_for_the_first_time(self, run_once: bool) -> str:
        """Start a VM that the broker has never seen; return its name."""
        name, engine = f"new-{run_once}", self.site.engine
        made = model.SimulatedVm(
            model.new_id(), name, self.site.cluster, pinned_to=(self.site.host(CANDIDATE).id,)
        )
        engine.model.vms[made.id] = made
        service = self.service(name)
        self._try(lambda: service.start(vm=types.Vm()) if run_once else service.start())
        return name

    @staticmethod
    def _try(command: Callable[[], object]) -> None:
        with contextlib.suppress(ovirtsdk4.Error):
            command()


@pytest.fixture
def make_cell(tmp_path: Path, site_pki: Path) -> Iterator[Callable[[str, bool], Cell]]:
    with contextlib.ExitStack() as stack:

        def make(state: str, filterd_up: bool) -> Cell:
            processes = stack.enter_context(Processes(tmp_path))
            scheduler = filterd.start(processes, tmp_path)
            site = Site(tmp_path, site_pki, 2, VMS, scheduler)
            stack.callback(site.engine.stop)
            cell = Cell(
                site, state, scheduler, lambda: None if filterd_up else processes.stop("filterd")
            )
            stack.callback(cell.connection.close, logout=False)
            return cell

        yield make


@pytest.mark.parametrize("filterd_up", [True, False], ids=["filterd", "no filterd"])
@pytest.mark.parametrize("state", STATES)
def test_a_vm_behind_the_wall_runs_on_a_trusted_host_only(
    make_cell: Callable[[str, bool], Cell], state: str, filterd_up: bool
) -> None:
    cell = make_cell(state, filterd_up)

    cell.go_all_paths()

    assert cell.comes_to_be({str(vm["name"]) for vm in VMS} if state == "trusted" else set())


@pytest.mark.parametrize("state", STATES)
def test_a_vm_that_nobody_knows_is_held_by_the_filter_at_its_first_start(
    make_cell: Callable[[str, bool], Cell], state: str
) -> None:
    cell = make_cell(state, True)

    names = {cell.start_for_the_first_time(run_once) for run_once in (False, True)}

    assert cell.comes_to_be(names if state == "trusted" else set())


def test_with_filterd_down_the_engine_lets_such_a_first_start_through(
    make_cell: Callable[[str, bool], Cell],
) -> None:
    """docs/security-model.md says so; the hosts' own gate is what refuses it."""
    cell = make_cell("untrusted", False)
    assert cell.comes_to_be({cell.start_for_the_first_time(run_once=False)})


# What the candidate's agent holds by then.
HELD: dict[str, dict[str, Any]] = {
    "trusted": {},
    "untrusted": {"level": Level.UNTRUSTED},
    "unknown": {"level": Level.UNKNOWN},
    "verdict ended": {"age_ms": gated_host.LIFETIME_MS + 1},
    "all servers down beyond the last end": {"age_ms": gated_host.LIFETIME_MS + 1},
}


@pytest.mark.parametrize("state", STATES)
def test_with_filterd_down_the_hosts_gate_holds_such_a_first_start(
    make_cell: Callable[[str, bool], Cell], state: str, tmp_path: Path
) -> None:
    cell = make_cell(state, False)
    for name, held in ((CANDIDATE, HELD[state]), (SOURCE, {"level": Level.UNKNOWN})):
        (tmp_path / name).mkdir()
        gate = gated_host.Host(tmp_path / name)
        gate.sign(**held)
        cell.site.host(name).hook_directory = str(gate.hooks)

    names = {cell.start_for_the_first_time(run_once) for run_once in (False, True)}

    if state == "trusted":
        until(lambda: cell.arrived() == names)
    else:
        until(lambda: all(cell.vm(name).status == "down" for name in names))
        assert cell.arrived() == set()
        refusals = [
            one
            for one in cell.site.engine.model.events
            if "ovirt-tcp: refused (" in one.description
        ]
        assert {one.host for one in refusals} >= {cell.site.host(CANDIDATE).id}
        assert len(refusals) >= len(names)
