# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A simulated engine with three hosts, and the real SDK connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine.clock import EngineClock, ManualClock
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from tests.lab.engine.peers import HOSTS, TIMINGS, Lab, ScriptedScheduler, vm
from tests.serving import serving
from tests.site_pki import PASSWORD

Connect = Callable[..., ovirtsdk4.Connection]
Make = Callable[..., EngineSimulator]


@pytest.fixture
def make_engine(site_pki: Path) -> Iterator[Callable[..., EngineSimulator]]:
    running: list[EngineSimulator] = []

    def make(clock: Optional[EngineClock] = None, **changes: object) -> EngineSimulator:
        config = Config(
            str(site_pki / "engine.pem"),
            str(site_pki / "engine.key"),
            {"admin@internal": PASSWORD},
            **changes,  # type: ignore[arg-type]
        )
        engine = EngineSimulator(config, clock)
        engine.start()
        running.append(engine)
        return engine

    yield make
    for engine in running:
        engine.stop()


@pytest.fixture
def connect(site_pki: Path) -> Iterator[Callable[..., ovirtsdk4.Connection]]:
    opened: list[ovirtsdk4.Connection] = []

    def connect(
        engine: EngineSimulator, password: str = PASSWORD, **changes: object
    ) -> ovirtsdk4.Connection:
        arguments = {
            "username": "admin@internal",
            "password": password,
            "ca_file": str(site_pki / "ca.pem"),
            "timeout": 10,
            **changes,
        }
        connection = ovirtsdk4.Connection(url=engine.url, **arguments)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close(logout=False)


@pytest.fixture
def proxy() -> Iterator[ScriptedScheduler]:
    with serving(ScriptedScheduler()) as running:
        yield running


@pytest.fixture
def make_lab(make_engine: Make, connect: Connect) -> Callable[..., Lab]:
    def make(clock: Optional[EngineClock] = None, **changes: object) -> Lab:
        arguments = {
            "hosts": HOSTS,
            "vms": [vm("vm1", "h1"), vm("vm2")],
            "timings": TIMINGS,
            **changes,
        }
        engine = make_engine(clock or ManualClock(), **arguments)
        return Lab(engine, connect(engine))

    return make


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()


@pytest.fixture
def filtered(make_lab: Callable[..., Lab], proxy: ScriptedScheduler) -> Lab:
    """A cluster whose policy has an external filter."""
    made = make_lab(external_scheduler=proxy.url, timings={**TIMINGS, "external_response": 0.2})
    made.filter_by()
    return made
