# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Boots by UEFI without a TPM: the lab's events, and the PCR values that follow from them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from ovirt_tcp_plugin.lab import firmware, launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import eventlog, reference_values
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal import logs
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from ovirt_tcp_plugin.verifier.settings import PROFILES

BANK = "sha256"
COMMAND_LINE = "root=UUID=0f0f0f0f-1111-2222-3333-444444444444 ro quiet"

Events = Sequence[Event]


def images(
    kernel: bytes = b"kernel 1", initrd: bytes = b"initrd 1", command_line: str = COMMAND_LINE
) -> launch.Images:
    """Return what a host boots: files in a directory that the system cleans up."""
    directory = Path(tempfile.mkdtemp(prefix="ovirt-tcp-test-"))
    kernel_file = directory / "vmlinuz"
    kernel_file.write_bytes(kernel)
    initrd_file = directory / "initrd"
    initrd_file.write_bytes(initrd)
    return launch.Images(
        directory / "no-tboot", kernel_file, initrd_file, kernel_cmdline=command_line
    )


GOOD_IMAGES = images()
GOOD_MACHINE = Machine()


def boot(machine: Machine = GOOD_MACHINE, booted: launch.Images = GOOD_IMAGES) -> list[Event]:
    """Return the events of a boot."""
    return list(firmware.events(machine, booted, [BANK]))


def measured(told: Events, profile: str, really: Events | None = None) -> Measured:
    """Return what evidence proves: the PCRs of what really happened, by a log that tells `told`."""
    values = values_after(told if really is None else really, PROFILES[profile])
    log = launch.log_of(told, [BANK])
    steps = logs.check(logs.SentLogs({"firmware": log}), BANK, list(values), values).steps
    return Measured({pcr: value.hex() for pcr, value in values.items()}, steps)


def values_after(events: Events, pcrs: Collection[int]) -> dict[int, bytes]:
    return eventlog.replay(events, BANK, pcrs)


def golden(told: Events, profile: str) -> ReferenceSet:
    return reference_values.from_boot("golden", BANK, measured(told, profile).steps)


def findings(
    proven: Measured, profile: str, sets: Sequence[ReferenceSet], host: str = "host-1"
) -> list[Finding]:
    required = {BANK: PROFILES[profile]}
    return list(Criteria(BANK, sets).judge(proven, host, required))
