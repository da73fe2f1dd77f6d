# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What UEFI firmware and what it starts measure before any launch: their events, in their order.

The order, the types and the data are those of real boots: OVMF with Debian's shim, GRUB and kernel
(75 events), and with a unified kernel image of systemd (36).

Source: TCG "PC Client Platform Firmware Profile" 1.06, 3.3.4 (what goes into which PCR), 10.4
(event data).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

from ovirt_tcp_plugin.lab import boot_loaders, uefi_data
from ovirt_tcp_plugin.lab.boot_loaders import of_content
from ovirt_tcp_plugin.lab.launch import Images, measured
from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.lab.swtpm import BANKS
from ovirt_tcp_plugin.messages import eventlog, secure_boot
from ovirt_tcp_plugin.messages.eventlog import Event

_SEPARATOR = 0x00000004
_S_CRTM_VERSION = 0x00000008
_VARIABLE_DRIVER_CONFIG = 0x80000001
_VARIABLE_BOOT = 0x80000002
_GPT_EVENT = 0x80000006
_ACTION = 0x80000007
_PLATFORM_FIRMWARE_BLOB = 0x80000008

_VOLUME_ADDRESS = 0x820000


def events(machine: Machine, images: Images, banks: Sequence[str] = BANKS) -> tuple[Event, ...]:
    """Return the events of a boot up to the end of the boot services, in their order."""
    return (
        *_of_firmware(machine, banks),
        *_of_boot_option(banks),
        *boot_loaders.events(machine, images, banks),
        measured(5, _ACTION, b"Exit Boot Services Invocation", banks),
        measured(5, _ACTION, b"Exit Boot Services Returned with Success", banks),
    )


def _of_firmware(machine: Machine, banks: Sequence[str]) -> Iterator[Event]:
    if machine.startup_locality:
        zeros = {bank: bytes(hashlib.new(bank).digest_size) for bank in banks}
        locality = eventlog.STARTUP_LOCALITY + bytes([machine.startup_locality])
        yield Event(0, eventlog.NO_ACTION, zeros, locality)
    yield measured(0, _S_CRTM_VERSION, uefi_data.text(machine.version), banks)
    for volume in (machine.code, b"driver volume of the lab"):
        place = struct.pack("<QQ", _VOLUME_ADDRESS, len(volume))
        yield of_content(0, _PLATFORM_FIRMWARE_BLOB, volume, place, banks)
    yield from _of_secure_boot(machine, banks)
    yield measured(7, _SEPARATOR, bytes(4), banks)


def _of_secure_boot(machine: Machine, banks: Sequence[str]) -> Iterator[Event]:
    owner = secure_boot.GLOBAL
    lists = secure_boot.IMAGE_SECURITY
    variables = (
        (owner, "SecureBoot", bytes([machine.secure_boot])),
        (owner, "PK", uefi_data.key_lists(["platform key of the lab"])),
        (owner, "KEK", uefi_data.key_lists(["key exchange key of the lab"])),
        (lists, "db", uefi_data.key_lists([boot_loaders.AUTHORITY])),
        (lists, "dbx", uefi_data.hash_list(machine.revoked)),
    )
    for guid, name, content in variables:
        data = secure_boot.variable_data(guid, name, content)
        yield measured(7, _VARIABLE_DRIVER_CONFIG, data, banks)


def _of_boot_option(banks: Sequence[str]) -> Iterator[Event]:
    """Return the events of the boot menu, and of the choice from it.

    Of a boot variable only the content is hashed.
    """
    setup = uefi_data.relative_file("setup")
    variables = (
        ("BootOrder", struct.pack("<HHH", 1, 0, 2)),
        ("Boot0001", uefi_data.load_option("Linux", uefi_data.disk_file(boot_loaders.FIRST))),
        ("Boot0000", uefi_data.load_option("Setup", setup)),
        ("Boot0002", uefi_data.load_option("Shell", uefi_data.relative_file("shell"))),
    )
    for name, content in variables:
        data = secure_boot.variable_data(secure_boot.GLOBAL, name, content)
        yield of_content(1, _VARIABLE_BOOT, content, data, banks)
    yield measured(4, _ACTION, b"Calling EFI Application from Boot Option", banks)
    for pcr in range(7):
        yield measured(pcr, _SEPARATOR, bytes(4), banks)
