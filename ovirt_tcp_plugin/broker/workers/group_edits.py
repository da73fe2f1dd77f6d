# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Sees by events that somebody else edited an affinity group, which may be a wall.

Which one it was, the event does not tell for sure: it names the group, and a wall may have been
renamed. So everything is listed.
"""

from __future__ import annotations

import logging
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineListings
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.placement.inventory import Event

log = logging.getLogger("broker.group_edits")

# After a listing for an edit the next one waits so long, and twice as long each time: a program
# that edits groups all the time does not have everything listed all the time.
FIRST_PAUSE_MS = 2_000
LONGEST_PAUSE_MS = 32_000


class GroupEdits:
    """The edits that no listing has shown yet. Not thread-safe."""

    def __init__(self, engine: EngineListings, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        # Asked when it matters, and again when somebody else seems to be at work: ours may have
        # been removed and added anew. Events may name nobody, which is not us.
        self._own_id: Optional[str] = None
        self._editors: set[str] = set()
        self._listed_ms = 0
        self._pause_ms = 0

    def take_event(self, event: Event) -> None:
        """Take note of who edited a group."""
        if event.code in events.GROUP_EDITED and event.user_id != self._own_id:
            self._editors.add(event.user_id)

    def is_listing_due(self) -> bool:
        """Return whether somebody else edited a group, once for all edits until now."""
        since_ms = self._clock.now_ms() - self._listed_ms
        if not self._editors or since_ms < self._pause_ms:
            return False
        try:
            self._own_id = self._engine.user_id()
        except errors.Error as e:
            log.warning("our own user cannot be read error=%s", e)
        others = self._editors - {self._own_id}
        self._editors = set()
        if not others:
            return False
        is_calm = since_ms >= LONGEST_PAUSE_MS * 2
        doubled_ms = min(self._pause_ms * 2, LONGEST_PAUSE_MS)
        self._pause_ms = FIRST_PAUSE_MS if is_calm else max(FIRST_PAUSE_MS, doubled_ms)
        self._listed_ms = self._clock.now_ms()
        return True
