# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Boots by GRUB, put together event by event, as an attacker would."""

from __future__ import annotations

from collections.abc import Iterable

from ovirt_tcp_plugin.lab import boot_loaders, launch
from ovirt_tcp_plugin.lab.machine import SIGNATURE_MARK
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal import golden_boot
from tests.verifier.appraisal.uefi_boots import (
    BANK,
    COMMAND_LINE,
    GOOD_IMAGES,
    Events,
    boot,
    findings,
    measured,
)

PROFILE = "uefi+grub"
IPL = 0x0000000D
APPLICATION = 0x80000003

KERNEL = GOOD_IMAGES.kernel.read_bytes()
INITRD = GOOD_IMAGES.initrd.read_bytes()
EVIL = b"evil initrd"
# The same kernel to shim, which looks at what the signature covers; another file to GRUB.
ALTERED_KERNEL = KERNEL + SIGNATURE_MARK + b"another"


def command(text: str) -> Event:
    """Return the event of a command that GRUB executed."""
    return string("grub_cmd", text)


def string(label: str, text: str) -> Event:
    data = f"{label}: {text}\0".encode()
    return launch.measured(8, IPL, text.encode(), [BANK])._replace(data=data)


def file(content: bytes, name: str = "/boot/file") -> Event:
    """Return the event of a file that GRUB read, or of whoever says so."""
    data = f"{name}\0".encode()
    return launch.measured(9, IPL, content, [BANK])._replace(data=data)


def image(content: bytes) -> Event:
    """Return the event of a kernel that shim verified."""
    measured_content = boot_loaders.image_content(content)
    without_path = bytes(32)
    return launch.measured(4, APPLICATION, measured_content, [BANK])._replace(data=without_path)


def started(
    kernel: bytes = KERNEL,
    initrds: Iterable[bytes] = (INITRD,),
    line: str = COMMAND_LINE,
    initrd_command: str = "initrd /boot/initrd",
) -> list[Event]:
    """Return what GRUB, shim and nobody else measure of the kernel that runs."""
    return [
        command(f"linux /boot/vmlinuz {line}"),
        file(kernel, "/boot/vmlinuz"),
        image(kernel),
        image(kernel),
        string("kernel_cmdline", f"/boot/vmlinuz {line}"),
        command(initrd_command),
        *[file(initrd, "/boot/initrd") for initrd in initrds],
    ]


def before_kernel(events: Events) -> list[Event]:
    """Return the events of a boot before its kernel."""
    kept = []
    for event in events:
        if b"linux /boot" in event.data and b"menuentry" not in event.data:
            return kept
        kept.append(event)
    return kept


def without_files(events: Events, names: Iterable[bytes] = ()) -> list[Event]:
    """Return the events without the reading of these files, or of all: they were not there."""
    kept = []
    for event in events:
        is_one_of_them = not names or any(name in event.data for name in names)
        if event.pcr != 9 or not is_one_of_them:
            kept.append(event)
    return kept


GOOD = boot()
START = before_kernel(GOOD)
SET: ReferenceSet = golden_boot.reference_set("golden", measured(GOOD, PROFILE), False, "")


def judge(
    told: Events,
    really: Events | None = None,
    host: str = "host-1",
    reference_set: ReferenceSet = SET,
) -> list[Finding]:
    """Return the findings of a boot whose log tells `told`."""
    return findings(measured(told, PROFILE, really), PROFILE, [reference_set], host)


def codes(told: Events, really: Events | None = None) -> list[str]:
    return [finding.code for finding in judge(told, really)]
