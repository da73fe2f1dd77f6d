# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 5: the verdicts by the engine's host id, each with its birth and its end.

Pure: `now` is an argument.

Rules: a trusted verdict counts only until its end, only for a host that is Up, and only if it was
asked for after the host's last change to Up. `untrusted` is sticky: only a trusted verdict or an
administrator ends it. Silence never changes a verdict that still holds. Everything here can shorten
trust; only fresh evidence starts it.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Optional

from ovirt_tcp_plugin import backoff
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Verdict, holds

FIRST_RETRY_MS = 2_000
LONGEST_RETRY_MS = 60_000
# A renewal is never due at once: a server with tiny lifetimes would be asked without pause.
LEAST_REFRESH_MS = 1_000
# After a start of the engine a wall keeps hosts that stay Up for so long, until they are attested
# again: 10,000 hosts are within this.
STANDING_MS = 300_000
# Before every moment of this machine's clock.
NEVER_MS = -(2**53)
NEVER_AGAIN_MS = 2**53

# Hosts as (next_ms, host id): what is overdue longest sorts first.
_Queue = list[tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Lifetimes:
    """The options that rule verdicts, in milliseconds."""

    lifetime_ms: int = 600_000
    refresh: float = 0.5
    jitter: float = 0.1
    untrusted_refresh_ms: int = 30_000


class Outcome(enum.Enum):
    """What an answer did to a host's verdict."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    # The host is in maintenance, and it attests well.
    WELL_WHILE_AWAY = "well_while_away"
    NOTHING = "nothing"


@dataclasses.dataclass
class CachedVerdict:
    """What is known of one host.

    Attributes:
        verdict: as `decide` needs it; of level unknown or timeout when there is none that counts.
        up, up_since_ms: whether the host was Up when last seen, and since when.
        proven_ms: evidence of the present verdict was asked for no earlier than this.
        in_flight: a question about the host is under way.
        failures: questions since the last verdict that brought none.
        failing_code, failing_reason: why the last question brought none.
        failing_since_ms, failed_ms: when the first of these questions failed, and the last.
        answered_ms: when a question last brought evidence.
        well_boot_id: the boot in which the host attested well since it came Up, empty if the server
            does not say; None if it did not, or is in another boot now.
        stands_until_ms: until when a wall keeps the host though its verdict is void; None if not.
        from_ms, next_ms: from when the host may be asked again along with others, and when it has
            to be.
    """

    verdict: Verdict
    up: bool = False
    up_since_ms: int = 0
    proven_ms: int = 0
    in_flight: bool = False
    failures: int = 0
    failing_code: str = ""
    failing_reason: str = ""
    failing_since_ms: int = 0
    failed_ms: int = 0
    answered_ms: int = NEVER_MS
    well_boot_id: Optional[str] = None
    stands_until_ms: Optional[int] = None
    from_ms: int = 0
    next_ms: int = 0

    def has_answered(self, now_ms: int, boot_id: str) -> None:
        """The last question brought a verdict, of this boot; empty if the server does not say."""
        if self.well_boot_id and boot_id and self.well_boot_id != boot_id:
            self.well_boot_id = None
        self.answered_ms = now_ms
        self.failures = 0
        self.failing_code = ""
        self.failing_reason = ""

    def is_untrusted(self) -> bool:
        """Return whether fresh evidence since the last change to Up made the host untrusted."""
        return self.verdict.level is Level.UNTRUSTED and self.proven_ms >= self.up_since_ms

    def turned_while_up(self) -> bool:
        """Return whether an untrusted host attested well in the same boot, and was Up ever since.

        Neither the engine nor the attestation server saw it start again.
        """
        return self.is_untrusted() and self.well_boot_id is not None

    def inside_until_ms(self) -> Optional[int]:
        """Return until when the host may stay inside its pool's wall; None: it leaves at once.

        CLOCK_BOOTTIME. It is the end of a `trusted` verdict; without one, the moment up to which a
        host stays that was trusted before (`stands_until_ms`). Ask it of hosts that are Up only:
        others leave, whatever their verdict says.
        """
        if self.verdict.level is Level.TRUSTED:
            return self.verdict.end_ms
        return None if self.verdict.level is Level.UNTRUSTED else self.stands_until_ms

    def is_kept(self) -> bool:
        """Return whether a restart of the broker needs to know of the host."""
        level = self.verdict.level
        stays_inside = level is Level.TRUSTED or self.stands_until_ms is not None
        return level is Level.UNTRUSTED or (self.up and stays_inside)

    def saved(self, host_id: str) -> SavedVerdict:
        """Return what a restart of the broker needs to know of the host."""
        return SavedVerdict(
            host_id, self.verdict, self.up_since_ms, self.proven_ms, self.stands_until_ms
        )

    def gave_evidence(self) -> bool:
        """Return whether the host was attested since it came Up, well or not."""
        return self.verdict.level is Level.UNTRUSTED or self.inside_until_ms() is not None

    def unheard_since_ms(self, now_ms: int) -> int:
        """Return since when the host is silent."""
        if self.failures:
            return self.failing_since_ms
        return now_ms if self.in_flight else self.answered_ms

    def unheard_until_ms(self, now_ms: int) -> int:
        """Return until when the host is known to be silent: it may answer the next question."""
        return self.failed_ms if self.failures else now_ms


class SavedVerdict(NamedTuple):
    """What outlives a restart of the broker of one host; members as those of `CachedVerdict`."""

    host_id: str
    verdict: Verdict
    up_since_ms: int
    proven_ms: int
    stands_until_ms: Optional[int]


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a look at the engine's hosts showed."""

    came_up: tuple[str, ...] = ()
    left_up: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class VerdictCache:
    """The verdicts of all hosts. Not thread-safe: the caller holds its lock."""

    def __init__(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._entries: dict[str, CachedVerdict] = {}
        # No host is due before: of those that answered when they were last asked, and of those that
        # did not (True).
        self._soonest_ms = {False: 0, True: 0}

    def entry(self, host_id: str) -> Optional[CachedVerdict]:
        """Return what is known of a host, None if it was never seen. Read only."""
        return self._entries.get(host_id)

    def verdict(self, host_id: str) -> Optional[Verdict]:
        """Return the host's verdict, None if the host is unknown."""
        entry = self._entries.get(host_id)
        return entry.verdict if entry else None

    def holds(self, host_id: str, now_ms: int) -> bool:
        """Return whether the host is Up and trusted now."""
        entry = self._entries.get(host_id)
        return entry is not None and entry.up and holds(entry.verdict, now_ms)

    def untrusted(self, host_id: str) -> bool:
        """Return whether fresh evidence since the host's last change to Up made it untrusted."""
        entry = self._entries.get(host_id)
        return entry is not None and entry.is_untrusted()

    # Events of the engine

    def observe(self, hosts: Mapping[str, bool], now_ms: int, whole: bool = True) -> Changes:
        """Take note of hosts by id, and whether each is Up. `whole`: there are no others."""
        removed = tuple(sorted(set(self._entries) - set(hosts))) if whole else ()
        for host_id in removed:
            del self._entries[host_id]
        changes = self.observe_some(hosts, now_ms)
        return dataclasses.replace(changes, removed=removed)

    def observe_some(self, hosts: Mapping[str, bool], now_ms: int) -> Changes:
        """Take note of some hosts by id, and whether each is Up; the others are as they were."""
        came_up: list[str] = []
        left_up: list[str] = []
        for host_id, up in hosts.items():
            if host_id not in self._entries:
                self._entries[host_id] = CachedVerdict(_not_attested(now_ms))
            entry = self._entries[host_id]
            if up and not entry.up:
                came_up.append(host_id)
                self._start(entry, now_ms)
            if not up:
                if entry.up:
                    left_up.append(host_id)
                entry.up = False
                _end(entry, _not_up(now_ms))
        return Changes(tuple(came_up), tuple(left_up))

    def restarted(self, host_id: str, now_ms: int) -> None:
        """The host left Up and is back, as an event says that came between two listings."""
        entry = self._entries.get(host_id)
        if entry is not None and entry.up:
            _end(entry, _came_up(now_ms))
            self._start(entry, now_ms)

    def void(
        self, born_before_ms: int, now_ms: int, code: str, reason: str, walls_stand: bool = False
    ) -> None:
        """End every trusted verdict that was born earlier, and ask all hosts again.

        Args:
            walls_stand: walls keep these hosts for `STANDING_MS`, so that the engine moves no VM.
        """
        void = Verdict(Level.UNKNOWN, now_ms, now_ms, code, reason)
        for entry in self._entries.values():
            if entry.verdict.level is Level.TRUSTED and entry.proven_ms > born_before_ms:
                continue
            stands_until_ms = entry.stands_until_ms
            if entry.verdict.level is Level.TRUSTED:
                stands_until_ms = now_ms + STANDING_MS
            _end(entry, void)
            if walls_stand:
                entry.stands_until_ms = stands_until_ms
            self._ask_at(entry, now_ms)
            if entry.up:
                # Evidence that was asked for before this moment must not start trust again.
                entry.up_since_ms = max(entry.up_since_ms, born_before_ms)

    def clear(self, host_id: str, now_ms: int) -> None:
        """End a host's verdict of any level, as an administrator asked, and ask about it again."""
        entry = self._entries.get(host_id)
        if entry is not None:
            entry.verdict = _cleared(now_ms)
            entry.stands_until_ms = None
            self._ask_at(entry, now_ms)

    # Questions

    def ask_soon(self, host_ids: Iterable[str], now_ms: int) -> None:
        """Ask these hosts as soon as possible."""
        for host_id in host_ids:
            if host_id in self._entries:
                self._ask_at(self._entries[host_id], now_ms)

    def due(
        self,
        judged: Callable[[str], bool],
        now_ms: int,
        failing: bool = False,
        most: int = 1000,
        batch: int = 1,
    ) -> list[str]:
        """Return up to `most` hosts to ask now, the longest overdue first.

        No host that is being asked is among them.

        Args:
            judged: whether a host's verdict matters: it is in a pool.
            failing: those that did not answer when they were last asked, or those that did.
            batch: hosts in a question; the last one is filled up with hosts that may be asked
                already.
        """
        if now_ms < self._soonest_ms[failing]:
            return []
        overdue, early, soonest_ms = self._askable(judged, now_ms, failing)
        if len(overdue) <= most:
            self._soonest_ms[failing] = soonest_ms
        chosen = sorted(overdue)[:most]
        missing = -len(overdue) % batch
        room = max(most - len(overdue), 0)
        chosen += heapq.nsmallest(min(missing, room), early)
        return [host_id for _, host_id in chosen]

    def _askable(
        self, judged: Callable[[str], bool], now_ms: int, failing: bool
    ) -> tuple[_Queue, _Queue, int]:
        """Return the hosts that are overdue, those that may be asked, and when the next is due."""
        overdue: _Queue = []
        early: _Queue = []
        soonest_ms = NEVER_AGAIN_MS
        for host_id, entry in self._entries.items():
            if entry.in_flight or (entry.failures > 0) is not failing:
                continue
            if entry.next_ms > now_ms:
                soonest_ms = min(soonest_ms, entry.next_ms)
            if entry.from_ms <= now_ms and judged(host_id):
                queue = overdue if entry.next_ms <= now_ms else early
                queue.append((entry.next_ms, host_id))
        return overdue, early, soonest_ms

    def missed(self, code: str) -> list[str]:
        """Return the hosts whose last question failed with this code."""
        return [
            host_id
            for host_id, entry in self._entries.items()
            if entry.failures and entry.failing_code == code
        ]

    def look_again(self) -> None:
        """Other hosts than before are judged."""
        self._soonest_ms = {False: 0, True: 0}

    def begin(self, host_ids: Iterable[str]) -> list[str]:
        """Note that these hosts are being asked; return those that were not asked already."""
        begun: list[str] = []
        for host_id in host_ids:
            entry = self._entries.get(host_id)
            if entry is not None and not entry.in_flight:
                entry.in_flight = True
                begun.append(host_id)
        return begun

    # Answers

    def record(self, host_id: str, answer: Answer, now_ms: int, draw: float) -> Outcome:
        """Take an answer into account.

        Args:
            draw: a random number in [0, 1) that spreads the next question.
        """
        entry = self._entries.get(host_id)
        if entry is None:
            return Outcome.NOTHING
        entry.in_flight = False
        if answer.level is Level.UNTRUSTED:
            return self._untrusted(entry, answer, now_ms, draw)
        if answer.level is Level.TRUSTED:
            return self._trusted(entry, answer, now_ms, draw)
        code = answer.code or answer.level.value
        self._failed(entry, code, answer.reason, answer.level, now_ms, draw)
        return Outcome.NOTHING

    def failed(self, host_id: str, now_ms: int, draw: float, code: str, reason: str) -> None:
        """Note that no server answered for the host."""
        entry = self._entries.get(host_id)
        if entry is not None:
            entry.in_flight = False
            self._failed(entry, code, reason, Level.UNKNOWN, now_ms, draw)

    # The state file

    def saved(self) -> list[SavedVerdict]:
        """Return what a restart of the broker needs; `encode` makes plain values of it."""
        entries = self._entries.items()
        return [entry.saved(host_id) for host_id, entry in entries if entry.is_kept()]

    def restore(
        self, encoded: Mapping[str, Mapping[str, Any]], same_boot: bool, now_ms: int
    ) -> None:
        """Take over what `encode` gave: all of it, or nothing after an error.

        Args:
            same_boot: it was written in this boot of this machine. Of another boot only `untrusted`
                is left, without age, and that walls keep their hosts for a while.

        Raises:
            KeyError, TypeError, ValueError: it is not what `encode` gives.
        """
        restored: dict[str, CachedVerdict] = {}
        for host_id, members in encoded.items():
            entry = _restored(members, same_boot, now_ms, self._lifetimes.lifetime_ms)
            if entry is not None:
                restored[str(host_id)] = entry
        self._entries.update(restored)

    # What an answer does

    def _start(self, entry: CachedVerdict, now_ms: int) -> None:
        entry.up = True
        entry.up_since_ms = now_ms
        entry.well_boot_id = None
        entry.failures = 0
        self._ask_at(entry, now_ms)
        if entry.verdict.level is not Level.UNTRUSTED:
            entry.verdict = _not_attested(now_ms)

    def _trusted(self, entry: CachedVerdict, answer: Answer, now_ms: int, draw: float) -> Outcome:
        fault = _fault(entry, answer, now_ms, self._lifetimes.lifetime_ms)
        if fault is not None:
            code, reason = fault
            self._failed(entry, code, reason, Level.UNKNOWN, now_ms, draw)
            return Outcome.NOTHING
        entry.has_answered(now_ms, answer.boot_id)
        if not entry.up:
            entry.verdict = _not_up(now_ms)
            self._ask_later(entry, now_ms, self._lifetimes.untrusted_refresh_ms, draw)
            return Outcome.WELL_WHILE_AWAY
        born_ms, end_ms = _life(answer, self._lifetimes.lifetime_ms)
        entry.verdict = Verdict(Level.TRUSTED, born_ms, end_ms, boot_id=answer.boot_id)
        entry.well_boot_id = answer.boot_id
        entry.stands_until_ms = None
        entry.proven_ms = _proven(answer)
        self._renew_in_time(entry, now_ms, draw)
        return Outcome.TRUSTED

    def _renew_in_time(self, entry: CachedVerdict, now_ms: int, draw: float) -> None:
        """Ask again when a part of the verdict's life is over."""
        born_ms = entry.verdict.born_ms
        life_ms = entry.verdict.end_ms - born_ms
        self._ask_later(entry, born_ms, life_ms * self._lifetimes.refresh, draw)
        least_ms = now_ms + LEAST_REFRESH_MS
        self._ask_at(entry, max(entry.next_ms, least_ms), max(entry.from_ms, least_ms))

    def _untrusted(self, entry: CachedVerdict, answer: Answer, now_ms: int, draw: float) -> Outcome:
        was_untrusted = entry.verdict.level is Level.UNTRUSTED
        entry.verdict = _bad(answer, self._lifetimes.lifetime_ms)
        entry.stands_until_ms = None
        proven_ms = _proven(answer)
        entry.proven_ms = max(proven_ms, entry.proven_ms) if was_untrusted else proven_ms
        entry.has_answered(now_ms, answer.boot_id)
        self._ask_later(entry, now_ms, self._lifetimes.untrusted_refresh_ms, draw)
        return Outcome.UNTRUSTED

    def _failed(
        self, entry: CachedVerdict, code: str, reason: str, level: Level, now_ms: int, draw: float
    ) -> None:
        if entry.failures == 0:
            entry.failing_since_ms = now_ms
        entry.failed_ms = now_ms
        entry.failures += 1
        entry.failing_code = code
        entry.failing_reason = reason
        delay_ms = backoff.pause_ms(FIRST_RETRY_MS, LONGEST_RETRY_MS, entry.failures - 1)
        self._ask_later(entry, now_ms, delay_ms, draw)
        # A trusted verdict ends by itself; its end is what the wall goes by when no server answers.
        if entry.up and entry.verdict.level not in (Level.UNTRUSTED, Level.TRUSTED):
            reason = reason or f"the host is {level.value}"
            entry.verdict = Verdict(level, now_ms, now_ms, code, reason)

    def _ask_later(self, entry: CachedVerdict, since_ms: int, delay_ms: float, draw: float) -> None:
        """Ask again after about so long: spread, so that hosts do not come all at once."""
        jitter = self._lifetimes.jitter
        spread = jitter * (2 * draw - 1)
        next_ms = since_ms + int(delay_ms * (1 + spread))
        self._ask_at(entry, next_ms, since_ms + int(delay_ms * (1 - jitter)))

    def _ask_at(self, entry: CachedVerdict, next_ms: int, from_ms: Optional[int] = None) -> None:
        entry.next_ms = next_ms
        entry.from_ms = next_ms if from_ms is None else from_ms
        for failing, soonest_ms in self._soonest_ms.items():
            self._soonest_ms[failing] = min(soonest_ms, next_ms)


def encode(verdicts: Iterable[SavedVerdict]) -> dict[str, Any]:
    """Return what `VerdictCache.restore` takes."""
    return {saved.host_id: _encode(saved) for saved in verdicts}


def _encode(saved: SavedVerdict) -> dict[str, Any]:
    verdict = saved.verdict
    members: dict[str, Any] = {
        "level": verdict.level.value,
        "born_ms": verdict.born_ms,
        "end_ms": verdict.end_ms,
        "code": verdict.code,
        "reason": verdict.reason,
        "boot_id": verdict.boot_id,
        "up_since_ms": saved.up_since_ms,
        "proven_ms": saved.proven_ms,
    }
    if saved.stands_until_ms is not None:
        members["stands_until_ms"] = saved.stands_until_ms
    return members


def _decode(members: Mapping[str, Any]) -> Verdict:
    return Verdict(
        level=Level(members["level"]),
        born_ms=int(members["born_ms"]),
        end_ms=int(members["end_ms"]),
        code=str(members["code"]),
        reason=str(members["reason"]),
        boot_id=str(members["boot_id"]),
    )


def _restored(
    members: Mapping[str, Any], same_boot: bool, now_ms: int, lifetime_ms: int
) -> Optional[CachedVerdict]:
    """Return a host's entry, None if what was kept says nothing any more."""
    verdict = _decode(members)
    up_since_ms = int(members["up_since_ms"])
    if verdict.level is Level.UNTRUSTED and not same_boot:
        # Evidence of another boot of this machine has no age: no host is taken out for it.
        verdict = verdict._replace(born_ms=now_ms, end_ms=now_ms)
        return CachedVerdict(verdict, proven_ms=NEVER_MS)
    if verdict.level is not Level.UNTRUSTED:
        if not same_boot:
            return _standing(now_ms, now_ms + STANDING_MS)
        if verdict.level is not Level.TRUSTED:
            return _standing(up_since_ms, int(members["stands_until_ms"]))
        if verdict.born_ms > now_ms:
            return None
    end_ms = min(verdict.end_ms, verdict.born_ms + lifetime_ms)
    return CachedVerdict(
        verdict._replace(end_ms=end_ms),
        up=verdict.level is Level.TRUSTED,
        up_since_ms=up_since_ms,
        proven_ms=int(members["proven_ms"]),
        well_boot_id=verdict.boot_id if verdict.level is Level.TRUSTED else None,
    )


def _standing(up_since_ms: int, stands_until_ms: int) -> CachedVerdict:
    """Return the entry of a host without a verdict that a wall keeps for a while."""
    verdict = _not_attested(up_since_ms)
    return CachedVerdict(verdict, up=True, up_since_ms=up_since_ms, stands_until_ms=stands_until_ms)


def _life(answer: Answer, lifetime_ms: int) -> tuple[int, int]:
    """Return birth and end of the verdict that an answer makes."""
    born_ms = answer.sent_ms - (answer.age_ms or 0)
    if answer.lifetime_ms is not None:
        lifetime_ms = min(lifetime_ms, answer.lifetime_ms)
    return born_ms, born_ms + lifetime_ms


def _fault(
    entry: CachedVerdict, answer: Answer, now_ms: int, lifetime_ms: int
) -> Optional[tuple[str, str]]:
    """Return why a trusted answer does not count, as code and sentence; None if it does."""
    if answer.age_ms is None or answer.age_ms < 0 or answer.sent_ms > now_ms:
        return "no_age", "the server says trusted, but not since when"
    proven_ms = _proven(answer)
    if entry.up and proven_ms < entry.up_since_ms:
        return "before_up", "the server's evidence is older than the host's last change to Up"
    if entry.verdict.level is Level.UNTRUSTED and proven_ms < entry.proven_ms:
        reason = "the server's evidence is older than that which made the host untrusted"
        return "before_untrusted", reason
    _, end_ms = _life(answer, lifetime_ms)
    if end_ms <= now_ms:
        return "verdict_ended", "the server's last evidence is too old"
    return None


def _proven(answer: Answer) -> int:
    """Return the moment before which the evidence was not asked for.

    The birth is dated back by the whole age, which includes the time that the server took: a host
    that has just come Up would never be old enough. Where the server's figures show that it asked
    after us, our question is the bound.
    """
    if answer.fresh:
        return answer.sent_ms
    # Without an age it may be of any time. That still makes a host untrusted, but no host is taken
    # out of service for it.
    return NEVER_MS if answer.age_ms is None else answer.sent_ms - answer.age_ms


def _not_attested(now_ms: int) -> Verdict:
    reason = "the host has not been attested since it came Up"
    return Verdict(Level.UNKNOWN, now_ms, now_ms, "not_attested", reason)


def _bad(answer: Answer, lifetime_ms: int) -> Verdict:
    """Return the verdict of an answer that says untrusted."""
    born_ms, end_ms = _life(answer, lifetime_ms)
    code = answer.code or "untrusted"
    reason = answer.reason or "the attestation server says untrusted"
    return Verdict(Level.UNTRUSTED, born_ms, end_ms, code, reason, answer.boot_id)


def _cleared(now_ms: int) -> Verdict:
    reason = "an administrator cleared the verdict"
    return Verdict(Level.UNKNOWN, now_ms, now_ms, "cleared", reason)


def _not_up(now_ms: int) -> Verdict:
    return Verdict(Level.UNKNOWN, now_ms, now_ms, "not_up", "the host is not Up")


def _came_up(now_ms: int) -> Verdict:
    reason = "the host came Up and has not been attested since"
    return Verdict(Level.UNKNOWN, now_ms, now_ms, "came_up", reason)


def _end(entry: CachedVerdict, void: Verdict) -> None:
    """End trust: the verdict is void now, unless it is `untrusted`."""
    entry.stands_until_ms = None
    if entry.verdict.level is not Level.UNTRUSTED:
        entry.verdict = void
