# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Is this evidence genuine, and does it tell of a good boot?

The complete list of checks. The numbers are stable: findings, tests and documents use them
(`messages/findings.py`). What a TPM 1.2 changes is said in `quote12.py`.

 (0) the report is well formed and within bounds (`messages/evidence.py`, `messages/tpm2.py`), and
     the logs that it only names are known (`known_logs.py`)
 (1) the host is enrolled, and its AK is bound to an endorsed EK (`endorsement.py`, at enrolment)
 (2) the attest structure was made by a TPM and is a quote
 (3) its signature is by that AK, with the AK's scheme and a hash other than SHA-1
 (4) its qualifying data is the nonce issued to this host, unused and not expired, with boot id and
     boot time
 (5) reset and restart counters did not go back, they agree with the boot id, and the boot time
     is not ahead of the TPM's clock
 (6) the PCR values given hash to the quoted digest and cover all required PCRs
 (7) the event logs replay to those PCRs; none is needed where (8) goes by the whole value
 (8) each required PCR equals the reference values, as a whole or step by step
 (9) the signed PCR selection is the one that was asked for
(10) the quote's qualified signer is the AK under the endorsed EK

(0)-(4) and (10) establish authenticity: the first failure ends the appraisal and the evidence is
*discarded*, since anybody may have sent it. After them the host itself is speaking, and (5)-(9)
report every failure as *untrusted*.

Not established here: that the nonce is used once (`store/challenges.py` takes each back once), that
the EK's certificate is good (enrolment), and anything that happened after the boot that the PCRs
cover.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Optional, Union

from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal import logs, pcr_values
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce, authenticate
from ovirt_tcp_plugin.verifier.appraisal.boot_time import check_boot_time
from ovirt_tcp_plugin.verifier.appraisal.counters import BootCounters, boot_of, check_counters
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import EnrolledTpm, SignedQuote
from ovirt_tcp_plugin.verifier.appraisal.known_logs import KnownLogs, digests_of
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reappraise import conclude
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria


@dataclasses.dataclass(frozen=True)
class Discarded:
    """The evidence proves nothing about the host; `finding` is the first failed check."""

    finding: Finding


@dataclasses.dataclass(frozen=True)
class Appraised:
    """The host itself has spoken.

    Attributes:
        level: trusted, untrusted, or unknown when no reference values are chosen.
        findings: every failed check.
        boot: the counters of this quote.
        measured: what check (8) went by, and will again when the reference values change.
        log_digests: SHA-256 of each log that check (7) went by; empty if one does not tell all of
            the required PCRs.
    """

    level: Level
    findings: tuple[Finding, ...]
    boot: BootCounters
    measured: Measured
    log_digests: Mapping[str, str]


def appraise(
    reported: evidence.Evidence,
    host: Optional[EnrolledTpm],
    issued: Optional[IssuedNonce],
    previous: Optional[BootCounters],
    known: Optional[KnownLogs],
    required: tpm2.Selection,
    criteria: Criteria,
    now_ms: int,
) -> Union[Discarded, Appraised]:
    """Return what `reported` proves about `host` at `now_ms`.

    Args:
        reported: the decoded, untrusted evidence: check (0) is done.
        host: the TPM enrolled under the sender's name, None if there is none.
        issued: the challenge that is out for the evidence's nonce, None if none is.
        previous: counters of the last authentic quote, None if there was none in this enrolment.
        known: the logs that came with an earlier report of the host, None if there are none.
        required: the one bank and the PCRs that the host's profile demands.
        criteria: the reference values.

    Raises:
        ValueError: `required` names no PCR; an empty set is a fault of configuration, never a pass.
    """
    if len(required) != 1 or not all(required.values()):
        raise ValueError("required PCRs must be a non-empty set in one bank")
    if host is None:  # (1)
        unknown = FindingCode.NOT_ENROLLED.finding("no host is enrolled under this name")
        return Discarded(unknown)
    if reported.log_digests and not (known and known.are_meant_by(reported, required)):  # (0)
        unknown = FindingCode.LOG_UNKNOWN.finding("the report names a log that is not known here")
        return Discarded(unknown)
    quote = authenticate(reported, host, issued, now_ms)  # (2)-(4), (10)
    if isinstance(quote, Finding):
        return Discarded(quote)
    proof = _prove(reported, host, quote, known, required)  # (6), (7)
    return _judge(reported, host, quote, issued, previous, proof, required, criteria)


def logs_for(required: tpm2.Selection) -> Collection[str]:
    """Return the kinds of logs that check (7) reads to prove these PCRs."""
    ((_, indices),) = required.items()
    return logs.kinds_for(indices)


def _judge(
    reported: evidence.Evidence,
    host: EnrolledTpm,
    quote: SignedQuote,
    issued: Optional[IssuedNonce],
    previous: Optional[BootCounters],
    proof: _Proof,
    required: tpm2.Selection,
    criteria: Criteria,
) -> Appraised:
    """Return what an authentic quote says of the host: checks (5), (8), (9)."""
    timed = check_boot_time(reported.boot_id, reported.boottime_ms, quote.counters, previous)
    boot = boot_of(reported.boot_id, quote.counters, timed.lead_ms)
    findings = [
        *check_counters(boot, quote.counters, previous, required),  # (5)
        *timed.findings,  # (5)
        *pcr_values.check_selection(quote.selection, issued),  # (9)
        *proof.findings,
    ]
    differences = criteria.judge(proof.measured, host.name, required)  # (8)
    conclusion = conclude(findings, differences, criteria.chosen_for(host.name))
    digests = {} if proof.findings else digests_of(reported, logs_for(required))
    return Appraised(conclusion.level, conclusion.findings, boot, proof.measured, digests)


class _Proof(NamedTuple):
    """What quote and logs prove together, and what failed of checks (6) and (7)."""

    measured: Measured
    findings: Sequence[Finding]


def _prove(
    reported: evidence.Evidence,
    host: EnrolledTpm,
    quote: SignedQuote,
    known: Optional[KnownLogs],
    required: tpm2.Selection,
) -> _Proof:
    ((bank, indices),) = required.items()
    proven = pcr_values.check_values(quote, host, reported.pcrs, required)  # (6)
    if reported.log_digests and known is not None:
        replayed = known.check(proven.values)  # (7)
    else:
        sent = logs.SentLogs(reported.logs, reported.absences, reported.oversized_logs)
        replayed = logs.check(sent, bank, indices, proven.values)  # (7)
    values = {pcr: value.hex() for pcr, value in proven.values.items()}
    measured = Measured(values, replayed.steps, bank, notes=replayed.notes)
    return _Proof(measured, [*proven.findings, *replayed.findings])
