# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A host without TXT against the real verifier under the profile uefi.

Software TPM, UEFI boot, real agent, real HTTPS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.processes import Processes
from tests.conftest import TpmPool
from tests.lab.real_verifier import RealVerifier

GOOD = Machine(startup_locality=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tpm_pool: TpmPool) -> Iterator[RealVerifier]:
    directory = tmp_path_factory.mktemp("verifier-uefi")
    with Processes(directory) as processes:
        yield RealVerifier(directory, processes, tpm_pool.authorities, profile="uefi")


@pytest.fixture(scope="module")
def golden(
    server: RealVerifier, tpm_pool: TpmPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabHost]:
    directory = tmp_path_factory.mktemp("golden-uefi")
    with LabHost("golden-uefi.example.com", directory, tpm_pool.state(0), tpm_pool.images) as host:
        host.boot(machine=GOOD, measured_launch=False)
        server.enrol(host)
        host.start_agent()
        server.import_from(host)
        yield host


def untrusted_findings(server: RealVerifier, golden: LabHost) -> list[tuple[str, str]]:
    """Return codes of an untrusted result, each with the place that its sentence names first."""
    result = server.result(golden)
    assert result["level"] == "untrusted"
    return [(finding["code"], finding["text"].partition(":")[0]) for finding in result["findings"]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"secure_boot": False}, ("secure_boot_off", "PCR 7, event 1"), id="Secure Boot off"
        ),
        pytest.param(
            {"boot_loader": b"evil"},
            ("boot_loader_differs", "PCR 4, event 3"),
            id="boot loader replaced",
        ),
        pytest.param(
            {"version": "2"}, ("firmware_version_differs", "PCR 0, event 2"), id="firmware updated"
        ),
    ],
)
def test_another_machine_is_found_and_the_good_one_forgiven(
    changes: Any, expected: tuple[str, str], server: RealVerifier, golden: LabHost
) -> None:
    golden.reboot(machine=dataclasses.replace(GOOD, **changes), measured_launch=False)
    assert expected in untrusted_findings(server, golden)

    golden.reboot(machine=GOOD, measured_launch=False)
    assert server.result(golden)["level"] == "trusted"


def test_another_kernel_is_found(server: RealVerifier, golden: LabHost) -> None:
    golden.reboot(
        launch.tamper_kernel(golden.images, golden.directory), machine=GOOD, measured_launch=False
    )

    assert untrusted_findings(server, golden) == [("kernel_differs", "PCR 4, event 5")]


def test_a_golden_host_without_secure_boot_is_refused_with_the_reason(
    server: RealVerifier, golden: LabHost
) -> None:
    machine = dataclasses.replace(GOOD, secure_boot=False)
    golden.reboot(machine=machine, measured_launch=False)

    reason = server.refused_import_from(golden)

    assert "cannot be golden: PCR 7, event 1: Secure Boot is off" in reason
    assert "switch Secure Boot on in the firmware" in reason
