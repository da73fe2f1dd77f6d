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
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.tpm_reader import TpmReader

MAX_EVENTS = 4096
MAX_EVENT_SIZE = 256 * 1024

NO_ACTION = 0x00000003
HASH_START = 0x00000402
MLE_HASH = 0x00000404
TBOOT_MODULE = 0x00000501

SPEC_ID = b"Spec ID Event03\0"
# What a log of the older format may begin with: the Spec IDs of conventional firmware and of EFI.
SPEC_IDS_SHA1 = (b"Spec ID Event00\0", b"Spec ID Event02\0")
STARTUP_LOCALITY = b"StartupLocality\0"

# The D-RTM resets these from all ones to zero (PC Client Platform TPM Profile, 4.6.2).
DRTM_PCRS = range(17, 23)

TYPE_NAMES: Mapping[int, str] = {
    NO_ACTION: "EV_NO_ACTION",
    0x402: "HASH_START (SINIT)",
    0x404: "MLE_HASH (tboot)",
    0x40A: "BIOSAC_REG_DATA (BIOS ACM)",
    0x40B: "CPU_SCRTM_STAT",
    0x40C: "LCP_CONTROL_HASH",
    0x40E: "STM_HASH",
    0x40F: "OSSINITDATA_CAP_HASH",
    0x410: "SINIT_PUBKEY_HASH",
    0x412: "LCP_DETAILS_HASH",
    0x413: "LCP_AUTHORITIES_HASH",
    0x414: "NV_INFO_HASH",
    0x501: "TBOOT_MODULE",
}


_WHAT = "event log"
_SHA1_EVENT = struct.Struct("<II20sI")  # TCG_PCR_EVENT: PCR index, type, digest, size of the data
_EVENT_HEAD = struct.Struct("<III")  # TCG_PCR_EVENT2: PCR index, type, number of digests
_HASH_ID = struct.Struct("<H")
_EVENT_SIZE = struct.Struct("<I")
_BLANK = bytes(_SHA1_EVENT.size)

# Of a log: name and digest size of each bank, by the number of its hash.
_Banks = Mapping[int, tuple[str, int]]


class Event(NamedTuple):
    """TCG_PCR_EVENT or TCG_PCR_EVENT2.

    `digests` by bank; `data` is what the firmware says about it, unproven.
    """

    pcr: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes


def parse(untrusted: bytes, padded: bool = False) -> tuple[Event, ...]:
    """Return the events of a log, without a crypto-agile log's Spec ID header.

    A log without that header is of the older format.

    Args:
        padded: whether all zeros or all ones may stand behind the last event, as in the place that
            TXT sets aside.

    Raises:
        InvalidMessage: no event, a length past the end, a digest of unknown size, an index above
            23, an event without a digest, a Spec ID of a format that is not known.
    """
    reader = TpmReader(untrusted, _WHAT, "<")
    banks = _take_header(reader)
    end = _end(untrusted) if padded else len(untrusted)
    if banks:
        return tuple(_events(untrusted, reader.position, end, banks))
    return tuple(_sha1_events(untrusted, end))


def launched(events: Iterable[Event]) -> bool:
    """Return whether the log tells of a measured launch (a HASH_START in a D-RTM PCR)."""
    return any(event.type == HASH_START and event.pcr in DRTM_PCRS for event in events)


def never_launched(pcr: int, value: bytes) -> bool:
    """Return whether a D-RTM PCR still has the value of the TPM's reset: no launch took place."""
    return pcr in DRTM_PCRS and value == b"\xff" * len(value)


def startup_locality(events: Iterable[Event]) -> Optional[int]:
    """Return the locality of TPM2_Startup, None if the log does not tell it.

    Source: Firmware Profile 10.4.5.3.
    """
    for event in events:
        if event.pcr == 0 and event.type == NO_ACTION and event.data.startswith(STARTUP_LOCALITY):
            locality = event.data[len(STARTUP_LOCALITY) :]
            return locality[0] if len(locality) == 1 and locality[0] <= 4 else None
    return None


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
        if event.pcr in values and event.type != NO_ACTION and digest is not None:
            values[event.pcr] = extend(values[event.pcr] + digest).digest()
    return values


def name_type(kind: int) -> str:
    """Return an event type as people know it."""
    return TYPE_NAMES.get(kind, f"event type {kind:#x}")


def _end(log: bytes) -> int:
    """Return where the padding begins, if there is any: no event begins there."""
    return len(log.rstrip(log[-1:])) if log[-1:] in (b"\0", b"\xff") else len(log)


def _take_header(reader: TpmReader) -> _Banks:
    """Return the banks of a crypto-agile log if the first event is its Spec ID, else none.

    Source: Firmware Profile 10.4.5.1. Whatever else calls itself a Spec ID is refused, so that no
    log is taken for one of the other format.
    """
    _, kind, _, size = reader.unpack(_SHA1_EVENT)
    if size > MAX_EVENT_SIZE:
        raise reader.invalid(f"an event of {size} bytes")
    data = reader.take(size)
    if not data.startswith(b"Spec ID "):
        return {}
    if kind == NO_ACTION and data.startswith(SPEC_IDS_SHA1):
        return {}
    if kind != NO_ACTION or not data.startswith(SPEC_ID):
        raise reader.invalid("a Spec ID header of unknown form")
    return _parse_spec_id(data[len(SPEC_ID) :])


def _parse_spec_id(untrusted: bytes) -> _Banks:
    header = TpmReader(untrusted, "event log header", "<")
    # Platform class, version, errata and size of UINTN: nothing here depends on them.
    header.take(8)
    count = header.u32()
    if not 1 <= count <= tpm2.MAX_BANKS:
        raise errors.InvalidMessage(_WHAT, f"{count} digest algorithms")
    banks: dict[int, tuple[str, int]] = {}
    for _ in range(count):
        identifier = header.u16()
        size = header.u16()
        bank = tpm2.HASHES.get(identifier)
        if bank is None or size != tpm2.DIGEST_SIZES[bank]:
            raise errors.InvalidMessage(_WHAT, "a digest algorithm of unknown size")
        banks[identifier] = (bank, size)
    header.take(header.u8())
    header.end()
    return banks


def _events(log: bytes, position: int, end: int, banks: _Banks) -> list[Event]:
    """Return the events that begin from `position` on and before `end`.

    Without a TpmReader, because a log has hundreds of them. A digest that is cut off moves the
    position past the log, where the next number cannot be read.
    """
    events: list[Event] = []
    try:
        while position < end:
            pcr, kind, count = _EVENT_HEAD.unpack_from(log, position)
            digests, position = _digests(log, position + _EVENT_HEAD.size, count, banks)
            (size,) = _EVENT_SIZE.unpack_from(log, position)
            start = position + _EVENT_SIZE.size
            position = start + size
            _check_event(log, pcr, size, position, len(events))
            events.append(Event(pcr, kind, digests, log[start:position]))
    except struct.error:
        raise _cut_off(log) from None
    return events


def _digests(log: bytes, position: int, count: int, banks: _Banks) -> tuple[dict[str, bytes], int]:
    """Return the digests of an event, and the position behind them."""
    if not 1 <= count <= tpm2.MAX_BANKS:
        raise errors.InvalidMessage(_WHAT, f"an event with {count} digests")
    digests: dict[str, bytes] = {}
    for _ in range(count):
        (identifier,) = _HASH_ID.unpack_from(log, position)
        bank, size = banks.get(identifier, ("", 0))
        if not size or bank in digests:
            reason = "a digest of a bank that the header does not name, or twice"
            raise errors.InvalidMessage(_WHAT, reason)
        start = position + _HASH_ID.size
        position = start + size
        digests[bank] = log[start:position]
    return digests, position


def _sha1_events(log: bytes, end: int) -> list[Event]:
    """Return the events of the older format that begin before `end`."""
    if not end:
        raise errors.InvalidMessage(_WHAT, "no event")
    events: list[Event] = []
    position = 0
    try:
        while position < end:
            pcr, kind, digest, size = _SHA1_EVENT.unpack_from(log, position)
            if log.startswith(_BLANK, position):
                raise errors.InvalidMessage(_WHAT, "zeros in the place of an event")
            start = position + _SHA1_EVENT.size
            position = start + size
            _check_event(log, pcr, size, position, len(events))
            events.append(Event(pcr, kind, {"sha1": digest}, log[start:position]))
    except struct.error:
        raise _cut_off(log) from None
    return events


def _check_event(log: bytes, pcr: int, size: int, end: int, before: int) -> None:
    """Return if an event is within bounds. Raises InvalidMessage.

    Args:
        size: bytes of data, up to `end`.
        before: events before it.
    """
    if pcr >= tpm2.PCR_COUNT:
        raise errors.InvalidMessage(_WHAT, f"an event for PCR {pcr}")
    if size > MAX_EVENT_SIZE:
        raise errors.InvalidMessage(_WHAT, f"an event of {size} bytes")
    if end > len(log):
        raise errors.InvalidMessage(_WHAT, f"ends at byte {len(log)}, {end} were announced")
    if before == MAX_EVENTS:
        raise errors.InvalidMessage(_WHAT, f"more than {MAX_EVENTS} events")


def _cut_off(log: bytes) -> errors.InvalidMessage:
    return errors.InvalidMessage(_WHAT, f"ends at byte {len(log)}, within an event")


def encode(events: Iterable[Event], banks: Sequence[str]) -> bytes:
    """Return a crypto-agile log, as firmware writes it, with a Spec ID header for `banks`.

    Raises:
        InvalidMessage: an event is too long.
    """
    algorithms = [
        struct.pack("<HH", tpm2.HASH_IDS[bank], tpm2.DIGEST_SIZES[bank]) for bank in banks
    ]
    header = SPEC_ID + bytes([0, 0, 0, 0, 0, 2, 0, 2])
    header += struct.pack("<I", len(banks)) + b"".join(algorithms) + b"\0"
    first = _SHA1_EVENT.pack(0, NO_ACTION, b"", len(header)) + header
    return first + b"".join(_encode_event(event) for event in events)


def encode_sha1(events: Iterable[Event]) -> bytes:
    """Return a log of the older format, as the firmware of a host with a TPM 1.2 writes it.

    Raises:
        InvalidMessage: an event is too long.
    """
    return b"".join(_encode_sha1_event(event) for event in events)


def _encode_event(event: Event) -> bytes:
    digests = b"".join(
        _HASH_ID.pack(tpm2.HASH_IDS[bank]) + value for bank, value in event.digests.items()
    )
    head = _EVENT_HEAD.pack(event.pcr, event.type, len(event.digests))
    return head + digests + _EVENT_SIZE.pack(_size(event)) + event.data


def _encode_sha1_event(event: Event) -> bytes:
    head = _SHA1_EVENT.pack(event.pcr, event.type, event.digests["sha1"], _size(event))
    return head + event.data


def _size(event: Event) -> int:
    if len(event.data) > MAX_EVENT_SIZE:
        raise errors.InvalidMessage("event", f"longer than {MAX_EVENT_SIZE} bytes")
    return len(event.data)
