# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Events get stable, bounded names, whatever their bytes are."""

from __future__ import annotations

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
