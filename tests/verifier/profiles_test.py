# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The profiles on real software TPMs that booted by UEFI, with and without a measured launch.

What each one sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.host import LabHost
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import evidence, reference_values
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, appraise, logs_for
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.settings import Appraisal
from tests.verifier.quoting import Quoting

GOOD = Machine()


class Pool:
    """A host, and the reference values of its good boot under a profile."""

    def __init__(self, host: LabHost, profile: str, machine: Machine = GOOD) -> None:
        self._host = host
        self._launches = profile != "uefi"
        self._required = Appraisal(profile=profile).required_in("sha256")
        self._criteria = Criteria("sha256", [])
        golden = self.boot(machine)
        assert golden.level is Level.UNKNOWN
        self._criteria = Criteria(
            "sha256", [reference_values.from_boot("golden", "sha256", golden.measured.steps)]
        )

    def boot(self, machine: Machine = GOOD, images: launch.Images | None = None) -> Appraised:
        self._host.boot(images, machine=machine, measured_launch=self._launches)
        return self.report()

    def restart_as(self, machine: Machine) -> None:
        """Restart the TPM under the running kernel, and put a boot of this machine into it."""
        events = firmware.events(machine, self._host.images, self._host.banks)
        tpm = self._host.connect()
        tpm.execute("TPM2_Shutdown", 0x145, parameters=b"\0\1")  # TPM_SU_STATE
        launch.power_on(self._host.swtpm, tpm, events)
        tpm.close()
        self._host.firmware_log_file.write_bytes(launch.log_of(events, self._host.banks))

    def report(self, previous: BootCounters | None = None) -> Appraised:
        quoting = Quoting(self._host)
        issued = IssuedNonce(
            evidence.Challenge(b"n" * 32, self._required, 1000), self._host.name, 0, 1000
        )
        reported = quoting.report(issued)
        outcome = appraise(
            reported, quoting.identity, issued, previous, None, self._required, self._criteria, 1
        )
        assert isinstance(outcome, Appraised)
        return outcome

    def findings(
        self, machine: Machine = GOOD, images: launch.Images | None = None
    ) -> list[Finding]:
        outcome = self.boot(machine, images)
        assert (outcome.level is Level.UNTRUSTED) is bool(outcome.findings)
        return list(outcome.findings)


@pytest.mark.parametrize(
    ("profile", "kinds"),
    [
        ("txt", ["txt"]),
        ("txt-legacy", ["txt"]),
        ("txt+firmware", ["txt", "firmware"]),
        ("uefi", ["firmware"]),
    ],
)
def test_the_logs_that_a_profile_is_judged_by(profile: str, kinds: list[str]) -> None:
    assert logs_for(Appraisal(profile=profile).required_in("sha256")) == kinds


@pytest.fixture
def host(make_host: Callable[..., LabHost]) -> LabHost:
    return make_host("host-1")


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (
            {"secure_boot": False},
            "secure_boot_off",
            "PCR 7, event 1: Secure Boot is off, so nothing vouches for the kernel",
        ),
        (
            {"revoked": ()},
            "dbx_differs",
            "PCR 7, event 5: Secure Boot's list of bad keys (dbx) is none that",
        ),
        (
            {"boot_loader": b"evil"},
            "boot_loader_differs",
            "PCR 4, event 3: the boot loader is none that",
        ),
        ({"code": b"evil"}, "firmware_differs", "PCR 0, event 2: the firmware is none that"),
        (
            {"version": "0.9"},
            "firmware_version_differs",
            "PCR 0, event 1: the firmware's version is none that",
        ),
    ],
)
def test_uefi_sees_another_machine(changes: Any, code: str, text: str, host: LabHost) -> None:
    findings = Pool(host, "uefi").findings(dataclasses.replace(GOOD, **changes))

    (finding,) = [one for one in findings if one.code == code]
    assert finding.text.startswith(text)
    assert finding.expected != finding.seen


def test_uefi_sees_another_kernel_for_shim_verified_it(host: LabHost, tmp_path: Path) -> None:
    (finding,) = Pool(host, "uefi").findings(images=launch.tamper_kernel(host.images, tmp_path))

    assert finding.code == "kernel_differs"
    assert finding.text.startswith("PCR 4, event 5: the kernel")


def test_uefi_does_not_see_another_initrd(host: LabHost) -> None:
    """docs/security-model.md says so.

    GRUB measures it into PCR 9, which is another one with every update.
    """
    evil = dataclasses.replace(host.images, initrd=host.images.kernel)

    assert Pool(host, "uefi").findings(images=evil) == []


def test_a_launch_with_firmware_sees_both(host: LabHost, tmp_path: Path) -> None:
    pool = Pool(host, "txt+firmware")

    findings = pool.findings(
        dataclasses.replace(GOOD, code=b"evil"), launch.tamper_kernel(host.images, tmp_path)
    )

    assert [finding.code for finding in findings] == ["firmware_differs", "kernel_differs"]


@pytest.mark.parametrize(
    ("profile", "codes"),
    [
        ("uefi", ["restarted"]),
        ("txt+firmware", ["no_launch", "no_launch", "restarted"]),
        ("txt", ["no_launch", "no_launch"]),
    ],
)
def test_a_good_boot_put_back_into_a_restarted_tpm_is_seen(
    profile: str, codes: list[str], host: LabHost
) -> None:
    pool = Pool(host, profile)
    evil = pool.boot(dataclasses.replace(GOOD, code=b"evil", boot_loader=b"evil"))

    pool.restart_as(GOOD)

    outcome = pool.report(evil.boot)
    assert outcome.level is Level.UNTRUSTED
    assert [finding.code for finding in outcome.findings if finding.check in (5, 8)][:3] == codes


@pytest.mark.parametrize("profile", ["uefi", "txt+firmware"])
@pytest.mark.parametrize("locality", [0, 3])
def test_the_same_boot_is_trusted(profile: str, locality: int, host: LabHost) -> None:
    pool = Pool(host, profile, dataclasses.replace(GOOD, startup_locality=locality))

    assert pool.findings(dataclasses.replace(GOOD, startup_locality=locality)) == []


@pytest.mark.parametrize(
    ("golden", "other", "code"), [(3, 0, "event_missing"), (0, 3, "event_added")]
)
def test_the_same_digests_from_another_locality_are_another_boot(
    golden: int, other: int, code: str, host: LabHost
) -> None:
    """Boot Guard starts the TPM from locality 3.

    Firmware without it cannot, but could extend whatever it likes.
    """
    pool = Pool(host, "uefi", dataclasses.replace(GOOD, startup_locality=golden))

    (finding,) = pool.findings(dataclasses.replace(GOOD, startup_locality=other))

    assert finding.code == code
    assert "the locality from which the TPM was started" in finding.text
