# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Event logs: what firmware writes is read and replayed, everything else is malformed."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2
from ovirt_tcp_plugin.messages.eventlog import Event
from tests.messages import hostile

BANKS = ("sha1", "sha256")


def event(
    pcr: int = 17, kind: int = 0x402, data: bytes = b"data", banks: tuple[str, ...] = BANKS
) -> Event:
    return Event(pcr, kind, {bank: hashlib.new(bank, data).digest() for bank in banks}, data)


GOOD = eventlog.encode([event(), event(18, 0x404, b""), event(0, 8, b"firmware")], BANKS)
OLD = eventlog.encode_sha1([event(), event(18, 0x404, b""), event(0, 8, b"firmware")])
HEADER = eventlog.encode([], ["sha256"])


def with_header(
    kind: int = 3, signature: bytes = b"Spec ID Event03\0", algorithms: bytes = b"", count: int = 1
) -> bytes:
    algorithms = algorithms or struct.pack("<HH", 0x000B, 32)
    body = signature + bytes(8) + struct.pack("<I", count) + algorithms + b"\0"
    return struct.pack("<II20sI", 0, kind, b"", len(body)) + body


def raw_event(
    pcr: int = 17,
    count: int = 1,
    digests: bytes = struct.pack("<H", 0x000B) + bytes(32),
    size: int = 0,
    kind: int = 0x402,
) -> bytes:
    return struct.pack("<III", pcr, kind, count) + digests + struct.pack("<I", size)


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
        st.sampled_from([("sha256",), BANKS]),
    ),
    max_size=20,
)


fillers = st.sampled_from(
    [b"", *(filler * size for filler in (b"\0", b"\xff") for size in (1, 12, 16, 32, 500))]
)


@given(events, fillers)
def test_a_log_comes_back(told: list[Event], filler: bytes) -> None:
    log = eventlog.encode(told, BANKS)

    assert list(eventlog.parse(log)) == told
    assert list(eventlog.parse(log + filler, padded=True)) == told


@given(
    st.lists(
        st.builds(event, st.integers(0, 23), st.integers(0, 2**32 - 1), st.binary(max_size=64)),
        min_size=1,
    ),
    fillers,
)
def test_a_log_of_the_older_format_comes_back(told: list[Event], filler: bytes) -> None:
    assume(not told[0].data.startswith(b"Spec ID "))
    log = eventlog.encode_sha1(told)

    found = eventlog.parse(log)

    assert list(found) == [one._replace(digests={"sha1": one.digests["sha1"]}) for one in told]
    assert eventlog.parse(log + filler, padded=True) == found


@pytest.mark.parametrize("log", [GOOD, OLD])
@pytest.mark.parametrize("padding", [b"\0", b"\xff"])
@pytest.mark.parametrize("size", [1, 11, 12, 31, 32, 512, 2**20])
def test_padding_behind_the_last_event_is_passed_over(
    log: bytes, padding: bytes, size: int
) -> None:
    assert eventlog.parse(log + padding * size, padded=True) == eventlog.parse(log)
    with pytest.raises(errors.InvalidMessage, match="malformed event log"):
        eventlog.parse(log + padding * size)


@pytest.mark.parametrize("log", [GOOD, OLD])
@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 40 + b"\1",
        b"\xff" * 40 + b"\0",
        b"\0\xff",
        b"rubbish",
        *(b"\0" * n + b"\xff" * n for n in (16, 32, 64)),
    ],
)
def test_other_bytes_behind_the_last_event_are_no_padding(log: bytes, tail: bytes) -> None:
    with pytest.raises(errors.InvalidMessage, match="malformed event log"):
        eventlog.parse(log + tail, padded=True)


def test_an_event_that_ends_in_zeros_is_whole() -> None:
    told = [event(4, 4, bytes(4))]

    assert list(eventlog.parse(eventlog.encode(told, BANKS) + bytes(100), padded=True)) == told


def test_a_spec_id_of_the_older_format_is_an_event_like_others() -> None:
    spec_id = event(0, eventlog.NO_ACTION, b"Spec ID Event02\0" + bytes(12))

    (first, second) = eventlog.parse(eventlog.encode_sha1([spec_id, event(4, 4, bytes(4))]))

    assert (first.data, second.pcr) == (spec_id.data, 4)
    assert eventlog.replay([first, second], "sha1", [0, 4]) == {
        0: bytes(20),
        4: extend("sha1", bytes(20), bytes(4)),
    }


def test_the_older_format_tells_nothing_of_other_banks() -> None:
    assert eventlog.replay(eventlog.parse(OLD), "sha256", [0, 17]) == {0: bytes(32), 17: bytes(32)}


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(b"", "ends at byte 0", id="empty"),
        pytest.param(bytes(512), "zeros in the place of an event", id="nothing but zeros"),
        pytest.param(b"\xff" * 512, "4294967327 were announced", id="nothing but ones"),
        pytest.param(
            with_header(kind=8), "a Spec ID header of unknown form", id="Spec ID in another event"
        ),
        pytest.param(
            with_header(8, b"Spec ID Event02\0"),
            "of unknown form",
            id="older Spec ID in another event",
        ),
        pytest.param(
            with_header(3, b"Spec ID Event04\0"), "of unknown form", id="Spec ID of a later format"
        ),
        pytest.param(with_header() + bytes(16), "zeros in the place", id="zeros behind an event"),
        pytest.param(OLD[:-1], "were announced", id="older format cut in an event"),
        pytest.param(OLD + OLD[:31], "within an event", id="older format cut in a head"),
        pytest.param(
            struct.pack("<II20sI", 2, 8, b"", 2**31),
            "2147483680 were announced",
            id="older format, endless",
        ),
        pytest.param(
            struct.pack("<II20sI", 2, 8, b"", 0) * 4097,
            "more than 4096",
            id="older format, many events",
        ),
        pytest.param(with_header(count=0), "0 digest algorithms", id="no algorithm"),
        pytest.param(with_header(count=17), "17 digest algorithms", id="many algorithms"),
        pytest.param(
            with_header(algorithms=struct.pack("<HHHH", 0x12, 32, 0x12, 33), count=2),
            "0x0012 twice",
            id="algorithm named twice",
        ),
        pytest.param(
            with_header() + raw_event(count=17), "an event with 17 digests", id="many digests"
        ),
        pytest.param(
            with_header() + raw_event(digests=struct.pack("<H", 0x12) + bytes(32)),
            "does not name",
            id="other bank",
        ),
        pytest.param(
            with_header() + raw_event(count=2, digests=(struct.pack("<H", 0xB) + bytes(32)) * 2),
            "twice",
            id="twice",
        ),
        pytest.param(
            with_header() + raw_event(size=2**32 - 1),
            "were announced",
            id="endless event",
        ),
        pytest.param(with_header() + raw_event(size=1), "were announced", id="event past the end"),
        pytest.param(with_header() + raw_event() * 4097, "more than 4096 events", id="many events"),
    ],
)
def test_refuses_what_is_no_log(untrusted: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=f"malformed event log.*{reason}"):
        eventlog.parse(untrusted)


ANY = st.binary(max_size=3000) | st.binary(max_size=500).map(lambda tail: HEADER + tail)


@dataclasses.dataclass(frozen=True)
class UnknownBank:
    """An algorithm that is not known here, with the digests of a log."""

    number: int
    size: int

    def digest(self, fill: int) -> bytes:
        return struct.pack("<H", self.number) + bytes([fill]) * self.size


UNKNOWN_NUMBERS = st.integers(0, 2**16 - 1).filter(lambda number: number not in tpm2.HASHES)


class TestWhatNobodyNeeds:
    """It is passed over and counted, whatever it is."""

    @given(
        UNKNOWN_NUMBERS,
        st.integers(0, 2**16 - 1),
        st.lists(st.integers(0, 5), min_size=3, max_size=3),
        st.binary(max_size=300),
    )
    def test_any_unknown_algorithm_in_any_place_changes_no_value(
        self, number: int, size: int, places: list[int], tail: bytes
    ) -> None:
        unknown = UnknownBank(number, size)
        algorithms = [struct.pack("<HH", 0x4, 20), struct.pack("<HH", 0xB, 32)]
        algorithms.insert(places[0] % 3, struct.pack("<HH", number, size))
        log = with_header(algorithms=b"".join(algorithms), count=3)
        expected = []
        for fill in range(3):
            event = eventlog.Event(
                fill, 8, {"sha1": bytes([fill]) * 20, "sha256": bytes([fill + 9]) * 32}, tail
            )
            digests = [
                struct.pack("<H", 0x4) + event.digests["sha1"],
                struct.pack("<H", 0xB) + event.digests["sha256"],
            ]
            digests.insert(places[fill] % 3, unknown.digest(fill))
            log += (
                raw_event(pcr=fill, kind=8, count=3, digests=b"".join(digests), size=len(tail))
                + tail
            )
            expected.append(event)

        read = eventlog.read(log, pcrs=(0, 1, 2))

        assert list(read.events) == expected
        assert read.passed_over.digests == {number: 3}
        for bank in ("sha1", "sha256"):
            good = eventlog.parse(eventlog.encode(expected, ["sha1", "sha256"]))
            assert eventlog.replay(read.events, bank, range(3)) == eventlog.replay(
                good, bank, range(3)
            )

    @given(st.integers(24, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_an_event_of_an_index_that_no_pcr_has_changes_no_value(
        self, index: int, kind: int
    ) -> None:
        odd = raw_event(pcr=index, kind=kind)
        log = with_header() + raw_event(pcr=0, kind=8) + odd + raw_event(pcr=0, kind=8)

        read = eventlog.read(log, pcrs=(0,))

        assert [event.pcr for event in read.events] == [0, 0]
        counted = {} if kind in eventlog.NOT_EXTENDED else {index: 1}
        assert read.passed_over.indices == counted

    def test_a_known_algorithm_of_another_size_is_an_unknown_one(self) -> None:
        algorithms = struct.pack("<HHHH", 0xB, 32, 0xD, 48)
        sha256 = struct.pack("<H", 0xB) + b"a" * 32
        event = raw_event(
            pcr=0, kind=8, count=2, digests=sha256 + struct.pack("<H", 0xD) + b"b" * 48
        )

        read = eventlog.read(with_header(algorithms=algorithms, count=2) + event)

        assert read.events[0].digests == {"sha256": b"a" * 32}
        assert read.passed_over.digests == {0xD: 1}

    def test_events_of_other_pcrs_are_counted_by_type(self) -> None:
        log = with_header() + raw_event(pcr=0, kind=8) + raw_event(pcr=5, kind=0x800000F7) * 2
        assert eventlog.read(log, pcrs=(0,)).passed_over.types == {0x800000F7: 2}


@pytest.mark.parametrize("size", [0, 78], ids=["more events than are read", "as many as are read"])
def test_the_longest_log_is_read_in_bounds(size: int) -> None:
    filler = raw_event(pcr=8, kind=0xD, size=size) + b"x" * size
    log = with_header() + raw_event(pcr=0, kind=8)
    log += filler * ((evidence.MAX_LOG_SIZE - len(log)) // len(filler))
    hostile.in_bounds(lambda untrusted: eventlog.read(untrusted, pcrs=(0,)), log)


@pytest.mark.parametrize("log", [bytes(512), b"\xff" * 512, b""], ids=["zeros", "ones", "nothing"])
def test_padding_alone_is_no_log(log: bytes) -> None:
    with pytest.raises(errors.InvalidMessage, match="malformed event log"):
        eventlog.parse(log, padded=True)


@given(ANY | hostile.mutations(GOOD) | hostile.mutations(OLD), st.booleans())
def test_any_bytes_are_read_or_malformed(untrusted: bytes, padded: bool) -> None:
    hostile.survives(lambda log: eventlog.parse(log, padded), untrusted)


@pytest.mark.parametrize("log", [GOOD, OLD])
def test_every_prefix_is_malformed_or_ends_after_an_event(log: bytes) -> None:
    whole = len(eventlog.parse(log))
    for size in range(len(log)):
        try:
            assert len(eventlog.parse(log[:size])) < whole
        except errors.InvalidMessage:
            continue


def test_a_large_log_is_replayed_in_time() -> None:
    told = eventlog.parse(with_header() + raw_event() * 4096)

    hostile.in_bounds(lambda _: eventlog.replay(told, "sha256", range(24)), b"")


def test_a_launch_starts_the_d_rtm_pcrs_at_zero() -> None:
    told = [event(17, eventlog.HASH_START, b"start"), event(18, 0x410, b"key")]

    values = eventlog.replay(told, "sha256", [17, 18, 22, 4])

    zero = bytes(32)
    assert values == {
        17: extend("sha256", zero, b"start"),
        18: extend("sha256", zero, b"key"),
        22: zero,
        4: zero,
    }


@pytest.mark.parametrize("pcr", [0, 16, 23])
def test_a_launch_is_not_told_by_another_pcr(pcr: int) -> None:
    told = [event(pcr, eventlog.HASH_START, b"start"), event(17, 0x404, b"mle")]

    assert not eventlog.launched(told)
    assert eventlog.replay(told, "sha1", [17]) == {17: extend("sha1", b"\xff" * 20, b"mle")}


def test_passes_over_events_without_the_bank() -> None:
    told = [
        event(17, eventlog.HASH_START),
        event(17, eventlog.TBOOT_MODULE, b"module", ("sha256",)),
    ]

    assert eventlog.replay(told, "sha1", [17]) == {17: extend("sha1", bytes(20), b"data")}
    assert eventlog.replay(told, "sha256", [17]) == {
        17: extend("sha256", bytes(32), b"data", b"module")
    }


def test_does_not_extend_what_is_no_action() -> None:
    assert eventlog.replay([event(4, eventlog.NO_ACTION)], "sha256", [4]) == {4: bytes(32)}


class TestWhatNoJudgedPcrNeeds:
    """It may be odd: a log is read for the PCRs and the bank that somebody judges."""

    @given(
        st.integers(0, 0xFFFF).filter(lambda number: number not in tpm2.HASHES),
        st.integers(1, 64),
        st.integers(0, 2),
        st.booleans(),
    )
    def test_any_unknown_algorithm_is_passed_over(
        self, number: int, size: int, place: int, in_events: bool
    ) -> None:
        sizes = {0x0004: 20, 0x000B: 32}
        order = [0x0004, 0x000B]
        order.insert(place, number)
        sizes[number] = size
        header = b"".join(struct.pack("<HH", one, sizes[one]) for one in order)
        told = [one for one in order if in_events or one != number]
        digests = b"".join(struct.pack("<H", one) + bytes([one & 255]) * sizes[one] for one in told)
        log = with_header(algorithms=header, count=3)
        log += raw_event(4, len(told), digests, 0) + raw_event(5, len(told), digests, 0)

        found = eventlog.parse(log)

        known = {"sha1": b"\4" * 20, "sha256": b"\x0b" * 32}
        assert found == (Event(4, 0x402, known, b""), Event(5, 0x402, known, b""))

    def test_a_digest_of_a_known_bank_that_the_header_does_not_name(self) -> None:
        sha1 = struct.pack("<H", 0x0004) + bytes(20)

        (found,) = eventlog.parse(with_header() + raw_event(digests=sha1))

        assert found.digests == {"sha1": bytes(20)}

    def test_digests_in_another_order_than_the_headers(self) -> None:
        algorithms = struct.pack("<HHHH", 0x000B, 32, 0x0004, 20)
        digests = struct.pack("<H20sH32s", 0x0004, b"\1" * 20, 0x000B, b"\2" * 32)

        (found,) = eventlog.parse(
            with_header(algorithms=algorithms, count=2) + raw_event(count=2, digests=digests)
        )

        assert found.digests == {"sha1": b"\1" * 20, "sha256": b"\2" * 32}

    def test_an_event_without_a_digest_extends_nothing(self) -> None:
        found = eventlog.parse(with_header() + raw_event(4, 0, b""))

        assert eventlog.replay(found, "sha256", [4]) == {4: bytes(32)}

    @given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(eventlog.NOT_EXTENDED)))
    def test_what_extends_no_pcr_may_name_any_index(self, index: int, kind: int) -> None:
        odd = event(index, kind, b"an NV index, or nothing")
        for log in (
            eventlog.encode([event(4), odd], BANKS),
            eventlog.encode_sha1([event(4), odd]),
        ):
            found = eventlog.parse(log)

            assert len(found) == 2
            assert eventlog.replay(found, "sha1", [4]) == eventlog.replay([event(4)], "sha1", [4])

    def test_a_large_event_is_read(self) -> None:
        large = event(2, 8, bytes(300 * 1024))

        assert eventlog.parse(eventlog.encode([large], BANKS)) == (large,)

    @given(events, st.sets(st.integers(0, 23)))
    def test_events_of_other_pcrs_are_left_out(self, told: list[Event], pcrs: set[int]) -> None:
        expected = tuple(one for one in told if one.pcr in pcrs)

        assert eventlog.parse(eventlog.encode(told, BANKS), pcrs=pcrs) == expected


class TestHardwareRoot:
    """H-CRTM: what hardware measured before TPM2_Startup has PCR 0 start at 4."""

    @pytest.mark.parametrize("others", [(), (b"StartupLocality\0\0",), (b"StartupLocality\0\3",)])
    def test_pcr_0_starts_at_4(self, others: tuple[bytes, ...]) -> None:
        told = [event(0, eventlog.NO_ACTION, data) for data in others]
        told += [event(0, eventlog.HCRTM, b"acm"), event(0, 8, b"version")]

        start = bytes(31) + b"\4"
        assert eventlog.replay(told, "sha256", [0]) == {
            0: extend("sha256", start, b"acm", b"version")
        }

    def test_in_another_pcr_it_is_an_event_like_others(self) -> None:
        told = [event(1, eventlog.HCRTM, b"acm")]

        assert eventlog.replay(told, "sha256", [0, 1]) == {
            0: bytes(32),
            1: extend("sha256", bytes(32), b"acm"),
        }


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"StartupLocality\0\3", 3),
        (b"StartupLocality\0\5", 0),
        (b"StartupLocality\0", 0),
        (b"StartupLocality\0\3\0", 0),
    ],
)
def test_pcr_0_starts_at_the_startup_locality(data: bytes, first: int) -> None:
    told = [event(0, eventlog.NO_ACTION, data), event(0, 8, b"version")]

    assert eventlog.replay(told, "sha256", [0]) == {
        0: extend("sha256", bytes(31) + bytes([first]), b"version")
    }


def test_digest_sizes_are_those_of_the_hashes() -> None:
    assert tpm2.DIGEST_SIZES == {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
