# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Attestation: somebody asks for a host's evidence, the host is challenged, answers, and is judged.

Questions, nonces and results are in the store, so that any server on the same database may do any
step, but one: a nonce is taken back under the clock that it was issued by. `relay` carries
questions to the server that the host's agent is connected to.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Optional

from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import evidence, tpm2
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import AttestationResult
from ovirt_tcp_plugin.verifier import settings
from ovirt_tcp_plugin.verifier.appraisal import appraise
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from ovirt_tcp_plugin.verifier.enrolment import TPM12_OFF, is_host_name
from ovirt_tcp_plugin.verifier.evidence_intake import EvidenceIntake
from ovirt_tcp_plugin.verifier.fair_share import AnyTurn, parts
from ovirt_tcp_plugin.verifier.long_poll import Answers, LongPoll, LongPolls, Poller
from ovirt_tcp_plugin.verifier.metrics import VerifierMetrics
from ovirt_tcp_plugin.verifier.reference_values import ReferenceValueService
from ovirt_tcp_plugin.verifier.refresh import RefreshTimes
from ovirt_tcp_plugin.verifier.relay import Relay
from ovirt_tcp_plugin.verifier.result_ages import ResultAges
from ovirt_tcp_plugin.verifier.result_answers import ResultAnswers, key_of
from ovirt_tcp_plugin.verifier.store import challenges, references, results
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.store.hosts import EnrolledHost, HostSnapshot
from ovirt_tcp_plugin.verifier.store.results import Result, StoredResult

MAX_AGENT_WAIT_MS = 60_000
# A slow hardware TPM needs a second for a quote; a busy host some more.
NONCE_LIFETIME_MS = 15_000
# How soon a poll tries again while the nonce is out at another address of its host.
HELD_ELSEWHERE_MS = 500


class Attestation:
    """The attestation of all hosts."""

    def __init__(
        self,
        database: Database,
        reference_values: ReferenceValueService,
        metrics: VerifierMetrics,
        options: settings.Appraisal,
        clock: Clock,
    ) -> None:
        self._database = database
        self._reference_values = reference_values
        self._metrics = metrics
        self._options = options
        self._clock = clock
        self._long_polls = LongPolls()
        self._relay = Relay(database, self._long_polls)
        self._ages = ResultAges(clock)
        self._answers = ResultAnswers(options, self._ages)
        self._refresh_times = RefreshTimes(options, self._ages, clock)
        self._intake = EvidenceIntake(database, reference_values, metrics, options, clock)

    # For agents

    async def next_challenge(
        self, state: HostSnapshot, boot_id: str, wait_ms: int, address: str, offers: bool
    ) -> Optional[evidence.Challenge]:
        """Return a challenge as soon as the host's evidence is wanted, None after `wait_ms`.

        It is when somebody asks, or when the last one grows old. A host in a boot that was not
        appraised yet is challenged at once: nobody should wait for its first verdict.

        Args:
            address: where the agent is.
            offers: whether it wants to report: its verdict is missing or too old.

        Raises:
            Refused: tpm12_off.
        """
        self._check_family(state.host)
        end_ms = self._clock.now_ms() + min(wait_ms, MAX_AGENT_WAIT_MS)
        long_poll = self._long_polls.of(state.host.name)
        poller = Poller(
            address=address,
            is_home=address == state.challenge.home,
            wants_challenge=offers or not _covers(state.result, boot_id),
        )
        long_poll.begin_poll(poller)
        if state.challenge.outstanding:
            long_poll.want_challenge()
        last = results.readable(state.result)
        if last is not None:
            long_poll.refresh_ms = self._refresh_times.next_ms(state.host.name, last)
        known_logs = self._known_logs(state, boot_id)
        try:
            return await self._challenge(state, long_poll, poller, end_ms, known_logs)
        finally:
            long_poll.end_poll(poller)

    async def _challenge(
        self,
        state: HostSnapshot,
        long_poll: LongPoll,
        poller: Poller,
        end_ms: int,
        known_logs: Mapping[str, str],
    ) -> Optional[evidence.Challenge]:
        name = state.host.name
        while await long_poll.next(poller, end_ms, self._clock):
            if poller.is_home or not state.challenge.home:
                # Whoever took its certificate puts the host off no more than its questions.
                self._refresh_times.challenged(name)
            issued = self._new_nonce(state.host, known_logs)
            work = functools.partial(
                challenges.issue,
                issued=issued,
                clock_id=self._clock.boot_id,
                address=poller.address,
                wall_ms=self._clock.wall_ms(),
            )
            is_out = await self._database.write(work)
            if not long_poll.is_current(poller):
                # The agent went away meanwhile: its next poll gets another challenge.
                long_poll.want_challenge()
                return None
            if is_out:
                self._metrics.challenged()
                return issued.challenge
            long_poll.put_off(poller, self._clock.now_ms() + HELD_ELSEWHERE_MS)
        return None

    def disconnect(self, host_name: str, address: str) -> None:
        """End the long poll of a host from an address: its connection is gone."""
        self._long_polls.of(host_name).disconnect(address)

    def expects(self, state: HostSnapshot) -> bool:
        """Return whether a nonce is out for the host; without one no evidence is worth reading."""
        issued = state.challenge.nonce
        return issued is not None and self._clock.now_ms() < issued.end_ms

    def logs_for(self, host: EnrolledHost) -> Collection[str]:
        """Return the kinds of event logs that a host's evidence is judged by."""
        return appraise.logs_for(self._required(host))

    async def invalidate_nonce(self, host_name: str, address: str) -> None:
        """End the nonce that was sent to an address: what came for it could not be read."""
        await self._database.write(lambda c: challenges.drop(c, host_name, address))

    async def submit(
        self, state: HostSnapshot, reported: evidence.Evidence, address: str
    ) -> AttestationResult:
        """Appraise a host's evidence, keep the result and wake who waits for it.

        Args:
            address: where it came from: the host's from now on, if it is authentic.

        Raises:
            Refused, Unavailable: as `EvidenceIntake.take` does.
        """
        self._check_family(state.host)
        fresh = await self._intake.take(state, reported, address)
        self._long_polls.of(state.host.name).settle(state.challenge.issued)
        return self._answers.describe(state.host.name, fresh)

    # For those who ask

    async def results(
        self, names: Sequence[str], max_age_ms: Optional[int], wait_ms: int, turn: AnyTurn
    ) -> list[AttestationResult]:
        """Return a result for each name, in order, within `wait_ms`.

        Args:
            names: host names in any case; an unknown one gets level unknown and delays nobody.
            max_age_ms: age up to which an earlier result will do; None: only evidence that is
                requested from now on.
            turn: gives the turns of whoever asks; an unknown name takes as much of them as a known
                one.

        Raises:
            Unavailable: the store does not answer.
        """
        self._ages.watch_for_pause()
        deadline_ms = self._clock.now_ms() + wait_ms
        last: dict[str, StoredResult] = {}
        stale: dict[str, None] = {}
        for part in parts(names):
            known = await self._last(_keys(part), turn)
            last.update(known)
            stale.update(dict.fromkeys(self._stale(known, max_age_ms)))
        silent: Collection[str] = ()
        if stale:
            silent = await self._refresh(list(stale), last, deadline_ms, turn)
        answers: list[AttestationResult] = []
        for part in parts(names):
            async with turn():
                answers += self._answers.of_names(part, last, silent)
        return answers

    async def last_results(self, turn: AnyTurn) -> list[AttestationResult]:
        """Return the last result of every enrolled host, without asking any."""
        self._ages.watch_for_pause()
        last, version = await self._database.read(_all_results)
        current = await self._reference_values.reappraise(last, version)
        answers: list[AttestationResult] = []
        for part in parts(list(current)):
            async with turn():
                answers += self._answers.of_names(part, current)
        return answers

    async def judge_all(self) -> None:
        """Ask every host for evidence: the reference values have changed."""
        await self._database.write(challenges.ask_all)
        self._long_polls.want_all_challenges()

    async def void(self, older_than_ms: int) -> list[str]:
        """Void every trusted result older than this, and ask all hosts; return whose it was.

        A void result has no age any more, so nobody relies on it; the host's counters stay. Results
        of another server's clock are void, too: their age cannot be told.

        Raises:
            Unavailable: the store did not keep it.
        """
        before_ms = self._clock.now_ms() - older_than_ms
        voided = await self._database.write(lambda c: _void(c, self._clock.boot_id, before_ms))
        self._long_polls.want_all_challenges()
        return voided

    async def relay(self) -> None:
        """Carry questions and answers between the servers on one database, until cancelled."""
        await self._relay.run()

    def _required(self, host: EnrolledHost) -> tpm2.Selection:
        return self._options.required_in(host.tpm.bank)

    def _known_logs(self, state: HostSnapshot, boot_id: str) -> Mapping[str, str]:
        """Return the logs that a host need not send again in this boot."""
        last = results.readable(state.result)
        if last is None or last.boot_id != boot_id:
            return {}
        if last.log_digests.keys() != set(self.logs_for(state.host)):
            return {}
        return last.log_digests

    def _new_nonce(self, host: EnrolledHost, known_logs: Mapping[str, str]) -> IssuedNonce:
        nonce = secrets.token_bytes(evidence.NONCE_SIZE)
        now_ms = self._clock.now_ms()
        required = self._required(host)
        challenge = evidence.Challenge(
            nonce, required, NONCE_LIFETIME_MS, known_logs, takes_absences=True
        )
        return IssuedNonce(challenge, host.name, now_ms, now_ms + NONCE_LIFETIME_MS)

    async def _last(self, names: Sequence[str], turn: AnyTurn) -> dict[str, StoredResult]:
        """Return the last results on those that are enrolled, by today's reference values."""
        if self._database.remote:
            return await self._read_last(names)  # a thread does it, and may wait
        async with turn():
            return await self._read_last(names)

    async def _read_last(self, names: Sequence[str]) -> dict[str, StoredResult]:
        work = functools.partial(_results_of, names=names)
        last, version = await self._database.read(work)
        return await self._reference_values.reappraise(last, version)

    def _stale(self, last: Mapping[str, StoredResult], max_age_ms: Optional[int]) -> list[str]:
        """Return the hosts that have to be asked again."""
        stale = []
        for name, result in last.items():
            if not self._answers.will_do(name, result, max_age_ms):
                stale.append(name)
        return stale

    async def _refresh(
        self,
        names: Sequence[str],
        last: dict[str, StoredResult],
        deadline_ms: int,
        turn: AnyTurn,
    ) -> set[str]:
        """Ask hosts for evidence and put what they answered into `last`.

        Return who did not answer.
        """
        asked_ms = self._clock.now_ms()
        with self._long_polls.answers() as answers:
            for part in parts(names):
                await self._ask(part, answers)
            answered = await answers.wait(deadline_ms - self._clock.now_ms())
        for part in parts(names):
            last.update(await self._last(part, turn))
        for name in answered:
            self._ages.note_answer(name, last.get(name), asked_ms)
        return set(names) - answered

    async def _ask(self, names: Sequence[str], answers: Answers) -> None:
        """Ask hosts for evidence, and wait for it in `answers`."""
        numbers = await self._database.write(lambda c: challenges.ask(c, names))
        answers.wait_for(numbers)
        for name in numbers:
            self._long_polls.of(name).want_challenge()

    def _check_family(self, host: EnrolledHost) -> None:
        if not self._options.believes(host.tpm.family):
            raise errors.Refused(FindingCode.TPM12_OFF.code, TPM12_OFF)


def _keys(names: Sequence[str]) -> list[str]:
    """Return the names that hosts may be known by, each once."""
    keys = dict.fromkeys(key_of(name) for name in names)
    return [key for key in keys if is_host_name(key)]


def _covers(result: StoredResult, boot_id: str) -> bool:
    """Return whether a host's last result is of this boot."""
    return isinstance(result, Result) and result.boot_id == boot_id


def _all_results(connection: Connection) -> tuple[dict[str, StoredResult], int]:
    return results.of_all(connection), references.version(connection)


def _results_of(
    connection: Connection, names: Sequence[str]
) -> tuple[dict[str, StoredResult], int]:
    return results.of_hosts(connection, names), references.version(connection)


def _void(connection: Connection, clock_id: str, before_ms: int) -> list[str]:
    voided = results.void(connection, clock_id, before_ms)
    challenges.drop_all(connection)
    challenges.ask_all(connection)
    return voided
