# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reference values: what a good boot looks like, as chosen by the administrator from a golden host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ovirt_tcp_plugin.messages import eventlog, tpm2


@dataclasses.dataclass(frozen=True)
class GoodEvent:
    """One event of a good boot: enough to name the first one that differs. `digest` is lower-case hex."""

    pcr: int
    type: int
    digest: str


@dataclasses.dataclass(frozen=True)
class GoodBoot:
    """The reference values of one good boot.

    Attributes:
        name: chosen by the administrator, unique.
        bank: PCR bank of all values.
        pcrs: good value by PCR, lower-case hex; never empty.
        events: the events that lead there, in order.
    """

    name: str
    bank: str
    pcrs: Mapping[int, str]
    events: tuple[GoodEvent, ...]


def from_boot(
    name: str, bank: str, values: Mapping[int, bytes], events: Sequence[eventlog.Event]
) -> GoodBoot:
    """Return the reference values of a boot whose quote and replay were checked."""
    return GoodBoot(
        name=name,
        bank=bank,
        pcrs={index: value.hex() for index, value in values.items()},
        events=tuple(
            GoodEvent(event.pcr, event.type, event.digests[bank].hex())
            for event in events
            if event.pcr in values and bank in event.digests and event.type != eventlog.NO_ACTION
        ),
    )


def encode(boot: GoodBoot) -> dict[str, Any]:
    """Return the JSON object of reference values."""
    return {
        "name": boot.name,
        "bank": boot.bank,
        "pcrs": {str(index): value for index, value in boot.pcrs.items()},
        "events": [[event.pcr, event.type, event.digest] for event in boot.events],
    }


def decode(stored: Mapping[str, Any]) -> GoodBoot:
    """Return reference values that `encode` made and the store kept."""
    if stored["bank"] not in tpm2.HASH_IDS:
        raise ValueError(stored["bank"])
    return GoodBoot(
        name=stored["name"],
        bank=stored["bank"],
        pcrs={int(index): value for index, value in stored["pcrs"].items()},
        events=tuple(GoodEvent(*event) for event in stored["events"]),
    )
