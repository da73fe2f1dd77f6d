# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reports of a made-up TPM, judged."""

from __future__ import annotations

from ovirt_tcp_plugin.messages import components, evidence, reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.verifier.appraisal.appraise import Appraised, Discarded, appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria
from tests.verifier.software_tpm import BOOT_ID, REQUIRED, SoftwareTpm

NOW = 50_000
OTHER_BOOT_ID = BOOT_ID.replace("5", "6")


def issue(
    nonce: bytes = b"n" * 32, host: str = "host-1", born: int = NOW - 100, end: int = NOW + 100
) -> IssuedNonce:
    return IssuedNonce(evidence.Challenge(nonce, REQUIRED, end - born), host, born, end)


def good_boot(name: str = "golden", tpm: SoftwareTpm | None = None) -> ReferenceSet:
    golden = tpm or SoftwareTpm()
    return reference_values.from_boot(
        name, "sha256", components.steps(golden.events, "sha256", (17, 18))
    )


def judge(
    tpm: SoftwareTpm, reported: evidence.Evidence | None = None, **changes: object
) -> Discarded | Appraised:
    issued = changes.pop("issued", issue())
    arguments = {
        "host": tpm.host(),
        "issued": issued,
        "previous": None,
        "known": None,
        "required": REQUIRED,
        "criteria": Criteria("sha256", changes.pop("good", [good_boot()])),  # type: ignore[arg-type]
        "now_ms": NOW,
        **changes,
    }
    return appraise(reported or tpm.report(issue()), **arguments)  # type: ignore[arg-type]


def assert_discarded(outcome: Discarded | Appraised, check: int, code: str, text: str) -> None:
    assert isinstance(outcome, Discarded)
    assert (outcome.finding.check, outcome.finding.code) == (check, code)
    assert text in outcome.finding.text


def assert_untrusted(outcome: Discarded | Appraised, *expected: tuple[int, str]) -> Appraised:
    assert isinstance(outcome, Appraised)
    assert outcome.level is Level.UNTRUSTED
    assert [(finding.check, finding.code) for finding in outcome.findings] == list(expected)
    return outcome
