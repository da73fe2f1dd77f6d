# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8) for PCR 8: only what its digest proves is read, and only one kernel is started."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from ovirt_tcp_plugin.lab.machine import Machine
from ovirt_tcp_plugin.messages import boot_texts
from ovirt_tcp_plugin.messages.reference_values import Value
from tests.verifier.appraisal.grub_boots import (
    GOOD,
    SET,
    START,
    codes,
    command,
    judge,
    started,
    string,
)
from tests.verifier.appraisal.uefi_boots import BANK, COMMAND_LINE, boot, images

OTHER_HOST = Machine(disk=uuid.UUID("aaaaaaaa-1111-2222-3333-444444444444"))
OTHER_LINE = COMMAND_LINE.replace("0f0f0f0f", "aaaaaaaa")


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (f"{COMMAND_LINE} init=/bin/sh", "+init=/bin/sh"),
        (COMMAND_LINE.replace(" quiet", ""), "-quiet"),
        (COMMAND_LINE.replace("ro quiet", "quiet ro"), "its words are in another order"),
        (COMMAND_LINE.replace("root=UUID=", "root=LABEL="), "+root=LABEL="),
        ("root=UUID=$(evil) ro quiet", "+root=UUID=$(evil)"),
        (f"{COMMAND_LINE} initrd=evil", "+initrd=evil"),
        ("", "-ro"),
    ],
)
def test_another_command_line_is_told_by_its_words(line: str, change: str) -> None:
    (finding,) = judge([*START, *started(line=line)])

    assert finding.code == "command_line_differs"
    assert finding.text.startswith("PCR 8, event 29: the kernel's command line is none of golden: ")
    assert change in finding.text
    assert finding.expected == "root=UUID=* ro quiet"


@pytest.mark.parametrize(
    "evil",
    [
        "chainloader /efi/evil.efi",
        "linux16 /boot/evil",
        "multiboot2 /boot/evil",
        "xen_hypervisor /boot/evil",
        "acpi /boot/evil.aml",
        "loopback loop /boot/evil.iso",
        "write_byte 0x1000 1",
        "",
        "Linux /boot/vmlinuz",
        "linux",
        "/boot/vmlinuz root=UUID=0f0f0f0f-1111-2222-3333-444444444444 ro quiet",
    ],
)
def test_what_may_start_something_else_is_no_command_before_the_kernel(evil: str) -> None:
    assert "boot_command_unknown" in codes([*START, command(evil), *started()])


@pytest.mark.parametrize(
    "late",
    [
        command("linux /boot/vmlinuz init=/bin/sh"),
        command("linuxefi /boot/evil"),
        command("set root=hd1"),
        command("source /boot/evil.cfg"),
        command("[ -s /boot/evil ]"),
        command("initrd newc:init:/boot/initrd"),
        command("initrd  /boot/initrd"),
        string("kernel_cmdline", "/boot/vmlinuz root=UUID=1 ro quiet"),
        string("grub_cmd", "/boot/vmlinuz init=/bin/sh"),
        string("module_cmdline", "/boot/evil"),
    ],
)
def test_after_the_kernel_only_its_initrd_is_named(late: object) -> None:
    position = len([*START, *started()]) - 1
    events = [*START, *started()]
    events.insert(position, late)  # type: ignore[arg-type]

    found = codes(events)
    assert found
    assert set(found) <= {"boot_command_unknown", "initrd_differs"}


def test_a_text_counts_only_if_it_hashes_to_its_digest() -> None:
    events = [*START, *started(line=f"{COMMAND_LINE} init=/bin/sh")]
    good = [*START, *started()]
    forged = []
    for event, shown in zip(events, good):
        forged.append(event._replace(data=shown.data))

    (finding, *_) = judge(forged, events)

    assert finding.code == "boot_command_unknown"
    assert "the log has no text for this digest" in finding.text


def test_a_label_proves_nothing() -> None:
    """The command line is found by its place and its path, whatever the log calls it."""
    events = [*START, *started(line=f"{COMMAND_LINE} init=/bin/sh")]
    relabelled = []
    for event in events:
        data = event.data.replace(b"kernel_cmdline: ", b"grub_cmd: ")
        relabelled.append(event._replace(data=data))

    assert codes(relabelled) == ["command_line_differs"]


def test_a_boot_without_a_kernel_is_unknown() -> None:
    assert "boot_command_unknown" in codes(START)


def test_a_kernel_without_a_measured_command_line_is_unknown() -> None:
    events = [event for event in GOOD if not event.data.startswith(b"kernel_cmdline")]

    assert "boot_command_unknown" in codes(events)


def test_a_text_beyond_the_bound_is_not_proven() -> None:
    longest = "x" * (boot_texts.MAX_TEXT - len("echo "))

    assert codes([*START, command(f"echo {longest}"), *started()]) == []
    assert "boot_command_unknown" in codes([*START, command(f"echo {longest}x"), *started()])


def test_texts_beyond_the_bound_of_all_are_not_proven() -> None:
    longest = "x" * (boot_texts.MAX_TEXT - len("echo "))
    many = [command(f"echo {longest}")] * (boot_texts.MAX_TEXTS // boot_texts.MAX_TEXT)

    assert "boot_command_unknown" in codes([*START, *many, *started()])


def test_a_grub_that_measures_no_commands_is_told_so() -> None:
    silent = [event for event in GOOD if event.pcr != 8]

    (finding, *_) = judge(silent)

    assert finding.code == "event_missing"
    assert "DISABLE_PCR8" in finding.text


def test_a_command_line_may_be_of_one_host_only() -> None:
    (kept,) = [value for value in SET.values if value.component == "kernel_command_line"]
    others = [value for value in SET.values if value != kept]
    of_host = dataclasses.replace(kept, host_name="host-1")
    reference_set = dataclasses.replace(SET, values=(*others, of_host))

    assert judge(GOOD, reference_set=reference_set) == []
    (finding,) = judge(GOOD, host="host-2", reference_set=reference_set)
    assert finding.code == "command_line_differs"


def test_a_command_line_may_be_added_by_its_digest_alone() -> None:
    line = f"{COMMAND_LINE} mitigations=auto"
    changed = string("kernel_cmdline", f"/boot/vmlinuz {line}")
    added = Value(BANK, 8, "kernel_command_line", changed.digests[BANK].hex())

    assert codes([*START, *started(line=line)]) == ["command_line_differs"]
    assert judge([*START, *started(line=line)], reference_set=SET.with_values([added])) == []


def test_another_host_of_the_image_is_good() -> None:
    assert codes(boot(OTHER_HOST, images(command_line=OTHER_LINE))) == []


@pytest.mark.parametrize(
    "harmless",
    ["save_env boot_success", "boot_once=", "blscfg", "submenu Older {", "echo a  b", "load_video"],
)
def test_what_varies_from_boot_to_boot_is_good(harmless: str) -> None:
    assert codes([*START, command(harmless), *started()]) == []
