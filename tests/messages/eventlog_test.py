# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Event logs: what firmware writes is read and replayed, everything else is malformed."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import eventlog, tpm2
from ovirt_tcp_plugin.messages.eventlog import Event
from tests.messages import hostile

BANKS = ("sha1", "sha256")


def event(pcr: int = 17, kind: int = 0x402, data: bytes = b"data", banks: tuple[str, ...] = BANKS) -> Event:
    return Event(pcr, kind, {bank: hashlib.new(bank, data).digest() for bank in banks}, data)


GOOD = eventlog.encode([event(), event(18, 0x404, b""), event(0, 8, b"firmware")], BANKS)
HEADER = eventlog.encode([], ["sha256"])


def with_header(kind: int = 3, signature: bytes = b"Spec ID Event03\0", algorithms: bytes = b"", count: int = 1) -> bytes:
    algorithms = algorithms or struct.pack("<HH", 0x000B, 32)
    body = signature + bytes(8) + struct.pack("<I", count) + algorithms + b"\0"
    return struct.pack("<II20sI", 0, kind, b"", len(body)) + body


def raw_event(pcr: int = 17, count: int = 1, digests: bytes = struct.pack("<H", 0x000B) + bytes(32), size: int = 0) -> bytes:
    return struct.pack("<III", pcr, 0x402, count) + digests + struct.pack("<I", size)


def extend(bank: str, value: bytes, *data: bytes) -> bytes:
    for one in data:
        value = hashlib.new(bank, value + hashlib.new(bank, one).digest()).digest()
    return value


events = st.lists(
    st.builds(
        event,
        st.integers(0, 23),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=64),
        st.sampled_from([(), ("sha256",), BANKS]),
    ),
    max_size=20,
)


@given(events)
def test_a_log_comes_back(told: list[Event]) -> None:
    assert list(eventlog.parse(eventlog.encode(told, BANKS))) == told


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(b"", "ends at byte 0", id="empty"),
        pytest.param(with_header(kind=8), "no Spec ID header", id="other first event"),
        pytest.param(with_header(signature=b"Spec ID Event02\0"), "not a crypto-agile log", id="TCG 1.2"),
        pytest.param(with_header(count=0), "0 digest algorithms", id="no algorithm"),
        pytest.param(with_header(count=9), "9 digest algorithms", id="many algorithms"),
        pytest.param(with_header(algorithms=struct.pack("<HH", 0x12, 32)), "unknown size", id="unknown algorithm"),
        pytest.param(with_header(algorithms=struct.pack("<HH", 0xB, 20)), "unknown size", id="wrong size"),
        pytest.param(with_header() + raw_event(pcr=24), "an event for PCR 24", id="PCR 24"),
        pytest.param(with_header() + raw_event(pcr=2**32 - 1), "an event for PCR 4294967295", id="PCR -1"),
        pytest.param(with_header() + raw_event(count=9), "an event with 9 digests", id="many digests"),
        pytest.param(with_header() + raw_event(digests=struct.pack("<H", 4) + bytes(20)), "does not name", id="other bank"),
        pytest.param(
            with_header() + raw_event(count=2, digests=(struct.pack("<H", 0xB) + bytes(32)) * 2), "twice", id="twice"
        ),
        pytest.param(with_header() + raw_event(size=2**32 - 1), "an event of 4294967295 bytes", id="endless event"),
        pytest.param(with_header() + raw_event(size=1), "were announced", id="event past the end"),
        pytest.param(GOOD + b"\0", "ends at byte", id="one byte of padding"),
        pytest.param(GOOD + b"\xff" * 512, "an event for PCR", id="padding of ones"),
        pytest.param(with_header() + raw_event(count=0, digests=b"") * 4097, "more than 4096 events", id="many events"),
    ],
)
def test_refuses_what_is_no_log(untrusted: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=f"malformed event log.*{reason}"):
        eventlog.parse(untrusted)


@given(st.binary(max_size=3000) | hostile.mutations(GOOD) | st.binary(max_size=500).map(lambda tail: HEADER + tail))
def test_any_bytes_are_read_or_malformed(untrusted: bytes) -> None:
    hostile.survives(eventlog.parse, untrusted)


def test_every_prefix_is_malformed_or_ends_after_an_event() -> None:
    whole = len(eventlog.parse(GOOD))
    for size in range(len(GOOD)):
        try:
            assert len(eventlog.parse(GOOD[:size])) < whole
        except errors.InvalidMessage:
            continue


def test_a_large_log_is_replayed_in_time() -> None:
    told = eventlog.parse(with_header() + raw_event() * 4096)

    hostile.in_bounds(lambda _: eventlog.replay(told, "sha256", range(24)), b"")


def test_a_launch_starts_the_d_rtm_pcrs_at_zero() -> None:
    told = [event(17, eventlog.HASH_START, b"start"), event(18, 0x410, b"key")]

    values = eventlog.replay(told, "sha256", [17, 18, 22, 4])

    zero = bytes(32)
    assert values == {17: extend("sha256", zero, b"start"), 18: extend("sha256", zero, b"key"), 22: zero, 4: zero}


@pytest.mark.parametrize("pcr", [0, 16, 23])
def test_a_launch_is_not_told_by_another_pcr(pcr: int) -> None:
    told = [event(pcr, eventlog.HASH_START, b"start"), event(17, 0x404, b"mle")]

    assert not eventlog.launched(told)
    assert eventlog.replay(told, "sha1", [17]) == {17: extend("sha1", b"\xff" * 20, b"mle")}


def test_passes_over_events_without_the_bank() -> None:
    told = [event(17, eventlog.HASH_START), event(17, eventlog.TBOOT_MODULE, b"module", ("sha256",))]

    assert eventlog.replay(told, "sha1", [17]) == {17: extend("sha1", bytes(20), b"data")}
    assert eventlog.replay(told, "sha256", [17]) == {17: extend("sha256", bytes(32), b"data", b"module")}


def test_does_not_extend_what_is_no_action() -> None:
    assert eventlog.replay([event(4, eventlog.NO_ACTION)], "sha256", [4]) == {4: bytes(32)}


@pytest.mark.parametrize(
    ("data", "first"),
    [(b"StartupLocality\0\3", 3), (b"StartupLocality\0\5", 0), (b"StartupLocality\0", 0), (b"StartupLocality\0\3\0", 0)],
)
def test_pcr_0_starts_at_the_startup_locality(data: bytes, first: int) -> None:
    told = [event(0, eventlog.NO_ACTION, data), event(0, 8, b"version")]

    assert eventlog.replay(told, "sha256", [0]) == {0: extend("sha256", bytes(31) + bytes([first]), b"version")}


def test_names_types_as_people_know_them() -> None:
    assert eventlog.name_type(0x404) == "MLE_HASH (tboot)"
    assert eventlog.name_type(0x4FF) == "event type 0x4ff"


def test_does_not_write_what_it_would_not_read() -> None:
    with pytest.raises(errors.InvalidMessage, match="longer than"):
        eventlog.encode([event(data=bytes(eventlog.MAX_EVENT_SIZE + 1))], BANKS)


def test_digest_sizes_are_those_of_the_hashes() -> None:
    assert tpm2.DIGEST_SIZES == {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
