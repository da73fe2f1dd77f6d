# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Sees by events that somebody else edited an affinity group, which may be a wall.

Which one it was, the event does not tell for sure: it names the group, and a wall may have been
renamed. So everything is listed.
"""

from __future__ import annotations

import logging

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.engine_api import EngineUser
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.placement.inventory import Event

log = logging.getLogger("broker.group_edits")

# A program that edits groups all the time has everything listed no more often.
PAUSE_MS = 10_000


class GroupEdits:
    """The edits that no listing has shown yet. Not thread-safe."""

    def __init__(self, engine: EngineUser, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        # Asked when it matters, and again when somebody else seems to be at work: ours may have
        # been removed and added anew.
        self._user_id = ""
        self._editors: set[str] = set()
        self._pause_until_ms = 0

    def take_event(self, event: Event) -> None:
        """Take note of who edited a group."""
        if event.code in events.GROUP_EDITED and event.user_id != self._user_id:
            self._editors.add(event.user_id)

    def is_listing_due(self) -> bool:
        """Return whether somebody else edited a group, once for all edits until now."""
        now_ms = self._clock.now_ms()
        if not self._editors or now_ms < self._pause_until_ms:
            return False
        try:
            self._user_id = self._engine.user_id()
        except errors.Error as e:
            log.warning("our own user cannot be read error=%s", e)
        others = self._editors - {self._user_id}
        self._editors = set()
        if not others:
            return False
        self._pause_until_ms = now_ms + PAUSE_MS
        return True
