# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8) for a log whose steps come in one order, as those of firmware and of a launch do.

A step matches by its place: the digests of the log replay to the PCR (check 7), so their order is
proven, while the types and data in the log are the host's own words. A good digest in another
part's place is no good boot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ovirt_tcp_plugin.messages import components
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.findings import FindingCode, part_differs
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart


def compare(
    part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
) -> Optional[Difference]:
    """Return how the steps of a PCR differ from the slots of a set, None if they match."""
    if len(steps) != len(part.slots):
        return _other_length(part, steps, pcr, host_name)
    matches = [part.allows(slot, step.digest, host_name) for slot, step in zip(part.slots, steps)]
    if all(matches):
        return _relabelled(part, steps, pcr)
    position = matches.index(False)
    finding = _exchanged_or_unknown(part, steps, pcr, position, host_name)
    return Difference(matches.count(False), finding, position)


def _relabelled(part: ReferencePart, steps: Sequence[Step], pcr: int) -> Optional[Difference]:
    for position, (slot, step) in enumerate(zip(part.slots, steps)):
        if slot != step.component:
            finding = FindingCode.EVENT_RELABELLED.finding(
                f"{_place(pcr, position)}: the log calls {components.text(slot)} by another name",
                expected=slot,
                seen=step.component,
            )
            return Difference(1, finding, position)
    return None


def _exchanged_or_unknown(
    part: ReferencePart, steps: Sequence[Step], pcr: int, position: int, host_name: str
) -> Finding:
    """Return the finding on the first step that is not what belongs in its place."""
    slot = part.slots[position]
    step = steps[position]
    expected = part.expected(slot, host_name)
    place = _place(pcr, position)
    name = components.text(slot)
    if any(part.allows(other, step.digest, host_name) for other in part.slots):
        return FindingCode.EVENTS_REORDERED.finding(
            f"{place}: a good digest, but in the place of {name} of {part.set_name}",
            expected,
            step.digest,
        )
    state = components.switched(step)
    text = f"{place}: {name}{state} is none that the reference values {part.set_name} know"
    return part_differs(slot, text, expected, step.digest)


def _other_length(
    part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
) -> Difference:
    """Return the difference of a boot with more or fewer steps than the set has."""
    position = _first_mismatch(part, steps, host_name)
    distance = max(len(steps), len(part.slots)) - position
    compared = min(len(steps), len(part.slots))
    if position < compared and _in_place(part, steps, position, host_name):
        finding = _exchanged_or_unknown(part, steps, pcr, position, host_name)
    elif len(steps) > len(part.slots):
        finding = _added(part, steps[position], _place(pcr, position))
    else:
        finding = _missing(part, part.slots[position], _place(pcr, position), host_name)
    return Difference(distance, finding, position)


def _first_mismatch(part: ReferencePart, steps: Sequence[Step], host_name: str) -> int:
    """Return the position of the first step that does not match; where all do, that of the end."""
    compared = min(len(steps), len(part.slots))
    for position in range(compared):
        if not part.allows(part.slots[position], steps[position].digest, host_name):
            return position
    return compared


def _in_place(part: ReferencePart, steps: Sequence[Step], position: int, host_name: str) -> bool:
    """Return whether the first step that differs stands in for its slot.

    Otherwise it is one too many, or one before it is missing. One change of a boot often brings
    another: without Secure Boot nobody's signature is measured, either.
    """
    following = position + 1
    if len(steps) > len(part.slots):
        shifted = part.allows(part.slots[position], steps[following].digest, host_name)
    else:
        shifted = part.allows(part.slots[following], steps[position].digest, host_name)
    return not shifted and steps[position].component == part.slots[position]


def _added(part: ReferencePart, step: Step, place: str) -> Finding:
    name = components.text(step.component)
    text = f"{place}: boots of {part.set_name} have no such step here ({name})"
    return FindingCode.EVENT_ADDED.finding(text, seen=step.digest)


def _missing(part: ReferencePart, slot: str, place: str, host_name: str) -> Finding:
    text = f"{place}: {components.text(slot)} of {part.set_name} is missing"
    return FindingCode.EVENT_MISSING.finding(text, expected=part.expected(slot, host_name))


def _place(pcr: int, position: int) -> str:
    return f"PCR {pcr}, event {position + 1}"
