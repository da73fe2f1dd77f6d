# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events get stable, bounded names, whatever their bytes are."""

from __future__ import annotations

import hashlib
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.messages import components, eventlog
from ovirt_tcp_plugin.messages.eventlog import Event


def event(pcr: int, kind: int, data: bytes = b"", digest: bytes = b"d" * 32) -> Event:
    return Event(pcr, kind, {"sha256": digest}, data)


def names(*events: Event) -> list[tuple[int, str]]:
    return [(step.pcr, step.component) for step in components.steps(events, "sha256", range(24))]


def variable(name: str, value: bytes = b"\1") -> bytes:
    encoded = name.encode("utf-16-le")
    return b"g" * 16 + struct.pack("<QQ", len(name), len(value)) + encoded + value


def test_tbootss_modules_are_named_by_their_order_in_the_details_mapping() -> None:
    told = names(
        event(17, 0x404),
        event(17, 0x501),
        event(17, 0x501),
        event(17, 0x501),
        event(17, 0x501),
        event(18, 0x501),
    )
    assert [name for _, name in told] == [
        "mle",
        "tboot_policy",
        "kernel",
        "initrd",
        "module",
        "tboot_policy",
    ]


def test_tboots_modules_are_named_by_their_pcr_in_the_legacy_mapping() -> None:
    told = names(
        event(17, 0x501), event(18, 0x404), event(18, 0x501), event(19, 0x501), event(19, 0x501)
    )
    assert told == [
        (17, "tboot_policy"),
        (18, "mle"),
        (18, "kernel"),
        (19, "initrd"),
        (19, "module"),
    ]


def test_what_is_measured_again_gets_a_number() -> None:
    told = names(event(4, 0x80000003), event(4, 0x80000003), event(5, 0x80000003))
    assert told == [(4, "boot_loader"), (4, "boot_loader_2"), (5, "boot_loader")]


@pytest.mark.parametrize(
    ("name", "component"),
    [("SecureBoot", "secure_boot"), ("dbx", "dbx"), ("Other", "variable"), ("", "variable")],
)
def test_secure_boots_variables_are_known(name: str, component: str) -> None:
    assert names(event(7, 0x80000001, variable(name))) == [(7, component)]


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("db", "boot_authority"),
        ("MokListRT", "boot_authority"),
        ("SbatLevel", "sbat_level"),
        ("MokListTrusted", "mok_list_trusted"),
    ],
)
def test_only_a_key_vouches_for_a_boot_loader(name: str, component: str) -> None:
    assert names(event(7, 0x800000E0, variable(name))) == [(7, component)]


def image(path: bytes) -> bytes:
    return struct.pack("<QQQQ", 0x1000, 0x2000, 0, len(path)) + path


def test_an_image_without_a_path_after_a_boot_loader_is_a_kernel() -> None:
    shim, grub, kernel = event(4, 0x80000003, image(b"path")), image(b"path"), image(b"")
    told = names(shim, event(4, 0x80000003, grub), *2 * [event(4, 0x80000003, kernel)])

    assert [name for _, name in told] == ["boot_loader", "boot_loader_2", "kernel", "kernel_2"]


def test_the_first_image_is_a_boot_loader_with_or_without_a_path() -> None:
    assert names(event(4, 0x80000003, image(b""))) == [(4, "boot_loader")]


@pytest.mark.parametrize(
    ("pcr", "data", "component"),
    [
        (14, b"MokList\0", "mok_list"),
        (14, b"MokListX\0", "mok_list_x"),
        (14, b"MokListTrusted\0", "mok_list_trusted"),
        (8, b"grub_cmd: linux /vmlinuz\0", "boot_command"),
        (8, b"kernel_cmdline: /vmlinuz ro\0", "kernel_command_line"),
        (9, b"/boot/grub/grub.cfg\0", "boot_file"),
        (8, b"MokLis", "boot_step"),
        (12, b"r\0o\0", "boot_step"),
    ],
)
def test_a_step_of_a_boot_loader_is_named_by_what_it_writes(
    pcr: int, data: bytes, component: str
) -> None:
    assert names(event(pcr, 0x0D, data)) == [(pcr, component)]


@pytest.mark.parametrize(
    ("data", "component"),
    [
        (struct.pack("<II", 0x8F3B22EC, 12) + b"Linux initrd", "initrd"),
        (struct.pack("<II", 0x8F3B22ED, 0), "kernel_command_line"),
        (struct.pack("<II", 1, 0), "tagged_event"),
        (b"short", "tagged_event"),
    ],
)
def test_a_tagged_event_is_named_by_its_number(data: bytes, component: str) -> None:
    assert names(event(9, 6, data)) == [(9, component)]


@pytest.mark.parametrize(
    "kind",
    [*range(3), *range(4, 0x14)]
    + [*range(0x402, 0x405), *range(0x40A, 0x41B), 0x4FE, 0x4FF, 0x501]
    + [*range(0x80000001, 0x8000000E), 0x80000010, *range(0x800000E0, 0x800000E5)],
)
def test_every_type_of_the_specifications_has_a_name(kind: int) -> None:
    ((_, name),) = names(event(5, kind))

    assert components.word_of(name) != "event"
    assert "the event" not in components.text(name)


@pytest.mark.parametrize(
    ("content", "state"),
    [(b"\0", "off"), (b"\1", "on"), (b"", "off: the firmware has no such variable")],
)
def test_the_digest_tells_whether_secure_boot_is_on(content: bytes, state: str) -> None:
    owner = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    head = owner + struct.pack("<QQ", 10, len(content)) + "SecureBoot".encode("utf-16-le")
    digest = hashlib.sha256(head + content).hexdigest()

    assert components.switched(components.Step(7, "secure_boot", digest)) == f" ({state})"


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 31, b"g" * 16 + b"\xff" * 16, b"g" * 16 + struct.pack("<QQ", 1, 0) + b"\0\xd8"],
)
def test_a_broken_variable_is_only_a_variable(data: bytes) -> None:
    assert names(event(7, 0x80000001, data)) == [(7, "variable")]


def test_what_extends_nothing_is_no_step() -> None:
    other_bank = Event(17, 0x404, {"sha1": b"d" * 20}, b"")
    assert names(event(0, eventlog.NO_ACTION), other_bank) == []
    assert components.steps([event(17, 0x404)], "sha256", (18,)) == ()


def test_words_are_told_from_numbers() -> None:
    assert components.word_of("boot_loader_2") == "boot_loader"
    assert components.word_of("type_4ff") == "event"
    assert components.word_of("kernel") == "kernel"
    assert components.text("kernel_2") == "the kernel or its command line"
    assert components.text("type_4ff") == "the event type_4ff"


kinds = st.integers(0, 2**32 - 1) | st.sampled_from([0x404, 0x501, 0x80000001, 0x80000003, 3])
events = st.lists(st.builds(event, st.integers(0, 23), kinds, st.binary(max_size=80)), max_size=20)


@given(events)
def test_any_log_gives_bounded_unique_names(told: list[Event]) -> None:
    found = names(*told)
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[a-z0-9_]{1,64}", name) and components.text(name) for _, name in found)
