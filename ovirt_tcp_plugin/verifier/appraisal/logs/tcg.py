# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The TCG event logs: replayed exactly, and compared step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Optional

from ovirt_tcp_plugin.messages import components, eventlog, evidence
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal import ordered_steps
from ovirt_tcp_plugin.verifier.appraisal.logs import boot_phases
from ovirt_tcp_plugin.verifier.appraisal.logs.measurement_log import ReplayedLog
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart


@dataclasses.dataclass(frozen=True)
class TcgEvents:
    """The events of a log that extended the PCRs in question.

    Attributes:
        notes: as in `ParsedLog`.
    """

    events: Sequence[eventlog.Event]
    notes: tuple[str, ...] = ()

    def recorded(self, bank: str) -> Set[int]:
        """As in `ParsedLog`."""
        return {event.pcr for event in self.events if bank in event.digests}

    def replay(self, bank: str, quoted: Mapping[int, bytes]) -> ReplayedLog:
        """As in `ParsedLog`: the log must replay to a PCR exactly."""
        recorded = self.recorded(bank)
        launched = eventlog.launched(self.events)
        replayed = eventlog.replay(self.events, bank, quoted)
        proven = []
        unproven = {}
        for pcr, value in quoted.items():
            if pcr in eventlog.DRTM_PCRS and pcr in recorded and not launched:
                unproven[pcr] = _without_launch(pcr, value)
            elif boot_phases.leads_to(pcr, bank, replayed[pcr], value):
                proven.append(pcr)
            elif pcr in recorded:
                unproven[pcr] = differs(pcr, replayed[pcr], value)
            else:
                unproven[pcr] = missing([pcr], bank)
        return ReplayedLog(components.steps(self.events, bank, proven), unproven)


class TcgLog:
    """What the logs of a launch and of firmware have in common."""

    def compare(
        self, part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
    ) -> Optional[Difference]:
        """As in `MeasurementLog`."""
        return ordered_steps.compare(part, steps, pcr, host_name)


def missing(pcrs: Collection[int], bank: str) -> Finding:
    """Return the finding that no log records these PCRs."""
    return FindingCode.LOG_MISSING.finding(_untold(pcrs, bank))


def absent(
    kind: str, pcrs: Collection[int], bank: str, absence: Optional[evidence.Absence]
) -> Finding:
    """Return the finding that the host sent no log of the kind that tells of these PCRs.

    Args:
        absence: why, as the host says; None if it does not.
    """
    code = FindingCode.LOG_MISSING
    if kind == "firmware":
        code = FindingCode.FIRMWARE_LOG_MISSING
    elif absence is not None and absence.reason == evidence.LOCKED_DOWN:
        code = FindingCode.LOG_LOCKED_DOWN
    note = f"; the host says: {absence.note}" if absence is not None else ""
    return code.finding(_untold(pcrs, bank) + note)


def _untold(pcrs: Collection[int], bank: str) -> str:
    listed = ", ".join(str(pcr) for pcr in pcrs)
    return f"no event log tells in bank {bank} how PCR {listed} came about"


def oversized(reason: str, kind: str = "") -> Finding:
    """Return the finding that an event log is too long to be read.

    Args:
        reason: how long it is, a clause.
        kind: of the log, empty if its bytes do not tell.
    """
    name = {"txt": "of the launch ", "firmware": "of the firmware "}.get(kind, "")
    return FindingCode.LOG_OVERSIZED.finding(
        f"the event log {name}is too long to be read: {reason}; all logs of a boot together may "
        f"have {evidence.MAX_LOG_SIZE} bytes"
    )


def other_bank(pcrs: Collection[int], bank: str, others: Collection[str]) -> Finding:
    """Return the finding that a log records these PCRs in other banks only."""
    listed = ", ".join(str(pcr) for pcr in pcrs)
    return FindingCode.BANK_NOT_EXTENDED.finding(
        f"the event log tells of PCR {listed} in bank {' and '.join(others)}, not in {bank}: "
        f"the firmware extends no bank {bank}"
    )


def _without_launch(pcr: int, quoted: bytes) -> Finding:
    """Return the finding on a log that tells of steps of a launch, but of no launch.

    Without a launch anybody may extend these PCRs, and the types of the events are nobody's proof.
    """
    return FindingCode.LOG_WITHOUT_LAUNCH.finding(
        f"the event log tells what extended PCR {pcr}, but of no measured launch before",
        seen=quoted.hex(),
    )


def differs(pcr: int, replayed: bytes, quoted: bytes) -> Finding:
    """Return the finding that a PCR has another value than the one to which its log replays."""
    if eventlog.never_launched(pcr, quoted):
        return FindingCode.LOG_WITHOUT_LAUNCH.finding(
            f"the event log tells of a measured launch, but PCR {pcr} shows that none took place",
            expected=replayed.hex(),
            seen=quoted.hex(),
        )
    return FindingCode.LOG_DIFFERS.finding(
        f"the event log does not replay to PCR {pcr}: it is not the log of what was booted",
        expected=replayed.hex(),
        seen=quoted.hex(),
    )
