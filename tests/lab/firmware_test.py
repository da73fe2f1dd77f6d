# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The lab's boots by UEFI look like real ones, to us and to tpm2-tools."""

from __future__ import annotations

import subprocess
import uuid
from collections import Counter
from pathlib import Path

import pytest

from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import components, eventlog
from ovirt_tcp_plugin.messages.eventlog import Event

# Events by PCR of a real boot: OVMF, Debian's shim, GRUB and kernel.
BY_PCR_GRUB = {0: 4, 1: 5, 2: 1, 3: 1, 4: 6, 5: 4, 6: 1, 7: 9, 8: 31, 9: 10, 14: 3}
# Of a unified kernel image that OVMF starts, without Secure Boot.
BY_PCR_UNIFIED = {0: 4, 1: 5, 2: 1, 3: 1, 4: 4, 5: 4, 6: 1, 7: 6, 9: 2, 11: 8}
PCR_11 = "WARN: Event {} is unexectedly not extending either PCR 8, 9, 12 or 14"
BANKS = ("sha1", "sha256", "sha384")


@pytest.fixture
def images(tmp_path: Path) -> launch.Images:
    kernel = tmp_path / "vmlinuz-1"
    kernel.write_bytes(b"kernel 1")
    initrd = tmp_path / "initrd-1"
    initrd.write_bytes(b"initrd 1")
    return launch.Images(tmp_path / "no-tboot", kernel, initrd)


def by_pcr(events: tuple[Event, ...]) -> dict[int, int]:
    return dict(Counter(event.pcr for event in events))


def words(events: tuple[Event, ...], pcr: int) -> list[str]:
    return [step.component for step in components.steps(events, "sha256", [pcr])]


def test_a_boot_by_grub_has_the_events_of_a_real_one(images: launch.Images) -> None:
    events = firmware.events(Machine(), images)

    assert len(events) == 75
    assert by_pcr(events) == BY_PCR_GRUB
    assert words(events, 4) == [
        "action",
        "separator",
        "boot_loader",
        "boot_loader_2",
        "kernel",
        "kernel_2",
    ]
    assert words(events, 14) == ["mok_list", "mok_list_x", "mok_list_trusted"]
    assert words(events, 8).count("kernel_command_line") == 1


def test_a_boot_of_a_unified_image_has_the_events_of_a_real_one(images: launch.Images) -> None:
    events = firmware.events(Machine(unified=True, secure_boot=False), images)

    assert len(events) == 36
    assert by_pcr(events) == BY_PCR_UNIFIED
    assert words(events, 4) == ["action", "separator", "boot_loader", "kernel"]
    assert words(events, 9) == ["kernel_command_line", "initrd"]


def test_without_secure_boot_no_kernel_is_measured_as_an_image(images: launch.Images) -> None:
    events = firmware.events(Machine(secure_boot=False), images)

    assert words(events, 4) == ["action", "separator", "boot_loader", "boot_loader_2"]


def test_another_host_of_the_image_differs_where_real_hosts_do(images: launch.Images) -> None:
    here = firmware.events(Machine(), images)
    there = firmware.events(Machine(disk=uuid.UUID(int=1)), images)

    differing = Counter(
        event.pcr for event, other in zip(here, there) if event.digests != other.digests
    )
    assert differing == {5: 1, 8: 3, 9: 2}


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(Machine(), id="GRUB"),
        pytest.param(Machine(secure_boot=False), id="GRUB without Secure Boot"),
        pytest.param(Machine(unified=True), id="unified kernel image"),
        pytest.param(Machine(revoked=(), validated=False), id="nothing revoked, not validated"),
    ],
)
def test_tpm2_tools_read_the_log_without_a_warning(
    machine: Machine, images: launch.Images, tmp_path: Path
) -> None:
    events = firmware.events(machine, images, BANKS)
    log = tmp_path / "log"
    log.write_bytes(launch.log_of(events, BANKS))

    # systemd-stub measures sections into PCR 11, which tpm2-tools do not expect; in real logs, too.
    sections = [number for number, event in enumerate(events, 1) if event.pcr == 11]
    expected = [PCR_11.format(number) for number in sections]
    reader = subprocess.run(
        ["tpm2_eventlog", str(log)], capture_output=True, text=True, timeout=20, check=True
    )

    warnings = [line for line in reader.stderr.splitlines() if line not in expected]
    assert warnings == []
    assert reader.stdout.count("- EventNum:") == len(events) + 1
    replayed = eventlog.replay(events, "sha256", [7, 8, 9])
    for value in replayed.values():
        assert value.hex() in reader.stdout
