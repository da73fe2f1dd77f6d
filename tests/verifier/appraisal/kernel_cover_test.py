# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""No boot by UEFI is trusted whose kernel nothing covers."""

from __future__ import annotations

import dataclasses

import pytest

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import components, reference_values, secure_boot
from ovirt_tcp_plugin.verifier.appraisal import kernel_cover
from ovirt_tcp_plugin.verifier.settings import PROFILES
from tests.verifier.appraisal.uefi_boots import (
    BANK,
    boot,
    findings,
    golden,
    images,
    measured,
)

GOOD = Machine()
OFF = Machine(secure_boot=False)
VARIABLE = 0x80000001
SECURE_BOOT_ON = launch.measured(
    7, VARIABLE, secure_boot.variable_data(secure_boot.GLOBAL, "SecureBoot", b"\1"), [BANK]
)


def codes_of(machine: Machine, golden_machine: Machine) -> list[str]:
    """Return the codes of a boot with another kernel, by the set of a machine's good boot."""
    proven = measured(boot(machine, images(kernel=b"kernel 2")), "uefi")
    return [
        finding.code for finding in findings(proven, "uefi", [golden(boot(golden_machine), "uefi")])
    ]


def test_another_kernel_without_secure_boot_is_refused_though_all_digests_match() -> None:
    assert codes_of(OFF, OFF) == ["secure_boot_off"]


def test_another_kernel_that_shim_did_not_validate_is_refused() -> None:
    blind = dataclasses.replace(GOOD, validated=False)

    assert codes_of(blind, blind) == ["secure_boot_off"]


def test_a_unified_image_without_secure_boot_is_refused() -> None:
    unified = dataclasses.replace(OFF, unified=True)

    assert "secure_boot_off" in codes_of(unified, unified)


def test_secure_boot_is_on_only_before_the_separator() -> None:
    """A running system can extend PCR 7 by whatever it likes."""
    late = [*boot(OFF), SECURE_BOOT_ON]

    proven = measured(late, "uefi")

    codes = [finding.code for finding in findings(proven, "uefi", [golden(late, "uefi")])]
    assert codes == ["secure_boot_off"]


def test_both_states_before_the_separator_are_off() -> None:
    events = boot(OFF)
    position = next(place for place, event in enumerate(events) if event.pcr == 7)
    events.insert(position, SECURE_BOOT_ON)

    (finding,) = kernel_cover.check(measured(events, "uefi"), PROFILES["uefi"])

    assert finding.code == "secure_boot_off"
    assert finding.text.startswith("PCR 7, event 2: Secure Boot is off, so nothing vouches")


def test_whole_values_do_not_prove_that_secure_boot_is_on() -> None:
    """The value of PCR 7 says nothing by itself; only the steps of a log that replays to it do."""
    proven = measured(boot(OFF), "uefi")
    values = [reference_values.Value(BANK, pcr, "", value) for pcr, value in proven.values.items()]
    whole = reference_values.ReferenceSet("whole", values=tuple(values))

    without_log = dataclasses.replace(proven, steps=())

    codes = [finding.code for finding in findings(without_log, "uefi", [whole])]
    assert codes == ["secure_boot_unproven"]


def test_whole_values_are_good_where_a_log_shows_the_rest() -> None:
    proven = measured(boot(GOOD), "uefi")
    values = [reference_values.Value(BANK, pcr, "", value) for pcr, value in proven.values.items()]
    whole = reference_values.ReferenceSet("whole", values=tuple(values))

    assert findings(proven, "uefi", [whole]) == []


@pytest.mark.parametrize("kernels", [0, 1])
def test_a_boot_loader_that_has_no_kernel_measured_covers_none(kernels: int) -> None:
    """As a GRUB of one's own does that was told to go without shim, or a chain of loaders."""
    events = boot(GOOD)
    images_of_boot = [event for event in events if event.pcr == 4 and event.type == 0x80000003]
    for image in images_of_boot[2:]:
        events.remove(image)
    if kernels:
        events.append(images_of_boot[0])  # chainloaded: it has a path

    proven = measured(events, "uefi")

    (finding,) = findings(proven, "uefi", [golden(events, "uefi")])
    assert finding.code == "kernel_not_measured"


def test_what_an_earlier_release_kept_does_not_tell_which_image_is_the_kernel() -> None:
    """It takes no host out; the next report tells."""
    proven = measured(boot(GOOD), "uefi")
    renamed = []
    for step in proven.steps:
        if components.word_of(step.component) == "kernel":
            step = step._replace(component="boot_loader_3")
        renamed.append(step)
    older = dataclasses.replace(proven, steps=tuple(renamed), vocabulary=1)

    assert list(kernel_cover.check(older, PROFILES["uefi"])) == []


@pytest.mark.parametrize("profile", ["txt", "txt-legacy", "txt+firmware"])
def test_a_launch_by_hardware_needs_no_secure_boot(profile: str) -> None:
    assert list(kernel_cover.check(measured(boot(OFF), "uefi"), PROFILES[profile])) == []


def test_a_good_boot_is_covered() -> None:
    assert findings(measured(boot(GOOD), "uefi"), "uefi", [golden(boot(GOOD), "uefi")]) == []


def test_a_unified_image_with_secure_boot_is_covered() -> None:
    unified = dataclasses.replace(GOOD, unified=True)
    proven = measured(boot(unified), "uefi")

    assert findings(proven, "uefi", [golden(boot(unified), "uefi")]) == []
