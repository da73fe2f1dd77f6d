# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's questions, in its own words."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import AttestationResult, Level
from ovirt_tcp_plugin.verifier.appraisal import measured
from ovirt_tcp_plugin.verifier.fair_share import parts
from ovirt_tcp_plugin.verifier.result_answers import key_of
from ovirt_tcp_plugin.verifier.store import results as stored_results
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler

# Why a host is not judged, as 2.x called it; by code of the first finding.
_NOT_JUDGED = {
    "not_enrolled": "AS_HOST_NOT_FOUND",
    "not_attested": "AS_HOST_COMMUNICATION_ERROR",
    "no_answer": "AS_HOST_COMMUNICATION_ERROR",
    "no_reference_values": "AS_MISSING_MANIFEST",
}
_VOID = FindingCode.NO_ANSWER.finding("the host's result was voided while this was asked")


class _Question(Handler):
    callers = frozenset({CallerKind.VIEWER, CallerKind.OAT_NETWORK})

    @property
    def wait_ms(self) -> int:
        """How long hosts are waited for."""
        return int(self.context.options.poll_deadline * 1000)

    def answer_error(self, status: int, code: str, reason: str) -> None:
        encode = oat.encode_attestation_fault if status >= 500 else oat.encode_fault
        self.set_status(status)
        self.answer(encode(status, reason))


class PollHosts(_Question):
    """Host names -> levels (1.0, 1.5-1.7, 2.x)."""

    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        poll = oat.decode_poll(self.content)
        async with self.question(len(poll.hosts)):
            results = await self.ask(poll.hosts, poll.time_threshold_ms, self.wait_ms)
            proven: Mapping[str, Mapping[int, str]] = {}
            if poll.pcrs:
                proven = await self._proven(results)
            await self.answer_hosts(results, functools.partial(self._encode, poll, proven))

    def _encode(
        self,
        poll: oat.Poll,
        proven: Mapping[str, Mapping[int, str]],
        results: Sequence[AttestationResult],
    ) -> Sequence[Mapping[str, Any]]:
        now = self.context.clock.wall()
        answers = []
        for result in results:
            values = proven.get(key_of(result.host_name), {})
            chosen = [(pcr, values[pcr]) for pcr in poll.pcrs if pcr in values]
            answers.append(_polled_host(result, now, tuple(chosen)))
        return oat.encode_hosts(answers)

    async def _proven(
        self, results: Sequence[AttestationResult]
    ) -> Mapping[str, Mapping[int, str]]:
        """Return the PCR values that the last evidence of each host proved, by its key."""
        keys = [key_of(result.host_name) for result in results if _is_judged(result)]
        proven: dict[str, Mapping[int, str]] = {}
        for part in parts(keys):
            stored = functools.partial(stored_results.measured, names=part)
            async with self.turn():
                texts = await self.context.database.read(stored)
                for name, text in texts.items():
                    proven[name] = _values(text)
        return proven


class HostTrust(_Question):
    """One host name -> whether its BIOS and VMM are trusted (2.x).

    Errors are of 2.x, too: status 400 and a name.
    """

    async def get(self) -> None:
        name = self.get_query_argument("hostName", "", strip=False)
        async with self.question(1):
            (result,) = await self.ask([name], None, self.wait_ms)
        if _is_judged(result):
            self.answer(oat.encode_trust(name, result.level is Level.TRUSTED))
            return
        cause = result.findings[0] if result.findings else _VOID
        fault = _NOT_JUDGED.get(cause.code, "SYSTEM_ERROR")
        self.set_status(400)
        self.answer(oat.encode_named_fault(fault, cause.text))


class Version(_Question):
    """Which interface this is (1.0)."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish("SDKversion : v1.0")


class NotOffered(_Question):
    """What else OpenAttestation had: asynchronous polls, analyses, its agents' SOAP."""

    callers = frozenset({CallerKind.ANYONE})

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            self.answer_error(404, "NotFound", "this server has no such part of OpenAttestation")


def _is_judged(result: AttestationResult) -> bool:
    return _level(result) in (Level.TRUSTED, Level.UNTRUSTED)


def _level(result: AttestationResult) -> Level:
    """Return the level as OpenAttestation's clients read it.

    They count a verdict's age from its `vtime`. What was void when it was read has none, and any
    moment in its place would make it young.
    """
    if result.level is Level.TRUSTED and result.age_ms is None:
        return Level.UNKNOWN
    return result.level


def _polled_host(
    result: AttestationResult, now: datetime.datetime, values: tuple[tuple[int, str], ...]
) -> oat.PolledHost:
    # Where nothing was judged, it is the moment of the answer, as it was with OpenAttestation.
    age = datetime.timedelta(milliseconds=result.age_ms or 0)
    return oat.PolledHost(result.host_name, _level(result).value, now - age, values)


def _values(text: str) -> Mapping[int, str]:
    try:
        return measured.decode(text).values
    except errors.InvalidMessage:
        return {}
