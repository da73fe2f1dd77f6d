# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""systemd extends PCR 11 by its phases; nothing else may follow the sections of the image."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.verifier.appraisal import golden_boot
from ovirt_tcp_plugin.verifier.appraisal.known_logs import KnownLogs
from tests.verifier.appraisal.uefi_boots import BANK, boot, findings, measured, values_after

PROFILE = "uefi+uki"
GOOD = boot(Machine(unified=True))
SET = golden_boot.reference_set("golden", measured(GOOD, PROFILE), False, "")


def extended_by(*words: str, pcr: int = 11) -> list[Event]:
    """Return a boot, and what was extended since, of which no log tells."""
    late = [launch.measured(pcr, 0xD, word.encode(), [BANK]) for word in words]
    return [*GOOD, *late]


def codes(really: list[Event]) -> list[str]:
    proven = measured(GOOD, PROFILE, really)
    return [finding.code for finding in findings(proven, PROFILE, [SET])]


@pytest.mark.parametrize(
    "words",
    [
        ("evil",),
        ("ready", "sysinit"),
        ("enter-initrd", "enter-initrd"),
        ("enter-initrd", "leave-initrd", "sysinit", "ready", "evil"),
        ("",),
    ],
)
def test_other_words_and_another_order_are_not_proven(words: tuple[str, ...]) -> None:
    assert codes(extended_by(*words)) == ["steps_unproven"]


def test_phases_count_in_their_own_pcr_only() -> None:
    assert "steps_unproven" in codes(extended_by("ready", pcr=4))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("enter-initrd",),
        ("enter-initrd", "leave-initrd", "sysinit", "ready"),
        ("sysinit", "ready"),
        ("sysinit", "ready", "shutdown"),
    ],
)
def test_the_phases_of_a_good_boot_are_good(words: tuple[str, ...]) -> None:
    assert codes(extended_by(*words)) == []


def test_a_log_that_is_only_named_holds_through_the_next_phase() -> None:
    """The agent may have reported before the host was up."""
    early = measured(GOOD, PROFILE, extended_by("sysinit"))
    known = KnownLogs("boot", {}, early)

    later = known.check(values_after(extended_by("sysinit", "ready"), [11]))
    evil = known.check(values_after(extended_by("sysinit", "evil"), [11]))

    assert list(later.findings) == []
    assert [finding.code for finding in evil.findings] == ["log_differs"]
