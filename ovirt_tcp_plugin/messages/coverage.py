# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the reference values of a boot cover, what they leave out, and which profile would not.

It follows from the PCRs that a set has steps in, and from what the golden host's log called them.
"""

from __future__ import annotations

from collections.abc import Collection

from ovirt_tcp_plugin.messages.firmware_pcrs import IMAGES_PCR, SECTIONS_PCR, TEXTS_PCR
from ovirt_tcp_plugin.messages.reference_values import Slot

_LAUNCH_PCRS = (17, 18)
# Of a boot by shim and GRUB; firmware starts a unified kernel image by itself.
_SECOND_LOADER = (IMAGES_PCR, "boot_loader_2")

_FIRMWARE = "firmware, Secure Boot and its keys, boot loaders and kernel"


def sentences(slots: Collection[Slot]) -> list[str]:
    """Return what a set with these slots covers, one sentence each; none for whole PCRs only."""
    pcrs = {pcr for pcr, _ in slots}
    if pcrs.intersection(_LAUNCH_PCRS):
        return ["it covers tboot, kernel, initrd and their command lines"]
    if TEXTS_PCR in pcrs:
        text = f"it covers {_FIRMWARE}, initrd, the kernel's command line, the owner's keys (MOK)"
        return [text, "it does not cover the root file system"]
    if SECTIONS_PCR in pcrs:
        text = f"it covers {_FIRMWARE}, and initrd, command line and add-ons of the unified image"
        return [text, "it does not cover the root file system"]
    if IMAGES_PCR in pcrs:
        return [f"it covers {_FIRMWARE}", _left_out(slots)]
    return []


def _left_out(slots: Collection[Slot]) -> str:
    profile = "uefi+grub" if _SECOND_LOADER in slots else "uefi+uki"
    return (
        "it does not cover initrd, the kernel's command line and the owner's keys (MOK): "
        f"the profile {profile} fits this host and does (appraisal.profile)"
    )
