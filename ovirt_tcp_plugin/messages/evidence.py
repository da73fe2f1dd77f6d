# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Challenge (verifier -> attester) and Evidence (attester -> verifier), chain steps 1 and 2.

Decoding says only that the message is well formed and within bounds: check (0) of the appraisal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, tpm2

NONCE_SIZE = 32
# Bytes of all logs of a boot together. Firmware logs of most machines have some 100 KiB, those of
# servers with many option ROMs, devices that are measured by SPDM, and long lists of forbidden
# loaders up to 2 MiB; a TXT log lies in a place of 64 KiB. Twice the largest, and no more: what
# 8 MiB are in base64 takes longer to read than one host may take. The hook `before_vdsm_start`
# has the same number, since it can import nothing.
MAX_LOG_SIZE = 4 * 1024 * 1024
# What a verifier reads that does not tell: one of a release before the number was raised.
OLDER_MAX_LOG_SIZE = 1024 * 1024
# Base64 of the logs, the quote and the PCR values.
MAX_EVIDENCE_SIZE = 6 * 1024 * 1024
# The values of 24 PCRs in each of four banks, and some thirty more.
MAX_VALUES = 150
LOGS = ("txt", "firmware")
# Why there is no log of a launch: the kernel is locked down and closes /dev/mem.
LOCKED_DOWN = "locked_down"
MAX_REASON_LENGTH = 20
MAX_NOTE_LENGTH = 400
# Kinds whose bytes are a place of fixed size, with padding behind the last event.
PADDED_LOGS = ("txt",)

_CONTEXT = b"ovirt-tcp evidence 1\0"
_MEMBERS = frozenset(
    {
        "version",
        "nonce",
        "attest",
        "signature",
        "pcrs",
        "logs",
        "log_digests",
        "absences",
        "oversized_logs",
        "boot_id",
        "boottime_ms",
        "agent_version",
    }
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True)
class Absence:
    """Why a host has no log of a kind, as it says itself: for people, and never a proof.

    Attributes:
        reason: a word, such as LOCKED_DOWN.
        note: one sentence.
    """

    reason: str
    note: str


@dataclasses.dataclass(frozen=True)
class Challenge:
    """What the verifier asks for.

    Attributes:
        nonce: NONCE_SIZE random bytes, good for one answer.
        selection: the PCRs to quote.
        lifetime_ms: until when an answer is accepted, from now.
        known_logs: digests by kind of the logs that the verifier needs, and has from an earlier
            report of this boot. An agent of an older release sends them nevertheless.
        takes_absences: whether evidence may say why a log is not there: a verifier of an older
            release would call it malformed.
        max_log_size: the most bytes of logs that the verifier reads, all kinds together.
    """

    nonce: bytes
    selection: tpm2.Selection
    lifetime_ms: int
    known_logs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    takes_absences: bool = False
    max_log_size: int = MAX_LOG_SIZE

    @property
    def takes_oversized_logs(self) -> bool:
        """Whether the verifier's release knows `Evidence.oversized_logs`."""
        return self.max_log_size > OLDER_MAX_LOG_SIZE


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a host reports.

    Attributes:
        nonce: the challenge it answers.
        attest: TPMS_ATTEST as the TPM made it.
        signature: TPMT_SIGNATURE over `attest`.
        pcrs: the values of the PCRs; labels only, until they hash to the signed digest.
        logs: TCG event logs by kind ("txt", "firmware"); absent when the host has none.
        boot_id: /proc/sys/kernel/random/boot_id.
        boottime_ms: the host's CLOCK_BOOTTIME at the quote.
        agent_version: for the inventory only.
        log_digests: the logs that the verifier has already, by kind; then `logs` is empty.
        absences: why logs are not there, by kind.
        oversized_logs: sizes in bytes of the logs that are too long to be sent, by kind.
    """

    nonce: bytes
    attest: bytes
    signature: bytes
    pcrs: tpm2.PcrValues
    logs: Mapping[str, bytes]
    boot_id: str
    boottime_ms: int
    agent_version: str
    log_digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absences: Mapping[str, Absence] = dataclasses.field(default_factory=dict)
    oversized_logs: Mapping[str, int] = dataclasses.field(default_factory=dict)


def qualifying_data(nonce: bytes, boot_id: str, boottime_ms: int) -> bytes:
    """Return the 32 bytes that the TPM signs for a challenge.

    They bind nonce, boot and time to the quote.
    """
    boot = bytes.fromhex(boot_id.replace("-", ""))
    time = boottime_ms.to_bytes(8, "big")
    return hashlib.sha256(_CONTEXT + nonce + boot + time).digest()


def log_digest(content: bytes) -> str:
    """Return the digest by which a log is named: SHA-256 of all its bytes, hex."""
    return hashlib.sha256(content).hexdigest()


def name_known_logs(reported: Evidence, known: Mapping[str, str]) -> Evidence:
    """Return the evidence with its logs named only, if the verifier has all that it needs of them.

    Args:
        known: `known_logs` of the challenge.
    """
    if not known:
        return reported
    for kind, digest in known.items():
        if kind not in reported.logs or log_digest(reported.logs[kind]) != digest:
            return reported
    return dataclasses.replace(reported, logs={}, log_digests=known)


def encode_challenge(challenge: Challenge) -> dict[str, Any]:
    """Return the JSON object of a challenge."""
    return {
        "nonce": json_fields.encode_blob(challenge.nonce),
        "selection": {bank: list(indices) for bank, indices in challenge.selection.items()},
        "lifetime_ms": challenge.lifetime_ms,
        "known_logs": dict(challenge.known_logs),
        "takes_absences": challenge.takes_absences,
        "max_log_size": challenge.max_log_size,
    }


def decode_challenge(untrusted: object) -> Challenge:
    """Return the challenge in a JSON object. Raises InvalidMessage."""
    members = json_fields.members(untrusted, "challenge")
    nonce = json_fields.blob(members, "nonce", NONCE_SIZE)
    if len(nonce) != NONCE_SIZE:
        raise errors.InvalidMessage(
            "challenge", f"the nonce must have {NONCE_SIZE} bytes, it has {len(nonce)}"
        )
    banks = json_fields.members(members.get("selection"), "selection")
    return Challenge(
        nonce=nonce,
        selection={_bank(bank): _indices(banks, bank) for bank in banks},
        lifetime_ms=json_fields.integer(members, "lifetime_ms", 1, 3600 * 1000),
        known_logs=_digests(members, "known_logs"),
        takes_absences=members.get("takes_absences") is True,
        max_log_size=_max_log_size(members),
    )


def encode(evidence: Evidence) -> dict[str, Any]:
    """Return the JSON object of evidence."""
    pcrs = {}
    for bank, values in evidence.pcrs.items():
        pcrs[bank] = {str(index): value.hex() for index, value in values.items()}
    members = {
        "version": 1,
        "nonce": json_fields.encode_blob(evidence.nonce),
        "attest": json_fields.encode_blob(evidence.attest),
        "signature": json_fields.encode_blob(evidence.signature),
        "pcrs": pcrs,
        "logs": {kind: json_fields.encode_blob(log) for kind, log in evidence.logs.items()},
        "boot_id": evidence.boot_id,
        "boottime_ms": evidence.boottime_ms,
        "agent_version": evidence.agent_version,
    }
    if evidence.log_digests:  # a verifier that offered none may not know the member
        members["log_digests"] = dict(evidence.log_digests)
    if evidence.absences:  # the same
        members["absences"] = {
            kind: dataclasses.asdict(absence) for kind, absence in evidence.absences.items()
        }
    if evidence.oversized_logs:
        members["oversized_logs"] = dict(evidence.oversized_logs)
    return members


def decode(untrusted: bytes, kinds: Collection[str] = LOGS) -> Evidence:
    """Return the evidence in a message of at most MAX_EVIDENCE_SIZE bytes.

    Args:
        kinds: kinds of logs. Others are left out, and what they hold is not looked at.

    Raises:
        InvalidMessage: on any missing, mistyped, oversized or unknown member.
    """
    members = json_fields.parse_members(untrusted, "evidence", MAX_EVIDENCE_SIZE, MAX_VALUES)
    json_fields.integer(members, "version", 1, 1)
    json_fields.refuse_unknown(members, _MEMBERS, "evidence")
    log_digests = _digests(members, "log_digests")
    if log_digests and members.get("logs"):
        raise errors.InvalidMessage("evidence", "it both carries and names logs")
    return Evidence(
        nonce=json_fields.blob(members, "nonce", NONCE_SIZE),
        attest=json_fields.blob(members, "attest", tpm2.MAX_ATTEST_SIZE),
        signature=json_fields.blob(members, "signature", tpm2.MAX_SIGNATURE_SIZE),
        pcrs=_pcrs(json_fields.members(members.get("pcrs"), "pcrs")),
        logs=_logs(members, kinds),
        boot_id=_boot_id(members),
        boottime_ms=json_fields.integer(members, "boottime_ms", 0, 2**53),
        agent_version=json_fields.text(members, "agent_version", 64),
        log_digests=log_digests,
        absences=_absences(members),
        oversized_logs=_sizes(members),
    )


def _max_log_size(members: Mapping[str, object]) -> int:
    if "max_log_size" not in members:
        return OLDER_MAX_LOG_SIZE
    return json_fields.integer(members, "max_log_size", 1, 2**53)


def _sizes(members: Mapping[str, object]) -> Mapping[str, int]:
    """Return the sizes of the logs that were not sent, by kind."""
    name = "oversized_logs"
    encoded = json_fields.members(members.get(name, {}), name)
    sizes = {}
    for kind in encoded:
        if kind not in LOGS:
            raise errors.InvalidMessage(name, f"unknown log {kind[:20]!r}")
        sizes[kind] = json_fields.integer(encoded, kind, 1, 2**53)
    return sizes


def _boot_id(members: Mapping[str, object]) -> str:
    boot_id = json_fields.text(members, "boot_id", 36)
    if not _BOOT_ID.fullmatch(boot_id):
        raise errors.InvalidMessage("evidence", "boot_id is not a kernel boot id")
    return boot_id


def _logs(members: Mapping[str, object], kinds: Collection[str]) -> Mapping[str, bytes]:
    encoded = json_fields.members(members.get("logs"), "logs")
    logs = {}
    for kind in encoded:
        if kind not in LOGS:
            raise errors.InvalidMessage("evidence", f"unknown log {kind[:20]!r}")
        if kind in kinds:
            logs[kind] = json_fields.blob(encoded, kind, MAX_LOG_SIZE)
    return logs


def _absences(members: Mapping[str, object]) -> Mapping[str, Absence]:
    absences = {}
    encoded = json_fields.members(members.get("absences", {}), "absences")
    for kind, untrusted in encoded.items():
        if kind not in LOGS:
            raise errors.InvalidMessage("absences", f"unknown log {kind[:20]!r}")
        absence = json_fields.members(untrusted, "absence")
        reason = json_fields.text(absence, "reason", MAX_REASON_LENGTH)
        note = json_fields.text(absence, "note", MAX_NOTE_LENGTH)
        absences[kind] = Absence(reason, note)
    return absences


def _digests(members: Mapping[str, object], name: str) -> Mapping[str, str]:
    """Return the digests of logs by kind; none where an older release leaves the member out."""
    digests = {}
    for kind, digest in json_fields.members(members.get(name, {}), name).items():
        if kind not in LOGS:
            raise errors.InvalidMessage(name, f"unknown log {kind[:20]!r}")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise errors.InvalidMessage(name, "a digest must have 64 digits of lower-case hex")
        digests[kind] = digest
    return digests


def _bank(untrusted: str) -> str:
    if untrusted not in tpm2.HASH_IDS:
        raise errors.InvalidMessage("PCR bank", f"unknown bank {untrusted[:20]!r}")
    return untrusted


def _indices(banks: Mapping[str, object], bank: str) -> tuple[int, ...]:
    indices = set()
    for index in json_fields.items(banks, bank, tpm2.PCR_COUNT):
        if isinstance(index, bool) or not isinstance(index, int):
            raise errors.InvalidMessage("selection", f"a PCR of bank {bank} is not a number")
        if not 0 <= index < tpm2.PCR_COUNT:
            reason = f"a PCR of bank {bank} is not between 0 and 23"
            raise errors.InvalidMessage("selection", reason)
        indices.add(index)
    return tuple(sorted(indices))


def _pcrs(banks: Mapping[str, object]) -> tpm2.PcrValues:
    pcrs = {}
    for untrusted_bank, values in banks.items():
        bank = _bank(untrusted_bank)
        members = json_fields.members(values, "pcrs")
        pcrs[bank] = _values(bank, members)
    return pcrs


def _values(bank: str, untrusted: Mapping[str, object]) -> Mapping[int, bytes]:
    if len(untrusted) > tpm2.PCR_COUNT:
        raise errors.InvalidMessage("pcrs", f"more than {tpm2.PCR_COUNT} values in bank {bank}")
    return {_index(index): _digest(bank, value) for index, value in untrusted.items()}


def _index(untrusted: str) -> int:
    if not re.fullmatch(r"[0-9]|1[0-9]|2[0-3]", untrusted, re.ASCII):
        raise errors.InvalidMessage("pcrs", "an index is not between 0 and 23")
    return int(untrusted)


def _digest(bank: str, untrusted: object) -> bytes:
    size = tpm2.DIGEST_SIZES[bank]
    if not isinstance(untrusted, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", untrusted):
        reason = f"a value of bank {bank} is not {size} bytes in lower-case hex"
        raise errors.InvalidMessage("pcrs", reason)
    return bytes.fromhex(untrusted)
