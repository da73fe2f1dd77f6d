# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What UEFI firmware, shim and GRUB measure before any launch: their events, in their order.

Sources: TCG "PC Client Platform Firmware Profile" 1.05, 3.3.4 (what goes into which PCR), 10.4
(event data); UEFI 2.10, 32.6.3 (variables of Secure Boot); shim's and GRUB's manuals (PCR 4, 8, 9,
14). Made up: the contents, which are the same on every host of this lab, as on machines of one
model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import uuid
from collections.abc import Iterator, Sequence

from ovirt_tcp_plugin.lab.launch import Images, measured
from ovirt_tcp_plugin.lab.swtpm import BANKS
from ovirt_tcp_plugin.messages import eventlog
from ovirt_tcp_plugin.messages.eventlog import Event

_SEPARATOR = 0x00000004
_S_CRTM_VERSION = 0x00000008
_IPL = 0x0000000D
_VARIABLE_DRIVER_CONFIG = 0x80000001
_VARIABLE_BOOT = 0x80000002
_BOOT_SERVICES_APPLICATION = 0x80000003
_GPT_EVENT = 0x80000006
_ACTION = 0x80000007
_PLATFORM_FIRMWARE_BLOB = 0x80000008
_HANDOFF_TABLES = 0x80000009
_VARIABLE_AUTHORITY = 0x800000E0

# EFI_GLOBAL_VARIABLE
_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
# EFI_IMAGE_SECURITY_DATABASE_GUID
_IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")

_LOAD_ADDRESS = 0x7E000000


@dataclasses.dataclass(frozen=True)
class Machine:
    """A host's firmware and boot loader.

    Attributes:
        version: what the firmware calls itself.
        code: the firmware's volume.
        secure_boot: whether Secure Boot is on.
        revoked: the list of bad keys (dbx).
        boot_loader: the image of shim.
        startup_locality: 3 where the CPU's own ACM starts the TPM (Boot Guard), otherwise 0.
    """

    version: str = "ovirt-tcp lab firmware 1"
    code: bytes = b"firmware volume 1"
    secure_boot: bool = True
    revoked: bytes = b"dbx 2025"
    boot_loader: bytes = b"shim 15.8"
    startup_locality: int = 0


def events(machine: Machine, images: Images, banks: Sequence[str] = BANKS) -> tuple[Event, ...]:
    """Return the events of a boot up to the end of the boot services, in their order."""
    return (
        *_of_firmware(machine, banks),
        *_of_boot_loader(machine, banks),
        *_of_kernel(machine, images, banks),
        measured(5, _ACTION, b"Exit Boot Services Invocation", banks),
        measured(5, _ACTION, b"Exit Boot Services Returned with Success", banks),
    )


def _of_firmware(machine: Machine, banks: Sequence[str]) -> Iterator[Event]:
    if machine.startup_locality:
        zeros = {bank: bytes(hashlib.new(bank).digest_size) for bank in banks}
        locality = eventlog.STARTUP_LOCALITY + bytes([machine.startup_locality])
        yield Event(0, eventlog.NO_ACTION, zeros, locality)
    yield measured(0, _S_CRTM_VERSION, _text(machine.version), banks)
    place = struct.pack("<QQ", _LOAD_ADDRESS, len(machine.code))
    yield _of_content(0, _PLATFORM_FIRMWARE_BLOB, machine.code, place, banks)
    for name, content in _secure_boot(machine):
        yield measured(7, _VARIABLE_DRIVER_CONFIG, _variable(name, content), banks)
    yield measured(7, _SEPARATOR, bytes(4), banks)
    yield measured(1, _HANDOFF_TABLES, b"SMBIOS 3.4".ljust(64, b"\0"), banks)
    yield from _of_boot_option(banks)


def _of_boot_option(banks: Sequence[str]) -> Iterator[Event]:
    order = _variable("BootOrder", struct.pack("<H", 0))
    option = _variable("Boot0000", _text(r"\EFI\centos\shimx64.efi"))
    yield measured(1, _VARIABLE_BOOT, order, banks)
    yield measured(1, _VARIABLE_BOOT, option, banks)
    yield measured(4, _ACTION, b"Calling EFI Application from Boot Option", banks)
    for pcr in range(7):
        yield measured(pcr, _SEPARATOR, bytes(4), banks)
    partitions = b"EFI PART".ljust(92, b"\0") + struct.pack("<Q", 0)
    yield measured(5, _GPT_EVENT, partitions, banks)


def _of_boot_loader(machine: Machine, banks: Sequence[str]) -> Iterator[Event]:
    if machine.secure_boot:
        authority = _variable("db", b"Microsoft Corporation UEFI CA 2011")
        yield measured(7, _VARIABLE_AUTHORITY, authority, banks)
    yield _application(machine.boot_loader, banks)
    yield measured(14, _IPL, b"MokList\0", banks)
    yield _application(b"grub 2.06", banks)
    command = b"grub_cmd: configfile (hd0,gpt1)/EFI/centos/grub.cfg\0"
    yield measured(8, _IPL, command, banks)


def _of_kernel(machine: Machine, images: Images, banks: Sequence[str]) -> Iterator[Event]:
    kernel = images.kernel.read_bytes()
    kernel_name = f"(hd0,gpt2)/{images.kernel.name}\0".encode()
    yield _of_content(9, _IPL, kernel, kernel_name, banks)
    if machine.secure_boot:
        # shim verifies it, and measures what it verified.
        yield _application(kernel, banks)
    cmdline = f"kernel_cmdline: /{images.kernel.name} {images.kernel_cmdline}\0".encode()
    yield measured(8, _IPL, cmdline, banks)
    initrd = images.initrd.read_bytes()
    initrd_name = f"(hd0,gpt2)/{images.initrd.name}\0".encode()
    yield _of_content(9, _IPL, initrd, initrd_name, banks)


def _secure_boot(machine: Machine) -> Sequence[tuple[str, bytes]]:
    return (
        ("SecureBoot", bytes([machine.secure_boot])),
        ("PK", b"platform key of the lab"),
        ("KEK", b"key exchange key of the lab"),
        ("db", b"Microsoft Corporation UEFI CA 2011"),
        ("dbx", machine.revoked),
    )


def _variable(name: str, content: bytes) -> bytes:
    """Return a UEFI_VARIABLE_DATA (Firmware Profile 10.4.2)."""
    owner = _IMAGE_SECURITY if name in ("db", "dbx") else _GLOBAL
    lengths = struct.pack("<QQ", len(name), len(content))
    return owner.bytes_le + lengths + name.encode("utf-16-le") + content


def _application(image: bytes, banks: Sequence[str]) -> Event:
    """Return the event of a UEFI application.

    Its digest is of the image, its data say where it was loaded.
    """
    # UEFI_IMAGE_LOAD_EVENT without a device path.
    data = struct.pack("<QQQQ", _LOAD_ADDRESS, len(image), 0, 0)
    return _of_content(4, _BOOT_SERVICES_APPLICATION, image, data, banks)


def _of_content(pcr: int, kind: int, content: bytes, data: bytes, banks: Sequence[str]) -> Event:
    """Return an event whose digests are of something else than its data."""
    return measured(pcr, kind, content, banks)._replace(data=data)


def _text(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")
