# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What one of our programs gets from the simulator is compared with a real engine's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovirt_tcp_plugin.engine.sdk import Access, Sdk
from ovirt_tcp_plugin.lab.engine.documents import inventory
from ovirt_tcp_plugin.lab.engine.model import SimulatedHost
from ovirt_tcp_plugin.lab.engine.xml_text import Element
from tests.conftest import WATCH
from tests.lab.engine.peers import Lab
from tests.site_pki import PASSWORD


@pytest.fixture
def program(lab: Lab, site_pki: Path) -> Sdk:
    return Sdk(Access(lab.engine.url, "admin@internal", lambda: PASSWORD, site_pki / "ca.pem", 5.0))


def test_a_program_that_gets_what_no_real_engine_answers_is_told(
    program: Sdk, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def host(row: SimulatedHost, *_: object) -> Element:
        return Element("host", {"id": row.id, "colour": "red"})

    monkeypatch.setattr(inventory, "host", host)
    program.call("list hosts", lambda system: system.hosts_service().list())
    differences = pytestconfig.stash[WATCH].differences()
    assert "GET hosts: /hosts/host/@colour: not there at the real engine" in differences
    assert "GET hosts: /hosts/host/status: missing" in differences


def test_a_kind_of_request_that_nobody_recorded_is_told(
    program: Sdk, pytestconfig: pytest.Config
) -> None:
    program.call("list labels", lambda system: system.affinity_labels_service().list())
    differences = pytestconfig.stash[WATCH].differences()
    assert differences == [
        "GET affinitylabels: no such request was recorded, and none that is like it"
    ]


def test_others_may_ask_for_anything(lab: Lab, pytestconfig: pytest.Config) -> None:
    lab.system.affinity_labels_service().list()
    assert pytestconfig.stash[WATCH].differences() == []
