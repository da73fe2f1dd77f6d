# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How old a result is, by this server's CLOCK_BOOTTIME; for some there is no telling."""

from __future__ import annotations

import dataclasses
import logging
from typing import Optional

from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.pause_watch import PauseWatch
from ovirt_tcp_plugin.verifier.store import results
from ovirt_tcp_plugin.verifier.store.results import Result

log = logging.getLogger("verifier.attestation")


@dataclasses.dataclass(frozen=True)
class _LatestBirth:
    """When, at the latest, a result that rests on another server's nonce was born by our clock."""

    clock_id: str
    born_ms: int
    latest_ms: int

    def is_of(self, result: Result) -> bool:
        """Return whether it is the birth of this result."""
        return (self.clock_id, self.born_ms) == (result.clock_id, result.born_ms)


class ResultAges:
    """The ages of all results."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._births: dict[str, _LatestBirth] = {}
        # When results of other servers' clocks were first seen.
        self._sightings: dict[str, _LatestBirth] = {}
        self._pause_watch = PauseWatch(clock.wall_ms() - clock.now_ms())
        # What was born earlier has no age.
        self._reliable_since_ms = 0

    def watch_for_pause(self) -> None:
        """Notice that this machine was paused: what is older than the pause has no age any more."""
        now_ms = self._clock.now_ms()
        paused_ms = self._pause_watch.look(self._clock.wall_ms(), now_ms)
        if paused_ms:
            self._reliable_since_ms = now_ms
            seconds = paused_ms // 1000
            log.warning("paused seconds=%d: earlier results have no age any more", seconds)

    def note_answer(self, host_name: str, result: object, asked_ms: int) -> None:
        """Remember that a host answered a question: what answers it was born after it.

        So much is known of a result that rests on another server's nonce.
        """
        if not isinstance(result, Result):
            return
        if result.clock_id not in (self._clock.boot_id, results.VOID):
            self._births[host_name] = _LatestBirth(result.clock_id, result.born_ms, asked_ms)

    def age_ms(self, host_name: str, result: Result) -> Optional[int]:
        """Return the age of a host's result, None if it rests on a clock unlike ours."""
        birth_ms = self._birth_ms(host_name, result)
        if birth_ms is None or birth_ms < self._reliable_since_ms:
            return None
        age_ms = self._clock.now_ms() - birth_ms
        return age_ms if age_ms >= 0 else None

    def outlived(self, host_name: str, result: Result, lifetime_ms: int) -> bool:
        """Return whether a host's result has ended.

        One of another server's clock is at least as old as the time for which it has been seen
        here: that server gets newer ones as long as the host reports.
        """
        age_ms = self.age_ms(host_name, result)
        if age_ms is not None:
            return age_ms > lifetime_ms
        if result.clock_id in (self._clock.boot_id, results.VOID):
            return True
        now_ms = self._clock.now_ms()
        sighting = self._sightings.get(host_name)
        if sighting is None or not sighting.is_of(result):
            sighting = _LatestBirth(result.clock_id, result.born_ms, now_ms)
            self._sightings[host_name] = sighting
        return now_ms - sighting.latest_ms > lifetime_ms

    def _birth_ms(self, host_name: str, result: Result) -> Optional[int]:
        if result.clock_id == self._clock.boot_id:
            return result.born_ms
        birth = self._births.get(host_name)
        if birth is None or not birth.is_of(result):
            return None
        return birth.latest_ms
