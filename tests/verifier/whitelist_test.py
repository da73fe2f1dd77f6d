# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's tools against the server.

They write the reference values that hosts are judged by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier import whitelist
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.store import references
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.schema import oat_records
from tests.messages.oat_samples import BIOS, HOST, OEM, OS, PCR, SHA1, SHA256, VMM
from tests.verifier.agent import Agent
from tests.verifier.live_server import Server
from tests.verifier.software_tpm import SoftwareTpm
from tests.verifier.vendor import Vendor

WLM = "/WLMService/resources"
HOSTS = "/AttestationService/resources/hosts"
WRAPPERS = {f"{WLM}/oem": "oem", f"{WLM}/os": "os", f"{WLM}/mles": "mleBean", HOSTS: "hostBean"}


class Tool:
    """What CommandTool does: JSON in, `True` or a fault out."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.policy, self.viewer = server.token("policy"), server.token("viewer")

    def write(self, method: str, path: str, message: Any = None, **query: str) -> tuple[int, Any]:
        """Return the status and, of a fault, its code."""
        answer = self.server.call(method, path, message, token=self.policy, params=query)
        if answer.text == "True":
            assert answer.headers["Content-Type"] == "text/plain"
            return answer.status_code, "True"
        assert set(answer.json()) == {"error_code", "error_message", "detail"}
        return answer.status_code, answer.json()["error_code"]

    def read(self, path: str, **query: str) -> Any:
        """Return the object, or the list that the answer holds under the name of its beans."""
        answer = self.server.call("GET", path, token=self.viewer, params=query)
        assert answer.status_code == 200, answer.text
        wrapper = WRAPPERS.get(path)
        if wrapper is None:
            return answer.json()
        assert list(answer.json()) == [wrapper]
        return answer.json()[wrapper]

    def fill(self) -> None:
        for path, message in (("oem", OEM), ("os", OS), ("mles", BIOS), ("mles", VMM)):
            assert self.write("POST", f"{WLM}/{path}", message) == (200, "True")

    def sets(self) -> dict[str, ReferenceSet]:
        stored = self.server.database.transact(references.load)
        return {one.name: one for one in stored.sets}


@pytest.fixture
def tool(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[Tool]:
    running = Server(tmp_path, database, authority, vendor)
    yield Tool(running)
    running.stop()


@pytest.fixture
def filled(tool: Tool) -> Tool:
    tool.fill()
    return tool


class TestFaults:
    """The status and code of each, as OpenAttestation 1.x had them."""

    def test_of_an_oem_or_os(self, filled: Tool) -> None:
        for path, record, name in (
            ("oem", OEM, {"Name": "OEM1"}),
            ("os", OS, {"Name": "OS1", "Version": "v1"}),
        ):
            other = {**record, "Name": "other"}
            assert filled.write("POST", f"{WLM}/{path}", record) == (400, 1006)
            assert filled.write("PUT", f"{WLM}/{path}", other) == (400, 1006)
            assert filled.write("DELETE", f"{WLM}/{path}", **{**name, "Name": "other"}) == (
                400,
                1006,
            )
            assert filled.write("DELETE", f"{WLM}/{path}", **name) == (400, 2012)
            assert filled.write("POST", f"{WLM}/{path}", {**record, "Name": "x" * 51}) == (500, 500)
            assert filled.write("DELETE", f"{WLM}/{path}") == (500, 500)

    def test_of_an_mle(self, filled: Tool) -> None:
        assert filled.write("POST", f"{WLM}/mles", VMM) == (400, 1006)
        assert filled.write("POST", f"{WLM}/mles", {**VMM, "Name": "new", "OsName": "other"}) == (
            400,
            1006,
        )
        assert filled.write("POST", f"{WLM}/mles", {**VMM, "Name": "new", "MLE_Type": "other"}) == (
            400,
            1006,
        )
        assert filled.write(
            "POST", f"{WLM}/mles", {**VMM, "Name": "new", "Attestation_Type": "MODULE"}
        ) == (500, 500)
        assert filled.write("PUT", f"{WLM}/mles", {**VMM, "Name": "other"}) == (400, 1007)
        assert filled.write("PUT", f"{WLM}/mles", {**BIOS, "Name": "NewMLE2"}) == (400, 1007)
        assert filled.write(
            "DELETE", f"{WLM}/mles", mleName="other", mleVersion="v123", oemName="OEM1"
        ) == (400, 1007)
        assert filled.write(
            "GET", f"{WLM}/mles/manifest", mleName="other", mleVersion="1", oemName="OEM1"
        ) == (400, 1007)
        filled.write("POST", HOSTS, HOST)
        assert filled.write(
            "DELETE", f"{WLM}/mles", mleName="NewMLE1", mleVersion="v123", oemName="OEM1"
        ) == (500, 500)

    def test_of_a_pcr(self, filled: Tool) -> None:
        path = f"{WLM}/mles/whitelist/pcr"
        query = {"mleName": "NewMLE1", "mleVersion": "v123", "oemName": "OEM1"}
        assert filled.write("POST", path, {**PCR, "pcrName": "0"}) == (400, 1006)
        assert filled.write("POST", path, {**PCR, "mleName": "other"}) == (400, 1006)
        assert filled.write("PUT", path, PCR) == (400, 1006)
        assert filled.write("DELETE", path, **query, pcrName="8") == (400, 1006)
        assert filled.write("POST", path, {**PCR, "pcrDigest": "@" * 49}) == (500, 500)
        assert filled.write("DELETE", path, **query) == (500, 500)

    def test_of_a_host(self, filled: Tool) -> None:
        assert filled.write("POST", HOSTS, HOST) == (200, "True")
        assert filled.write("POST", HOSTS, HOST) == (400, 2001)
        assert filled.write("POST", HOSTS, {**HOST, "HostName": "new", "BIOS_Name": "other"}) == (
            400,
            2001,
        )
        assert filled.write("POST", HOSTS, {"HostName": "new"}) == (400, 2001)
        assert filled.write("POST", HOSTS, {**HOST, "HostName": "not a name"}) == (500, 500)
        assert filled.write("PUT", HOSTS, {**HOST, "HostName": "other"}) == (404, 404)
        assert filled.write("PUT", HOSTS, {**HOST, "Port": ""}) == (400, 412)
        assert filled.write("DELETE", HOSTS, hostName="other") == (400, 2000)
        assert filled.write("DELETE", HOSTS) == (500, 500)

    @pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"Name":', b"\xff", b'{"a":' * 10_000])
    @pytest.mark.parametrize(
        "path", [f"{WLM}/oem", f"{WLM}/mles", f"{WLM}/mles/whitelist/pcr", HOSTS]
    )
    def test_of_a_body_that_is_none(self, tool: Tool, path: str, body: bytes) -> None:
        assert tool.write("POST", path, body) == (400, 400)

    def test_of_a_caller(self, tool: Tool) -> None:
        answer = tool.server.call("POST", f"{WLM}/oem", OEM, token=tool.viewer)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 401)
        assert tool.read(f"{WLM}/oem") == []

    def test_a_refused_change_changes_nothing(self, filled: Tool) -> None:
        before = filled.sets()
        filled.write("POST", HOSTS, {**HOST, "VMM_Name": "other"})
        filled.write(
            "PUT", f"{WLM}/mles", {**VMM, "MLE_Manifests": [{"Name": "18", "Value": "short"}]}
        )
        assert filled.sets() == before
        assert filled.read(HOSTS) == []


@pytest.mark.each_database
class TestRecords:
    def test_oem_and_os_are_kept_changed_and_removed(self, tool: Tool) -> None:
        for path, record in (("oem", OEM), ("os", OS)):
            changed = {**record, "Description": "changed"}
            assert tool.write("POST", f"{WLM}/{path}", record) == (200, "True")
            assert tool.write("PUT", f"{WLM}/{path}", changed) == (200, "True")
            assert tool.read(f"{WLM}/{path}") == [changed]
            names = {name: text for name, text in record.items() if name != "Description"}
            assert tool.write("DELETE", f"{WLM}/{path}", **names) == (200, "True")
            assert tool.read(f"{WLM}/{path}") == []

    def test_mles_are_found_by_what_they_say(self, filled: Tool) -> None:
        assert [one["Name"] for one in filled.read(f"{WLM}/mles")] == ["NewMLE1", "NewMLE2"]
        assert [one["Name"] for one in filled.read(f"{WLM}/mles", searchCriteria="oem1")] == [
            "NewMLE1"
        ]
        assert filled.read(f"{WLM}/mles", searchCriteria=".*") == []

    def test_a_host_is_registered_changed_and_removed(self, filled: Tool) -> None:
        assert filled.write("POST", HOSTS, HOST) == (200, "True")
        assert filled.write(
            "PUT", HOSTS, {**HOST, "Email": "a@b.example", "BIOS_Name": "other"}
        ) == (202, "True")
        (shown,) = filled.read(HOSTS, searchCriteria="HIS")
        assert (shown["HostName"], shown["Email"], shown["BIOS_Name"]) == (
            "His8",
            "a@b.example",
            "NewMLE1",
        )
        assert filled.read(HOSTS, searchCriteria="else") == []
        assert filled.write("DELETE", HOSTS, hostName="HIS8") == (200, "True")
        assert filled.read(HOSTS) == []

    def test_a_corrupt_record_hides_no_other(self, filled: Tool) -> None:
        corrupt = oat_records.update().where(oat_records.c.name == "NewMLE1").values(content="{")
        filled.server.database.transact(lambda c: c.execute(corrupt).rowcount)
        assert [one["Name"] for one in filled.read(f"{WLM}/mles")] == ["NewMLE2"]

    @pytest.mark.parametrize("name", ["KVM 4.2 (el9)", "\u00fc", "x" * 50 + ".", "/"])
    def test_a_name_that_no_set_can_bear_is_kept(self, filled: Tool, name: str) -> None:
        named = {**VMM, "Name": name[:50], "Version": "1" * 100}
        assert filled.write("POST", f"{WLM}/mles", named) == (200, "True")
        query = {"mleName": name[:50], "mleVersion": "1" * 100, "osName": "OS1", "osVersion": "v1"}
        assert filled.read(f"{WLM}/mles/manifest", **query)["Name"] == name[:50]
        assert len(filled.sets()) == 3


@pytest.mark.each_database
class TestViewOfTheReferenceValues:
    def test_an_mle_is_a_set_for_no_host_until_one_is_registered(self, filled: Tool) -> None:
        bios = filled.sets()["oat:NewMLE1:v123"]
        assert [(value.bank, value.pcr, value.digest) for value in bios.values] == [
            ("sha1", 0, SHA1.lower())
        ]
        assert bios.host_names == ()
        filled.write("POST", HOSTS, HOST)
        assert {one.host_names for one in filled.sets().values()} == {("his8",)}
        filled.write("DELETE", HOSTS, hostName="his8")
        assert {one.host_names for one in filled.sets().values()} == {()}

    def test_values_come_and_go_one_by_one(self, filled: Tool) -> None:
        path, query = (
            f"{WLM}/mles/whitelist/pcr",
            {"mleName": "NewMLE1", "mleVersion": "v123", "oemName": "OEM1"},
        )
        assert filled.write("POST", path, PCR) == (200, "True")
        assert filled.write("POST", path, {**PCR, "pcrDigest": SHA256}) == (200, "True")
        assert filled.write("PUT", path, {**PCR, "pcrDigest": "ff" * 20}) == (200, "True")
        manifests = filled.read(f"{WLM}/mles/manifest", **query)["MLE_Manifests"]
        values = sorted((one["Name"], one["Value"]) for one in manifests)
        assert values == [("0", SHA1.lower()), ("8", SHA256), ("8", "ff" * 20)]
        assert filled.write("DELETE", path, **query, pcrName="8") == (200, "True")
        assert len(filled.sets()["oat:NewMLE1:v123"].values) == 1

    def test_changing_an_mle_replaces_its_values_and_keeps_its_hosts(self, filled: Tool) -> None:
        filled.write("POST", HOSTS, HOST)
        changed = {**VMM, "Description": "new", "MLE_Manifests": [{"Name": "17", "Value": SHA256}]}
        assert filled.write("PUT", f"{WLM}/mles", changed) == (200, "True")
        vmm = filled.sets()["oat:NewMLE2:v123"]
        assert ([value.pcr for value in vmm.values], vmm.host_names) == ([17], ("his8",))

    def test_removing_an_mle_removes_its_set(self, filled: Tool) -> None:
        query = {"mleName": "NewMLE1", "mleVersion": "v123", "oemName": "OEM1"}
        assert filled.write("DELETE", f"{WLM}/mles", **query) == (200, "True")
        assert set(filled.sets()) == {"oat:NewMLE2:v123"}

    def test_what_was_withdrawn_elsewhere_is_shown_as_empty(self, filled: Tool) -> None:
        assert (
            filled.server.call(
                "DELETE", "/v1/reference-values/oat:NewMLE1:v123", token=filled.policy
            ).status_code
            == 200
        )
        query = {"mleName": "NewMLE1", "mleVersion": "v123", "oemName": "OEM1"}
        assert filled.read(f"{WLM}/mles/manifest", **query)["MLE_Manifests"] == []
        assert filled.read(f"{WLM}/mles", searchCriteria="NewMLE1")[0]["MLE_Manifests"] == []
        assert filled.write("POST", f"{WLM}/mles/whitelist/pcr", PCR) == (200, "True")
        assert filled.write("DELETE", f"{WLM}/mles", **query) == (200, "True")

    def test_a_set_with_registered_hosts_cannot_be_withdrawn_as_a_whole(self, filled: Tool) -> None:
        filled.write("POST", HOSTS, HOST)
        answer: requests.Response = filled.server.call(
            "DELETE", "/v1/reference-values/oat:NewMLE2:v123", token=filled.policy
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")


@pytest.mark.each_database
class TestJudgement:
    def test_a_registered_host_is_judged_by_its_mles_and_by_nothing_else(
        self, tool: Tool, vendor: Vendor
    ) -> None:
        agent, other = (
            Agent(tool.server, vendor).enrol(),
            Agent(tool.server, vendor, "host-2", SoftwareTpm(1)).enrol(),
        )
        tool.server.choose_good_boot()
        tool.fill()
        good = [{"Name": str(index), "Value": agent.tpm.pcrs[index].hex()} for index in (17, 18)]
        bad = [{**one, "Value": "00" * 32} for one in good]
        only_vmm = {name: text for name, text in HOST.items() if not name.startswith("BIOS")}
        tool.write("POST", HOSTS, {**only_vmm, "HostName": "host-1"})
        levels = []
        for manifests in (bad, good, []):
            tool.write("PUT", f"{WLM}/mles", {**VMM, "MLE_Manifests": manifests})
            levels.append(agent.answer(agent.challenge()).json()["level"])
        assert levels == ["untrusted", "trusted", "unknown"]
        assert other.answer(other.challenge()).json()["level"] == "trusted"
        tool.write("DELETE", HOSTS, hostName="host-1")
        assert agent.answer(agent.challenge()).json()["level"] == "trusted"

    def test_only_what_hosts_are_judged_by_has_them_asked_anew(
        self, tool: Tool, vendor: Vendor
    ) -> None:
        agent = Agent(tool.server, vendor).enrol()
        agent.answer(agent.challenge())
        tool.write("POST", f"{WLM}/oem", OEM)
        tool.write("POST", f"{WLM}/os", OS)
        assert agent.challenge(0) is None
        tool.write("POST", f"{WLM}/mles", VMM)
        assert agent.challenge() is not None

    def test_what_is_known_of_a_host_is_judged_again_at_once(
        self, tool: Tool, vendor: Vendor
    ) -> None:
        agent = Agent(tool.server, vendor).enrol()
        tool.server.choose_good_boot()
        agent.answer(agent.challenge())
        tool.fill()
        tool.write("POST", HOSTS, {**HOST, "HostName": "host-1"})
        message = {"hosts": ["host-1"], "max_age_ms": 60_000, "wait_ms": 0}
        (one,) = tool.server.call("POST", "/v1/results", message, token=tool.viewer).json()["hosts"]
        assert one["level"] == "untrusted"
        assert [finding["code"] for finding in one["findings"]] == [
            "no_reference_values",
            "pcr_differs",
        ]


def test_two_mles_never_share_a_set() -> None:
    names = [
        whitelist.set_name(name, version)
        for name in ("a", "a-b", "a b", "\u00fc")
        for version in ("1", "b-1", "1 ")
    ]
    assert len(set(names)) == 12
