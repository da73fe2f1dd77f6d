# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain steps 4 and 5: asks the attestation server about hosts.

Names come in, an Answer for each goes out, whatever the server said. Nothing odd becomes trusted; the only error is
Unavailable, when no server gave an answer that could be understood.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import logging
from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.https import Reply
from ovirt_tcp_plugin.broker.servers import Servers
from ovirt_tcp_plugin.broker.settings import Verifier
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import json_fields as fields
from ovirt_tcp_plugin.messages import oat, result
from ovirt_tcp_plugin.messages.result import Level

log = logging.getLogger("broker.sources")

# Where the release's PollHosts is (facts of OpenAttestation 1.0, 1.5-1.7, 2.x).
OAT_PATHS = {
    "oat-1.0": "/OpenAttestationWebServices/V1.0",
    "oat-1.5": "/AttestationService/resources",
    "oat-2": "/AttestationService/resources",
}
# OpenAttestation 1.x rejects the whole batch for one of these.
OAT_1_FORBIDDEN = frozenset("#&+:\"'")
OAT_1_NAME_LENGTH = 50
# An HTTP Date is cut to the second, so an age computed from it may be a second short.
DATE_RESOLUTION_MS = 1000
# More than this in the server's own future is no age.
MAX_NEGATIVE_AGE_MS = 2000
OK = frozenset({200})
# What OpenAttestation answers when a name is not to its liking; every other status is trouble of its own.
OAT_REFUSED = frozenset({400, 500})
# One bad name among 1000 stands alone after 10 halvings. More refusals and no answer: it is not a name.
MAX_REFUSALS = 12


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server says of one host.

    Attributes:
        level: trust level.
        sent_ms: CLOCK_BOOTTIME of this machine when the question was sent.
        age_ms: age of the verdict by the server's own clock; None if it cannot be told.
        lifetime_ms: how long the server lets it live; None if it does not say.
        fresh: the evidence was asked for after sent_ms, as far as the server's own figures show.
        code, reason: why it is not trusted.
        boot_id: the host's boot in which the evidence was made, empty if unknown.
    """

    level: Level
    sent_ms: int
    age_ms: Optional[int] = None
    lifetime_ms: Optional[int] = None
    fresh: bool = False
    code: str = ""
    reason: str = ""
    boot_id: str = ""


class Source(Protocol):
    """An attestation server, or several that say the same."""

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        ...


class OvirtTcpSource:
    """Our own server: results with ages and findings. Only evidence asked for after the question counts."""

    def __init__(self, options: Verifier, token: str, clock: Clock) -> None:
        deadline_s = options.wait_s + options.connect_timeout_s
        self._servers = Servers(options, {"Authorization": f"Bearer {token}"}, OK, deadline_s, clock)
        self._wait_ms = int(options.wait_s * 1000)
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        message = {"hosts": list(names), "max_age_ms": None, "wait_ms": self._wait_ms}
        sent_ms = self._clock.now_ms()

        def read(reply: Reply) -> dict[str, Answer]:
            return _results(reply.body, names, sent_ms, self._clock.now_ms() - sent_ms)

        answers = self._servers.ask("/v1/results", message, sent_ms, read)
        return {name: answers.get(name, _omitted(sent_ms)) for name in names}


class OatSource:
    """An OpenAttestation server, which tells levels and times only."""

    def __init__(self, options: Verifier, clock: Clock) -> None:
        headers = {"x-auth-blob": options.auth_blob} if options.auth_blob else {}
        self._servers = Servers(options, headers, OK | OAT_REFUSED, options.deadline_s, clock)
        self._path = (options.path or OAT_PATHS[options.kind]) + "/PollHosts"
        self._narrow = options.kind != "oat-2"
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        askable = [name for name in names if not (self._narrow and _unfit_for_oat_1(name))]
        now_ms = self._clock.now_ms()
        unfit = Answer(Level.UNKNOWN, now_ms, code="name_unfit", reason="OpenAttestation 1.x cannot take this host's name")
        return {**{name: unfit for name in names if name not in askable}, **self._ask_all(askable)}

    def _ask_all(self, names: Sequence[str]) -> dict[str, Answer]:
        """Ask in one batch; one that is refused is split until the bad name stands alone.

        A server that refuses every name is no server: if it counted as one that answers, the hosts that are silent
        for that reason would leave the wall one by one.
        """
        answers: dict[str, Answer] = {}
        batches, refusals, answered = [list(names)] if names else [], 0, False
        while batches:
            batch = batches.pop()
            found = self._ask(batch)
            if found is not None:
                answers.update(found)
                answered = True
                continue
            refusals += 1
            if len(batch) > 1:
                middle = len(batch) // 2
                batches += [batch[middle:], batch[:middle]]
            reason = "the server refuses the host's name"
            answers.update({name: Answer(Level.UNKNOWN, 0, code="rejected", reason=reason) for name in batch})
            if not answered and (refusals > MAX_REFUSALS or not batches):
                self._servers.failed("it refuses every question")
                raise errors.Unavailable("the attestation server", "it refuses every question")
        return answers

    def _ask(self, names: Sequence[str]) -> Optional[dict[str, Answer]]:
        """Return the answers to one batch, None if the server refuses it. Raises Unavailable."""
        sent_ms = self._clock.now_ms()
        message = {**oat.encode_poll(oat.Poll(tuple(names))), "count": len(names)}

        def read(reply: Reply) -> Optional[dict[str, Answer]]:
            return None if reply.status in OAT_REFUSED else _oat_answers(reply, sent_ms, self._clock.now_ms() - sent_ms)

        told = self._servers.ask(self._path, message, sent_ms, read)
        return None if told is None else {name: told.get(name.lower(), _omitted(sent_ms)) for name in names}


def make(options: Verifier, clock: Clock) -> Source:
    """Return the source that the configuration names.

    Raises:
        InvalidConfig: the token file cannot be read.
    """
    if options.kind != "ovirt-tcp":
        return OatSource(options, clock)
    try:
        token = options.token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InvalidConfig(str(options.token_file), [f"the verifier's token cannot be read: {e}"]) from e
    return OvirtTcpSource(options, token, clock)


def _results(body: bytes, names: Sequence[str], sent_ms: int, took_ms: int) -> dict[str, Answer]:
    """Return the answers in a body of ours, by name. Raises InvalidMessage when it makes no sense as a whole."""
    members = fields.members(fields.parse(body, "results", oat.MAX_ANSWER_SIZE), "results")
    answers: dict[str, Answer] = {}
    for one in fields.items(members, "hosts", 2 * len(names)):
        try:
            decoded = result.decode(one)
        except errors.InvalidMessage as e:
            log.warning("odd answer=%s", e)
            continue
        if decoded.host_name not in names:
            continue
        twice = decoded.host_name in answers
        answers[decoded.host_name] = _twice(sent_ms) if twice else _from_result(decoded, sent_ms, took_ms)
    return answers


def _oat_answers(reply: Reply, sent_ms: int, took_ms: int) -> dict[str, Answer]:
    """Return the answers in a reply of OpenAttestation, by name in lower case. Raises InvalidMessage."""
    date, told = _parse_date(reply.date), dict[str, Answer]()
    for host in oat.decode_answer(reply.body):
        name = host.host_name.lower()
        told[name] = _twice(sent_ms) if name in told else _from_oat(host, date, sent_ms, took_ms)
    return told


def _from_result(decoded: result.AttestationResult, sent_ms: int, took_ms: int) -> Answer:
    finding = decoded.findings[0] if decoded.findings else None
    return Answer(
        decoded.level,
        sent_ms,
        decoded.age_ms,
        decoded.lifetime_ms,
        fresh=decoded.age_ms is not None and decoded.age_ms <= took_ms,
        code=finding.code if finding else "",
        reason=finding.text if finding else "",
        boot_id=decoded.boot_id,
    )


def _from_oat(host: oat.HostTrust, date: Optional[datetime.datetime], sent_ms: int, took_ms: int) -> Answer:
    try:
        level = Level(host.trust_lvl)
    except ValueError:
        # "pending", and whatever a server may invent.
        reason = f"the server says {host.trust_lvl[:20]!r}, which is no verdict"
        return Answer(Level.UNKNOWN, sent_ms, code="level_unknown", reason=reason)
    if level in (Level.UNKNOWN, Level.TIMEOUT):
        reason = f"the OpenAttestation server says {level.value}"
        return Answer(level, sent_ms, code=f"oat_{level.value}", reason=reason)
    age_ms = _oat_age(host.vtime, date)
    if age_ms is None:
        reason = f"the server says {level.value}, but not since when"
        return Answer(Level.UNKNOWN, sent_ms, code="no_age", reason=reason)
    fresh = age_ms - DATE_RESOLUTION_MS <= took_ms
    if level is Level.TRUSTED:
        return Answer(level, sent_ms, age_ms, fresh=fresh)
    reason = "the OpenAttestation server says untrusted, and no more"
    return Answer(level, sent_ms, age_ms, fresh=fresh, code="oat_untrusted", reason=reason)


def _oat_age(vtime: Optional[datetime.datetime], date: Optional[datetime.datetime]) -> Optional[int]:
    """Return Date - vtime, both the server's own clock, rounded up; None when there is no telling."""
    if vtime is None or date is None:
        return None
    age_ms = int((date - vtime).total_seconds() * 1000)
    return None if age_ms < -MAX_NEGATIVE_AGE_MS else max(age_ms, 0) + DATE_RESOLUTION_MS


def _parse_date(header: str) -> Optional[datetime.datetime]:
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else None


def _omitted(sent_ms: int) -> Answer:
    return Answer(Level.UNKNOWN, sent_ms, code="omitted", reason="the attestation server left this host out")


def _twice(sent_ms: int) -> Answer:
    reason = "the attestation server named this host twice in one answer"
    return Answer(Level.UNKNOWN, sent_ms, code="named_twice", reason=reason)


def _unfit_for_oat_1(name: str) -> bool:
    return not name or len(name) > OAT_1_NAME_LENGTH or bool(OAT_1_FORBIDDEN & set(name))
