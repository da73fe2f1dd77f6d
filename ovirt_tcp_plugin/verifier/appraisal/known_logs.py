# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (7) for logs that came with an earlier report of the same boot, and are only named now.

What a log says (its steps, and the PCR values to which it replays) follows from its bytes alone, so
it need not travel and be read again. It is remembered when the log replayed to all required PCRs,
together with the log's digest. The quote still binds it: each PCR must have the very value to which
the log replays. Nothing else is remembered: reference values and profile are applied to the steps
each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from ovirt_tcp_plugin.messages import components, evidence, tpm2
from ovirt_tcp_plugin.verifier.appraisal.logs import ProvenSteps, boot_phases, tcg
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured


@dataclasses.dataclass(frozen=True)
class KnownLogs:
    """What the logs of a host's boot say.

    Attributes:
        boot_id: the boot that they are of.
        digests: SHA-256 of each log by its kind, hex.
        measured: the values to which they replay, and their steps.
    """

    boot_id: str
    digests: Mapping[str, str]
    measured: Measured

    def are_meant_by(self, reported: evidence.Evidence, required: tpm2.Selection) -> bool:
        """Return whether a report of the same boot names these logs, and they tell all of it."""
        ((bank, indices),) = required.items()
        return (
            reported.boot_id == self.boot_id
            and dict(reported.log_digests) == dict(self.digests)
            and self.measured.bank == bank
            and self.measured.values.keys() >= set(indices)
            and self.measured.vocabulary == components.VOCABULARY
        )

    def check(self, values: Mapping[int, bytes]) -> ProvenSteps:
        """Return the steps of those PCRs that have the values to which the logs replay.

        Args:
            values: the required PCRs that the TPM signed for.
        """
        proven = set()
        findings = []
        for pcr, value in values.items():
            replayed = bytes.fromhex(self.measured.values[pcr])
            if boot_phases.leads_to(pcr, self.measured.bank, replayed, value):
                proven.add(pcr)
            else:
                findings.append(tcg.differs(pcr, replayed, value))
        steps = tuple(step for step in self.measured.steps if step.pcr in proven)
        return ProvenSteps(steps, findings, self.measured.notes)


def digests_of(reported: evidence.Evidence, kinds: Collection[str]) -> Mapping[str, str]:
    """Return the digests of the logs that a report carries or names."""
    digests = dict(reported.log_digests)
    for kind, content in reported.logs.items():
        digests[kind] = evidence.log_digest(content)
    return {kind: digests[kind] for kind in kinds if kind in digests}
