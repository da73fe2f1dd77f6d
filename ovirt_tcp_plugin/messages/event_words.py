# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The word for what an event measured, by its type, its place and its data.

Sources: TCG "PC Client Platform Firmware Profile" 1.06, 10.4.1 (event types), 10.2.3
(UEFI_IMAGE_LOAD_EVENT), 10.2.6 (UEFI_VARIABLE_DATA), and 10.4.2.1 (tagged events); Intel "TXT
Software Development Guide", appendix G; shim's `mok.c` and `tpm.c`, GRUB's `commands/tpm.c`, and
the kernel's `drivers/firmware/efi/libstub` for what boot loaders and kernels write.

No PCR covers any of it: a word is good for people, and proves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.eventlog import HASH_START, MLE_HASH, Event
from ovirt_tcp_plugin.messages.firmware_pcrs import FILES_PCR
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

TAGGED = 0x00000006
IPL = 0x0000000D
VARIABLE = 0x80000001
APPLICATION = 0x80000003
AUTHORITY = 0x800000E0

_BY_TYPE: Mapping[int, str] = {
    0x00000000: "preboot_certificate",
    0x00000001: "firmware",
    0x00000002: "unused",
    0x00000004: "separator",
    0x00000005: "action",
    TAGGED: "tagged_event",
    0x00000007: "firmware",
    0x00000008: "firmware_version",
    0x00000009: "microcode",
    0x0000000A: "platform_configuration",
    0x0000000B: "device_table",
    0x0000000C: "vendor_data",
    IPL: "boot_step",
    0x0000000E: "partition_table",
    0x0000000F: "nonhost_code",
    0x00000010: "nonhost_configuration",
    0x00000011: "nonhost_information",
    0x00000012: "boot_devices_omitted",
    0x00000013: "firmware",
    HASH_START: "sinit",
    0x00000403: "txt_combined",
    MLE_HASH: "mle",
    0x0000040A: "bios_acm",
    0x0000040B: "cpu_scrtm",
    0x0000040C: "lcp_control",
    0x0000040D: "lcp_elements",
    0x0000040E: "stm",
    0x0000040F: "os_sinit_capabilities",
    0x00000410: "sinit_key",
    0x00000411: "lcp",
    0x00000412: "lcp_details",
    0x00000413: "lcp_authorities",
    0x00000414: "nv_info",
    0x00000415: "cold_boot_bios",
    0x00000416: "key_manifest",
    0x00000417: "boot_policy_manifest",
    0x00000418: "key_manifest_info",
    0x00000419: "boot_policy_manifest_info",
    0x0000041A: "boot_guard_policy",
    0x000004FE: "txt_random",
    0x000004FF: "txt_cap",
    VARIABLE: "variable",
    0x80000002: "boot_variable",
    APPLICATION: "boot_loader",
    0x80000004: "driver",
    0x80000005: "driver",
    0x80000006: "partition_table",
    0x80000007: "action",
    0x80000008: "firmware",
    0x80000009: "tables",
    0x8000000A: "firmware",
    0x8000000B: "tables",
    0x8000000C: "boot_variable",
    0x8000000D: "partition_table",
    0x80000010: "hardware_root",
    AUTHORITY: "boot_authority",
    0x800000E1: "device_firmware",
    0x800000E2: "device_configuration",
    0x800000E3: "device_policy",
    0x800000E4: "device_authority",
}
_VARIABLES: Mapping[str, str] = {
    "SecureBoot": "secure_boot",
    "PK": "pk",
    "KEK": "kek",
    "db": "db",
    "dbx": "dbx",
    "dbt": "dbt",
    "dbr": "dbr",
    "AuditMode": "secure_boot_mode",
    "DeployedMode": "secure_boot_mode",
    "SetupMode": "secure_boot_mode",
}
# What shim measures as an "authority", though it vouches for nothing.
_AUTHORITIES: Mapping[str, str] = {
    "SbatLevel": "sbat_level",
    "MokListTrusted": "mok_list_trusted",
}
# By the beginning of the data of a boot loader's step.
_STEPS: Mapping[bytes, str] = {
    b"MokListTrusted\0": "mok_list_trusted",
    b"MokListX\0": "mok_list_x",
    b"MokList\0": "mok_list",
    b"grub_cmd": "boot_command",
    b"kernel_cmdline": "kernel_command_line",
    b"grub_kernel_cmdline": "kernel_command_line",
    b"module_cmdline": "module_command_line",
    b"Kernel command line": "kernel_command_line",
}
# Of a tagged event: its number, the size of its data.
_TAG = struct.Struct("<II")
_TAGS: Mapping[int, str] = {
    0x8F3B22EC: "initrd",
    0x8F3B22ED: "kernel_command_line",
}
# UEFI_IMAGE_LOAD_EVENT: where it is in memory, its length, its link address, length of its path.
_IMAGE_LOAD = struct.Struct("<QQQQ")

WORDS = frozenset(
    [
        *_BY_TYPE.values(),
        *_VARIABLES.values(),
        *_AUTHORITIES.values(),
        *_STEPS.values(),
        *_TAGS.values(),
        "boot_file",
    ]
)


def word_of(event: Event) -> str:
    """Return the word for what an event measured, by itself; `type_<hex>` if there is none."""
    if event.type == IPL:
        return _step_word(event)
    if event.type == VARIABLE:
        return _VARIABLES.get(_variable_name(event.data), "variable")
    if event.type == AUTHORITY:
        return _AUTHORITIES.get(_variable_name(event.data), "boot_authority")
    if event.type == TAGGED:
        return _tag_word(event.data)
    return _BY_TYPE.get(event.type, f"type_{event.type:x}")


def is_without_path(event: Event) -> bool:
    """Return whether an image was measured that no device path names.

    So shim measures a kernel that GRUB has it verify, after the boot loaders themselves.
    """
    if len(event.data) < _IMAGE_LOAD.size:
        return False
    _, _, _, path_length = _IMAGE_LOAD.unpack_from(event.data)
    return bool(path_length == 0)


def _step_word(event: Event) -> str:
    for beginning, word in _STEPS.items():
        if event.data.startswith(beginning):
            return word
    return "boot_file" if event.pcr == FILES_PCR else "boot_step"


def _tag_word(data: bytes) -> str:
    if len(data) < _TAG.size:
        return "tagged_event"
    number, _ = _TAG.unpack_from(data)
    return _TAGS.get(number, "tagged_event")


def _variable_name(data: bytes) -> str:
    """Return the name in a UEFI_VARIABLE_DATA, empty if it is none."""
    reader = TpmReader(data, "UEFI variable", "<")
    try:
        reader.take(16)
        length = reader.u64()
        reader.u64()
        return reader.take(2 * min(length, 64)).decode("utf-16-le")
    except (errors.InvalidMessage, UnicodeDecodeError):
        return ""
