# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's questions, in its own words."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.messages.result import AttestationResult, Level
from ovirt_tcp_plugin.verifier.appraisal import measured
from ovirt_tcp_plugin.verifier.attestation import key_of
from ovirt_tcp_plugin.verifier.store import challenges, results
from ovirt_tcp_plugin.verifier.web.access import Caller
from ovirt_tcp_plugin.verifier.web.handler import Handler

# Why a host is not judged, as 2.x called it; by code of the first finding.
_NOT_JUDGED = {
    "not_enrolled": "AS_HOST_NOT_FOUND",
    "not_attested": "AS_HOST_COMMUNICATION_ERROR",
    "no_answer": "AS_HOST_COMMUNICATION_ERROR",
    "no_reference_values": "AS_MISSING_MANIFEST",
}


class _Question(Handler):
    callers = frozenset({Caller.VIEWER, Caller.OAT_NETWORK})

    @property
    def wait_ms(self) -> int:
        """How long hosts are waited for."""
        return int(self.context.options.poll_deadline * 1000)

    def answer_error(self, status: int, code: str, reason: str) -> None:
        self.set_status(status)
        self.answer(
            (oat.encode_attestation_fault if status >= 500 else oat.encode_fault)(status, reason)
        )


class PollHosts(_Question):
    """Host names -> levels (1.0, 1.5-1.7, 2.x)."""

    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        poll = oat.decode_poll(self.content)
        found = await self.ask(poll.hosts, poll.time_threshold_ms, self.wait_ms)
        proven = await self._proven(found) if poll.pcrs else {}
        now = self.context.clock.wall()
        self.answer(oat.encode_answer(_host_trust(one, now, proven, poll.pcrs) for one in found))

    async def _proven(self, found: Sequence[AttestationResult]) -> Mapping[str, Mapping[int, str]]:
        """Return the PCR values that the last evidence of each host proved, by its name in lower case."""
        names = [
            key_of(one.host_name) for one in found if one.level in (Level.TRUSTED, Level.UNTRUSTED)
        ]
        proven: dict[str, Mapping[int, str]] = {}
        for part in challenges.chunks(names):
            kept = await self.context.database.read(lambda c, part=part: results.measured(c, part))  # type: ignore[misc]
            proven.update((name, _values(measured)) for name, measured in kept.items())
            await asyncio.sleep(0)  # SQLite answers without a pause, and others wait
        return proven


class HostTrust(_Question):
    """One host name -> whether its BIOS and VMM are trusted (2.x). Errors are of 2.x, too: status 400 and a name."""

    async def get(self) -> None:
        name = self.get_query_argument("hostName", "", strip=False)
        (one,) = await self.ask([name], None, self.wait_ms)
        if one.level in (Level.TRUSTED, Level.UNTRUSTED):
            self.answer(oat.encode_trust(name, one.level is Level.TRUSTED))
        else:
            why = one.findings[0]
            self.set_status(400)
            self.answer(oat.encode_named_fault(_NOT_JUDGED.get(why.code, "SYSTEM_ERROR"), why.text))


class Version(_Question):
    """Which interface this is (1.0)."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish("SDKversion : v1.0")


class NotOffered(_Question):
    """What else OpenAttestation had: asynchronous polls, analyses, its agents' SOAP."""

    callers = frozenset({Caller.ANYONE})

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            self.answer_error(404, "NotFound", "this server has no such part of OpenAttestation")


def _host_trust(
    one: AttestationResult,
    now: datetime.datetime,
    proven: Mapping[str, Mapping[int, str]],
    pcrs: Sequence[int],
) -> oat.HostTrust:
    age = datetime.timedelta(milliseconds=one.age_ms or 0)
    values = proven.get(key_of(one.host_name), {})
    wanted = tuple((index, values[index]) for index in pcrs if index in values)
    return oat.HostTrust(one.host_name, one.level.value, now - age, wanted)


def _values(text: str) -> Mapping[int, str]:
    try:
        return measured.decode(text).values
    except errors.InvalidMessage:
        return {}
