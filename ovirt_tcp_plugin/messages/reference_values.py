# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reference values: what good boots look like, as chosen by the administrator.

A set tells the order of the parts of a boot (its slots) and the good digests of each part, so that
an update of one part needs one new value. A value may also be of a whole PCR, or good for one host
only. A staged value counts for previews, not yet for verdicts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, json_fields, tpm2
from ovirt_tcp_plugin.messages.components import Step

MAX_SLOTS = 4096
MAX_VALUES = 16384
MAX_HOSTS = 16384
MAX_NAME_LENGTH = 128
MAX_NOTE_LENGTH = 255
MAX_TEXT_LENGTH = 4096
MAX_VOCABULARY = 65535
# Names of the sets that are MLEs of OpenAttestation: the only ones that are for some hosts.
MLE_PREFIX = "oat:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_COMPONENT = re.compile(r"[a-z0-9_]{0,64}")
_SET_MEMBERS = {"name", "slots", "values", "host_names", "vocabulary"}
# What these members of a value are if they are absent.
_ABSENT = {"host_name": "", "staged": False, "note": "", "text": ""}
_VALUE_MEMBERS = {
    "identifier",
    "bank",
    "pcr",
    "component",
    "digest",
    "host_name",
    "staged",
    "note",
    "text",
}

# Of the whole PCR, and of all files that a boot reads.
_NO_ALTERNATIVES = frozenset({"", "boot_file"})

Slot = tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Value:
    """One good digest.

    Attributes:
        bank: PCR bank.
        pcr: PCR index.
        component: the part of the boot that it is of; empty: of the whole PCR.
        digest: lower-case hex.
        host_name: the one host that it is good for; empty: for all that the set is for.
        staged: it does not count yet.
        note: for people.
        text: of the kernel's command line, a template that is compared in the place of the digest.
    """

    bank: str
    pcr: int
    component: str
    digest: str
    host_name: str = ""
    staged: bool = False
    note: str = ""
    text: str = ""

    @property
    def identifier(self) -> str:
        """Twelve hex digits, the same for what says the same."""
        content = f"{self.bank} {self.pcr} {self.component} {self.digest} {self.host_name}"
        if self.text:
            content += f" {self.text}"
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class ReferenceSet:
    """The reference values of one kind of boot.

    Attributes:
        name: chosen by the administrator, unique.
        slots: (PCR, component) of each step of the boot, in order; unique.
        values: the good digests.
        host_names: the hosts that it is for, and that are judged by such sets only; None: all that
            no set is for.
        vocabulary: whose words the slots' components are (`components.VOCABULARY`).
    """

    name: str
    slots: tuple[Slot, ...] = ()
    values: tuple[Value, ...] = ()
    host_names: Optional[tuple[str, ...]] = None
    vocabulary: int = components.VOCABULARY

    def merged(self, other: ReferenceSet) -> ReferenceSet:
        """Return this set with the values of another boot of the same order.

        Raises:
            Conflict: the other boot has other steps.
        """
        if other.vocabulary != self.vocabulary:
            other = other.in_words_of(self)
        if other.slots != self.slots:
            raise errors.Conflict(
                f"that boot has other steps than {self.name}: give it a set of its own"
            )
        return self.with_values(other.values)

    def in_words_of(self, older: ReferenceSet) -> ReferenceSet:
        """Return this set with the parts called as in another, each by its place in the boot.

        A part without a counterpart keeps its word. A start value is no event, and stays one.
        """
        words = {}
        for slot, older_slot in zip(self.slots, older.slots):
            same_kind = (slot[1] == components.START) == (older_slot[1] == components.START)
            if slot[0] == older_slot[0] and same_kind:
                words[slot] = older_slot
        values = []
        for value in self.values:
            slot = (value.pcr, value.component)
            _, component = words.get(slot, slot)
            values.append(dataclasses.replace(value, component=component))
        slots = tuple(words.get(slot, slot) for slot in self.slots)
        return dataclasses.replace(
            self, slots=slots, values=tuple(values), vocabulary=older.vocabulary
        )

    def with_values(self, values: Iterable[Value]) -> ReferenceSet:
        """Return this set with more values; one that is there already stays as it is.

        Raises:
            Conflict: a value is of a part that the set does not have, or there are too many.
        """
        known = {value.identifier for value in self.values}
        fresh = {value.identifier: value for value in values if value.identifier not in known}
        for value in fresh.values():
            if value.component and (value.pcr, value.component) not in self.slots:
                raise errors.Conflict(
                    f"boots of {self.name} have no {value.component} in PCR {value.pcr}"
                )
        if len(known) + len(fresh) > MAX_VALUES:
            raise errors.Conflict(f"{self.name} would have more than {MAX_VALUES} values")
        return dataclasses.replace(self, values=(*self.values, *fresh.values()))

    def mixtures(self) -> dict[Slot, int]:
        """Return how many values the parts have of which there are several, by part.

        Each part of a boot may have any of its values. So two such parts are enough to let a boot
        be good that nobody has seen: a part of one boot with a part of another. Empty if there are
        not two. Files that a boot loader reads beside each other are no alternatives. Staged values
        are counted, and those of single hosts are not.
        """
        counts: dict[tuple[str, Slot], int] = {}
        for value in self.values:
            if value.component not in _NO_ALTERNATIVES and not value.host_name:
                part = (value.bank, (value.pcr, value.component))
                counts[part] = counts.get(part, 0) + 1
        several = {slot: count for (_, slot), count in counts.items() if count > 1}
        return several if len(several) > 1 else {}

    def activated(self, identifiers: Iterable[str]) -> ReferenceSet:
        """Return this set with those staged values counting. Raises NotFound."""
        chosen = self._chosen(identifiers)
        values = []
        for value in self.values:
            if value.identifier in chosen:
                value = dataclasses.replace(value, staged=False)
            values.append(value)
        return dataclasses.replace(self, values=tuple(values))

    def withdrawn(self, identifiers: Iterable[str]) -> ReferenceSet:
        """Return this set without those values. Raises NotFound."""
        chosen = self._chosen(identifiers)
        kept = [value for value in self.values if value.identifier not in chosen]
        return dataclasses.replace(self, values=tuple(kept))

    def with_host(self, host_name: str) -> ReferenceSet:
        """Return this set for one host more. Raises Conflict if it is for too many."""
        names = dict.fromkeys([*(self.host_names or ()), host_name])
        if len(names) > MAX_HOSTS:
            raise errors.Conflict(f"{self.name} would be for more than {MAX_HOSTS} hosts")
        return dataclasses.replace(self, host_names=tuple(names))

    def without_host(self, host_name: str) -> ReferenceSet:
        """Return this set for one host less."""
        others = [name for name in self.host_names or () if name != host_name]
        return dataclasses.replace(self, host_names=tuple(others))

    def _chosen(self, identifiers: Iterable[str]) -> set[str]:
        chosen = set(identifiers)
        missing = sorted(chosen - {value.identifier for value in self.values})
        if missing:
            raise errors.NotFound(f"reference value in {self.name}", missing[0])
        return chosen


def check_name(name: str) -> str:
    """Return the name of a set. Raises InvalidMessage."""
    if not _NAME.fullmatch(name):
        reason = "it may have letters, digits, dot, colon, dash and underscore"
        raise errors.InvalidMessage("name", reason)
    return name


def from_boot(
    name: str,
    bank: str,
    steps: Iterable[Step],
    staged: bool = False,
    note: str = "",
    vocabulary: int = components.VOCABULARY,
) -> ReferenceSet:
    """Return the reference values of a boot whose quote and replay were checked.

    By step only: the value of a whole PCR would go on to count after one of its steps was
    withdrawn.
    """
    slots = []
    values = []
    for step in steps:
        slots.append((step.pcr, step.component))
        value = Value(bank, step.pcr, step.component, step.digest, staged=staged, note=note)
        values.append(value)
    return ReferenceSet(name, tuple(slots), tuple(values), vocabulary=vocabulary)


def encode(reference_set: ReferenceSet) -> dict[str, Any]:
    """Return the JSON object of a set."""
    host_names = reference_set.host_names
    return {
        "name": reference_set.name,
        "slots": [list(slot) for slot in reference_set.slots],
        "values": [encode_value(value) for value in reference_set.values],
        "host_names": None if host_names is None else list(host_names),
        "vocabulary": reference_set.vocabulary,
    }


def encode_mixtures(reference_set: ReferenceSet) -> list[dict[str, Any]]:
    """Return the JSON array of the parts of which a set mixes values."""
    parts = []
    for (pcr, component), count in reference_set.mixtures().items():
        parts.append({"pcr": pcr, "component": component, "values": count})
    return parts


def encode_value(value: Value) -> dict[str, Any]:
    """Return the JSON object of a value."""
    return {"identifier": value.identifier, **dataclasses.asdict(value)}


def decode(untrusted: object) -> ReferenceSet:
    """Return the set in a JSON object.

    Raises:
        InvalidMessage: on any missing, mistyped, oversized or unknown member.
    """
    members = json_fields.members(untrusted, "reference set")
    json_fields.refuse_unknown(members, _SET_MEMBERS, "reference set")
    slots = [_slot(item) for item in json_fields.items(members, "slots", MAX_SLOTS)]
    if len(set(slots)) != len(slots):
        raise errors.InvalidMessage("reference set", "a slot is there twice")
    name = json_fields.text(members, "name", MAX_NAME_LENGTH)
    check_name(name)
    values = json_fields.items(members, "values", MAX_VALUES)
    return ReferenceSet(
        name=name,
        slots=tuple(slots),
        values=tuple(decode_value(item) for item in values),
        host_names=_host_names(members),
        vocabulary=vocabulary_of(members),
    )


def decode_value(untrusted: object) -> Value:
    """Return the value in a JSON object; an identifier in it is not believed.

    Raises InvalidMessage.
    """
    members = json_fields.members(untrusted, "reference value")
    json_fields.refuse_unknown(members, _VALUE_MEMBERS, "reference value")
    members = {**_ABSENT, **members}
    bank = json_fields.text(members, "bank", 16)
    staged = members["staged"]
    if not isinstance(staged, bool):
        raise errors.InvalidMessage("reference value", "staged is neither true nor false")
    component = json_fields.text(members, "component", 64)
    digest = json_fields.text(members, "digest", 128)
    return Value(
        bank=bank,
        pcr=json_fields.integer(members, "pcr", 0, tpm2.PCR_COUNT - 1),
        component=_check_component(component),
        digest=_check_digest(digest, bank),
        host_name=json_fields.text(members, "host_name", 255),
        staged=staged,
        note=json_fields.text(members, "note", MAX_NOTE_LENGTH),
        text=json_fields.text(members, "text", MAX_TEXT_LENGTH),
    )


def _check_digest(digest: str, bank: str) -> str:
    size = tpm2.DIGEST_SIZES.get(bank)
    if size is None or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", digest):
        reason = "the digest is not lower-case hex of the bank's length"
        raise errors.InvalidMessage("reference value", reason)
    return digest


def _host_names(members: Mapping[str, object]) -> Optional[tuple[str, ...]]:
    if members.get("host_names") is None:
        return None
    names = json_fields.items(members, "host_names", MAX_HOSTS)
    if not all(isinstance(name, str) and len(name) <= 255 for name in names):
        reason = "a host name is not a text of at most 255 characters"
        raise errors.InvalidMessage("reference set", reason)
    return tuple(str(name) for name in names)


def vocabulary_of(members: Mapping[str, object]) -> int:
    """Return whose words stored components are; of before vocabularies were counted, the first.

    Raises InvalidMessage.
    """
    if "vocabulary" not in members:
        return components.FIRST_VOCABULARY
    return json_fields.integer(members, "vocabulary", components.FIRST_VOCABULARY, MAX_VOCABULARY)


def _slot(untrusted: object) -> Slot:
    if not isinstance(untrusted, list) or len(untrusted) != 2:
        raise errors.InvalidMessage("reference set", "a slot is not a pair of PCR and component")
    members = {"pcr": untrusted[0], "component": untrusted[1]}
    pcr = json_fields.integer(members, "pcr", 0, tpm2.PCR_COUNT - 1)
    return pcr, _check_component(json_fields.text(members, "component", 64))


def _check_component(component: str) -> str:
    if not _COMPONENT.fullmatch(component):
        raise errors.InvalidMessage("reference set", "a component is not a lower-case word")
    return component
