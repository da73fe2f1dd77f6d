# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Rounds of attestation: somebody asks for a host's evidence, the host is challenged, answers, and is judged.

Questions, nonces and results are in the store, so that any server on the same database may do any step, but one: a
nonce is taken back under the clock that it was issued by. `relay` carries questions to the server that the host's
agent is connected to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Optional

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.messages.result import AttestationResult, Finding, Level
from ovirt_tcp_plugin.verifier import appraisal, judgement, settings
from ovirt_tcp_plugin.verifier.enrolment import TPM12_OFF, is_host_name
from ovirt_tcp_plugin.verifier.long_poll import LongPolls
from ovirt_tcp_plugin.verifier.metrics import Metrics
from ovirt_tcp_plugin.verifier.reference_values import (
    ReferenceValueService,
    ReferenceVersion,
    excuse,
)
from ovirt_tcp_plugin.verifier.store import challenges, references, results
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import Host, State
from ovirt_tcp_plugin.verifier.store.results import Found, Result

log = logging.getLogger("verifier.attestation")

MAX_AGENT_WAIT_MS = 60_000
# A slow hardware TPM needs a second for a quote; a busy host some more.
NONCE_LIFETIME_MS = 15_000
# How soon a question asked of one server reaches the agent on another.
RELAY_INTERVAL_S = 0.25
# The wall clock may run ahead of CLOCK_BOOTTIME by so much between two looks; more means that this machine was paused.
MAX_PAUSE_MS = 60_000

TPM12 = appraisal.EnrolledHost12.family


class Attestation:
    """The rounds of all hosts."""

    def __init__(
        self,
        database: Database,
        policies: ReferenceValueService,
        metrics: Metrics,
        options: settings.Appraisal,
        clock: Clock,
    ) -> None:
        self._database = database
        self._policies = policies
        self._metrics = metrics
        self._options = options
        self._clock = clock
        self._long_polls = LongPolls()
        # Latest birth, by this server's clock, of results that rest on another server's nonce.
        self._births: dict[str, tuple[str, int, int]] = {}
        # By how much the wall clock is ahead of CLOCK_BOOTTIME, and since when ages can be told.
        self._ahead_ms = clock.wall_ms() - clock.now_ms()
        self._reliable_since_ms = 0

    async def next_challenge(
        self, state: State, boot_id: str, wait_ms: int
    ) -> Optional[evidence.Challenge]:
        """Return a challenge as soon as somebody wants the host's evidence, None after `wait_ms`.

        A host in a boot that was not appraised yet is challenged at once: nobody should wait for its first verdict.

        Raises:
            Refused: tpm12_off.
        """
        self._check_family(state.host)
        name = state.host.name
        long_poll = self._long_polls.of(name)
        poll = long_poll.begin_poll()
        end_ms = self._clock.now_ms() + min(wait_ms, MAX_AGENT_WAIT_MS)
        last = results.readable(state.found)
        if last is None or last.boot_id != boot_id or state.round.asked > state.round.issued:
            long_poll.want_challenge()
        if not await long_poll.next(poll, end_ms, self._clock):
            return None
        issued = self._new_nonce(state.host)
        await self._database.write(lambda c: challenges.issue(c, issued, self._clock.boot_id))
        if poll != long_poll.poll:
            long_poll.want_challenge()
            return None
        self._metrics.challenged()
        return issued.challenge

    def request_challenge(self, host_name: str) -> None:
        """Have a host challenged that wants to report, though nobody asked: its verdict is missing or too old."""
        self._long_polls.of(host_name).want_challenge()

    def disconnect(self, host_name: str) -> None:
        """End the host's long poll: its connection is gone."""
        self._long_polls.of(host_name).begin_poll()

    def expects(self, state: State) -> bool:
        """Return whether a nonce is out for the host; without one no evidence is worth reading."""
        issued = state.round.nonce
        return issued is not None and self._clock.now_ms() < issued.end_ms

    def logs_for(self, host: Host) -> Collection[str]:
        """Return the kinds of event logs that a host's evidence is judged by."""
        return appraisal.logs_for(self._options.required_in(host.identity.bank))

    async def invalidate_nonce(self, host_name: str) -> None:
        """End the nonce that is out: what came for it could not be read."""
        await self._database.write(lambda c: challenges.drop(c, host_name))

    async def submit(self, state: State, reported: evidence.Evidence) -> AttestationResult:
        """Appraise a host's evidence, keep the result and wake who waits for it.

        Args:
            state: as it was when the request began. If anything of weight has changed since, the nonce was taken
                back meanwhile, or is another one.

        Raises:
            Refused: tpm12_off; or the evidence was discarded: code and reason are of the failed check.
            Unavailable: the result could not be kept.
        """
        host, name = state.host, state.host.name
        self._check_family(host)
        policy, kept = await self._policies.at(state.policy), results.readable(state.found)
        issued = state.round.nonce if state.round.clock_id == self._clock.boot_id else None
        if issued is not None and issued.challenge.selection != self._options.required_in(
            host.identity.bank
        ):
            issued = None  # asked for before the profile changed
        began_s = time.perf_counter()
        outcome = appraisal.appraise(
            reported,
            host.identity,
            issued,
            kept.boot if kept else None,
            self._options.required_in(host.identity.bank),
            policy.criteria[host.identity.bank],
            self._clock.now_ms(),
        )
        self._long_polls.of(name).cost_ms = 1000 * (time.perf_counter() - began_s)
        if isinstance(outcome, appraisal.Discarded):
            self._metrics.discarded(outcome.finding.code)
            await self._database.write(lambda c: challenges.take(c, name, reported.nonce))
            raise _refuse(name, outcome)
        born_ms = self._clock.now_ms() if issued is None else issued.born_ms
        fresh = self._result(outcome, born_ms, kept, policy, host)
        measured = judgement.encode(outcome.measured)
        await self._database.write(lambda c: _keep(c, host, reported.nonce, fresh, measured))
        self._metrics.appraised(fresh.level)
        codes = ",".join(finding.code for finding in outcome.findings)
        log.info("appraised host=%s level=%s findings=%s", name, fresh.level.value, codes)
        self._long_polls.of(name).settle(state.round.issued)
        return self._describe(name, fresh)

    async def results(
        self, names: Sequence[str], max_age_ms: Optional[int], wait_ms: int
    ) -> list[AttestationResult]:
        """Return a result for each name, in order, within `wait_ms`.

        Args:
            names: host names in any case; an unknown one gets level unknown and delays nobody.
            max_age_ms: age up to which an earlier result will do; None: only evidence asked for from now on.

        Raises:
            Unavailable: the store does not answer.
        """
        self._watch_clock()
        deadline_ms = self._clock.now_ms() + wait_ms
        asked = list(dict.fromkeys(key_of(name) for name in names))
        found = await self._judged([name for name in asked if is_host_name(name)])
        old = [name for name, one in found.items() if not self._will_do(name, one, max_age_ms)]
        silent = await self._refresh(old, found, deadline_ms) if old else set()
        answers = {name: self._answer(name, found, name in silent) for name in asked}
        return [_called(answers[key_of(name)], name) for name in names]

    async def last_results(self) -> list[AttestationResult]:
        """Return the last result of every enrolled host, without asking any."""
        self._watch_clock()
        found, version = await self._database.read(
            lambda c: (results.of_all(c), references.version(c))
        )
        found = await self._policies.judge_again(found, version)
        return [self._answer(name, found, silent=False) for name in found]

    async def judge_all(self) -> None:
        """Ask every host for evidence: the reference values have changed."""
        await self._database.write(challenges.ask_all)
        self._long_polls.want_all_challenges()

    async def void(self, older_than_ms: int) -> list[str]:
        """Void every trusted result older than this, and ask all hosts for fresh evidence; return whose it was.

        A void result has no age any more, so nobody relies on it; the host's counters stay. Results of another
        server's clock are void, too: their age cannot be told.

        Raises:
            Unavailable: the store did not keep it.
        """
        before_ms = self._clock.now_ms() - older_than_ms
        voided = await self._database.write(lambda c: _void(c, self._clock.boot_id, before_ms))
        self._long_polls.want_all_challenges()
        return voided

    async def relay(self) -> None:
        """Carry questions and answers between the servers on one database, until cancelled."""
        while True:
            await asyncio.sleep(RELAY_INTERVAL_S)
            try:
                await self._relay_once()
            except errors.Unavailable as e:
                log.warning("relay error=%s", e)

    async def _relay_once(self) -> None:
        listening, awaited = self._long_polls.listening(), self._long_polls.awaited()
        if listening:
            wanted = set(await self._database.read(challenges.wanted))
            for name in wanted.intersection(listening):
                self._long_polls.of(name).want_challenge()
        if awaited:
            for name, number in (
                await self._database.read(lambda c: challenges.answered(c, awaited))
            ).items():
                self._long_polls.of(name).settle(number)

    def _new_nonce(self, host: Host) -> appraisal.IssuedNonce:
        nonce, now_ms = secrets.token_bytes(evidence.NONCE_SIZE), self._clock.now_ms()
        selection = self._options.required_in(host.identity.bank)
        challenge = evidence.Challenge(nonce, selection, NONCE_LIFETIME_MS)
        return appraisal.IssuedNonce(challenge, host.name, now_ms, now_ms + NONCE_LIFETIME_MS)

    def _result(
        self,
        outcome: appraisal.Appraised,
        born_ms: int,
        kept: Optional[Result],
        policy: ReferenceVersion,
        host: Host,
    ) -> Result:
        level, findings = excuse(outcome.level, outcome.findings, policy, policy.names(host.name))
        fresh = Result(
            level=level,
            findings=findings,
            clock_id=self._clock.boot_id,
            born_ms=born_ms,
            boot=_baseline(kept.boot if kept else None, outcome),
            boot_id=outcome.boot.boot_id,
            policy=policy.version,
            tpm_family=host.identity.family,
        )
        return supersede(kept, fresh)

    async def _judged(self, names: Sequence[str]) -> dict[str, Found]:
        """Return the last results on the enrolled ones of these hosts, judged by today's reference values."""
        found, version = await self._database.read(
            lambda c: (results.of_hosts(c, names), references.version(c))
        )
        return await self._policies.judge_again(found, version)

    async def _refresh(
        self, names: Sequence[str], found: dict[str, Found], deadline_ms: int
    ) -> set[str]:
        """Ask hosts for evidence, put what they answered into `found`, and return those that did not answer."""
        asked_ms = self._clock.now_ms()
        numbers = await self._database.write(lambda c: challenges.ask(c, names))
        with self._long_polls.wait_for(numbers) as answers:
            for name in numbers:
                self._long_polls.of(name).want_challenge()
            answered = await answers.come(deadline_ms - self._clock.now_ms())
        fresh = await self._judged(names)
        found.update(fresh)
        for name in answered:
            self._remember_birth(name, fresh.get(name), asked_ms)
        return set(names) - answered

    def _remember_birth(self, name: str, one: Found, asked_ms: int) -> None:
        """What answers a question was born after it: so much is known of another server's result."""
        if isinstance(one, Result) and one.clock_id not in (self._clock.boot_id, results.VOID):
            self._births[name] = (one.clock_id, one.born_ms, asked_ms)

    def _answer(self, name: str, found: dict[str, Found], silent: bool) -> AttestationResult:
        if name not in found:
            return _unknown(name, 1, "not_enrolled", "no host is enrolled under this name")
        one = found[name]
        if isinstance(one, errors.InvalidMessage):
            return _unknown(
                name, 0, "record_unreadable", "the server's record of this host cannot be read"
            )
        if self._is_off(one) and not (one is not None and one.level is Level.UNTRUSTED):
            return _unknown(name, 1, "tpm12_off", TPM12_OFF)
        if silent and not (one is not None and one.level is Level.UNTRUSTED):
            # Silence softens nothing: what was untrusted stays so; everything else is a timeout.
            return AttestationResult(
                name, Level.TIMEOUT, (Finding(0, "no_answer", "the host's agent did not answer"),)
            )
        if one is None:
            return _unknown(
                name, 0, "not_attested", "the host is enrolled, but has sent no evidence yet"
            )
        return self._describe(name, one)

    def _will_do(self, name: str, one: Found, max_age_ms: Optional[int]) -> bool:
        """Return whether a result is young enough, and within its life."""
        if self._is_off(one):
            return True  # its evidence would be refused
        if not isinstance(one, Result) or max_age_ms is None:
            return False
        age_ms = self._age(name, one)
        return age_ms is not None and age_ms <= min(max_age_ms, int(self._options.lifetime * 1000))

    def _age(self, name: str, one: Result) -> Optional[int]:
        """Return the age of a result; None if it rests on a clock that this server cannot compare with its own."""
        birth_ms = self._birth(name, one)
        if birth_ms is None or birth_ms < self._reliable_since_ms:
            return None
        age_ms = self._clock.now_ms() - birth_ms
        return age_ms if age_ms >= 0 else None

    def _watch_clock(self) -> None:
        """Notice that this machine was paused: CLOCK_BOOTTIME stood still, so what is older has no age any more."""
        ahead_ms = self._clock.wall_ms() - self._clock.now_ms()
        if ahead_ms - self._ahead_ms > MAX_PAUSE_MS:
            self._reliable_since_ms = self._clock.now_ms()
            log.warning(
                "paused seconds=%d: earlier results have no age any more",
                (ahead_ms - self._ahead_ms) // 1000,
            )
        self._ahead_ms = ahead_ms

    def _birth(self, name: str, one: Result) -> Optional[int]:
        if one.clock_id == self._clock.boot_id:
            return one.born_ms
        clock_id, born_ms, birth_ms = self._births.get(name, ("", 0, 0))
        return birth_ms if (clock_id, born_ms) == (one.clock_id, one.born_ms) else None

    def _describe(self, name: str, one: Result) -> AttestationResult:
        lifetime_ms = int(self._options.lifetime * 1000)
        age_ms = self._age(name, one)
        return AttestationResult(
            name, one.level, one.findings, age_ms, lifetime_ms, one.boot_id, one.tpm_family
        )

    def _check_family(self, host: Host) -> None:
        if host.identity.family == TPM12 and not self._options.tpm12:
            raise errors.Refused("tpm12_off", TPM12_OFF)

    def _is_off(self, one: Found) -> bool:
        """Return whether a result rests on a TPM that the administrator does not believe any more."""
        return isinstance(one, Result) and one.tpm_family == TPM12 and not self._options.tpm12


def key_of(name: str) -> str:
    """Return the name that a host asked for as `name` is known by: case does not count.

    Only ASCII's: there are other letters, such as the Kelvin sign, whose lower case is one of ASCII.
    """
    return name.lower() if name.isascii() else name


def supersede(kept: Optional[Result], fresh: Result) -> Result:
    """Return the result to keep: `untrusted` ends only by a trusted one (or by an administrator).

    All else is of the new evidence, since the level may be judged again by what that proved.
    """
    if kept is not None and kept.level is Level.UNTRUSTED and fresh.level is Level.UNKNOWN:
        return dataclasses.replace(fresh, level=Level.UNTRUSTED)
    return fresh


def _baseline(previous: Optional[appraisal.Boot], outcome: appraisal.Appraised) -> appraisal.Boot:
    """Return the counters to measure the next quote against.

    Ones that failed check (5) are no baseline: the next quote would agree with them, and the host be trusted again
    without the reboot that it needs.
    """
    failed = any(finding.check == 5 for finding in outcome.findings)
    return previous if previous is not None and failed else outcome.boot


def _keep(connection: Connection, host: Host, nonce: bytes, fresh: Result, measured: str) -> None:
    """Take the nonce back and keep the result, both or neither.

    Raises:
        Refused: the nonce was used meanwhile, or the host enrolled anew.
    """
    if not challenges.answer(connection, host.name, nonce):
        raise errors.Refused("nonce_unknown", "the nonce was used before")
    if not results.keep(connection, host.name, host.certificate_digest, fresh, measured):
        raise errors.Refused("not_enrolled", "the host was enrolled anew, or removed, meanwhile")


def _void(connection: Connection, clock_id: str, before_ms: int) -> list[str]:
    voided = results.void(connection, clock_id, before_ms)
    challenges.drop_all(connection)
    challenges.ask_all(connection)
    return voided


def _called(one: AttestationResult, name: str) -> AttestationResult:
    """Return a result under the name as it was asked for: clients compare it letter by letter."""
    return one if one.host_name == name else dataclasses.replace(one, host_name=name)


def _refuse(name: str, discarded: appraisal.Discarded) -> errors.Refused:
    finding = discarded.finding
    log.warning("discarded host=%s check=%d code=%s", name, finding.check, finding.code)
    return errors.Refused(finding.code, finding.text)


def _unknown(name: str, check: int, code: str, text: str) -> AttestationResult:
    return AttestationResult(name, Level.UNKNOWN, (Finding(check, code, text),))
