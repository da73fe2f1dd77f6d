# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What shim, GRUB, systemd-stub and the kernel's EFI stub measure: events as in real logs.

Sources: shim's `mok.c`, `shim.c` and `tpm.c`; GRUB's `commands/tpm.c` (commands into PCR 8, files
into PCR 9) and `kern/efi/sb.c` (without Secure Boot nobody verifies or measures the kernel as an
image); systemd's `src/boot/measure.c`; Linux `drivers/firmware/efi/libstub/efi-stub-helper.c`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from ovirt_tcp_plugin.lab import uefi_data
from ovirt_tcp_plugin.lab.launch import Images, measured
from ovirt_tcp_plugin.lab.machine import SIGNATURE_MARK, Machine
from ovirt_tcp_plugin.messages import secure_boot
from ovirt_tcp_plugin.messages.eventlog import Event

# Whose key signed shim.
AUTHORITY = "Microsoft Corporation UEFI CA 2011"
# What firmware starts.
FIRST = r"\EFI\BOOT\BOOTX64.EFI"

_TAGGED = 0x00000006
_IPL = 0x0000000D
_BOOT_SERVICES_APPLICATION = 0x80000003
_GPT_EVENT = 0x80000006
_VARIABLE_AUTHORITY = 0x800000E0

_INITRD_TAG = 0x8F3B22EC
_OPTIONS_TAG = 0x8F3B22ED

_LISTS = ("command.lst", "fs.lst", "crypto.lst", "terminal.lst")


def events(machine: Machine, images: Images, banks: Sequence[str]) -> Iterator[Event]:
    """Return the events from the first boot loader to the kernel's stub."""
    if machine.secure_boot:
        yield _authority(secure_boot.IMAGE_SECURITY, "db", AUTHORITY, banks)
    partitions = uefi_data.partition_table(machine.disk)
    yield measured(5, _GPT_EVENT, partitions, banks)
    if machine.unified:
        yield from _of_unified_image(images, banks)
        return
    yield _image(machine.boot_loader, uefi_data.disk_file(FIRST), banks)
    yield from _of_shim(machine, banks)
    grub = _Grub(machine, images, banks)
    yield from grub.events()


def of_content(pcr: int, kind: int, content: bytes, data: bytes, banks: Sequence[str]) -> Event:
    """Return an event whose digests are of something else than its data."""
    return measured(pcr, kind, content, banks)._replace(data=data)


def image_content(image: bytes) -> bytes:
    """Return what an image's own hash (Authenticode) is over: all but its signature."""
    return b"image " + image.partition(SIGNATURE_MARK)[0]


def _of_shim(machine: Machine, banks: Sequence[str]) -> Iterator[Event]:
    keys = uefi_data.key_lists(machine.owner_keys)
    revoked = uefi_data.hash_list(["an image that the owner revoked"])
    yield of_content(14, _IPL, keys, b"MokList\0", banks)
    yield of_content(14, _IPL, revoked, b"MokListX\0", banks)
    if not machine.validated:
        state = secure_boot.variable_data(secure_boot.SHIM, "MokSBState", b"\1")
        yield measured(7, _VARIABLE_AUTHORITY, state, banks)
        yield of_content(14, _IPL, b"\1", b"MokSBState\0", banks)
    level = secure_boot.variable_data(secure_boot.SHIM, "SbatLevel", machine.sbat_level)
    yield measured(7, _VARIABLE_AUTHORITY, level, banks)
    yield of_content(14, _IPL, b"\1", b"MokListTrusted\0", banks)
    if machine.secure_boot:
        yield _authority(secure_boot.SHIM, "MokListRT", "distribution", banks)
    yield _image(machine.grub, uefi_data.relative_file(r"\EFI\BOOT\grubx64.efi"), banks)


class _Grub:
    """GRUB with its script: a stub in the EFI system partition, and the menu in /boot."""

    def __init__(self, machine: Machine, images: Images, banks: Sequence[str]) -> None:
        self._machine = machine
        self._images = images
        self._banks = banks

    def events(self) -> Iterator[Event]:
        yield from self._of_stub()
        yield from self._of_menu()
        yield from self._of_entry()

    def _of_stub(self) -> Iterator[Event]:
        stub = "(hd0,gpt1)/EFI/debian"
        disk = self._machine.disk
        yield self._command(f"[ -z {stub} -o ! -e {stub} ]")
        yield self._command(f"[ -e {stub}/x86_64-efi/grub.cfg ]")
        yield self._command(f"[ -e {stub}/grub.cfg ]")
        yield self._command(f"source {stub}/grub.cfg")
        yield self._file(f"{stub}/grub.cfg", f"search.fs_uuid {disk} root".encode())
        yield self._command(f"search.fs_uuid {disk} root")
        yield self._command("set prefix=(hd0,gpt2)/boot/grub")
        for name in _LISTS:
            yield self._file(f"(hd0,gpt2)/boot/grub/x86_64-efi/{name}", name.encode())

    def _of_menu(self) -> Iterator[Event]:
        directory = "(hd0,gpt2)/boot/grub"
        environment = self._machine.environment
        yield self._command(f"configfile {directory}/grub.cfg")
        yield self._file(f"{directory}/grub.cfg", self._entry().encode())
        yield self._command("set timeout_style=menu")
        yield self._command(f"[ -s {directory}/grubenv ]")
        yield self._file(f"{directory}/grubenv", environment)
        yield self._command("set have_grubenv=true")
        yield self._command("load_env")
        yield self._file(f"{directory}/grubenv", environment)
        for command in (
            "[  ]",
            "set default=0",
            "[ xy = xy ]",
            "menuentry_id_option=--id",
            "export menuentry_id_option",
            "loadfont unicode",
            "true",
            "terminal_output console",
            "set timeout=1",
        ):
            yield self._command(command)

    def _of_entry(self) -> Iterator[Event]:
        kernel = self._images.kernel
        yield self._command(self._entry())
        for command in (
            "setparams Linux",
            "insmod gzio",
            "insmod part_gpt",
            "insmod ext2",
            f"search --no-floppy --fs-uuid --set=root {self._machine.disk}",
            f"echo Loading {kernel.name} ...",
            f"linux {self._command_line()}",
        ):
            yield self._command(command)
        yield from self._of_kernel()
        initrd = self._images.initrd
        yield self._string("kernel_cmdline", self._command_line())
        yield self._command("echo Loading initial ramdisk ...")
        yield self._command(f"initrd /boot/{initrd.name}")
        yield self._file(f"/boot/{initrd.name}", initrd.read_bytes())

    def _of_kernel(self) -> Iterator[Event]:
        kernel = self._images.kernel
        content = kernel.read_bytes()
        yield self._file(f"/boot/{kernel.name}", content)
        if self._machine.secure_boot and self._machine.validated:
            # Once when shim verifies it, and once when GRUB has it loaded.
            yield _image(content, b"", self._banks)
            yield _image(content, b"", self._banks)

    def _command_line(self) -> str:
        return f"/boot/{self._images.kernel.name} {self._images.kernel_cmdline}"

    def _entry(self) -> str:
        """Return the boot entry, as GRUB measures it: with its whole script."""
        return (
            f"menuentry Linux --class linux --id linux-{self._machine.disk} {{\n"
            f"\tsearch --no-floppy --fs-uuid --set=root {self._machine.disk}\n"
            f"\tlinux {self._command_line()}\n"
            f"\tinitrd /boot/{self._images.initrd.name}\n}}"
        )

    def _command(self, command: str) -> Event:
        return self._string("grub_cmd", command)

    def _string(self, label: str, content: str) -> Event:
        """Return the event of a text. Its digest is over the text alone."""
        data = f"{label}: {content}\0".encode()
        return of_content(8, _IPL, content.encode(), data, self._banks)

    def _file(self, name: str, content: bytes) -> Event:
        return of_content(9, _IPL, content, f"{name}\0".encode(), self._banks)


def _of_unified_image(images: Images, banks: Sequence[str]) -> Iterator[Event]:
    """Return what firmware, systemd-stub and the kernel's stub measure of a UKI.

    systemd-stub measures the name of each section, with its zero, and then its content.
    """
    kernel = images.kernel.read_bytes()
    initrd = images.initrd.read_bytes()
    sections = (
        (".linux", kernel),
        (".osrel", b"ID=lab\n"),
        (".cmdline", images.kernel_cmdline.encode()),
        (".initrd", initrd),
    )
    whole = b"".join(content for _, content in sections)
    yield _image(whole, uefi_data.disk_file(FIRST), banks)
    for name, content in sections:
        label = uefi_data.text(name)
        yield of_content(11, _IPL, f"{name}\0".encode(), label, banks)
        yield of_content(11, _IPL, content, label, banks)
    yield _image(kernel, b"", banks)
    options = uefi_data.tagged_event(_OPTIONS_TAG, b"LOADED_IMAGE::LoadOptions\0")
    yield of_content(9, _TAGGED, uefi_data.text(images.kernel_cmdline), options, banks)
    loaded = uefi_data.tagged_event(_INITRD_TAG, b"Linux initrd\0")
    yield of_content(9, _TAGGED, initrd, loaded, banks)


def _image(image: bytes, path: bytes, banks: Sequence[str]) -> Event:
    """Return the event of an image: its data say where it was loaded, and from which file."""
    data = uefi_data.image_load(image, path)
    return of_content(4, _BOOT_SERVICES_APPLICATION, image_content(image), data, banks)


def _authority(owner: uuid.UUID, name: str, key: str, banks: Sequence[str]) -> Event:
    data = secure_boot.variable_data(owner, name, uefi_data.signature_data(key))
    return measured(7, _VARIABLE_AUTHORITY, data, banks)
