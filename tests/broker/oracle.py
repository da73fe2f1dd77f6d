# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges each choice of the engine by what the attestation server answered, and says of a wrong one
why it is wrong, and what was dead then.

All times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from tests.broker.units import Absences

# From an answer to the snapshot in filterd's memory; and to the wall, which is edited host by host.
NEWS_S = 1.5
WALL_S = 3.0
# From a filter's answer to the engine's note of its choice, on a machine that is busy.
NOTED_S = 0.5
# From its API to its first listing and plan.
BEGINS_S = 3.0
# The broker lets an attestation server that failed rest for so long.
SERVER_RESTS_S = 1.0
STARTS = ("start", "ha", "resume")
TRUSTED = "trusted"
UNTRUSTED = "untrusted"


@dataclasses.dataclass
class Records:
    """What happened at a site.

    Attributes:
        life_s: of a verdict.
        answers: by host name: when, and which level.
        came_up: by host name: when.
        walls: when the hosts of the wall changed, and who was inside then, by name.
        away: when something was: "broker", "filterd", "verifier"; "answers" while the attestation
            server answered nobody, "engine" while the broker could not reach it; "wall" when
            somebody had opened it.
    """

    life_s: float
    answers: dict[str, list[tuple[float, str]]]
    came_up: dict[str, list[float]]
    walls: list[tuple[float, frozenset[str]]]
    away: Mapping[str, Absences]

    def dead(self, first: float, last: float) -> str:
        """Return what was dead at any time between these two, for people."""
        names = [name for name, absences in self.away.items() if absences.meets(first, last)]
        return ", ".join(names) or "nothing"

    def wall_history(self, host: str, at: float) -> str:
        """Return when a host entered and left the wall last, for people."""
        inside = False
        changes: list[str] = []
        for changed_at, hosts in self.walls:
            if (host in hosts) is not inside:
                inside = not inside
                changes.append(f"{'in' if inside else 'out'} {changed_at - at:+.2f}")
        return ", ".join(changes[-6:]) or "never inside"


class Oracle:
    """Judges the entries of the engine's journal."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def judge(self, entry: Mapping[str, Any], vm: str) -> None:
        """Judge a choice of the engine for a VM of this name."""
        host = entry["chosen"]
        at = entry["time"]
        if not host:
            self.counts["refusals"] += 1
            return
        self.counts["starts" if entry["purpose"] in STARTS else "migrations"] += 1
        filtered = entry["external"] == "answer"
        enforced = self._enforced(at)
        by_wall = "behind the wall alone" if enforced else "by nobody"
        self.counts["filtered" if filtered else by_wall] += 1
        # The broker alone knows that a host has come Up since; its file in filterd's hands only
        # ends.
        late_s = NOTED_S if filtered else WALL_S
        why = self.why_wrong(host, at, late_s, enforced, not filtered)
        if not why:
            return
        if filtered or enforced:
            self.wrong.append(self._description(entry, vm, why))
        else:
            self.counts["wrong by nobody"] += 1

    def why_wrong(
        self, host: str, at: float, late_s: float, since_up: bool, by_wall_alone: bool
    ) -> str:
        """Return why a VM may not come to a host; empty if it may.

        Args:
            late_s: what end or bad news need to be acted on.
            since_up: what was answered before the host came Up last does not count.
            by_wall_alone: no filter refuses at the end of each verdict.
        """
        came_up = 0.0
        if since_up:
            came_up = max(
                (up_at for up_at in self._records.came_up[host] if up_at <= at), default=0
            )
        until = 0.0
        why = "it was never trusted"
        if came_up:
            why = f"it came Up {at - came_up:.2f} s before, and did not attest well since"
        for answered_at, level in self._records.answers[host]:
            if answered_at > at:
                break
            if level == TRUSTED and answered_at >= came_up:
                until = answered_at + self._records.life_s
                why = f"its verdict ended {at - until:.2f} s before"
            elif level == UNTRUSTED and self._acted_on(answered_at, at, late_s):
                until = 0.0
                why = f"it was untrusted for {at - answered_at:.2f} s"
        if until >= at - late_s or (by_wall_alone and self._stands(until, at)):
            return ""
        return why

    def _stands(self, until: float, at: float) -> bool:
        """Return whether the wall keeps a host though its verdict ended, since nobody answers.

        While no attestation server does, no host leaves singly: the wall stands until the last
        verdict ends, at most a life later, so that no VM is moved onto the last host inside.
        """
        if until + self._records.life_s < at - WALL_S:
            return False
        since = max(until, at - WALL_S - SERVER_RESTS_S)
        return any(self._records.away[name].meets(since, at) for name in ("verifier", "answers"))

    def _acted_on(self, answered_at: float, at: float, late_s: float) -> bool:
        """Return whether bad news has to be acted on by now.

        What died with the broker was heard by nobody.
        """
        is_due = answered_at <= at - max(NEWS_S, late_s)
        return is_due and not self._records.away["broker"].meets(answered_at, answered_at + NEWS_S)

    def _enforced(self, at: float) -> bool:
        """Return whether the broker lived, reached the engine, and had time to put its wall
        right."""
        first = at - WALL_S - BEGINS_S
        return not any(
            self._records.away[name].meets(first, at) for name in ("broker", "engine", "wall")
        )

    def _description(self, entry: Mapping[str, Any], vm: str, why: str) -> str:
        host = entry["chosen"]
        at = entry["time"]
        records = self._records
        answers = [
            f"{level} {answered_at - at:+.2f}" for answered_at, level in records.answers[host]
        ]
        came_up = [f"{up_at - at:+.2f}" for up_at in records.came_up[host]]
        return (
            f"{entry['purpose']} of {vm} to {host} at {at:.2f}: {why}.\n"
            f"  external scheduler: {entry['external']}; internal filters left "
            f"{len(entry['internal'])} of {len(entry['candidates'])}\n"
            f"  dead then: {records.dead(at, at)}; within {records.life_s:.0f} s before: "
            f"{records.dead(at - records.life_s, at)}\n"
            f"  answers about the host: {', '.join(answers[-8:]) or 'none'}\n"
            f"  it came Up: {', '.join(came_up[-4:]) or 'never'}; "
            f"in the wall: {records.wall_history(host, at)}"
        )
