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
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ovirt_tcp_plugin.messages import event_words, eventlog, secure_boot, tpm2
from ovirt_tcp_plugin.messages.boot_texts import ProvenTexts

# Moves on with each release that calls a part by another word: what earlier releases stored is
# compared by the places of the steps, because a new word for it is no other boot.
VOCABULARY = 2
FIRST_VOCABULARY = 1

# Not an event: the value that PCR 0 starts from. Its word never changes.
START = "startup_locality"

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
    "boot_command": "a command of the boot loader",
    "boot_devices_omitted": "that boot devices are not measured",
    "boot_file": "a file that the boot loader read",
    "boot_guard_policy": "the policy of Boot Guard and TXT",
    "boot_loader": "the boot loader",
    "boot_policy_manifest": "the boot policy manifest of Boot Guard",
    "boot_policy_manifest_info": "the state of Boot Guard's boot policy manifest",
    "boot_step": "a step of the boot loader",
    "boot_variable": "a boot variable",
    "cold_boot_bios": "the firmware's code of the last cold boot",
    "cpu_scrtm": "the CPU's S-CRTM status",
    "db": "Secure Boot's list of good keys (db)",
    "dbr": "Secure Boot's list of recovery keys (dbr)",
    "dbt": "Secure Boot's list of time stamp keys (dbt)",
    "dbx": "Secure Boot's list of bad keys (dbx)",
    "device_authority": "the key that vouched for a device's firmware (SPDM)",
    "device_configuration": "a device's configuration (SPDM)",
    "device_firmware": "a device's firmware (SPDM)",
    "device_policy": "the list of keys for devices (SPDM)",
    "device_table": "the table of devices",
    "driver": "a UEFI driver",
    "firmware": "the firmware",
    "firmware_version": "the firmware's version",
    "hardware_root": "what the hardware measured first (H-CRTM)",
    "initrd": "the initrd or its command line",
    "kek": "Secure Boot's KEK",
    "kernel": "the kernel or its command line",
    "kernel_command_line": "the kernel's command line",
    "key_manifest": "the key manifest of Boot Guard",
    "key_manifest_info": "the state of Boot Guard's key manifest",
    "lcp": "the launch control policy",
    "lcp_authorities": "the launch control policy's authorities",
    "lcp_control": "the launch control policy's control word",
    "lcp_details": "the launch control policy",
    "lcp_elements": "the launch control policy's elements",
    "microcode": "the CPU's microcode",
    "mle": "tboot or its command line (MLE)",
    "module": "a module that tboot loaded",
    "module_command_line": "the command line of a module",
    "mok_list": "the machine owner's keys (MokList)",
    "mok_list_trusted": "whether the kernel trusts the machine owner's keys (MokListTrusted)",
    "mok_list_x": "the machine owner's revoked keys (MokListX)",
    "nonhost_code": "code of a controller beside the host",
    "nonhost_configuration": "configuration of a controller beside the host",
    "nonhost_information": "information of a controller beside the host",
    "nv_info": "the TPM's NV indices of TXT",
    "os_sinit_capabilities": "the capabilities that tboot gave to SINIT",
    "partition_table": "the partition table",
    "pk": "Secure Boot's platform key",
    "platform_configuration": "the platform's configuration",
    "preboot_certificate": "a certificate of the firmware",
    "sbat_level": "the revocations of boot loaders (SbatLevel)",
    "secure_boot": "the state of Secure Boot",
    "secure_boot_mode": "the mode of Secure Boot",
    "separator": "a separator",
    "sinit": "the SINIT ACM",
    "sinit_key": "the key that signed the SINIT ACM",
    "startup_locality": "the locality from which the TPM was started",
    "stm": "the SMI transfer monitor (STM)",
    "tables": "the tables that firmware hands over",
    "tagged_event": "what the operating system measured (tagged event)",
    "tboot_policy": "tboot's policy (VLP)",
    "txt_cap": "that the launch closed a PCR",
    "txt_combined": "the launch's parts in one (TPM 1.2)",
    "txt_random": "a random value of the launch",
    "unused": "an event of a type that is not used",
    "variable": "a UEFI variable",
    "vendor_data": "data of the maker",
}
WORDS = frozenset(_TEXTS)


class Step(NamedTuple):
    """One measured step of a boot.

    Attributes:
        component: what the log says was measured.
        digest: what extended the PCR, lower-case hex.
        text: what a boot loader executed, as the digest proves it; otherwise empty.
    """

    pcr: int
    component: str
    digest: str
    text: str = ""


def steps(events: Sequence[eventlog.Event], bank: str, pcrs: Iterable[int]) -> tuple[Step, ...]:
    """Return the steps that extended these PCRs of `bank`, in the log's order.

    (pcr, component) is unique: what is measured again is called `boot_loader_2`, `boot_loader_3`
    and so on. A startup locality is the first step of PCR 0, its "digest" the value from which it
    starts: whoever started the TPM from another one could extend the same digests.
    """
    covered = frozenset(pcrs)
    names = _Names(events)
    texts = ProvenTexts(bank)
    named = []
    locality = eventlog.startup_locality(events)
    if locality and 0 in covered:
        start = locality.to_bytes(tpm2.DIGEST_SIZES[bank], "big")
        named.append(Step(0, START, start.hex()))
    for event in events:
        digest = event.digests.get(bank)
        if event.pcr in covered and event.type not in eventlog.NOT_EXTENDED and digest is not None:
            component = names.next_of(event)
            text = texts.next_of(event)
            named.append(Step(event.pcr, component, digest.hex(), text))
    return tuple(named)


class _Names:
    """Gives each event that extends a PCR the name of its component."""

    def __init__(self, events: Iterable[eventlog.Event]) -> None:
        self._modules = _modules(events)
        self._images = 0
        self._modules_seen: collections.Counter[int] = collections.Counter()
        self._seen: dict[tuple[int, str], int] = {}

    def next_of(self, event: eventlog.Event) -> str:
        word = self._word(event)
        key = (event.pcr, word)
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        return word if count == 1 else f"{word}_{count}"

    def _word(self, event: eventlog.Event) -> str:
        if event.type == eventlog.TBOOT_MODULE:
            return self._module(event.pcr)
        if event.type == event_words.APPLICATION:
            return self._image(event)
        return event_words.word_of(event)

    def _image(self, event: eventlog.Event) -> str:
        """Return the word of an image that firmware or shim measured.

        The first one is a boot loader, however it came into memory.
        """
        is_kernel = self._images > 0 and event_words.is_without_path(event)
        self._images += 1
        return "kernel" if is_kernel else "boot_loader"

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

    The variable has but two values, or none, so the digest proves it; what the log says in words is
    proven by nothing.
    """
    if word_of(step.component) != "secure_boot":
        return ""
    state = secure_boot.state_of(step.digest)
    return "" if state is None else state.value


def _modules(events: Iterable[eventlog.Event]) -> Mapping[int, Sequence[str]]:
    legacy = any(event.type == eventlog.MLE_HASH and event.pcr == 18 for event in events)
    return _MODULES_LEGACY if legacy else _MODULES_DETAILS
