# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Check (8): does what the TPM proved equal the reference values?

A set matches if all required PCRs that it speaks of do, by the value of the whole PCR or step by step; the sets that
match have to cover all required PCRs between them. So firmware and launch may have sets of their own, and yet half of
one good boot with half of another is no good boot.

A step matches by its place: the digests of the log replay to the PCR (check 7), so their order is proven, while the
types and data in the log are the host's own words. A good digest in another part's place is no good boot.

Pure; what a host's last evidence showed can be judged again whenever the reference values change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, eventlog, json_fields, tpm2
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.messages.result import Finding, Level

MAX_MEASURED_SIZE = 4 * 1024 * 1024
# Expected values that one finding names; more would not be read.
NAMED = 3


@dataclasses.dataclass(frozen=True)
class Measured:
    """What authentic evidence proved.

    Attributes:
        values: the required PCRs that the TPM signed for, lower-case hex.
        steps: the steps of those PCRs whose log replays to them, in order.
        bank: PCR bank of both.
    """

    values: Mapping[int, str]
    steps: tuple[Step, ...]
    bank: str = "sha256"


def encode(measured: Measured) -> str:
    """Return the JSON text of what was measured, for the store."""
    steps = [[step.pcr, step.component, step.digest] for step in measured.steps]
    values = {str(i): value for i, value in measured.values.items()}
    return json.dumps({"bank": measured.bank, "values": values, "steps": steps})


def decode(stored: str) -> Measured:
    """Return what `encode` made of it.

    Raises:
        InvalidMessage: the text is another one.
    """
    if not isinstance(stored, str):  # SQLite keeps what it is given, whatever the column's type
        raise errors.InvalidMessage("measured", "it is no text")
    members = json_fields.members(
        json_fields.parse(stored.encode("utf-8"), "measured", MAX_MEASURED_SIZE), "measured"
    )
    try:
        given = json_fields.members(members.get("values"), "values")
        values = {int(i): bytes.fromhex(str(value)).hex() for i, value in given.items()}
        steps = tuple(
            Step(int(pcr), str(word), str(digest))
            for pcr, word, digest in members["steps"]  # type: ignore[attr-defined]
        )
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise errors.InvalidMessage("measured", "it is not what was stored") from e
    return Measured(values, steps, json_fields.text(members, "bank", 16))


class _Part:
    """What one set says of one PCR."""

    def __init__(self, set_name: str) -> None:
        self.set_name = set_name
        self.slots: list[str] = []
        # Good digests by component, "" for the whole PCR; each with the hosts it is good for, "" for all.
        self._good: dict[str, dict[str, set[str]]] = {}

    def add(self, component: str, digest: str, host_name: str) -> None:
        self._good.setdefault(component, {}).setdefault(digest, set()).add(host_name)

    def allows(self, component: str, digest: str, host_name: str) -> bool:
        hosts = self._good.get(component, {}).get(digest)
        return hosts is not None and ("" in hosts or host_name in hosts)

    def expected(self, component: str, host_name: str) -> str:
        """Return the good digests of a component as text."""
        digests = [
            one for one in self._good.get(component, {}) if self.allows(component, one, host_name)
        ]
        more = f" or {len(digests) - NAMED} more" if len(digests) > NAMED else ""
        return " or ".join(digests[:NAMED]) + more


class _Set:
    """One set, arranged by PCR. Staged values and those of other banks are left out."""

    def __init__(self, bank: str, one: ReferenceSet) -> None:
        self.host_names = None if one.host_names is None else frozenset(one.host_names)
        self.parts: dict[int, _Part] = {}
        for value in one.values:
            if value.bank == bank and not value.staged:
                part = self.parts.setdefault(value.pcr, _Part(one.name))
                part.add(value.component, value.digest, value.host_name)
        for pcr, component in one.slots:
            if pcr in self.parts:
                self.parts[pcr].slots.append(component)


class Criteria:
    """All sets, arranged for judging.

    Args:
        bank: PCR bank of the required PCRs.
        sets: the reference values.
    """

    def __init__(self, bank: str, sets: Iterable[ReferenceSet]) -> None:
        self._sets = [_Set(bank, one) for one in sets]

    def chosen_for(self, host_name: str) -> bool:
        """Return whether any reference values are chosen for this host."""
        return bool(self._sets_for(host_name))

    def judge(
        self, measured: Measured, host_name: str, required: tpm2.Selection
    ) -> tuple[Finding, ...]:
        """Return the findings of check (8): what differs from the nearest set, in the order of the boot.

        What differs first is the likely cause: without Secure Boot another chain of boot loaders runs.
        """
        sets = self._sets_for(host_name)
        if not sets:
            text = "no reference values are chosen for this host: import them from a golden host"
            return (Finding(8, "no_reference_values", text),)
        ((_, indices),) = required.items()
        compared = [_compare_set(one, indices, measured, host_name) for one in sets]
        covered = {pcr for one in compared if not any(one.values()) for pcr in one}
        found: dict[Finding, tuple[bool, int]] = {}  # each once, with its place in the boot
        for index in indices:
            if index not in covered:
                for pcr, difference in _nearest(index, compared, measured):
                    found[difference.finding] = _place(pcr, difference, measured)
        return tuple(sorted(found, key=found.__getitem__))

    def _sets_for(self, host_name: str) -> list[_Set]:
        """Return the sets that name the host, if there are any; otherwise those that name none."""
        naming = [
            one for one in self._sets if one.host_names is not None and host_name in one.host_names
        ]
        general = [one for one in self._sets if one.host_names is None]
        return [one for one in naming or general if one.parts]


def _nearest(
    index: int, compared: Sequence[_Compared], measured: Measured
) -> list[tuple[int, _Difference]]:
    """Return what differs from the nearest set that speaks of a PCR, by PCR."""
    speaking = [one for one in compared if index in one]
    if not speaking:
        text = f"no reference values cover PCR {index}"
        return [
            (
                index,
                _Difference(
                    0, Finding(8, "no_reference_values", text, "", measured.values.get(index, ""))
                ),
            )
        ]
    nearest = min(
        speaking,
        key=lambda one: sum(difference.distance for difference in one.values() if difference),
    )
    return [(pcr, difference) for pcr, difference in nearest.items() if difference]


def _place(pcr: int, difference: _Difference, measured: Measured) -> tuple[bool, int]:
    """Return when in the boot a difference came about: the launch comes after the firmware, whose log stands behind."""
    taken = [place for place, step in enumerate(measured.steps) if step.pcr == pcr]
    after = taken[-1] + 1 if taken else 0
    return pcr in eventlog.DRTM_PCRS, taken[difference.position] if difference.position < len(
        taken
    ) else after


@dataclasses.dataclass(frozen=True)
class _Difference:
    """How far a boot is from a set, and the first thing that differs, with its position among the PCR's events."""

    distance: int
    finding: Finding
    position: int = 0


# By PCR, for the required ones that a set speaks of; None where it matches.
_Compared = Mapping[int, Optional[_Difference]]


def _compare_set(
    one: _Set, indices: Iterable[int], measured: Measured, host_name: str
) -> _Compared:
    spoken = (index for index in indices if index in one.parts)
    return {index: _compare(one.parts[index], index, measured, host_name) for index in spoken}


def _compare(part: _Part, index: int, measured: Measured, host_name: str) -> Optional[_Difference]:
    """Return the difference between one PCR and what a set says of it, None if they match."""
    value = measured.values.get(index)
    whole = part.expected("", host_name)
    furthest = 2 * len(part.slots) + 1
    if value is None:
        text = f"PCR {index} was not proven, so it cannot be compared"
        return _Difference(furthest, Finding(8, "pcr_unproven", text, whole))
    if never_launched(index, bytes.fromhex(value)):
        text = f"PCR {index} is all ones: no measured launch (TXT) took place in this boot"
        return _Difference(furthest, Finding(8, "no_launch", text, whole, value))
    if part.allows("", value, host_name):
        return None
    taken = [step for step in measured.steps if step.pcr == index]
    if part.slots and not taken:
        text = f"PCR {index}: without a log that replays to it, its steps cannot be compared with {part.set_name}"
        return _Difference(furthest, Finding(8, "steps_unproven", text, "", value))
    if not part.slots:
        text = f"PCR {index} differs from the reference values {part.set_name}"
        return _Difference(furthest, Finding(8, "pcr_differs", text, whole, value))
    return _compare_steps(part, taken, index, host_name)


def _compare_steps(
    part: _Part, taken: Sequence[Step], index: int, host_name: str
) -> Optional[_Difference]:
    if len(taken) != len(part.slots):
        return _other_length(part, taken, index, host_name)
    fits = [part.allows(slot, step.digest, host_name) for slot, step in zip(part.slots, taken)]
    if all(fits):
        return _relabelled(part, taken, index)
    position = fits.index(False)
    return _Difference(
        fits.count(False), _swapped_or_unknown(part, taken, index, position, host_name), position
    )


def _relabelled(part: _Part, taken: Sequence[Step], index: int) -> Optional[_Difference]:
    for number, (slot, step) in enumerate(zip(part.slots, taken), 1):
        if slot != step.component:
            text = f"PCR {index}, event {number}: the log calls {components.text(slot)} by another name"
            return _Difference(
                1, Finding(8, "event_relabelled", text, slot, step.component), number - 1
            )
    return None


def _swapped_or_unknown(
    part: _Part, taken: Sequence[Step], index: int, position: int, host_name: str
) -> Finding:
    """Return the finding on the first step that is not what belongs in its place."""
    slot, step = part.slots[position], taken[position]
    expected = part.expected(slot, host_name)
    where = f"PCR {index}, event {position + 1}"
    if any(part.allows(other, step.digest, host_name) for other in part.slots):
        text = f"{where}: a good digest, but in the place of {components.text(slot)} of {part.set_name}"
        return Finding(8, "events_reordered", text, expected, step.digest)
    seen = components.text(slot) + components.switched(step)
    text = f"{where}: {seen} is none that the reference values {part.set_name} know"
    return Finding(8, f"{components.word_of(slot)}_differs", text, expected, step.digest)


def _other_length(part: _Part, taken: Sequence[Step], index: int, host_name: str) -> _Difference:
    """Return the difference for a boot with more or fewer steps than the set has."""
    most = min(len(taken), len(part.slots))
    position = next(
        (i for i in range(most) if not part.allows(part.slots[i], taken[i].digest, host_name)), most
    )
    distance = max(len(taken), len(part.slots)) - position
    if position < most and _in_place(part, taken, position, host_name):
        return _Difference(
            distance, _swapped_or_unknown(part, taken, index, position, host_name), position
        )
    where = f"PCR {index}, event {position + 1}"
    if len(taken) > len(part.slots):
        added = taken[position]
        text = f"{where}: boots of {part.set_name} have no such step here ({components.text(added.component)})"
        return _Difference(distance, Finding(8, "event_added", text, "", added.digest), position)
    slot = part.slots[position]
    text = f"{where}: {components.text(slot)} of {part.set_name} is missing"
    return _Difference(
        distance, Finding(8, "event_missing", text, part.expected(slot, host_name), ""), position
    )


def _in_place(part: _Part, taken: Sequence[Step], position: int, host_name: str) -> bool:
    """Return whether the first step that differs stands for the slot beside it, rather than being one too many or few.

    One change of a boot often brings another: without Secure Boot nobody's signature is measured, either.
    """
    following = position + 1
    if len(taken) > len(part.slots):
        shifted = part.allows(part.slots[position], taken[following].digest, host_name)
    else:
        shifted = part.allows(part.slots[following], taken[position].digest, host_name)
    return not shifted and taken[position].component == part.slots[position]


def never_launched(index: int, value: bytes) -> bool:
    """Return whether a D-RTM PCR still has the value of the TPM's reset: no launch took place."""
    return index in eventlog.DRTM_PCRS and value == b"\xff" * len(value)


def conclude(
    others: Sequence[Finding], differing: Sequence[Finding], chosen: bool
) -> tuple[Level, tuple[Finding, ...]]:
    """Return level and findings, the cause first: where nothing was launched, the others only follow from it.

    Args:
        others: what the checks but (8) found.
        differing: what check (8) found.
        chosen: whether any reference values are chosen for the host; without them nobody is judged.
    """
    told = tuple(sorted([*others, *differing], key=lambda finding: finding.code != "no_launch"))
    if not chosen:
        return Level.UNKNOWN, told
    return (Level.UNTRUSTED if told else Level.TRUSTED), told


def judge_again(
    host_name: str,
    findings: Sequence[Finding],
    measured: Measured,
    required: tpm2.Selection,
    criteria: Criteria,
) -> tuple[Level, tuple[Finding, ...]]:
    """Return level and findings of the same evidence under these criteria: what check (8) found is found anew.

    Evidence that was not asked for all of `required`, because the profile was another one, takes nobody out.
    """
    others = [finding for finding in findings if finding.check != 8]
    differing = criteria.judge(measured, host_name, required)
    level, told = conclude(others, differing, criteria.chosen_for(host_name))
    if level is Level.UNTRUSTED and all(finding.code == "pcr_unproven" for finding in told):
        return Level.UNKNOWN, told  # a host that kept them back has a finding of check (6), too
    return level, told
