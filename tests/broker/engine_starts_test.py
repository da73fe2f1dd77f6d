# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""After each start of the engine the filter is on, or an ERROR event says that it is not, within
ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab.engine.audit_log import ENFORCEMENT_STARTED
from ovirt_tcp_plugin.lab.engine.clock import ManualClock
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.model import PolicyUnit
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.lab.processes import Processes
from tests import soak
from tests.broker import filterd
from tests.broker.site import Site, until
from tests.lab.engine.conftest import serving
from tests.lab.engine.peers import ScriptedScheduler

RESTARTS = 100
TOLD_WITHIN_S = 10
AWAY_S = 0.2


def engine_asking(pki: Path, url: str) -> EngineSimulator:
    """Return an engine whose time the test moves, so that a restart takes no longer than its
    discovery."""
    config = Config(
        str(pki / "engine.pem"),
        str(pki / "engine.key"),
        users={},
        external_scheduler=url,
        seed=soak.SEED,
    )
    return EngineSimulator(config, ManualClock())


def unit_of(engine: EngineSimulator) -> PolicyUnit:
    return next(unit for unit in engine.model.units.values() if not unit.internal)


def states_after_restarts(engine: EngineSimulator) -> set[bool]:
    """Return whether the engine's memory had the unit enabled after each of many restarts."""
    states = set()
    for _ in range(RESTARTS):
        engine.restart(1)
        engine.advance(2, step_s=1)
        engine.discovery.wait(10)
        states.add(unit_of(engine).enabled)
    return states


def restart(engine: EngineSimulator) -> None:
    """Restart an engine that has its own time; it has started and asked when this returns."""

    def starts() -> int:
        return sum(event.code == ENFORCEMENT_STARTED for event in engine.model.events)

    before = starts()
    engine.restart(AWAY_S)
    until(lambda: starts() > before)
    engine.discovery.wait(10)


@pytest.fixture
def scheduler() -> Iterator[ScriptedScheduler]:
    """Offers the same text at each discovery, as filterd did before its descriptions differed."""
    with serving(ScriptedScheduler()) as server:
        yield server


@pytest.fixture
def watched(tmp_path: Path, site_pki: Path, scheduler: ScriptedScheduler) -> Iterator[Site]:
    """A site with a pool whose broker runs."""
    site = Site(tmp_path, site_pki, 3, external_scheduler=scheduler.url)
    try:
        site.start()
        until(lambda: len(site.inside()) == 3)
        yield site
        site.stop()
    finally:
        site.engine.stop()


def test_an_unchanged_description_leaves_the_filter_off_after_some_restarts(
    site_pki: Path, scheduler: ScriptedScheduler
) -> None:
    engine = engine_asking(site_pki, scheduler.url)
    engine.start()
    try:
        assert states_after_restarts(engine) == {True, False}
    finally:
        engine.stop()


def test_filterd_is_asked_after_each_of_a_hundred_restarts(tmp_path: Path, site_pki: Path) -> None:
    processes = Processes(tmp_path)
    engine = engine_asking(site_pki, filterd.start(processes, tmp_path))
    engine.start()
    try:
        assert states_after_restarts(engine) == {True}
        assert unit_of(engine).saved
    finally:
        engine.stop()
        processes.stop_all()


def test_a_filter_that_a_restart_left_off_is_an_error_event_and_so_is_its_cure(
    watched: Site,
) -> None:
    watched.engine.faults.units_reload = "after"
    restart(watched.engine)
    assert not unit_of(watched.engine).enabled
    until(lambda: watched.told("is disabled, so the engine does not ask it"), TOLD_WITHIN_S)
    (event,) = watched.told("is disabled")
    assert event.severity == "error"
    assert "systemctl restart ovirt-engine" in event.description
    # The row is disabled now, so that the next discovery writes it.
    restart(watched.engine)
    until(lambda: watched.told("The engine asks the filter unit TrustedHosts again"), TOLD_WITHIN_S)


def test_an_engine_that_started_without_filterd_is_an_error_event(
    watched: Site, scheduler: ScriptedScheduler
) -> None:
    scheduler.discovery = b""
    restart(watched.engine)
    until(lambda: watched.told("is disabled, so the engine does not ask it"), TOLD_WITHIN_S)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_after_any_restart_the_filter_is_on_or_it_is_told_that_it_is_off(watched: Site) -> None:
    dice = soak.randomness("engine_starts")
    off, slowest_s = 0, 0.0
    for _ in range(soak.part(RESTARTS, 2)):
        watched.engine.faults.units_reload = dice.choice(["before", "after"])
        told = len(watched.told("is disabled, so the engine does not ask it"))
        restart(watched.engine)
        began = time.monotonic()
        if not unit_of(watched.engine).enabled:
            off += 1
            until(lambda told=told: len(watched.told("is disabled, so the")) > told, TOLD_WITHIN_S)  # type: ignore[misc]
            slowest_s = max(slowest_s, time.monotonic() - began)
    print(f"restarts that left the filter off: {off}, told after at most {slowest_s:.1f} s")
