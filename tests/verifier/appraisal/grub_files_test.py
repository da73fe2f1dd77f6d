# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8) for PCR 9: which files may be unknown, and what the kernel's stub adds."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from ovirt_tcp_plugin.lab.machine import Machine, environment
from ovirt_tcp_plugin.messages.reference_values import Value
from ovirt_tcp_plugin.verifier.appraisal import golden_boot
from tests.verifier.appraisal.grub_boots import (
    EVIL,
    GOOD,
    INITRD,
    PROFILE,
    SET,
    START,
    codes,
    command,
    file,
    judge,
    started,
)
from tests.verifier.appraisal.uefi_boots import BANK, boot, measured

OTHER_HOST = Machine(disk=uuid.UUID(int=1))
BOOTED = environment("boot_success=1")


def stub(initrd: bytes) -> list[object]:
    """Return what the kernel's own stub measures behind the files: its options, its initrd."""
    options = file(b"options of this host")._replace(type=6, data=b"")
    loaded = file(initrd)._replace(type=6, data=b"")
    return [options, loaded]


def test_unknown_files_that_could_be_a_kernel_and_its_initrd_are_found() -> None:
    events = [*START, file(b"unknown"), file(b"unknown too"), *started()]

    (finding,) = judge(events)

    assert finding.code == "boot_file_differs"
    assert finding.text.startswith("PCR 9, event 10: two files that GRUB read are none")


def test_another_host_with_a_changed_environment_needs_values() -> None:
    changed = dataclasses.replace(OTHER_HOST, environment=BOOTED)

    assert codes(boot(changed)) == ["boot_file_differs"]


def test_its_values_make_it_good() -> None:
    changed = dataclasses.replace(OTHER_HOST, environment=BOOTED)
    proven = measured(boot(changed), PROFILE)
    imported = golden_boot.reference_set("golden", proven, False, "")

    assert judge(boot(changed), reference_set=SET.merged(imported)) == []


@pytest.mark.parametrize("late", [[EVIL], [b"options", EVIL], [INITRD]])
def test_more_events_of_the_kernel_than_the_golden_boot_had_are_found(late: list[bytes]) -> None:
    events = [*GOOD, *[file(content)._replace(type=6, data=b"") for content in late]]

    assert codes(events)


def test_the_events_of_the_kernel_itself_are_counted_with_the_set() -> None:
    golden = [*GOOD, *stub(INITRD)]
    known = golden_boot.reference_set("golden", measured(golden, PROFILE), False, "")
    evil = [*START, *started(initrds=[EVIL])]

    assert judge(golden, reference_set=known) == []
    for forged in (GOOD, evil, [*evil, *stub(EVIL)], [*evil, *stub(INITRD)], [*golden, file(EVIL)]):
        assert judge(forged, reference_set=known)


def test_an_initrd_may_be_of_one_host_only() -> None:
    built = file(b"built on host-1").digests[BANK].hex()
    known = SET.with_values([Value(BANK, 9, "initrd", built, host_name="host-1")])
    events = [*START, *started(initrds=[b"built on host-1"])]

    assert judge(events, reference_set=known) == []
    (finding,) = judge(events, host="host-2", reference_set=known)
    assert finding.code == "initrd_differs"


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(Machine(environment=BOOTED), id="environment"),
        pytest.param(OTHER_HOST, id="another host of the image"),
    ],
)
def test_what_differs_from_boot_to_boot_and_host_to_host_is_good(machine: Machine) -> None:
    assert codes(boot(machine)) == []


def test_one_more_file_that_no_set_knows_is_good_before_the_kernel() -> None:
    assert codes([*START, command("source FILE"), file(b"unknown"), *started()]) == []
