# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (7): do the logs replay to the PCRs that the TPM signed for?

A PCR that is compared as a whole needs no log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import eventlog, evidence, tpm2
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.logs import tcg
from ovirt_tcp_plugin.verifier.appraisal.logs.firmware import FirmwareLog
from ovirt_tcp_plugin.verifier.appraisal.logs.measurement_log import MeasurementLog, ParsedLog
from ovirt_tcp_plugin.verifier.appraisal.logs.txt import TxtLog

# Each PCR is told by one kind of log.
KINDS: Sequence[MeasurementLog] = (TxtLog(), FirmwareLog())
_NOTHING_SAID: Mapping[str, evidence.Absence] = {}
_NONE_OVERSIZED: Mapping[str, int] = {}


class SentLogs(NamedTuple):
    """What a host sent, untrusted, by kind.

    Attributes:
        absences: why there are no others.
        oversized: sizes of the logs that are too long to be sent.
    """

    logs: Mapping[str, bytes]
    absences: Mapping[str, evidence.Absence] = _NOTHING_SAID
    oversized: Mapping[str, int] = _NONE_OVERSIZED

    def missing(self, kind: str, pcrs: Collection[int], bank: str) -> Finding:
        """Return the finding that no log tells of these PCRs of a kind."""
        if kind in self.logs:
            return tcg.missing(pcrs, bank)
        return tcg.absent(kind, pcrs, bank, self.absences.get(kind))


class ProvenSteps(NamedTuple):
    """The steps of the PCRs to which the logs replay, and what is wrong with the logs.

    Attributes:
        notes: what the logs have that nothing depends on, a sentence each.
    """

    steps: tuple[Step, ...]
    findings: Sequence[Finding]
    notes: tuple[str, ...] = ()


def of_pcr(pcr: int) -> MeasurementLog:
    """Return the kind of log that tells of a PCR."""
    return next(log for log in KINDS if log.tells_of(pcr))


def kinds_for(pcrs: Collection[int]) -> list[str]:
    """Return the kinds of logs that check (7) reads to prove these PCRs."""
    return [log.kind for log in KINDS if _told_by(log, pcrs)]


def check(
    sent: SentLogs, bank: str, required: Collection[int], values: Mapping[int, bytes]
) -> ProvenSteps:
    """Return the steps of a boot, as far as the logs replay to its PCRs.

    A log that tells of no required PCR is not read: its quirks are nobody's business here.

    Args:
        sent: the logs.
        required: indices of the PCRs that have to be good.
        values: those of them that the TPM signed for.
    """
    findings = []
    untold: set[int] = set()
    for log in KINDS:
        pcrs = _told_by(log, required)
        if pcrs and log.kind in sent.oversized:
            findings.append(tcg.oversized(f"it has {sent.oversized[log.kind]} bytes", log.kind))
            untold.update(pcrs)
    if not findings:
        return _check_sent(sent, bank, required, values)
    told = [pcr for pcr in required if pcr not in untold]
    if not told:
        return ProvenSteps((), findings)
    told_values = {pcr: value for pcr, value in values.items() if pcr in told}
    proven = _check_sent(sent, bank, told, told_values)
    return ProvenSteps(proven.steps, [*findings, *proven.findings], proven.notes)


def _check_sent(
    sent: SentLogs, bank: str, required: Collection[int], values: Mapping[int, bytes]
) -> ProvenSteps:
    try:
        parsed = {log: _parse(log, sent.logs, required) for log in KINDS}
    except eventlog.OversizedLog as e:
        return ProvenSteps((), [tcg.oversized(f"it has {e.reason}")])
    except errors.InvalidMessage as e:
        return ProvenSteps((), [FindingCode.LOG_MALFORMED.finding(str(e))])
    if _recorded(parsed, bank).isdisjoint(required):
        return ProvenSteps((), _unrecorded(parsed, sent, required, bank), _notes(parsed))
    return _replay(parsed, sent, bank, values)


def _recorded(parsed: Mapping[MeasurementLog, ParsedLog], bank: str) -> set[int]:
    """Return the PCRs that any of the logs records in a bank."""
    recorded: set[int] = set()
    for entries in parsed.values():
        recorded.update(entries.recorded(bank))
    return recorded


def _unrecorded(
    parsed: Mapping[MeasurementLog, ParsedLog],
    sent: SentLogs,
    required: Collection[int],
    bank: str,
) -> list[Finding]:
    """Return the findings that no log records any of these PCRs in a bank."""
    others = []
    for other in tpm2.HASH_IDS:
        if not _recorded(parsed, other).isdisjoint(required):
            others.append(other)
    if others:
        return [tcg.other_bank(required, bank, others)]
    findings = []
    for log in KINDS:
        pcrs = _told_by(log, required)
        if pcrs:
            findings.append(sent.missing(log.kind, pcrs, bank))
    return findings


def _replay(
    parsed: Mapping[MeasurementLog, ParsedLog],
    sent: SentLogs,
    bank: str,
    values: Mapping[int, bytes],
) -> ProvenSteps:
    steps: list[Step] = []
    unproven: dict[int, Finding] = {}
    for log, entries in parsed.items():
        quoted = {pcr: values[pcr] for pcr in _told_by(log, values)}
        replayed = entries.replay(bank, quoted)
        steps += replayed.steps
        unproven.update(replayed.unproven)
        if log.kind not in sent.logs and replayed.unproven:
            absent = sent.missing(log.kind, list(replayed.unproven), bank)
            unproven.update(dict.fromkeys(replayed.unproven, absent))
    # As the slots of reference values in stores are ordered, whatever the order of the logs.
    steps.sort(key=lambda step: step.component != "startup_locality")
    findings = dict.fromkeys(unproven[pcr] for pcr in values if pcr in unproven)
    return ProvenSteps(tuple(steps), list(findings), _notes(parsed))


def _notes(parsed: Mapping[MeasurementLog, ParsedLog]) -> tuple[str, ...]:
    notes: list[str] = []
    for entries in parsed.values():
        notes += entries.notes
    return tuple(notes)


def _parse(log: MeasurementLog, sent: Mapping[str, bytes], required: Collection[int]) -> ParsedLog:
    pcrs = _told_by(log, required)
    untrusted = sent.get(log.kind) if pcrs else None
    return log.parse(untrusted, pcrs)


def _told_by(log: MeasurementLog, pcrs: Collection[int]) -> list[int]:
    """Return those of the PCRs that a log of this kind tells of."""
    return [pcr for pcr in pcrs if log.tells_of(pcr)]
