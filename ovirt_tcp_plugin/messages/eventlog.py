# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""TCG event logs: parse and replay.

Sources: "TCG PC Client Platform Firmware Profile" 1.05, 10 (crypto-agile log, StartupLocality);
"TCG EFI Platform Specification" 1.22, 7.2.1 (the older format of TPM 1.2: TCG_PCR_EVENT with SHA-1
alone); Intel "TXT Software Development Guide", appendix G (types 0x400-0x4FF, D-RTM start values);
tboot's `tboot/include/tpm.h` (0x501).

A log is the host's own story: nothing in it is true until its replay equals a quoted PCR. The event
*type* is not covered by the PCR at all, so it is good for naming an event, never for trusting it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

# Events that are needed; each is read, kept and compared.
MAX_EVENTS = 4096
# All of a log, most of which boot loaders write into PCRs that no profile asks for: 128 bytes each
# of the longest log.
MAX_RECORDS = 32_768
# Banks of a TPM (TPM2_NUM_PCR_BANKS of the TSS), whether known here or not.
MAX_ALGORITHMS = 16

NO_ACTION = 0x00000003
PCR_MAPPING = 0x00000401
HASH_START = 0x00000402
MLE_HASH = 0x00000404
TBOOT_MODULE = 0x00000501
HCRTM = 0x80000010

# They extend no PCR, whatever index they name: an NV index, or none at all (0xFFFFFFFF, 255).
NOT_EXTENDED = frozenset({NO_ACTION, PCR_MAPPING})

SPEC_ID = b"Spec ID Event03\0"
# What a log of the older format may begin with: the Spec IDs of conventional firmware and of EFI.
SPEC_IDS_SHA1 = (b"Spec ID Event00\0", b"Spec ID Event02\0")
STARTUP_LOCALITY = b"StartupLocality\0"
# From where PCR 0 starts after a measurement by hardware, before TPM2_Startup.
HCRTM_LOCALITY = 4

# What stands as the index of an event, of a PCR or not.
ALL_INDICES = range(2**32)
# The D-RTM resets these from all ones to zero (PC Client Platform TPM Profile, 4.6.2).
DRTM_PCRS = range(17, 23)

_WHAT = "event log"
_SHA1_EVENT = struct.Struct("<II20sI")  # TCG_PCR_EVENT: PCR index, type, digest, size of the data
# TCG_PCR_EVENT2: PCR index and type; number of digests; each after its hash; size of the data.
_EVENT_HEAD = struct.Struct("<II")
_DIGEST_COUNT = struct.Struct("<I")
_HASH_ID = struct.Struct("<H")
_DATA_SIZE = struct.Struct("<I")
_BLANK_EVENT = bytes(_EVENT_HEAD.size + _DIGEST_COUNT.size)
_BLANK_SHA1_EVENT = bytes(_SHA1_EVENT.size)

_KNOWN_SIZES = {number: tpm2.DIGEST_SIZES[bank] for number, bank in tpm2.HASHES.items()}


class PassedOver(NamedTuple):
    """What a log has that nobody needs who asked for these PCRs, and how often.

    Attributes:
        digests: of algorithms that are not known here, by their number.
        types: events of other PCRs, by their type.
        indices: events that would extend a PCR that no TPM has, by its index.
    """

    digests: dict[int, int]
    types: dict[int, int]
    indices: dict[int, int]


class Log(NamedTuple):
    """The events of a log that were asked for, and what was passed over."""

    events: tuple[Event, ...]
    passed_over: PassedOver


class OversizedLog(errors.InvalidMessage):
    """A log has more events than are read. Nothing is wrong with it as far as it was read."""

    def __init__(self, reason: str) -> None:
        super().__init__(_WHAT, reason)


# Bytes of a digest by the number of its algorithm.
_DigestSizes = Mapping[int, int]


class Event(NamedTuple):
    """TCG_PCR_EVENT or TCG_PCR_EVENT2.

    `digests` by bank, of the banks that are known here; `data` is what the firmware says about it,
    unproven.
    """

    pcr: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes


def parse(
    untrusted: bytes, padded: bool = False, pcrs: Collection[int] = ALL_INDICES
) -> tuple[Event, ...]:
    """Return the events of a log, as `read` does, without what was passed over."""
    return read(untrusted, padded, pcrs).events


def read(untrusted: bytes, padded: bool = False, pcrs: Collection[int] = ALL_INDICES) -> Log:
    """Return the events of a log, without a crypto-agile log's Spec ID header.

    A log without that header is of the older format. What nobody needs may be odd, as long as its
    size is told: a digest of an algorithm that is not known here, of whatever size the header
    tells; an event of a PCR that no TPM has; what follows in the header.

    Args:
        padded: whether all zeros or all ones may stand behind the last event, as in the place that
            TXT sets aside.
        pcrs: the indices whose events are wanted; all others are checked and left out.

    Raises:
        OversizedLog: more than MAX_EVENTS events of these PCRs, or MAX_RECORDS of all.
        InvalidMessage: no event, a length past the end, a digest whose size nobody tells, a Spec
            ID of a format that is not known.
    """
    passed_over = PassedOver({}, {}, {})
    reader = TpmReader(untrusted, _WHAT, "<")
    sizes = _take_header(reader)
    end = _end(untrusted) if padded else len(untrusted)
    if sizes:
        events = _agile_events(untrusted, reader.position, end, sizes, pcrs, passed_over)
    else:
        events = _sha1_events(untrusted, end, pcrs, passed_over)
    return Log(tuple(events), passed_over)


def launched(events: Iterable[Event]) -> bool:
    """Return whether the log tells of a measured launch (a HASH_START in a D-RTM PCR)."""
    return any(event.type == HASH_START and event.pcr in DRTM_PCRS for event in events)


def never_launched(pcr: int, value: bytes) -> bool:
    """Return whether a D-RTM PCR still has the value of the TPM's reset: no launch took place."""
    return pcr in DRTM_PCRS and value == b"\xff" * len(value)


def startup_locality(events: Iterable[Event]) -> Optional[int]:
    """Return from which value PCR 0 starts: a locality. None if the log does not tell it.

    An event of the hardware's own root (H-CRTM) tells it by itself: 4.

    Sources: Firmware Profile 10.4.5.3; Trusted Platform Module Library, Part 1, "H-CRTM before
    TPM2_Startup".
    """
    locality = None
    for event in events:
        if event.pcr == 0 and event.type == HCRTM:
            return HCRTM_LOCALITY
        if event.pcr == 0 and event.type == NO_ACTION and event.data.startswith(STARTUP_LOCALITY):
            locality = _parse_locality(event.data[len(STARTUP_LOCALITY) :])
    return locality


def replay(events: Sequence[Event], bank: str, pcrs: Iterable[int]) -> dict[int, bytes]:
    """Return the values that the given PCRs of `bank` have after these events.

    Starts at zero; at all ones for PCR 17-22 unless the log tells of a launch; PCR 0 at the startup
    locality. Events without a digest of `bank` are passed over: tboot extends only the banks it was
    told to.
    """
    size = tpm2.DIGEST_SIZES[bank]
    zeros = b"\0" * size
    drtm_start = zeros if launched(events) else b"\xff" * size
    values = {pcr: drtm_start if pcr in DRTM_PCRS else zeros for pcr in pcrs}
    locality = startup_locality(events)
    if 0 in values and locality is not None:
        values[0] = locality.to_bytes(size, "big")
    extend = getattr(hashlib, bank)
    for event in events:
        digest = event.digests.get(bank)
        if event.pcr in values and event.type not in NOT_EXTENDED and digest is not None:
            values[event.pcr] = extend(values[event.pcr] + digest).digest()
    return values


def _parse_locality(untrusted: bytes) -> Optional[int]:
    if len(untrusted) != 1 or untrusted[0] > HCRTM_LOCALITY:
        return None
    return untrusted[0]


def _end(log: bytes) -> int:
    """Return where the padding begins, if there is any: no event begins there."""
    return len(log.rstrip(log[-1:])) if log[-1:] in (b"\0", b"\xff") else len(log)


def _take_header(reader: TpmReader) -> _DigestSizes:
    """Return the digest sizes of a crypto-agile log if the first event is its Spec ID, else none.

    Source: Firmware Profile 10.4.5.1. Whatever else calls itself a Spec ID is refused, so that no
    log is taken for one of the other format.
    """
    _, kind, _, size = reader.unpack(_SHA1_EVENT)
    data = reader.take(size)
    if not data.startswith(b"Spec ID "):
        return {}
    if kind == NO_ACTION and data.startswith(SPEC_IDS_SHA1):
        return {}
    if kind != NO_ACTION or not data.startswith(SPEC_ID):
        raise reader.invalid("a Spec ID header of unknown form")
    return _parse_spec_id(data[len(SPEC_ID) :])


def _parse_spec_id(untrusted: bytes) -> _DigestSizes:
    header = TpmReader(untrusted, "event log header", "<")
    # Platform class, version, errata and size of UINTN: nothing here depends on them.
    header.take(8)
    count = header.u32()
    if not 1 <= count <= MAX_ALGORITHMS:
        raise errors.InvalidMessage(_WHAT, f"{count} digest algorithms")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm = header.u16()
        size = header.u16()
        if sizes.get(algorithm, size) != size:
            reason = f"digest algorithm {algorithm:#06x} twice, with different sizes"
            raise errors.InvalidMessage(_WHAT, reason)
        sizes[algorithm] = size
    # Vendor's data follow: nothing here depends on them.
    return sizes


class _AgileLayout:
    """Where the parts of an event of a crypto-agile log are.

    Nearly every event has one digest of each bank that the header names, in its order: such an
    event is known by the bytes at fixed places, and no digest of it is read unless somebody needs
    it.

    Args:
        log: untrusted.
        sizes: bytes of the digests that the header names, in its order.
    """

    def __init__(self, log: bytes, sizes: _DigestSizes) -> None:
        self._log = log
        self._sizes = {**_KNOWN_SIZES, **sizes}
        # A known algorithm with digests of another size is not the one that is known.
        self._banks = {}
        for algorithm, bank in tpm2.HASHES.items():
            if self._sizes[algorithm] == _KNOWN_SIZES[algorithm]:
                self._banks[algorithm] = bank
        self._unknown = sizes.keys() - self._banks.keys()
        # Events that are usual, and digests of unknown algorithms in the others.
        self._usual = 0
        self._unusual_digests: dict[int, int] = {}
        # Of the usual event: what stands before each digest, the number of digests before the
        # first; the place of each digest of a known bank, and its end; the end of the last.
        self._marks: list[tuple[int, bytes]] = []
        self._places: list[tuple[str, int, int]] = []
        self._digests_end = _EVENT_HEAD.size
        mark = _DIGEST_COUNT.pack(len(sizes))
        for algorithm, size in sizes.items():
            self._add_usual(algorithm, mark + _HASH_ID.pack(algorithm), size)
            mark = b""

    def _add_usual(self, algorithm: int, mark: bytes, size: int) -> None:
        self._marks.append((self._digests_end, mark))
        start = self._digests_end + len(mark)
        self._digests_end = start + size
        if algorithm in self._banks:
            self._places.append((self._banks[algorithm], start, self._digests_end))

    def data_size_at(self, position: int) -> int:
        """Return the place of the size of the data, of the event at `position`.

        Raises struct.error if the log ends before.
        """
        for place, mark in self._marks:
            if not self._log.startswith(mark, position + place):
                return self._pass_unusual(position)
        self._usual += 1
        return position + self._digests_end

    def _pass_unusual(self, position: int) -> int:
        digests, end = self._read_unusual(position)
        for algorithm in digests:
            if algorithm not in self._banks:
                count = self._unusual_digests.get(algorithm, 0)
                self._unusual_digests[algorithm] = count + 1
        return end

    def unknown_digests(self) -> dict[int, int]:
        """Return how many digests were passed over, by the number of their algorithm."""
        counts = dict(self._unusual_digests)
        for algorithm in self._unknown:
            counts[algorithm] = counts.get(algorithm, 0) + self._usual
        return {algorithm: count for algorithm, count in sorted(counts.items()) if count}

    def digests_at(self, position: int) -> dict[str, bytes]:
        """Return the digests of the event at `position`, which is whole, by known bank."""
        for place, mark in self._marks:
            if not self._log.startswith(mark, position + place):
                digests, _ = self._read_unusual(position)
                known = digests.keys() & self._banks.keys()
                return {self._banks[algorithm]: digests[algorithm] for algorithm in known}
        return {
            bank: self._log[position + start : position + end] for bank, start, end in self._places
        }

    def _read_unusual(self, position: int) -> tuple[dict[int, bytes], int]:
        """Return the digests of an event that has others, by their algorithm; where they end.

        A digest that is cut off moves the end past the log, where the next number cannot be read.
        """
        if self._log.startswith(_BLANK_EVENT, position):
            raise errors.InvalidMessage(_WHAT, "zeros in the place of an event")
        position += _EVENT_HEAD.size
        (count,) = _DIGEST_COUNT.unpack_from(self._log, position)
        position += _DIGEST_COUNT.size
        if count > MAX_ALGORITHMS:
            raise errors.InvalidMessage(_WHAT, f"an event with {count} digests")
        digests: dict[int, bytes] = {}
        for _ in range(count):
            (algorithm,) = _HASH_ID.unpack_from(self._log, position)
            size = self._sizes.get(algorithm)
            is_known = algorithm in self._banks
            if size is None or (is_known and algorithm in digests):
                reason = "a digest of a bank that the header does not name, or twice"
                raise errors.InvalidMessage(_WHAT, reason)
            start = position + _HASH_ID.size
            position = start + size
            digests[algorithm] = self._log[start:position]
        return digests, position


def _agile_events(
    log: bytes,
    start: int,
    end: int,
    sizes: _DigestSizes,
    pcrs: Collection[int],
    passed_over: PassedOver,
) -> list[Event]:
    """Return the events of these PCRs that begin from `start` on and before `end`.

    Without a TpmReader, because a log has hundreds of events.
    """
    layout = _AgileLayout(log, sizes)
    events: list[Event] = []
    position = start
    number = 0
    try:
        while position < end:
            pcr, kind = _EVENT_HEAD.unpack_from(log, position)
            size_at = layout.data_size_at(position)
            (size,) = _DATA_SIZE.unpack_from(log, size_at)
            data_at = size_at + _DATA_SIZE.size
            behind = data_at + size
            number += 1
            _check_event(log, behind, number)
            if pcr in pcrs:
                _check_count(events)
                digests = layout.digests_at(position)
                events.append(Event(pcr, kind, digests, log[data_at:behind]))
            else:
                _pass_over(pcr, kind, passed_over)
            position = behind
    except struct.error:
        raise _cut_off(log) from None
    passed_over.digests.update(layout.unknown_digests())
    return events


def _sha1_events(
    log: bytes, end: int, pcrs: Collection[int], passed_over: PassedOver
) -> list[Event]:
    """Return the events of these PCRs, of a log of the older format, that begin before `end`."""
    if not end:
        raise errors.InvalidMessage(_WHAT, "no event")
    events: list[Event] = []
    position = 0
    number = 0
    try:
        while position < end:
            pcr, kind, digest, size = _SHA1_EVENT.unpack_from(log, position)
            if log.startswith(_BLANK_SHA1_EVENT, position):
                raise errors.InvalidMessage(_WHAT, "zeros in the place of an event")
            data_at = position + _SHA1_EVENT.size
            position = data_at + size
            number += 1
            _check_event(log, position, number)
            if pcr in pcrs:
                _check_count(events)
                events.append(Event(pcr, kind, {"sha1": digest}, log[data_at:position]))
            else:
                _pass_over(pcr, kind, passed_over)
    except struct.error:
        raise _cut_off(log) from None
    return events


def _pass_over(pcr: int, kind: int, passed_over: PassedOver) -> None:
    """Count an event that nobody asked for."""
    if kind in NOT_EXTENDED:
        return  # they name whatever index they like
    if pcr < tpm2.PCR_COUNT:
        passed_over.types[kind] = passed_over.types.get(kind, 0) + 1
    else:
        passed_over.indices[pcr] = passed_over.indices.get(pcr, 0) + 1


def _check_event(log: bytes, end: int, number: int) -> None:
    """Return if an event is within bounds. Raises InvalidMessage.

    Args:
        end: where its data end.
        number: its number in the log, from 1.
    """
    if end > len(log):
        raise errors.InvalidMessage(_WHAT, f"ends at byte {len(log)}, {end} were announced")
    if number > MAX_RECORDS:
        raise OversizedLog(f"more than {MAX_RECORDS} events")


def _check_count(events: Sequence[Event]) -> None:
    if len(events) >= MAX_EVENTS:
        raise OversizedLog(f"more than {MAX_EVENTS} events of the PCRs that are judged")


def _cut_off(log: bytes) -> errors.InvalidMessage:
    return errors.InvalidMessage(_WHAT, f"ends at byte {len(log)}, within an event")


def encode(events: Iterable[Event], banks: Sequence[str]) -> bytes:
    """Return a crypto-agile log, as firmware writes it, with a Spec ID header for `banks`."""
    algorithms = [
        struct.pack("<HH", tpm2.HASH_IDS[bank], tpm2.DIGEST_SIZES[bank]) for bank in banks
    ]
    header = SPEC_ID + bytes([0, 0, 0, 0, 0, 2, 0, 2])
    header += struct.pack("<I", len(banks)) + b"".join(algorithms) + b"\0"
    first = _SHA1_EVENT.pack(0, NO_ACTION, b"", len(header)) + header
    return first + b"".join(_encode_event(event) for event in events)


def encode_sha1(events: Iterable[Event]) -> bytes:
    """Return a log of the older format, as the firmware of a host with a TPM 1.2 writes it."""
    return b"".join(_encode_sha1_event(event) for event in events)


def _encode_event(event: Event) -> bytes:
    digests = b"".join(
        _HASH_ID.pack(tpm2.HASH_IDS[bank]) + value for bank, value in event.digests.items()
    )
    head = _EVENT_HEAD.pack(event.pcr, event.type) + _DIGEST_COUNT.pack(len(event.digests))
    return head + digests + _DATA_SIZE.pack(len(event.data)) + event.data


def _encode_sha1_event(event: Event) -> bytes:
    head = _SHA1_EVENT.pack(event.pcr, event.type, event.digests["sha1"], len(event.data))
    return head + event.data
