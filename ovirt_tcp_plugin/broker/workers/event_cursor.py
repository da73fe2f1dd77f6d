# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which of the engine's events were taken into account."""

from __future__ import annotations

from collections.abc import Sequence

from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.engine.client import MAX_EVENTS
from ovirt_tcp_plugin.placement.inventory import Event

# Events may become visible out of order: the last ones are read again each time, and known ones
# passed over.
EVENT_OVERLAP = 50
# Events that cannot be read so often, while hosts can be, are passed over.
EVENT_TRIES = 3


class EventCursor:
    """A place in the engine's events, which the state file keeps. For one thread's use."""

    def __init__(self, state_file: StateFile) -> None:
        self._state_file = state_file
        # Events up to that id are never asked for.
        self._readable_from = 0
        # How often events could not be read in a row.
        self._faults = 0

    @property
    def is_set(self) -> bool:
        """Whether any event is known to be taken into account."""
        return self._state_file.last_event is not None

    @property
    def last(self) -> int:
        """The id of the last event that was taken into account, 0 if there is none."""
        return self._state_file.last_event or 0

    def start_at(self, newest: int) -> None:
        """Take all events until now for known: what happened before is of no concern."""
        self._state_file.seen = frozenset(range(newest - EVENT_OVERLAP, newest + 1))
        self._state_file.last_event = newest

    def after(self) -> int:
        """Return the id after which to ask for events.

        The last ones are asked for again.
        """
        return max(self.last - EVENT_OVERLAP, self._readable_from)

    def has_gap(self, events: Sequence[Event]) -> bool:
        """Return whether more events are new than one answer holds."""
        return len(events) >= MAX_EVENTS and events[0].id > self.last + 1

    def is_beyond(self, newest: int) -> bool:
        """Return whether the engine's newest event is older than the last that was known."""
        return 0 < newest < self.last

    def rewind(self, newest: int) -> None:
        """The ids that were known are those of other events now."""
        self._state_file.seen = frozenset()
        self._readable_from = min(self._readable_from, newest)

    def unseen(self, events: Sequence[Event]) -> list[Event]:
        """Return those of these events that were not taken into account yet."""
        return [event for event in events if event.id not in self._state_file.seen]

    def advance(self, events: Sequence[Event], newest: int) -> None:
        """These events are taken into account now.

        Ids are followed back, too: those that are shown no more will be other events' ids. An empty
        log shows none.

        Args:
            newest: the id of the engine's newest event, 0 if it has none.
        """
        last = newest or self.last
        self._state_file.last_event = last
        kept = range(last - 2 * EVENT_OVERLAP + 1, last + 1)
        seen = self._state_file.seen.union(event.id for event in events)
        self._state_file.seen = frozenset(event_id for event_id in seen if event_id in kept)

    def failed(self) -> bool:
        """Events could not be read; return whether those until now are to be passed over."""
        self._faults += 1
        return self._faults >= EVENT_TRIES

    def succeeded(self) -> None:
        """Events could be read."""
        self._faults = 0

    def pass_over(self, newest: int) -> bool:
        """Never ask for events up to this one; return whether any was asked for before."""
        self._faults = 0
        has_news = newest != self._readable_from
        self._readable_from = newest
        self._state_file.last_event = newest
        return has_news
