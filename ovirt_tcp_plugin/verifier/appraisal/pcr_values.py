# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Checks (6) and (9): which PCR values does the signature cover?

Only the *signed* selection names PCRs; the reported values are labels until they hash to the
signed digest.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import EnrolledTpm, SignedQuote


class ProvenValues(NamedTuple):
    """The required PCR values that the signature covers, by index, and what failed."""

    values: Mapping[int, bytes]
    findings: Sequence[Finding] = ()


def check_selection(
    selection: tpm2.Selection, issued: Optional[IssuedNonce]
) -> Iterator[Finding]:  # (9)
    """Return what is wrong with the PCRs that were quoted."""
    requested = issued.challenge.selection if issued else {}
    if dict(selection) != dict(requested):
        yield FindingCode.SELECTION_DIFFERS.finding(
            "the TPM signed for other PCRs than it was asked for",
            expected=tpm2.describe_selection(requested),
            seen=tpm2.describe_selection(selection),
        )


def check_values(
    quote: SignedQuote, host: EnrolledTpm, reported: tpm2.PcrValues, required: tpm2.Selection
) -> ProvenValues:  # (6)
    """Return the required PCR values that the quote proves."""
    try:
        digest = host.pcr_digest(quote.selection, reported)
    except errors.InvalidMessage as e:
        return ProvenValues({}, [FindingCode.VALUES_MISSING.finding(str(e))])
    if not hmac.compare_digest(digest, quote.pcr_digest):
        differing = FindingCode.VALUES_DIFFER.finding(
            "the PCR values given are not those that the TPM signed",
            expected=quote.pcr_digest.hex(),
            seen=digest.hex(),
        )
        return ProvenValues({}, [differing])
    return _required_values(quote.selection, reported, required)


def _required_values(
    signed: tpm2.Selection, reported: tpm2.PcrValues, required: tpm2.Selection
) -> ProvenValues:
    """Return the required ones of the values that were signed for."""
    ((bank, indices),) = required.items()
    quoted = signed.get(bank, ())
    proven = {index: reported[bank][index] for index in indices if index in quoted}
    missing = [str(index) for index in indices if index not in quoted]
    if not missing:
        return ProvenValues(proven)
    text = f"PCR {', '.join(missing)} of bank {bank} is required, but was not quoted"
    return ProvenValues(proven, [FindingCode.PCR_NOT_QUOTED.finding(text)])
