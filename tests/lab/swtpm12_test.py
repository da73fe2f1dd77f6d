# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A measured launch on a software TPM 1.2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from ovirt_tcp_plugin.attester import keys12
from ovirt_tcp_plugin.attester.tpm12 import WELL_KNOWN, Tpm12, Tpm12Error
from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.swtpm import clone
from ovirt_tcp_plugin.lab.swtpm12 import BANKS, Swtpm12
from ovirt_tcp_plugin.messages import eventlog, tpm12
from tests.conftest import TpmPool

NEVER_LAUNCHED, RESET = b"\xff" * 20, bytes(20)
DRTM = {"sha1": (17, 18, 19, 22)}


@pytest.fixture
def chip(tpm_pool: TpmPool, tmp_path: Path) -> Iterator[Swtpm12]:
    clone(tpm_pool.state12(0), tmp_path / "tpm")
    with Swtpm12(tmp_path / "tpm") as made:
        yield made


@pytest.fixture
def tpm(chip: Swtpm12, tpm_pool: TpmPool) -> Iterator[Tpm12]:
    connected = chip.connect()
    launch.power_on(chip, connected, firmware.events(Machine(), tpm_pool.images, BANKS))
    yield connected
    connected.close()


def test_a_launch_gives_what_its_log_tells(chip: Swtpm12, tpm: Tpm12, tpm_pool: TpmPool) -> None:
    assert tpm.read_pcrs(DRTM) == {"sha1": dict.fromkeys(DRTM["sha1"], NEVER_LAUNCHED)}
    events = launch.events(tpm_pool.images, BANKS)

    launch.launch(chip, tpm, events)

    assert tpm.read_pcrs(DRTM) == {"sha1": eventlog.replay(events, "sha1", DRTM["sha1"])}
    assert tpm.read_pcrs({"sha1": (22,)}) == {"sha1": {22: RESET}}


def test_firmware_is_measured_before_the_launch(tpm: Tpm12, tpm_pool: TpmPool) -> None:
    expected = eventlog.replay(firmware.events(Machine(), tpm_pool.images, BANKS), "sha1", range(8))

    assert tpm.read_pcrs({"sha1": tuple(range(8))}) == {"sha1": expected}


def test_another_kernel_gives_other_values(tpm_pool: TpmPool, tmp_path: Path) -> None:
    good = launch.events(tpm_pool.images, BANKS)
    bad = launch.events(launch.tamper_kernel(tpm_pool.images, tmp_path), BANKS)

    assert eventlog.replay(good, "sha1", [17]) != eventlog.replay(bad, "sha1", [17])


@pytest.mark.parametrize("pcr", [17, 18, 19, 20])
def test_software_that_runs_later_cannot_extend_what_the_launch_did(
    pcr: int, chip: Swtpm12, tpm: Tpm12
) -> None:
    chip.control.measure_launch(b"SINIT")

    with pytest.raises(Tpm12Error, match="TPM_Extend failed"):
        launch.extend(tpm, eventlog.Event(pcr, 0, {"sha1": bytes(20)}, b""))


def test_a_reset_undoes_a_launch(chip: Swtpm12, tpm: Tpm12) -> None:
    chip.control.measure_launch(b"SINIT")

    launch.power_on(chip, tpm, ())

    assert tpm.read_pcrs({"sha1": (17,)}) == {"sha1": {17: NEVER_LAUNCHED}}


def test_two_chips_of_the_vendor_are_certified_and_different(
    tpm_pool: TpmPool, tmp_path: Path
) -> None:
    _, issuer = x509.load_pem_x509_certificates(tpm_pool.authorities)
    seen = set()
    for number in range(2):
        clone(tpm_pool.state12(number), tmp_path / str(number))
        with Swtpm12(tmp_path / str(number)) as chip:
            tpm = chip.connect()
            certificate = x509.load_der_x509_certificate(keys12.read_certificate(tpm, WELL_KNOWN))
            seen.add(tpm12.parse_public_key(tpm.read_endorsement_key(WELL_KNOWN)).digest)
            tpm.close()
        assert certificate.issuer == issuer.subject
    assert len(seen) == 2
