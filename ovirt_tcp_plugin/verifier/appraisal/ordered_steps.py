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
    return _Comparison(part, steps, pcr, host_name).difference()


class _Comparison:
    """The steps of one PCR beside the slots of one set; a position is a place in both."""

    def __init__(
        self, part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
    ) -> None:
        self._part = part
        self._slots = part.slots
        self._steps = steps
        self._pcr = pcr
        self._host_name = host_name

    def difference(self) -> Optional[Difference]:
        """Return the difference, None if there is none."""
        if len(self._steps) != len(self._slots):
            return self._other_length()
        allows = self._part.allows  # by itself: a boot has hundreds of steps
        host = self._host_name
        matches = [allows(slot, step.digest, host) for slot, step in zip(self._slots, self._steps)]
        if all(matches):
            return self._relabelled()
        position = matches.index(False)
        finding = self._exchanged_or_unknown(position)
        return Difference(matches.count(False), finding, position)

    def _allows(self, slot: str, step: Step) -> bool:
        """Return whether a step has a digest that is good in this slot."""
        return self._part.allows(slot, step.digest, self._host_name)

    def _relabelled(self) -> Optional[Difference]:
        for position, (slot, step) in enumerate(zip(self._slots, self._steps)):
            if slot != step.component:
                place = self._place(position)
                name = components.text(slot)
                finding = FindingCode.EVENT_RELABELLED.finding(
                    f"{place}: the log calls {name} by another name",
                    expected=slot,
                    seen=step.component,
                )
                return Difference(1, finding, position)
        return None

    def _exchanged_or_unknown(self, position: int) -> Finding:
        """Return the finding on the first step that is not what belongs in its place."""
        slot = self._slots[position]
        step = self._steps[position]
        set_name = self._part.set_name
        expected = self._part.expected(slot, self._host_name)
        place = self._place(position)
        name = components.text(slot)
        if any(self._allows(other, step) for other in self._slots):
            return FindingCode.EVENTS_REORDERED.finding(
                f"{place}: a good digest, but in the place of {name} of {set_name}",
                expected,
                step.digest,
            )
        state = components.switched(step)
        text = f"{place}: {name}{state} is none that the reference values {set_name} know"
        return part_differs(slot, text, expected, step.digest)

    def _other_length(self) -> Difference:
        """Return the difference of a boot with more or fewer steps than the set has."""
        shorter = min(len(self._steps), len(self._slots))
        longer = max(len(self._steps), len(self._slots))
        position = self._first_mismatch(shorter)
        if position < shorter and self._in_place(position):
            finding = self._exchanged_or_unknown(position)
        elif len(self._steps) > len(self._slots):
            finding = self._added(position)
        else:
            finding = self._missing(position)
        return Difference(longer - position, finding, position)

    def _first_mismatch(self, end: int) -> int:
        """Return the position of the first step that does not match; `end` where all do."""
        for position in range(end):
            if not self._allows(self._slots[position], self._steps[position]):
                return position
        return end

    def _in_place(self, position: int) -> bool:
        """Return whether the first step that differs stands in for its slot.

        Otherwise it is one too many, or one before it is missing. One change of a boot often brings
        another: without Secure Boot nobody's signature is measured, either.
        """
        slot = self._slots[position]
        step = self._steps[position]
        following = position + 1
        if len(self._steps) > len(self._slots):
            shifted = self._allows(slot, self._steps[following])
        else:
            shifted = self._allows(self._slots[following], step)
        return not shifted and step.component == slot

    def _added(self, position: int) -> Finding:
        step = self._steps[position]
        name = components.text(step.component)
        set_name = self._part.set_name
        text = f"{self._place(position)}: boots of {set_name} have no such step here ({name})"
        return FindingCode.EVENT_ADDED.finding(text, seen=step.digest)

    def _missing(self, position: int) -> Finding:
        slot = self._slots[position]
        name = components.text(slot)
        text = f"{self._place(position)}: {name} of {self._part.set_name} is missing"
        expected = self._part.expected(slot, self._host_name)
        return FindingCode.EVENT_MISSING.finding(text, expected=expected)

    def _place(self, position: int) -> str:
        return f"PCR {self._pcr}, event {position + 1}"
