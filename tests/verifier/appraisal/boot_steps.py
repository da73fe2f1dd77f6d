# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The steps of a launch, each with a digest that shows its name."""

from __future__ import annotations

from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured

PARTS = [
    (17, "sinit"),
    (17, "mle"),
    (17, "tboot_policy"),
    (17, "kernel"),
    (17, "initrd"),
    (18, "sinit_key"),
    (18, "stm"),
]


def digest(word: str) -> str:
    return word.encode().hex().ljust(64, "0")


def steps(**changed: str) -> tuple[Step, ...]:
    return tuple(Step(pcr, word, digest(changed.get(word, word))) for pcr, word in PARTS)


def measured(taken: tuple[Step, ...]) -> Measured:
    return Measured({17: digest("seventeen"), 18: digest("eighteen")}, taken)
