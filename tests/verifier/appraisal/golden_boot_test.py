# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What becomes a reference, and what is refused, under the profiles by UEFI."""

from __future__ import annotations

import dataclasses

from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier.appraisal import golden_boot
from ovirt_tcp_plugin.verifier.appraisal import measured as stored
from ovirt_tcp_plugin.verifier.settings import PROFILES
from tests.verifier.appraisal.grub_boots import GOOD, START, command, started
from tests.verifier.appraisal.uefi_boots import (
    Events,
    boot,
    findings,
    images,
    measured,
)

UNIFIED = Machine(unified=True)


def golden(told: Events, profile: str) -> ReferenceSet:
    return golden_boot.reference_set("golden", measured(told, profile), False, "")


def fault(told: Events, profile: str) -> str | None:
    return golden_boot.fault(measured(told, profile), PROFILES[profile])


def codes(told: Events, profile: str, known: ReferenceSet) -> list[str]:
    return [finding.code for finding in findings(measured(told, profile), profile, [known])]


def test_a_grub_that_measures_no_commands_is_no_reference() -> None:
    silent = [event for event in GOOD if event.pcr != 8]

    assert "DISABLE_PCR8" in (fault(silent, "uefi+grub") or "")


def test_a_boot_with_an_unknown_command_is_no_reference() -> None:
    odd = [*START, command("chainloader /evil"), *started()]

    assert "chainloader /evil" in (fault(odd, "uefi+grub") or "")


def test_a_boot_that_tells_of_too_few_files_is_no_reference() -> None:
    few = [event for event in GOOD if event.pcr != 9]

    assert "it tells of 0 files, and of 1 initrds" in (fault(few, "uefi+grub") or "")


def test_a_boot_by_grub_is_no_reference_for_unified_images() -> None:
    assert fault(GOOD, "uefi+uki") == "PCR 11 is empty: no unified kernel image was booted"


def test_good_boots_are_references() -> None:
    assert fault(GOOD, "uefi+grub") is None
    assert fault(boot(UNIFIED), "uefi+uki") is None


def test_the_next_kernel_of_the_same_host_joins_the_set() -> None:
    known = golden(GOOD, "uefi+grub")
    updated = boot(booted=images(kernel=b"kernel 2", initrd=b"initrd 2"))

    merged = known.merged(golden(updated, "uefi+grub"))

    assert codes(updated, "uefi+grub", known)
    assert codes(updated, "uefi+grub", merged) == []
    assert codes(GOOD, "uefi+grub", merged) == []
    assert (9, "boot_file") not in merged.mixtures()


def test_the_set_and_the_boot_survive_the_store() -> None:
    known = golden(GOOD, "uefi+grub")
    proven = measured(GOOD, "uefi+grub")

    read_set = reference_values.decode(reference_values.encode(known))
    read_boot = stored.decode(stored.encode(proven))

    assert read_set == known
    assert read_boot == proven
    assert findings(read_boot, "uefi+grub", [read_set]) == []


def test_every_part_of_a_unified_image_counts() -> None:
    known = golden(boot(UNIFIED), "uefi+uki")

    assert codes(boot(UNIFIED), "uefi+uki", known) == []
    for changed in (
        images(kernel=b"evil"),
        images(initrd=b"evil"),
        images(command_line="root=UUID=1 init=/bin/sh"),
    ):
        assert codes(boot(UNIFIED, changed), "uefi+uki", known)


def test_an_add_on_is_found_where_the_golden_boot_had_none() -> None:
    """The PCRs of add-ons are empty then, and have to stay so."""
    known = golden(boot(UNIFIED), "uefi+uki")
    add_on = next(event for event in boot(UNIFIED) if event.pcr == 11)

    for pcr in (12, 13):
        assert codes([*boot(UNIFIED), add_on._replace(pcr=pcr)], "uefi+uki", known) == [
            "pcr_differs"
        ]


def test_a_boot_without_any_step_of_a_known_pcr_lacks_it() -> None:
    known = golden(GOOD, "uefi+grub")
    without = [event for event in GOOD if event.pcr != 14]

    assert codes(without, "uefi+grub", known) == ["event_missing"]


def test_a_key_that_the_owner_enrolled_is_found() -> None:
    known = golden(GOOD, "uefi+grub")
    enrolled = dataclasses.replace(Machine(), owner_keys=("distribution", "evil"))

    assert codes(boot(enrolled), "uefi+grub", known) == ["mok_list_differs"]
