# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What authentic evidence proved, as the store keeps it for when reference values change."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import (
    components,
    eventlog,
    evidence,
    json_fields,
    reference_values,
    tpm2,
)
from ovirt_tcp_plugin.messages.components import Step

MAX_MEASURED_SIZE = 4 * 1024 * 1024
MAX_NOTE_LENGTH = 1000
MAX_STEPS = len(evidence.LOGS) * eventlog.MAX_EVENTS


@dataclasses.dataclass(frozen=True)
class Measured:
    """What authentic evidence proved.

    Attributes:
        values: the required PCRs that the TPM signed for, lower-case hex.
        steps: the steps of those PCRs whose log replays to them, in order.
        bank: PCR bank of both.
        vocabulary: whose words the steps' components are (`components.VOCABULARY`).
        notes: what the logs have that nothing depends on, a sentence each.
    """

    values: Mapping[int, str]
    steps: tuple[Step, ...]
    bank: str = "sha256"
    vocabulary: int = components.VOCABULARY
    notes: tuple[str, ...] = ()


def encode(measured: Measured) -> str:
    """Return the JSON text of what was measured."""
    members = {
        "bank": measured.bank,
        "vocabulary": measured.vocabulary,
        "values": {str(pcr): value for pcr, value in measured.values.items()},
        "steps": [_encode_step(step) for step in measured.steps],
        "notes": measured.notes,
    }
    return json.dumps(members)


def decode(stored: str) -> Measured:
    """Return what `encode` made the text of.

    Raises:
        InvalidMessage: the text is another one.
    """
    if not isinstance(stored, str):  # SQLite keeps what it is given, whatever the column's type
        raise errors.InvalidMessage("measured", "it is no text")
    parsed = json_fields.parse(stored.encode("utf-8"), "measured", MAX_MEASURED_SIZE)
    members = json_fields.members(parsed, "measured")
    try:
        values = _decode_values(members)
        steps = [_decode_step(item) for item in json_fields.items(members, "steps", MAX_STEPS)]
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise errors.InvalidMessage("measured", "it is not what was stored") from e
    vocabulary = reference_values.vocabulary_of(members)
    bank = json_fields.text(members, "bank", 16)
    return Measured(values, tuple(steps), bank, vocabulary, _decode_notes(members))


def _decode_values(members: Mapping[str, object]) -> Mapping[int, str]:
    encoded = json_fields.members(members.get("values"), "values")
    if len(encoded) > tpm2.PCR_COUNT:
        raise ValueError("more values than PCRs")
    return {int(pcr): bytes.fromhex(str(value)).hex() for pcr, value in encoded.items()}


def _decode_notes(members: Mapping[str, object]) -> tuple[str, ...]:
    if "notes" not in members:
        return ()  # an earlier release kept none
    return tuple(str(note)[:MAX_NOTE_LENGTH] for note in json_fields.items(members, "notes", 16))


def _encode_step(step: Step) -> list[object]:
    """Return a step as a list; few have a text."""
    members: list[object] = [step.pcr, step.component, step.digest]
    return [*members, step.text] if step.text else members


def _decode_step(item: object) -> Step:
    if not isinstance(item, list):
        raise TypeError("no step")
    pcr, component, digest, *texts = item
    if len(texts) > 1:
        raise ValueError("more than the parts of a step")
    text = str(texts[0]) if texts else ""
    return Step(int(pcr), str(component), str(digest), text)
