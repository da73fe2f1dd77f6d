# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Rounds of attestation: who wants a host's evidence, its challenge, its evidence, its result.

An agent's long poll rests here until somebody wants to know; a poller rests here until the evidence is in or its
deadline is over. Runs in one asyncio loop, so that a step without `await` is atomic.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Coroutine, Sequence
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import evidence, reference_values
from ovirt_tcp_plugin.messages.result import AttestationResult, Finding, Level
from ovirt_tcp_plugin.verifier import appraisal, settings
from ovirt_tcp_plugin.verifier.nonces import Nonces
from ovirt_tcp_plugin.verifier.store import Enrolled, Result, Store

log = logging.getLogger("verifier.attestation")

# An agent whose evidence is discarded again and again may not keep the server busy.
MIN_CHALLENGE_INTERVAL_MS = 200
MAX_AGENT_WAIT_MS = 60_000
IMPORT_WAIT_MS = 15_000


@dataclasses.dataclass
class _Waiter:
    """Somebody who wants evidence whose nonce is younger than challenge number `after`."""

    after: int
    answer: asyncio.Future[appraisal.Appraised]


class _Conversation:
    """What goes on with one host. `issued` counts its challenges; the newest may be out.

    Only the newest long poll is answered: an earlier one is of an agent that is gone, and would swallow a challenge.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.issued = 0
        self.poll = 0
        self.appraised_boot_id = ""
        self.last_issue_ms = -MIN_CHALLENGE_INTERVAL_MS
        self.wake = asyncio.Event()
        self.waiters: list[_Waiter] = []

    def want(self) -> None:
        self.wanted = True
        self.wake.set()


class Attestation:
    """The rounds of all hosts."""

    def __init__(self, store: Store, options: settings.Appraisal, clock: Clock) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._nonces = Nonces()
        self._conversations: dict[str, _Conversation] = {}
        self._judged_since_ms = 0

    async def next_challenge(self, host: Enrolled, boot_id: str, wait_ms: int) -> Optional[evidence.Challenge]:
        """Return a challenge as soon as somebody wants the host's evidence, None after `wait_ms`.

        A host in a boot that was not appraised yet is challenged at once: nobody should wait for its first verdict.
        """
        conversation = self._conversation(host.identity.name)
        appraised = conversation.appraised_boot_id or (host.result.boot_id if host.result else "")
        if appraised != boot_id:
            conversation.wanted = True
        poll = self._begin_poll(conversation)
        end_ms = self._clock.now_ms() + min(wait_ms, MAX_AGENT_WAIT_MS)
        while poll == conversation.poll:
            now_ms = self._clock.now_ms()
            ready_ms = conversation.last_issue_ms + MIN_CHALLENGE_INTERVAL_MS
            if conversation.wanted and now_ms >= ready_ms:
                return self._issue(host.identity.name, conversation, now_ms)
            if now_ms >= end_ms:
                break
            rest_ms = min(end_ms, ready_ms) - now_ms if conversation.wanted else end_ms - now_ms
            conversation.wake.clear()
            await _within(conversation.wake.wait(), rest_ms)
        return None

    def hang_up(self, host_name: str) -> None:
        """End the host's long poll: its connection is gone."""
        self._begin_poll(self._conversation(host_name))

    def expects(self, host_name: str) -> bool:
        """Return whether a nonce is out for the host; without one no evidence is worth reading."""
        return self._nonces.out(host_name, self._clock.now_ms())

    def spoil(self, host_name: str) -> None:
        """End the nonce that is out: what came for it could not be read."""
        self._nonces.drop(host_name)

    def submit(self, host: Enrolled, reported: evidence.Evidence) -> AttestationResult:
        """Appraise a host's evidence, keep the result and wake who waits for it.

        Raises:
            Refused: the evidence was discarded; code and reason are of the failed check.
        """
        name, now_ms = host.identity.name, self._clock.now_ms()
        issued = self._nonces.take(name, reported.nonce)
        good_boots = self._store.reference_values()
        required = self._options.required
        outcome = appraisal.appraise(reported, host.identity, issued, host.boot, required, good_boots, now_ms)
        if isinstance(outcome, appraisal.Discarded):
            finding = outcome.finding
            log.warning("discarded host=%s check=%d code=%s", name, finding.check, finding.code)
            raise errors.Refused(finding.code, finding.text)
        born_ms = now_ms if issued is None else issued.born_ms
        result = Result(outcome.level, outcome.findings, born_ms, self._clock.boot_id, outcome.boot.boot_id)
        kept = supersede(host.result, result)
        self._conversation(name).appraised_boot_id = outcome.boot.boot_id
        self._store.keep_result(name, host.certificate_digest, _baseline(host.boot, outcome), kept)
        codes = ",".join(finding.code for finding in outcome.findings)
        log.info("appraised host=%s level=%s findings=%s", name, kept.level.value, codes)
        self._settle(name, outcome)
        return self._describe(name, kept)

    async def results(
        self, names: Sequence[str], max_age_ms: Optional[int], wait_ms: int
    ) -> list[AttestationResult]:
        """Return a result for each name, in order, within `wait_ms`.

        Args:
            names: host names in any case; an unknown one gets level unknown and delays nobody.
            max_age_ms: age up to which an earlier result will do; None: only evidence asked for from now on.
        """
        deadline_ms = self._clock.now_ms() + wait_ms
        asked = list(dict.fromkeys(name.lower() for name in names))
        answers = await asyncio.gather(*(self._result(name, max_age_ms, deadline_ms) for name in asked))
        by_name = dict(zip(asked, answers))
        return [dataclasses.replace(by_name[name.lower()], host_name=name) for name in names]

    def last_results(self) -> list[AttestationResult]:
        """Return the last result of every enrolled host, without asking any."""
        return [self._last(name) for name in self._store.host_names()]

    async def import_reference_values(self, name: str, host_name: str) -> reference_values.GoodBoot:
        """Take a golden host's present boot as reference values, and have every host judged by them.

        Raises:
            NotFound: no such host.
            Unavailable: it did not answer.
            Conflict: its evidence has faults of its own, or the name is taken.
        """
        if self._store.host(host_name) is None:
            raise errors.NotFound("enrolled host", host_name)
        outcome = await self._fresh(host_name, IMPORT_WAIT_MS)
        if outcome is None:
            raise errors.Unavailable(f"host {host_name}", f"no evidence within {IMPORT_WAIT_MS // 1000} s")
        faults = [f.text for f in outcome.findings if f.check != 8 or f.code in ("no_launch", "pcr_unproven")]
        if faults or self._launch_missing(outcome):
            reason = faults[0] if faults else "no measured launch took place"
            raise errors.Conflict(f"host {host_name} cannot be golden: {reason}")
        good = reference_values.from_boot(name, settings.BANK, outcome.values, outcome.events)
        self._store.add_reference_values(good)
        self.judge_all()
        return good

    def judge_all(self) -> None:
        """Ask every connected host for evidence: the reference values have changed."""
        self._judged_since_ms = self._clock.now_ms()
        for conversation in self._conversations.values():
            conversation.want()

    @staticmethod
    def _begin_poll(conversation: _Conversation) -> int:
        conversation.poll += 1
        conversation.wake.set()
        return conversation.poll

    def _conversation(self, name: str) -> _Conversation:
        return self._conversations.setdefault(name, _Conversation())

    def _issue(self, name: str, conversation: _Conversation, now_ms: int) -> evidence.Challenge:
        conversation.wanted = False
        conversation.issued += 1
        conversation.last_issue_ms = now_ms
        nonce = secrets.token_bytes(evidence.NONCE_SIZE)
        return self._nonces.issue(name, self._options.required, nonce, now_ms).challenge

    def _settle(self, name: str, outcome: appraisal.Appraised) -> None:
        conversation = self._conversation(name)
        for waiter in conversation.waiters:
            if waiter.after < conversation.issued and not waiter.answer.done():
                waiter.answer.set_result(outcome)
        conversation.waiters = [waiter for waiter in conversation.waiters if not waiter.answer.done()]

    async def _fresh(self, name: str, wait_ms: int) -> Optional[appraisal.Appraised]:
        """Return what the host's next evidence shows, None when there is none within `wait_ms`."""
        conversation = self._conversation(name)
        waiter = _Waiter(conversation.issued, asyncio.get_running_loop().create_future())
        conversation.waiters.append(waiter)
        conversation.want()
        try:
            return await asyncio.wait_for(waiter.answer, max(wait_ms, 0) / 1000)
        except asyncio.TimeoutError:
            return None
        finally:
            if waiter in conversation.waiters:
                conversation.waiters.remove(waiter)

    async def _result(self, name: str, max_age_ms: Optional[int], deadline_ms: int) -> AttestationResult:
        try:
            host = self._store.host(name)
            if host is None:
                return _unknown(name, "not_enrolled", "no host is enrolled under this name", check=1)
            kept = host.result
            if max_age_ms is None or kept is None or not self._younger(kept, max_age_ms):
                outcome = await self._fresh(name, deadline_ms - self._clock.now_ms())
                again = self._store.host(name)
                kept = None if again is None else again.result
                if outcome is None or kept is None:
                    return self._silent(name, kept)
            return self._describe(name, kept)
        except errors.InvalidMessage as e:
            return _unreadable(name, e)

    def _last(self, name: str) -> AttestationResult:
        try:
            host = self._store.host(name)
        except errors.InvalidMessage as e:
            return _unreadable(name, e)
        if host is None or host.result is None:
            return _unknown(name, "not_attested", "the host is enrolled, but has sent no evidence yet")
        return self._describe(name, host.result)

    def _younger(self, result: Result, max_age_ms: int) -> bool:
        """Return whether a result will do: young enough, within its life, and judged by today's reference values."""
        age_ms = self._age(result)
        bound_ms = min(max_age_ms, int(self._options.lifetime * 1000))
        return age_ms is not None and age_ms <= bound_ms and result.born_ms >= self._judged_since_ms

    def _age(self, result: Result) -> Optional[int]:
        """Return the age of a result; None if it was born under another boot of this server, or in its future."""
        age_ms = self._clock.now_ms() - result.born_ms
        return age_ms if result.verifier_boot_id == self._clock.boot_id and age_ms >= 0 else None

    def _describe(self, name: str, kept: Result) -> AttestationResult:
        lifetime_ms = int(self._options.lifetime * 1000)
        return AttestationResult(name, kept.level, kept.findings, self._age(kept), lifetime_ms, kept.boot_id)

    def _silent(self, name: str, kept: Optional[Result]) -> AttestationResult:
        """Silence softens nothing: what was untrusted stays so; everything else is a timeout."""
        if kept is not None and kept.level is Level.UNTRUSTED:
            return self._describe(name, kept)
        return AttestationResult(name, Level.TIMEOUT, (Finding(0, "no_answer", "the host's agent did not answer"),))

    @staticmethod
    def _launch_missing(outcome: appraisal.Appraised) -> bool:
        return any(appraisal.never_launched(index, value) for index, value in outcome.values.items())


def supersede(kept: Optional[Result], fresh: Result) -> Result:
    """Return the result to keep: `untrusted` ends only by a trusted one (or by an administrator)."""
    if kept is not None and kept.level is Level.UNTRUSTED and fresh.level is Level.UNKNOWN:
        return kept
    return fresh


def _baseline(previous: Optional[appraisal.Boot], outcome: appraisal.Appraised) -> appraisal.Boot:
    """Return the counters to measure the next quote against.

    Ones that failed check (5) are no baseline: the next quote would agree with them, and the host be trusted again
    without the reboot that it needs.
    """
    failed = any(finding.check == 5 for finding in outcome.findings)
    return previous if previous is not None and failed else outcome.boot


def _unknown(name: str, code: str, text: str, check: int = 0) -> AttestationResult:
    return AttestationResult(name, Level.UNKNOWN, (Finding(check, code, text),))


def _unreadable(name: str, error: errors.InvalidMessage) -> AttestationResult:
    """One corrupt row hurts only its own host."""
    log.error("record host=%s error=%s", name, error)
    return _unknown(name, "record_unreadable", "the server's record of this host cannot be read")


async def _within(awaitable: Coroutine[object, object, object], wait_ms: int) -> None:
    try:
        await asyncio.wait_for(awaitable, max(wait_ms, 1) / 1000)
    except asyncio.TimeoutError:
        return
