# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Says what a log has that nothing depends on, for `ovirt-tcp explain`.

It is never a reason to distrust: no judged PCR needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ovirt_tcp_plugin.messages import event_words
from ovirt_tcp_plugin.messages.eventlog import Event, PassedOver

# Of each sort; how many more there are is said.
MAX_NAMED = 4


def notes(kind: str, passed_over: PassedOver) -> tuple[str, ...]:
    """Return one sentence for each sort of things that were passed over.

    Args:
        kind: of the log.
    """
    return tuple(_notes(kind, passed_over))


def _notes(kind: str, passed_over: PassedOver) -> Iterator[str]:
    if passed_over.digests:
        listed = _listed(passed_over.digests, "digests of the unknown algorithm")
        yield f"the {kind} log has {listed}: they concern no judged bank"
    unknown = {}
    for event_type, count in passed_over.types.items():
        if _is_unknown(event_type):
            unknown[event_type] = count
    if unknown:
        listed = _listed(unknown, "events of the unknown type")
        yield f"the {kind} log has {listed}: they concern no judged PCR"
    if passed_over.indices:
        listed = _listed(passed_over.indices, "events of the index")
        yield f"the {kind} log has {listed}, which no PCR has: they concern no judged PCR"


def _is_unknown(event_type: int) -> bool:
    event = Event(0, event_type, {}, b"")
    return event_words.word_of(event) == f"type_{event_type:x}"


def _listed(counts: Mapping[int, int], noun: str) -> str:
    """Return how many there are of each number, those with the smallest numbers by name."""
    numbers = sorted(counts)
    named = [f"{counts[number]} {noun} {number:#06x}" for number in numbers[:MAX_NAMED]]
    more = numbers[MAX_NAMED:]
    if more:
        named.append(f"{sum(counts[number] for number in more)} of {len(more)} others")
    return ", ".join(named)
