# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The calls of OpenAttestation 1.6's own acceptance script, and what it expects of each.

The script (Test/commandtool.sh there) calls the tools one after the other, and looks whether
`True` comes back, or what the first name in the answer's JSON is. Where we answer otherwise, the
row says why; docs/protocol.md lists the same reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.verifier.live_server import Server

pytestmark = pytest.mark.each_database

ROOT = Path(__file__).parents[2]
WLM = "/WLMService/resources"
HOSTS = "/AttestationService/resources/hosts"
PCR = f"{WLM}/mles/whitelist/pcr"
# Of names: as long as may be, too long, with a character that may and one that may not be there.
EDGE = "x" * 50
OVER = "x" * 51
EDGE_TEXT = "x" * 100
OVER_TEXT = "x" * 101

NO_DIGEST = "a value that is no digest"
NO_HOST_NAME = "a host name that no host can have"
LONG_HOST_NAME = "a host name of up to 255 characters"


class Row(NamedTuple):
    """A call of the script.

    Attributes:
        expected: "True", "fault", or the first name in the answer.
        differs: why we answer the other way, empty if we do not.
    """

    method: str
    path: str
    members: Mapping[str, Any]
    expected: str
    differs: str = ""


def oem(name: str, description: str = "d") -> dict[str, Any]:
    return {"Name": name, "Description": description}


def system(name: str, version: str = "v1", description: str = "d") -> dict[str, Any]:
    return {"Name": name, "Version": version, "Description": description}


def bios(name: str, version: str = "v1", description: str = "d") -> dict[str, Any]:
    return {
        "Name": name,
        "Version": version,
        "OemName": "OEM",
        "Attestation_Type": "PCR",
        "MLE_Type": "BIOS",
        "Description": description,
        "MLE_Manifests": [],
    }


def vmm(name: str) -> dict[str, Any]:
    owner = {"OsName": "OS", "OsVersion": "v1", "MLE_Type": "VMM"}
    return {**bios(name), **owner, "OemName": ""}


def pcr(number: str, digest: str) -> dict[str, Any]:
    members = {"pcrName": number, "mleName": "BIOS", "mleVersion": "v1", "oemName": "OEM"}
    return {**members, "pcrDigest": digest} if digest else members


def host(name: str, description: str = "d", vmm_name: str = "VMM") -> dict[str, Any]:
    return {
        "HostName": name,
        "IPAddress": "192.0.2.1",
        "Port": "8080",
        "BIOS_Name": "BIOS",
        "BIOS_Version": "v1",
        "BIOS_Oem": "OEM",
        "VMM_Name": vmm_name,
        "VMM_Version": "v1",
        "VMM_OSName": "OS",
        "VMM_OSVersion": "v1",
        "Email": "",
        "AddOn_Connection_String": "",
        "Description": description,
    }


def crud(path: str, make: Any, query: Any, name: str) -> list[Row]:
    """Return the calls for the records of one kind: add, edit, delete, at the edges of each."""
    return [
        Row("POST", path, make(name), "True"),
        Row("POST", path, make(name), "fault"),
        Row("POST", path, make(""), "fault"),
        Row("POST", path, make(EDGE, description=EDGE_TEXT), "True"),
        Row("POST", path, make(OVER), "fault"),
        Row("POST", path, make("a@"), "True"),
        Row("POST", path, make("a#"), "fault"),
        Row("PUT", path, make(name, description="changed"), "True"),
        Row("PUT", path, make("nobody"), "fault"),
        Row("PUT", path, make(name, description=EDGE_TEXT), "True"),
        Row("PUT", path, make(name, description=OVER_TEXT), "fault"),
        Row("PUT", path, make(name, description="d@"), "True"),
        Row("PUT", path, make(name, description="d#"), "fault"),
        Row("DELETE", path, query(EDGE), "True"),
        Row("DELETE", path, query(EDGE), "fault"),
        Row("DELETE", path, query(""), "fault"),
        Row("DELETE", path, query("a@"), "True"),
    ]


def by_name(name: str) -> dict[str, Any]:
    return {"Name": name}


def by_version(name: str) -> dict[str, Any]:
    return {"Name": name, "Version": "v1"}


def of_bios(name: str) -> dict[str, Any]:
    return {"mleName": name, "mleVersion": "v1", "oemName": "OEM"}


OF_VMM = {"mleName": "VMM", "mleVersion": "v1", "osName": "OS", "osVersion": "v1"}
DIGEST = "ab" * 20

SCRIPT = [
    *crud(f"{WLM}/oem", oem, by_name, "OEM"),
    Row("GET", f"{WLM}/oem", {}, "oem"),
    *crud(f"{WLM}/os", system, by_version, "OS"),
    Row("GET", f"{WLM}/os", {}, "os"),
    *crud(f"{WLM}/mles", bios, of_bios, "BIOS"),
    Row("POST", f"{WLM}/mles", {**bios("other"), "OemName": "nobody"}, "fault"),
    Row("POST", f"{WLM}/mles", bios("long", EDGE_TEXT), "True"),
    Row("POST", f"{WLM}/mles", bios("over", OVER_TEXT), "fault"),
    Row("POST", f"{WLM}/mles", vmm("VMM"), "True"),
    Row("GET", f"{WLM}/mles/manifest", of_bios("BIOS"), "Attestation_Type"),
    Row("GET", f"{WLM}/mles/manifest", OF_VMM, "Attestation_Type"),
    Row("GET", f"{WLM}/mles", {"searchCriteria": "BIOS"}, "mleBean"),
    Row("POST", PCR, pcr("0", DIGEST), "True"),
    Row("POST", PCR, pcr("0", DIGEST), "fault"),
    Row("POST", PCR, pcr("", DIGEST), "fault"),
    Row("POST", PCR, pcr("1", "00000"), "True", NO_DIGEST),
    Row("POST", PCR, pcr("1", "F" * 100), "True", NO_DIGEST),
    Row("POST", PCR, pcr("1", "0" * 101), "fault"),
    Row("POST", PCR, pcr("1000000000", DIGEST), "True", "the number of a PCR that does not exist"),
    Row("POST", PCR, pcr("2@", DIGEST), "True", "the number of a PCR that does not exist"),
    Row("POST", PCR, pcr("2#", DIGEST), "fault"),
    Row("PUT", PCR, pcr("0", "cd" * 20), "True"),
    Row("PUT", PCR, pcr("0", "99999"), "True", NO_DIGEST),
    Row("PUT", PCR, pcr("9", DIGEST), "fault"),
    Row("DELETE", PCR, pcr("0", ""), "True"),
    Row("DELETE", PCR, pcr("0", ""), "fault"),
    Row("POST", HOSTS, host("host-1"), "True"),
    Row("POST", HOSTS, host("host-1"), "fault"),
    Row("POST", HOSTS, host("host-2", vmm_name="nobody"), "fault"),
    Row("POST", HOSTS, host(""), "fault"),
    Row("POST", HOSTS, host(EDGE), "True"),
    Row("POST", HOSTS, host(OVER), "fault", LONG_HOST_NAME),
    Row("POST", HOSTS, host("host@"), "True", NO_HOST_NAME),
    Row("POST", HOSTS, host("host#"), "fault"),
    Row("PUT", HOSTS, host("host-1", "changed"), "True"),
    Row("PUT", HOSTS, host("nobody"), "fault"),
    Row("PUT", HOSTS, host("host-1", EDGE_TEXT), "True"),
    Row("PUT", HOSTS, host("host-1", OVER_TEXT), "fault"),
    Row("PUT", HOSTS, host("host-1", "d#"), "fault"),
    Row("GET", HOSTS, {"searchCriteria": "HOST"}, "hostBean"),
    Row("DELETE", f"{WLM}/os", by_version("OS"), "fault"),
    Row("DELETE", f"{WLM}/oem", by_name("OEM"), "fault"),
    Row("DELETE", f"{WLM}/mles", of_bios("BIOS"), "fault"),
    Row("DELETE", HOSTS, {"hostName": EDGE}, "True"),
    Row("DELETE", HOSTS, {"hostName": EDGE}, "fault"),
    Row("DELETE", HOSTS, {"hostName": ""}, "fault"),
]


def answered(server: Server, token: str, row: Row) -> str:
    """Return what the script would make of the answer."""
    how: dict[str, Any] = {"params": row.members}
    if row.method in ("POST", "PUT"):
        how = {"message": row.members}
    answer = server.call(row.method, row.path, token=token, **how)
    if answer.text == "True":
        return "True"
    if "error_message" in answer.json():
        return "fault"
    first = re.search('"(.*?)"', answer.text)
    assert first is not None
    return first[1]


def test_the_script_gets_what_it_expects_but_where_that_is_on_purpose(server: Server) -> None:
    token = server.token("policy")
    for number, row in enumerate(SCRIPT):
        outcome = answered(server, token, row)

        as_expected = outcome == row.expected
        assert as_expected is not bool(row.differs), (number, row, outcome)


def test_a_list_is_always_an_array(server: Server) -> None:
    """1.6 wrote a list of one as its element, and none as null; clients had to take both."""
    token = server.token("policy")
    empty = server.call("GET", f"{WLM}/oem", token=token).json()
    server.call("POST", f"{WLM}/oem", oem("OEM"), token=token)

    filled = server.call("GET", f"{WLM}/oem", token=token).json()

    assert (empty, filled) == ({"oem": []}, {"oem": [oem("OEM")]})


@pytest.mark.parametrize("reason", sorted({row.differs for row in SCRIPT} - {""}))
def test_every_difference_is_documented(reason: str) -> None:
    assert reason in " ".join((ROOT / "docs" / "protocol.md").read_text().split())
