# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Checks (2)-(4) and (10): is this quote the host's own answer to the nonce that it was sent?"""

from __future__ import annotations

import dataclasses
import hmac
from typing import Optional, Union

from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.enrolled_tpm import EnrolledTpm, SignedQuote


@dataclasses.dataclass(frozen=True)
class IssuedNonce:
    """A challenge as the verifier remembers it.

    Attributes:
        born_ms, end_ms: the verifier's CLOCK_BOOTTIME in milliseconds.
    """

    challenge: evidence.Challenge
    host_name: str
    born_ms: int
    end_ms: int


def authenticate(
    reported: evidence.Evidence, host: EnrolledTpm, issued: Optional[IssuedNonce], now_ms: int
) -> Union[SignedQuote, Finding]:
    """Return the quote if it is the host's own answer to the nonce, else the first failed check."""
    quote = host.check_quote(reported.attest, reported.signature, reported.pcrs)
    if isinstance(quote, Finding):
        return quote
    failed = _check_nonce(reported, host, issued, now_ms)
    if failed is not None:
        return failed
    bound = evidence.qualifying_data(reported.nonce, reported.boot_id, reported.boottime_ms)
    if not hmac.compare_digest(quote.qualifying_data, host.signed_part(bound)):
        return FindingCode.NONCE_DIFFERS.finding(
            "the quote was not made for this nonce, boot id and boot time"
        )
    return quote


def _check_nonce(
    reported: evidence.Evidence, host: EnrolledTpm, issued: Optional[IssuedNonce], now_ms: int
) -> Optional[Finding]:  # (4)
    if issued is None or not hmac.compare_digest(issued.challenge.nonce, reported.nonce):
        return FindingCode.NONCE_UNKNOWN.finding("the nonce was never issued, or was used before")
    if issued.host_name != host.name:
        return FindingCode.NONCE_FOREIGN.finding("the nonce was issued to another host")
    if not issued.born_ms <= now_ms < issued.end_ms:
        return FindingCode.NONCE_EXPIRED.finding("the answer came after the nonce's end")
    return None
