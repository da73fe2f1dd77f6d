# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Questions and answers between the servers on one database.

Somebody asks one server for a host whose agent is connected to another: the question is in the
store, and so is the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.long_poll import LongPolls
from ovirt_tcp_plugin.verifier.store import challenges
from ovirt_tcp_plugin.verifier.store.database import Database

log = logging.getLogger("verifier.relay")

# How soon a question asked of one server reaches the agent on another.
RELAY_INTERVAL_S = 0.25


class Relay:
    """The part of one server."""

    def __init__(self, database: Database, long_polls: LongPolls) -> None:
        self._database = database
        self._long_polls = long_polls

    async def run(self) -> None:
        """Carry them until cancelled."""
        while True:
            await asyncio.sleep(RELAY_INTERVAL_S)
            try:
                await self._run_once()
            except errors.Unavailable as e:
                log.warning("relay error=%s", e)

    async def _run_once(self) -> None:
        listening = self._long_polls.listening()
        if listening:
            await self._relay_questions(listening)
        awaited = self._long_polls.awaited()
        if awaited:
            await self._relay_answers(awaited)

    async def _relay_questions(self, listening: Collection[str]) -> None:
        """Challenge the hosts that somebody asked at another server."""
        outstanding = await self._database.read(challenges.outstanding)
        for name in set(outstanding).intersection(listening):
            self._long_polls.of(name).want_challenge()

    async def _relay_answers(self, awaited: Sequence[str]) -> None:
        """Wake who waits here for an answer that came at another server."""
        answered = await self._database.read(lambda c: challenges.answered(c, awaited))
        for name, number in answered.items():
            self._long_polls.of(name).settle(number)
