# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8), for a boot by UEFI: is anything in this boot that vouches for the kernel?

Reference values compare what was measured. They cannot see what nobody measured, and a boot loader
measures a kernel only if it is made to:

- GRUB hands a kernel to shim, which measures it into PCR 4, where Secure Boot is on and shim was
  not told otherwise. Elsewhere no kernel is in PCR 4 (rhboot/grub2 `kern/efi/sb.c`), and every
  kernel would match. So Secure Boot has to be on, proven by the digests of PCR 7.
- Firmware measures what it starts by itself, such as a unified kernel image, and systemd-stub
  measures the kernel in it, into PCR 4 or 11.

A launch by tboot measures the kernel itself, so a profile with its PCRs needs none of this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Optional

from ovirt_tcp_plugin.messages import components, eventlog, secure_boot
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.firmware_pcrs import IMAGES_PCR, SECTIONS_PCR, SECURE_BOOT_PCR
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.messages.secure_boot import State
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured

_CAUSES = {
    State.OFF: "Secure Boot is off",
    State.ABSENT: "Secure Boot is off (the firmware has no such variable)",
    State.NOT_VALIDATED: "shim was told not to validate (MokSBState)",
}


def rests_on_secure_boot(pcrs: Collection[int]) -> bool:
    """Return whether a profile with these PCRs leaves the kernel to Secure Boot."""
    launched = any(pcr in eventlog.DRTM_PCRS for pcr in pcrs)
    return IMAGES_PCR in pcrs and not launched


def check(measured: Measured, pcrs: Collection[int]) -> Iterator[Finding]:
    """Return why nothing vouches for the kernel, the cause first; nothing if something does.

    Args:
        pcrs: those of the profile.
    """
    if not rests_on_secure_boot(pcrs):
        return
    switched = _check_secure_boot(measured)
    if switched is not None:
        yield switched
    # Steps in the words of an earlier release do not say which image is the kernel. They are of a
    # report from before an upgrade, and the next report tells.
    elif measured.vocabulary == components.VOCABULARY and not _tells_of_kernel(measured):
        yield FindingCode.KERNEL_NOT_MEASURED.finding(
            f"PCR {IMAGES_PCR}: the boot loader had no kernel measured, so any kernel would match"
        )


def _check_secure_boot(measured: Measured) -> Optional[Finding]:
    """Return why Secure Boot is not proven to be on, None if it is.

    The firmware ends its own part of PCR 7 with a separator. Whatever comes after it may be of a
    running system, which can extend the PCR by the digest of "on" as often as it likes.
    """
    steps = [step for step in measured.steps if step.pcr == SECURE_BOOT_PCR]
    is_on = False
    for position, step in enumerate(_before_separator(steps)):
        state = secure_boot.state_of(step.digest)
        if state in (State.OFF, State.ABSENT):
            return _off(position, state, step)
        is_on = is_on or state is State.ON
    for position, step in enumerate(steps):
        state = secure_boot.state_of(step.digest)
        if state is State.NOT_VALIDATED:
            return _off(position, state, step)
    if is_on:
        return None
    return FindingCode.SECURE_BOOT_UNPROVEN.finding(
        f"no log that replays to PCR {SECURE_BOOT_PCR} shows that Secure Boot is on, "
        "and without it any kernel would match",
        seen=measured.values.get(SECURE_BOOT_PCR, ""),
    )


def _before_separator(steps: Collection[Step]) -> Iterator[Step]:
    separators = secure_boot.separator_digests()
    for step in steps:
        if step.digest in separators:
            return
        yield step


def _off(position: int, state: State, step: Step) -> Finding:
    return FindingCode.SECURE_BOOT_OFF.finding(
        f"PCR {SECURE_BOOT_PCR}, event {position + 1}: {_CAUSES[state]}, "
        "so nothing vouches for the kernel and any would match",
        seen=step.digest,
    )


def _tells_of_kernel(measured: Measured) -> bool:
    """Return whether the log tells of a kernel.

    Which image of a good PCR 4 is the kernel, only the log says. Reference values are compared
    with what it says; a set that knows the PCR as a whole leaves it to the log.
    """
    for step in measured.steps:
        if step.pcr == IMAGES_PCR and components.word_of(step.component) == "kernel":
            return True
        if step.pcr == SECTIONS_PCR:
            return True
    return False
