# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A stock engine and an external scheduler that answers as filterd does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.admin.setup.machine import Machine
from tests.lab.engine.peers import ScriptedScheduler
from tests.serving import serving


@pytest.fixture
def filterd() -> Iterator[ScriptedScheduler]:
    with serving(ScriptedScheduler()) as running:
        yield running


@pytest.fixture
def make_machine(tmp_path: Path, site_pki: Path) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(url: str, **timings: float) -> Machine:
        made.append(Machine(tmp_path, site_pki, url, **timings))
        return made[-1]

    yield make
    for machine in made:
        machine.engine.stop()


@pytest.fixture
def machine(make_machine: Callable[..., Machine], filterd: ScriptedScheduler) -> Machine:
    return make_machine(filterd.url)
