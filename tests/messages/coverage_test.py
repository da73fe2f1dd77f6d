# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an import says that it covers, and the profile that it proposes."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import coverage
from ovirt_tcp_plugin.verifier.appraisal import golden_boot
from tests.verifier.appraisal.uefi_boots import boot, measured

GRUB = Machine()
UNIFIED = Machine(unified=True)


def text(machine: Machine, profile: str) -> str:
    golden = golden_boot.reference_set("golden", measured(boot(machine), profile), False, "")
    return "\n".join(coverage.sentences(golden.slots))


@pytest.mark.parametrize(("machine", "profile"), [(GRUB, "uefi+grub"), (UNIFIED, "uefi+uki")])
def test_a_boot_under_uefi_is_offered_the_profile_that_fits(machine: Machine, profile: str) -> None:
    offered = text(machine, "uefi")

    assert "does not cover initrd" in offered
    assert f"the profile {profile} fits this host" in offered
    assert "fits" not in text(machine, profile)


def test_uefi_grub_covers_initrd_and_command_line() -> None:
    assert "initrd, the kernel's command line" in text(GRUB, "uefi+grub")


def test_uefi_uki_covers_the_parts_of_the_image() -> None:
    assert "add-ons of the unified image" in text(UNIFIED, "uefi+uki")


def test_a_launch_covers_what_tboot_loads() -> None:
    assert coverage.sentences([(17, "sinit"), (18, "sinit_key")]) == [
        "it covers tboot, kernel, initrd and their command lines"
    ]


def test_whole_values_say_nothing() -> None:
    assert coverage.sentences([]) == []
