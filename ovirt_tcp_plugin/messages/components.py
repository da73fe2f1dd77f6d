# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What each event of a log measured, in stable words: the components of a boot.

Sources: Intel "TXT Software Development Guide", appendix G; tboot's `txt.html` (PCR mappings) and
`tpm.h` (0x501); TCG "PC Client Platform Firmware Profile" 1.05, 10.4.1 (event types), 10.4.2
(UEFI_VARIABLE_DATA).

A component is a label. It comes from the event's type, place and data, and no PCR covers those;
only the order of the digests is proven.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import eventlog, tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

_BY_TYPE: Mapping[int, str] = {
    0x00000001: "firmware",
    0x00000004: "separator",
    0x00000005: "action",
    0x00000007: "firmware",
    0x00000008: "firmware_version",
    0x00000009: "microcode",
    0x0000000A: "platform_configuration",
    0x0000000D: "boot_step",
    0x00000402: "sinit",
    0x00000404: "mle",
    0x0000040A: "bios_acm",
    0x0000040B: "cpu_scrtm",
    0x0000040C: "lcp_control",
    0x0000040E: "stm",
    0x0000040F: "os_sinit_capabilities",
    0x00000410: "sinit_key",
    0x00000412: "lcp_details",
    0x00000413: "lcp_authorities",
    0x00000414: "nv_info",
    0x80000002: "boot_variable",
    0x80000003: "boot_loader",
    0x80000004: "driver",
    0x80000005: "driver",
    0x80000006: "partition_table",
    0x80000007: "action",
    0x80000008: "firmware",
    0x80000009: "tables",
    0x8000000A: "firmware",
    0x8000000B: "tables",
    0x8000000C: "boot_variable",
    0x800000E0: "boot_authority",
}
_VARIABLE = 0x80000001
_VARIABLES: Mapping[str, str] = {
    "SecureBoot": "secure_boot",
    "PK": "pk",
    "KEK": "kek",
    "db": "db",
    "dbx": "dbx",
}

# tboot measures its policy and the modules one after the other. Where tboot itself (MLE) is
# measured tells the mapping.
_MODULES_DETAILS: Mapping[int, Sequence[str]] = {
    17: ("tboot_policy", "kernel", "initrd"),
    18: ("tboot_policy",),
}
_MODULES_LEGACY: Mapping[int, Sequence[str]] = {
    17: ("tboot_policy",),
    18: ("kernel",),
    19: ("initrd",),
}

_TEXTS: Mapping[str, str] = {
    "action": "an action of the firmware",
    "bios_acm": "the BIOS ACM",
    "boot_authority": "the key that vouched for the boot loader",
    "boot_loader": "the boot loader",
    "boot_step": "a step of the boot loader",
    "boot_variable": "a boot variable",
    "cpu_scrtm": "the CPU's S-CRTM status",
    "db": "Secure Boot's list of good keys (db)",
    "dbx": "Secure Boot's list of bad keys (dbx)",
    "driver": "a UEFI driver",
    "firmware": "the firmware",
    "firmware_version": "the firmware's version",
    "initrd": "the initrd or its command line",
    "kek": "Secure Boot's KEK",
    "kernel": "the kernel or its command line",
    "lcp_authorities": "the launch control policy's authorities",
    "lcp_control": "the launch control policy's control word",
    "lcp_details": "the launch control policy",
    "mle": "tboot or its command line (MLE)",
    "microcode": "the CPU's microcode",
    "module": "a module that tboot loaded",
    "nv_info": "the TPM's NV indices of TXT",
    "os_sinit_capabilities": "the capabilities that tboot gave to SINIT",
    "partition_table": "the partition table",
    "pk": "Secure Boot's platform key",
    "platform_configuration": "the platform's configuration",
    "secure_boot": "the state of Secure Boot",
    "separator": "a separator",
    "sinit": "the SINIT ACM",
    "sinit_key": "the key that signed the SINIT ACM",
    "startup_locality": "the locality from which the TPM was started",
    "stm": "the SMI transfer monitor (STM)",
    "tables": "the tables that firmware hands over",
    "tboot_policy": "tboot's policy (VLP)",
    "variable": "a UEFI variable",
}
WORDS = frozenset(_TEXTS)


class Step(NamedTuple):
    """One measured step of a boot.

    Attributes:
        component: what the log says was measured.
        digest: what extended the PCR, lower-case hex.
    """

    pcr: int
    component: str
    digest: str


def steps(events: Sequence[eventlog.Event], bank: str, pcrs: Iterable[int]) -> tuple[Step, ...]:
    """Return the steps that extended these PCRs of `bank`, in the log's order.

    (pcr, component) is unique: what is measured again is called `boot_loader_2`, `boot_loader_3`
    and so on. A startup locality is the first step of PCR 0, its "digest" the value from which it
    starts: whoever started the TPM from another one could extend the same digests.
    """
    covered = frozenset(pcrs)
    names = _Names(events)
    named = []
    locality = eventlog.startup_locality(events)
    if locality and 0 in covered:
        start = locality.to_bytes(tpm2.DIGEST_SIZES[bank], "big")
        named.append(Step(0, "startup_locality", start.hex()))
    for event in events:
        digest = event.digests.get(bank)
        if event.pcr in covered and event.type not in eventlog.NOT_EXTENDED and digest is not None:
            named.append(Step(event.pcr, names.next_of(event), digest.hex()))
    return tuple(named)


class _Names:
    """Gives each event that extends a PCR the name of its component."""

    def __init__(self, events: Iterable[eventlog.Event]) -> None:
        self._modules = _modules(events)
        self._modules_seen: collections.Counter[int] = collections.Counter()
        self._seen: dict[tuple[int, str], int] = {}

    def next_of(self, event: eventlog.Event) -> str:
        word = self._module(event.pcr) if event.type == eventlog.TBOOT_MODULE else _word(event)
        key = (event.pcr, word)
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        return word if count == 1 else f"{word}_{count}"

    def _module(self, pcr: int) -> str:
        """Return the word of the next module that tboot measured into a PCR."""
        known = self._modules.get(pcr, ())
        position = self._modules_seen[pcr]
        self._modules_seen[pcr] += 1
        return known[position] if position < len(known) else "module"


def word_of(component: str) -> str:
    """Return the word of a component without its number; "event" if it is none that is known."""
    word, _, number = component.rpartition("_")
    if component in WORDS:
        return component
    return word if word in WORDS and number.isdecimal() else "event"


def text(component: str) -> str:
    """Return what a person calls a component."""
    return _TEXTS.get(word_of(component), f"the event {component}")


def switched(step: Step) -> str:
    """Return " (off)" or " (on)" for the state of Secure Boot, else an empty text.

    The variable has but two values, so the digest proves it; what the log says in words is proven
    by nothing.
    """
    return _switches().get(step.digest, "") if word_of(step.component) == "secure_boot" else ""


@functools.lru_cache(1)
def _switches() -> Mapping[str, str]:
    """Return the texts by the digests of the variable SecureBoot.

    Source: UEFI 2.10, 3.3; Firmware Profile 10.4.2.
    """
    owner = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le  # EFI_GLOBAL_VARIABLE
    head = owner + struct.pack("<QQ", len("SecureBoot"), 1) + "SecureBoot".encode("utf-16-le")
    texts = {}
    for bank in tpm2.HASH_IDS:
        texts[hashlib.new(bank, head + b"\0").hexdigest()] = " (off)"
        texts[hashlib.new(bank, head + b"\1").hexdigest()] = " (on)"
    return texts


def _modules(events: Iterable[eventlog.Event]) -> Mapping[int, Sequence[str]]:
    legacy = any(event.type == eventlog.MLE_HASH and event.pcr == 18 for event in events)
    return _MODULES_LEGACY if legacy else _MODULES_DETAILS


def _word(event: eventlog.Event) -> str:
    if event.type == _VARIABLE:
        return _VARIABLES.get(_variable_name(event.data), "variable")
    return _BY_TYPE.get(event.type, f"type_{event.type:x}")


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
