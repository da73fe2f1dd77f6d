# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8): does what the TPM proved equal the reference values?

A set matches if all required PCRs that it speaks of do, by the value of the whole PCR or by the
steps of its log; the sets that match have to cover all required PCRs between them. So firmware and
launch may have sets of their own, and yet half of one good boot with half of another is no good
boot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.messages import eventlog, tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.firmware_pcrs import TEXTS_PCR
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal import (
    golden_boot,
    grub_commands,
    grub_files,
    kernel_cover,
    logs,
)
from ovirt_tcp_plugin.verifier.appraisal.grub_commands import Commands
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart

_SECURE_BOOT_DIFFERS = "secure_boot_differs"

# By PCR, for the required PCRs that a set speaks of; None where the boot matches.
_Comparison = Mapping[int, Optional[Difference]]


class _ArrangedSet:
    """A set, arranged by PCR. Staged values and those of other banks are left out.

    Attributes:
        host_names: the hosts that it is for; None: all that no set is for.
    """

    def __init__(self, bank: str, reference_set: ReferenceSet) -> None:
        names = reference_set.host_names
        self.host_names = None if names is None else frozenset(names)
        self.parts: dict[int, ReferencePart] = {}
        for value in reference_set.values:
            if value.bank == bank and not value.staged:
                if value.pcr not in self.parts:
                    self.parts[value.pcr] = ReferencePart(
                        reference_set.name, reference_set.vocabulary
                    )
                part = self.parts[value.pcr]
                part.add(value.component, value.digest, value.host_name, value.text)
        for pcr, component in reference_set.slots:
            if pcr in self.parts:
                self.parts[pcr].slots.append(component)

    def compare(self, measured: Measured, host_name: str, pcrs: Iterable[int]) -> _Comparison:
        comparison = {}
        for pcr in pcrs:
            if pcr in self.parts:
                comparison[pcr] = _compare_pcr(self.parts[pcr], measured, host_name, pcr)
        return comparison


class Criteria:
    """All sets, arranged for judging.

    Args:
        bank: PCR bank of the required PCRs.
        sets: the reference values.
    """

    def __init__(self, bank: str, sets: Iterable[ReferenceSet]) -> None:
        self._sets = [_ArrangedSet(bank, reference_set) for reference_set in sets]

    def chosen_for(self, host_name: str) -> bool:
        """Return whether any reference values are chosen for this host."""
        return bool(self._sets_for(host_name))

    def judge(
        self, measured: Measured, host_name: str, required: tpm2.Selection
    ) -> tuple[Finding, ...]:
        """Return the findings of check (8): what differs from the nearest set.

        They come in the order of the boot, since what differs first is the likely cause: without
        Secure Boot another chain of boot loaders runs.
        """
        sets = self._sets_for(host_name)
        if not sets:
            text = "no reference values are chosen for this host: import them from a golden host"
            return (FindingCode.NO_REFERENCE_VALUES.finding(text),)
        ((_, pcrs),) = required.items()
        comparisons = [arranged.compare(measured, host_name, pcrs) for arranged in sets]
        differences = _differences(measured, pcrs, comparisons)
        return _with_cover(differences, measured, pcrs)

    def _sets_for(self, host_name: str) -> list[_ArrangedSet]:
        """Return the sets that name the host, if there are any; otherwise those that name none."""
        by_name = []
        for_all = []
        for arranged in self._sets:
            if arranged.host_names is None:
                for_all.append(arranged)
            elif host_name in arranged.host_names:
                by_name.append(arranged)
        return [arranged for arranged in by_name or for_all if arranged.parts]


def _differences(
    measured: Measured, pcrs: Iterable[int], comparisons: Sequence[_Comparison]
) -> tuple[Finding, ...]:
    """Return what differs from the nearest sets, in the order of the boot, each finding once."""
    covered = _covered(comparisons)
    places: dict[Finding, _Place] = {}
    for pcr in pcrs:
        if pcr not in covered:
            for other, difference in _nearest(pcr, comparisons, measured).items():
                places[difference.finding] = _place(other, difference, measured)
    return tuple(sorted(places, key=places.__getitem__))


def _with_cover(
    differences: tuple[Finding, ...], measured: Measured, pcrs: Collection[int]
) -> tuple[Finding, ...]:
    """Return the differences, and before them that nothing vouches for the kernel.

    That Secure Boot is off, is said once; what cannot be proven is no news beside a difference.
    """
    uncovered = tuple(kernel_cover.check(measured, pcrs))
    if any(finding.code == FindingCode.SECURE_BOOT_OFF.code for finding in uncovered):
        others = [finding for finding in differences if finding.code != _SECURE_BOOT_DIFFERS]
        return (*uncovered, *others)
    return differences or uncovered


def _covered(comparisons: Iterable[_Comparison]) -> set[int]:
    """Return the PCRs of the sets that match."""
    covered: set[int] = set()
    for comparison in comparisons:
        if not any(comparison.values()):
            covered.update(comparison)
    return covered


def _nearest(
    pcr: int, comparisons: Iterable[_Comparison], measured: Measured
) -> Mapping[int, Difference]:
    """Return the differences from the nearest set that speaks of a PCR, by PCR."""
    candidates = [comparison for comparison in comparisons if pcr in comparison]
    if not candidates:
        text = f"no reference values cover PCR {pcr}"
        value = measured.values.get(pcr, "")
        finding = FindingCode.NO_REFERENCE_VALUES.finding(text, seen=value)
        return {pcr: Difference(0, finding)}
    nearest = min(candidates, key=_distance)
    return {other: difference for other, difference in nearest.items() if difference}


def _distance(comparison: _Comparison) -> int:
    return sum(difference.distance for difference in comparison.values() if difference)


class _Place(NamedTuple):
    """When in the boot a difference came about.

    The launch comes after the firmware, though its log stands first.
    """

    launch: bool
    position: int


def _place(pcr: int, difference: Difference, measured: Measured) -> _Place:
    positions = [position for position, step in enumerate(measured.steps) if step.pcr == pcr]
    launch = pcr in eventlog.DRTM_PCRS
    if difference.position < len(positions):
        return _Place(launch, positions[difference.position])
    return _Place(launch, positions[-1] + 1 if positions else 0)


def _compare_pcr(
    part: ReferencePart, measured: Measured, host_name: str, pcr: int
) -> Optional[Difference]:
    """Return the difference between one PCR and what a set says of it, None if they match."""
    value = measured.values.get(pcr)
    whole = part.expected("", host_name)
    if value is None:
        text = f"PCR {pcr} was not proven, so it cannot be compared"
        return _furthest(part, FindingCode.PCR_UNPROVEN.finding(text, expected=whole))
    if eventlog.never_launched(pcr, bytes.fromhex(value)):
        text = f"PCR {pcr} is all ones: no measured launch (TXT) took place in this boot"
        return _furthest(part, FindingCode.NO_LAUNCH.finding(text, whole, value))
    if part.allows("", value, host_name):
        return None
    if part.slots:
        return _compare_steps(part, measured, host_name, pcr)
    text = f"PCR {pcr} differs from the reference values {part.set_name}"
    return _furthest(part, FindingCode.PCR_DIFFERS.finding(text, whole, value))


def _compare_steps(
    part: ReferencePart, measured: Measured, host_name: str, pcr: int
) -> Optional[Difference]:
    steps = [step for step in measured.steps if step.pcr == pcr]
    is_empty = not any(bytes.fromhex(measured.values[pcr]))
    if is_empty and pcr == TEXTS_PCR:
        finding = FindingCode.EVENT_MISSING.finding(golden_boot.EMPTY_TEXTS)
        return _furthest(part, finding)
    if steps and pcr in golden_boot.GRUB_PCRS:
        return _compare_grub(part, measured, host_name, pcr)
    if steps and part.vocabulary != measured.vocabulary:
        steps = part.in_its_words(steps)
    # An empty log replays to an empty PCR.
    if steps or is_empty:
        return logs.of_pcr(pcr).compare(part, steps, pcr, host_name)
    text = (
        f"PCR {pcr}: without a log that replays to it, "
        f"its steps cannot be compared with {part.set_name}"
    )
    finding = FindingCode.STEPS_UNPROVEN.finding(text, seen=measured.values[pcr])
    return _furthest(part, finding)


def _compare_grub(
    part: ReferencePart, measured: Measured, host_name: str, pcr: int
) -> Optional[Difference]:
    """Return the difference of what GRUB did; its commands tell which of its files is which."""
    commands = grub_commands.read(measured.steps)
    if not isinstance(commands, Commands):
        return commands
    if pcr == TEXTS_PCR:
        return grub_commands.compare(part, commands, host_name)
    files = [step for step in measured.steps if step.pcr == pcr]
    return grub_files.compare(part, files, commands.initrds, host_name)


def _furthest(part: ReferencePart, finding: Finding) -> Difference:
    """Return a difference that is beyond that of any steps."""
    return Difference(2 * len(part.slots) + 1, finding)
