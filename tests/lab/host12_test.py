# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts with a TPM 1.2 against the real verifier.

Software TPM, simulated launch, real agent, real HTTPS.
"""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import enrolment, host_tpm
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN, Tpm12, Tpm12Error
from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.messages import tpm12
from tests.attester import signing_key
from tests.conftest import TpmPool
from tests.lab.real_verifier import RealVerifier, codes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tpm_pool: TpmPool) -> Iterator[RealVerifier]:
    directory = tmp_path_factory.mktemp("verifier12")
    tpm_pool.state12(0)  # the vendor has no authority before its first TPM
    with Processes(directory) as processes:
        yield RealVerifier(directory, processes, tpm_pool.authorities, tpm12=True)


@pytest.fixture(scope="module")
def golden(
    server: RealVerifier, tpm_pool: TpmPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabHost]:
    directory = tmp_path_factory.mktemp("golden12")
    with LabHost("golden12.example.com", directory, tpm_pool.state12(0), tpm_pool.images) as host:
        host.boot()
        server.enrol(host)
        host.start_agent()
        server.import_from(host)
        yield host


@pytest.fixture
def stranger(tpm_pool: TpmPool, tmp_path: Path) -> Iterator[LabHost]:
    """A host with another chip, booted and not enrolled."""
    with LabHost("stranger.example.com", tmp_path, tpm_pool.state12(1), tpm_pool.images) as host:
        host.boot()
        yield host


class LyingTpm(Tpm12):
    """Gives out a signing key, which would sign anything, as the identity key of an enrolment."""

    usage = tpm12.USAGE_IDENTITY

    def make_identity(self, owner: bytes, label_digest: bytes) -> tuple[bytes, bytes]:
        self._area = signing_key.make(self)
        signed = tpm12.identity_contents(label_digest, tpm12.parse_key(self._area).public)
        # TPM_Sign (Part 3, 13.5)
        handle = super().load_key(self._area)
        answer = self.execute(
            "TPM_Sign", 0x3C, [handle], struct.pack(">I", 20) + tpm12.sha1(signed)
        )
        binding = answer.take(answer.u32())
        self.flush(handle)
        return self._area[:4] + struct.pack(">H", self.usage) + self._area[6:], binding

    def load_key(self, key: bytes) -> int:
        return super().load_key(self._area)


class HonestTpm(LyingTpm):
    """Says that it is a signing key."""

    usage = tpm12.USAGE_SIGNING


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        pytest.param(HonestTpm, errors.Refused, "ak_unrestricted", id="admitted"),
        pytest.param(
            LyingTpm, Tpm12Error, "TPM_ActivateIdentity failed", id="called an identity key"
        ),
    ],
)
def test_a_signing_key_cannot_enrol(
    kind: type[LyingTpm],
    error: type[errors.Error],
    text: str,
    server: RealVerifier,
    stranger: LabHost,
) -> None:
    """What the host says of its key is not signed; its TPM is what refuses in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_tpm, "Tpm12", kind)
        with pytest.raises(error, match=text):
            server.enrol(stranger)


def test_a_good_boot_is_trusted_and_marked(server: RealVerifier, golden: LabHost) -> None:
    result = server.result(golden)

    assert (result["level"], result["findings"], result["tpm_family"]) == ("trusted", [], "1.2")
    listed = server.listed(golden)
    assert (listed["tpm_family"], listed["endorsed_by"]) == ("1.2", "vendor")


def test_a_tampered_kernel_is_found_and_a_good_boot_forgiven(
    server: RealVerifier, golden: LabHost, tmp_path: Path
) -> None:
    golden.reboot(launch.tamper_kernel(golden.images, tmp_path))
    result = server.result(golden)
    assert (result["level"], codes(result)) == ("untrusted", [(8, "kernel_differs")])

    golden.reboot()
    assert server.result(golden)["level"] == "trusted"


def test_a_good_log_hides_no_tampered_kernel(
    server: RealVerifier, golden: LabHost, tmp_path: Path
) -> None:
    golden.reboot(launch.tamper_kernel(golden.images, tmp_path), forged_log=golden.good_log())
    result = server.result(golden)
    assert result["level"] == "untrusted"
    assert (7, "log_differs") in codes(result)

    golden.reboot()
    assert server.result(golden)["level"] == "trusted"


def test_a_boot_without_launch_is_untrusted(server: RealVerifier, golden: LabHost) -> None:
    golden.reboot(measured_launch=False)
    result = server.result(golden)
    assert result["level"] == "untrusted"
    assert (8, "no_launch") in codes(result)

    golden.reboot()
    assert server.result(golden)["level"] == "trusted"


def test_the_golden_hosts_reference_values_hold_for_a_second_host(
    server: RealVerifier, golden: LabHost, stranger: LabHost
) -> None:
    server.enrol(stranger)
    stranger.start_agent()

    assert server.result(stranger)["level"] == "trusted"


def test_the_agent_shows_its_tpm(stranger: LabHost, server: RealVerifier) -> None:
    stranger.configure(server.url, server.ca_file)

    shown = subprocess.run(
        stranger.agent_command("ek"), capture_output=True, text=True, timeout=20, check=True
    )

    assert shown.stdout.startswith("stranger.example.com ")
    assert shown.stderr.strip() == "TPM 1.2, certified by its vendor"


def test_the_agent_shows_what_it_would_report(server: RealVerifier, golden: LabHost) -> None:
    golden.stop_agent()
    measure = golden.agent_command("measure")
    shown = subprocess.run(measure, capture_output=True, text=True, timeout=20, check=True)
    golden.start_agent()

    assert "sha1 PCR 17: " in shown.stdout
    assert "tells of a measured launch" in shown.stdout


def test_another_owners_secret_is_refused_by_the_tpm(
    server: RealVerifier, stranger: LabHost
) -> None:
    tpm = stranger.connect()
    assert isinstance(tpm, Tpm12)
    with pytest.raises(Tpm12Error, match="the owner's secret is another"):
        enrolment.enrol12(
            tpm, b"x" * 20, AgentState(stranger.state_directory), None, stranger.name, "token"
        )  # type: ignore[arg-type]
    tpm.close()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("00" * 19, "has 40 hexadecimal digits"),
        ("secret", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_owners_secret(
    content: str | None, fault: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "owner").write_text(content)
    with pytest.raises(errors.InvalidConfig, match=f"the owner's secret {fault}"):
        enrolment.read_owner_secret(str(tmp_path / "owner"))


def test_the_owners_secret_comes_from_a_file_or_is_well_known(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("01" * 20 + "\n")

    assert enrolment.read_owner_secret(str(tmp_path / "owner")) == b"\1" * 20
    assert enrolment.read_owner_secret("") == WELL_KNOWN


def test_switched_off_nobody_enrols_and_nobody_is_believed(
    server: RealVerifier, golden: LabHost, stranger: LabHost
) -> None:
    server.result(golden)
    server.restart()
    try:
        with pytest.raises(errors.Refused, match="tpm12_off.*appraisal.tpm12"):
            server.enrol(stranger)
        result = server.result(golden)
        assert (result["level"], codes(result)) == ("unknown", [(1, "tpm12_off")])
        while "tpm12_off" not in golden.status().get("error", ""):
            time.sleep(0.01)
    finally:
        server.restart(tpm12=True)
    while server.result(golden)["level"] != "trusted":
        time.sleep(0.01)
