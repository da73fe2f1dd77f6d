# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is read of long lists is what the SDK's own readers read, at the simulated engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4.reader import Reader

from ovirt_tcp_plugin.engine import client, large_lists
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY, Vm
from tests.site_pki import PASSWORD

USER = "admin@internal"
NAMES = ["plain", "marked", "odd & <named>", "of next run", "unmarked"]


@pytest.fixture(scope="module")
def engine(site_pki: Path) -> Iterator[EngineSimulator]:
    vms: list[dict[str, Any]] = [
        {"name": "plain", "cluster": "A"},
        {"name": "marked", "cluster": "A", "custom_properties": {"x": "", MARK_PROPERTY: "true"}},
        {"name": "odd & <named>", "cluster": "B", "host": "h2", "origin": "managed_hosted_engine"},
        {"name": "of next run", "cluster": "B", "host": "h2"},
        {"name": "unmarked", "cluster": "B", "custom_properties": {MARK_PROPERTY: "false"}},
    ]
    config = Config(
        str(site_pki / "engine.pem"),
        str(site_pki / "engine.key"),
        {USER: PASSWORD},
        clusters=("A", "B"),
        hosts=[
            {"name": "h1", "address": "h1.lab", "cluster": "A"},
            {"name": "h2", "address": "h2.lab", "cluster": "B"},
        ],
        vms=vms,
    )
    running = EngineSimulator(config)
    for vm in running.model.vms.values():
        if vm.name == "of next run":
            vm.next_run = {MARK_PROPERTY: "true"}
    h1, h2 = running.model.hosts.values()
    h1.hosted_engine = True
    h2.status = "maintenance"
    h2.status_detail = "ovirt-tcp: not trusted"
    running.start()
    yield running
    running.stop()


@pytest.fixture
def system(engine: EngineSimulator, site_pki: Path) -> Iterator[Any]:
    connection = ovirtsdk4.Connection(engine.url, USER, PASSWORD, ca_file=str(site_pki / "ca.pem"))
    yield connection.system_service()
    connection.close(logout=False)


def test_vms_are_those_of_the_sdk(system: Any) -> None:
    rows = large_lists.list_vms(system, "sortby id asc page 1", 2048)
    assert list(rows) == [
        client._vm(vm) for vm in system.vms_service().list(search="sortby id asc")
    ]
    assert {vm.name for vm in rows} == set(NAMES)
    assert [vm.name for vm in rows if vm.marked] == ["marked"]
    assert [vm.name for vm in rows if vm.next_run] == ["of next run"]
    assert [vm.name for vm in rows if vm.hosted_engine] == ["odd & <named>"]


def test_a_page_has_so_many_vms(system: Any) -> None:
    assert len(large_lists.list_vms(system, "sortby id asc page 1", 2)) == 2
    assert len(large_lists.list_vms(system, "sortby id asc page 3", 2)) == 1
    assert large_lists.list_vms(system, "sortby id asc page 4", 2) == []


def test_hosts_are_those_of_the_sdk(system: Any) -> None:
    rows = large_lists.list_hosts(system, all_content=False)
    assert [row.host for row in rows] == list(map(client._host, system.hosts_service().list()))
    assert {row.host.status_detail for row in rows} == {"", "ovirt-tcp: not trusted"}
    assert not any(row.takes_engine for row in rows), "only all content tells"


def test_a_host_takes_the_engine_as_its_agent_says(system: Any) -> None:
    rows = large_lists.list_hosts(system, all_content=True)
    assert [row.host.name for row in rows if row.takes_engine] == ["h1"]


@pytest.mark.parametrize(
    "document",
    [
        b"<vms><vm><name>no id</name></vm></vms>",
        b"<vms><vm id=''/></vms>",
        b"<vms><vm id='1'><next_run_configuration_exists>maybe"
        b"</next_run_configuration_exists></vm></vms>",
        b"<vms><vm id='1'><name>cut",
        b"<fault><reason>x</reason></fault>",
        b"<hosts/>",
        b"no document",
    ],
)
def test_a_document_that_is_not_what_it_should_be_is_refused(document: bytes) -> None:
    with pytest.raises(Exception, match=r"."):
        parsed(document)


@pytest.mark.parametrize(
    ("document", "vms"),
    [
        (b"<vms/>", []),
        (b"<vms></vms>", []),
        (b"<vms><vm id='1'/></vms>", [Vm("1", "1", "", "")]),
        (
            b"<vms><other><vm id='2'/></other><vm id='1'><cluster/><name/><custom_properties/>"
            b"<host id='h'><name>n</name></host><new><name>y</name></new></vm></vms>",
            [Vm("1", "1", "", "", "h")],
        ),
    ],
)
def test_what_is_not_there_is_empty(document: bytes, vms: list[Vm]) -> None:
    assert parsed(document) == vms


def test_the_sdk_reads_the_same_of_an_odd_document() -> None:
    document = (
        b"<vms><vm id='1'><name> two  words </name><status>unheard_of</status>"
        b"<custom_properties><custom_property/><custom_property><name>trusted_host_flag</name>"
        b"</custom_property></custom_properties></vm></vms>"
    )
    (vm,) = parsed(document)
    assert vm == Vm("1", " two  words ", "", "unheard_of")
    assert client._vm(Reader.read(document)[0]).name == vm.name


def parsed(document: bytes) -> list[Vm]:
    connection = SimpleNamespace(check_xml_content_type=lambda response: None)
    response = SimpleNamespace(code=200, body=document)
    return large_lists._rows(connection, response, "vm", large_lists._vm)
