# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The structures of UEFI and TCG that a real event log holds.

Sources: UEFI 2.10, 3.1.3 (EFI_LOAD_OPTION), 5.3 (GPT), 10.3 (device paths), 32.4.1
(EFI_SIGNATURE_LIST); TCG "PC Client Platform Firmware Profile" 1.06, 10.2.3
(UEFI_IMAGE_LOAD_EVENT), 10.2.5 (UEFI_GPT_DATA), 10.4.2.1 (tagged events).
"""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from collections.abc import Iterable

_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")  # EFI_CERT_X509_GUID
_SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")  # EFI_CERT_SHA256_GUID
_OWNER = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b")
_ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")  # EFI System Partition
_LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

_ESP_SECTORS = (2048, 206847)
_ROOT_SECTORS = (206848, 2047966)
_LOAD_ACTIVE = 1
_LOAD_ADDRESS = 0x7E000000


def text(content: str) -> bytes:
    """Return a text as UEFI keeps it: UTF-16 with a zero at its end."""
    return f"{content}\0".encode("utf-16-le")


def certificate(name: str) -> bytes:
    """Return the certificate of a made-up authority, with the size of a real one."""
    return hashlib.sha512(name.encode("utf-8")).digest() * 14


def signature_data(name: str) -> bytes:
    """Return an EFI_SIGNATURE_DATA: what is measured of the key that vouched for an image."""
    return _OWNER.bytes_le + certificate(name)


def key_lists(names: Iterable[str]) -> bytes:
    """Return an EFI_SIGNATURE_LIST for each key: a certificate has a size of its own."""
    lists = [_signature_list(_X509, [signature_data(name)]) for name in names]
    return b"".join(lists)


def hash_list(images: Iterable[str]) -> bytes:
    """Return the EFI_SIGNATURE_LIST of the hashes of images, nothing for none."""
    entries = []
    for image in images:
        entries.append(_OWNER.bytes_le + hashlib.sha256(image.encode("utf-8")).digest())
    return _signature_list(_SHA256, entries) if entries else b""


def load_option(name: str, path: bytes) -> bytes:
    """Return an EFI_LOAD_OPTION: an entry of the firmware's boot menu."""
    head = struct.pack("<IH", _LOAD_ACTIVE, len(path))
    return head + text(name) + path


def disk_file(file: str) -> bytes:
    """Return the device path of a file in the EFI system partition of the first disk."""
    root = _path_node(2, 1, struct.pack("<II", 0x0A0341D0, 0))  # PciRoot(0x0)
    device = _path_node(1, 1, bytes([0, 4]))
    return root + device + _partition() + _path_node(4, 4, text(file)) + _path_end()


def relative_file(file: str) -> bytes:
    """Return the device path by which a boot loader starts the next one."""
    return _path_node(4, 4, text(file)) + _path_end()


def image_load(image: bytes, path: bytes) -> bytes:
    """Return the UEFI_IMAGE_LOAD_EVENT of an image."""
    return struct.pack("<QQQQ", _LOAD_ADDRESS, len(image), 0, len(path)) + path


def partition_table(disk: uuid.UUID) -> bytes:
    """Return the UEFI_GPT_DATA of a disk with an EFI system partition and a root."""
    entries = _partition_entry(_ESP, disk, _ESP_SECTORS) + _partition_entry(
        _LINUX, disk, _ROOT_SECTORS
    )
    return _partition_header(disk) + struct.pack("<Q", 2) + entries


def tagged_event(number: int, content: bytes) -> bytes:
    """Return a TCG_PCClientTaggedEvent."""
    return struct.pack("<II", number, len(content)) + content


def _signature_list(kind: uuid.UUID, entries: list[bytes]) -> bytes:
    size = len(entries[0])
    head = struct.pack("<III", 28 + size * len(entries), 0, size)
    return kind.bytes_le + head + b"".join(entries)


def _path_node(kind: int, subtype: int, content: bytes) -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(content)) + content


def _path_end() -> bytes:
    return _path_node(0x7F, 0xFF, b"")


def _partition() -> bytes:
    """Return the node of the EFI system partition: by its number, its sectors, its GUID."""
    first, last = _ESP_SECTORS
    place = struct.pack("<IQQ", 1, first, last - first + 1)
    return _path_node(4, 1, place + _ESP.bytes_le + bytes([2, 2]))


def _partition_header(disk: uuid.UUID) -> bytes:
    """Return the header of a GPT. Its checksum is of the header with a zero in its place."""
    before = b"EFI PART" + struct.pack("<II", 0x00010000, 92)
    behind = struct.pack("<IQQQQ", 0, 1, 2047999, 34, 2047966)
    behind += disk.bytes_le + struct.pack("<QIII", 2, 128, 128, 0)
    checksum = zlib.crc32(before + bytes(4) + behind)
    return before + struct.pack("<I", checksum) + behind


def _partition_entry(kind: uuid.UUID, disk: uuid.UUID, sectors: tuple[int, int]) -> bytes:
    identity = uuid.uuid5(disk, str(kind))
    return (
        kind.bytes_le
        + identity.bytes_le
        + struct.pack("<QQQ", *sectors, 0)
        + text("partition").ljust(72, b"\0")
    )
