# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The level that follows from the findings, and check (8) again when reference values change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ovirt_tcp_plugin.messages import tpm2
from ovirt_tcp_plugin.messages.findings import CheckNumber, FindingCode
from ovirt_tcp_plugin.messages.result import Finding, Level
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reference_match import Criteria

# Of check (8): what is said of a PCR while nobody knows how it came about.
_LOG_NEEDED = frozenset(
    {
        FindingCode.STEPS_UNPROVEN.code,
        FindingCode.NO_REFERENCE_VALUES.code,
        FindingCode.NO_LAUNCH.code,
        FindingCode.SECURE_BOOT_UNPROVEN.code,
        FindingCode.KERNEL_NOT_MEASURED.code,
    }
)

# Of check (7): there is no log, or none that can be sent.
_NO_LOG = frozenset(
    {
        FindingCode.LOG_MISSING.code,
        FindingCode.FIRMWARE_LOG_MISSING.code,
        FindingCode.LOG_LOCKED_DOWN.code,
        FindingCode.LOG_OVERSIZED.code,
    }
)


class Conclusion(NamedTuple):
    """Level and findings, the likely cause first."""

    level: Level
    findings: tuple[Finding, ...]


def conclude(
    other_findings: Sequence[Finding], differences: Sequence[Finding], chosen: bool
) -> Conclusion:
    """Return what follows from the findings.

    Where nothing was launched, the other findings only follow from that. A log that is not there
    counts only where check (8) needed it: a PCR that the reference values describe as a whole is
    judged by its value.

    Args:
        other_findings: of the checks but (8).
        differences: of check (8).
        chosen: whether any reference values are chosen for the host; without them nobody is judged.
    """
    if chosen and not any(difference.code in _LOG_NEEDED for difference in differences):
        other_findings = _without_missing_log(other_findings)
    findings = sorted([*other_findings, *differences], key=_follows)
    if not chosen:
        return Conclusion(Level.UNKNOWN, tuple(findings))
    level = Level.UNTRUSTED if findings else Level.TRUSTED
    return Conclusion(level, tuple(findings))


def reappraise(
    host_name: str,
    findings: Sequence[Finding],
    measured: Measured,
    required: tpm2.Selection,
    criteria: Criteria,
) -> Conclusion:
    """Return what follows from the same evidence under these criteria: (8) is checked again.

    Evidence that was not asked for all of `required`, because the profile was another one, takes
    no host out.
    """
    kept = [finding for finding in findings if finding.check != CheckNumber.REFERENCE_VALUES]
    differences = criteria.judge(measured, host_name, required)
    conclusion = conclude(kept, differences, criteria.chosen_for(host_name))
    # A host that kept values back has a finding of check (6), too.
    if conclusion.level is Level.UNTRUSTED and all(map(_is_unproven, conclusion.findings)):
        return Conclusion(Level.UNKNOWN, conclusion.findings)
    return conclusion


def _without_missing_log(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.code not in _NO_LOG]


def _follows(finding: Finding) -> bool:
    return finding.code != FindingCode.NO_LAUNCH.code


def _is_unproven(finding: Finding) -> bool:
    """Return whether a finding is of a PCR whose value the evidence does not have."""
    if finding.code == FindingCode.NO_REFERENCE_VALUES.code:
        return not finding.seen
    return finding.code == FindingCode.PCR_UNPROVEN.code
