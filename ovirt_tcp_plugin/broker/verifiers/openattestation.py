# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain steps 4 and 5 with an OpenAttestation server, 1.0 to 2.x, which has levels and times only.

Names come in, an Answer for each goes out, whatever the server said. Nothing odd becomes trusted;
the only error is Unavailable, when no server gave an answer that could be parsed.
"""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.settings import OatServers
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.verifiers import failover, odd_answers
from ovirt_tcp_plugin.broker.verifiers.failover import OK, Probe, Servers
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.https import Reply
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.messages.result import Level

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
# A moment that lies further in the server's own future than this has no age.
MAX_NEGATIVE_AGE_MS = 2000
# What OpenAttestation answers when it refuses a name; every other status is trouble of its own.
OAT_REFUSED = frozenset({400, 500})
# One bad name among 1000 stands alone after 10 halvings. More refusals and no answer: the fault is
# not a name.
MAX_REFUSALS = 12

# For a name that is refused: alone, or in a batch that is still to be split.
_REJECTED = Answer(
    Level.UNKNOWN, sent_ms=0, code="rejected", reason="the server refuses the host's name"
)


class OatSource:
    """An OpenAttestation server."""

    def __init__(self, options: OatServers, clock: Clock) -> None:
        statuses = OK | OAT_REFUSED
        self._servers = Servers(options, _headers(options), statuses, options.deadline_s, clock)
        self._path = _path(options)
        self._narrow = options.release != "oat-2"
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        now_ms = self._clock.now_ms()
        answers: dict[str, Answer] = {}
        askable: list[str] = []
        for name in names:
            if self._narrow and _unfit_for_oat_1(name):
                answers[name] = _name_unfit(now_ms)
            else:
                askable.append(name)
        answers.update(self._ask_all(askable))
        return answers

    def _ask_all(self, names: Sequence[str]) -> dict[str, Answer]:
        """Ask in one batch; one that is refused is split until the bad name stands alone.

        A server that refuses every name is no server: if it counted as one that answers, the hosts
        that are silent for that reason would leave the wall one by one.
        """
        answers: dict[str, Answer] = {}
        batches = [list(names)] if names else []
        refusals = 0
        answered = False
        while batches:
            batch = batches.pop()
            batch_answers = self._ask_batch(batch)
            if batch_answers is not None:
                answers.update(batch_answers)
                answered = True
                continue
            refusals += 1
            answers.update(dict.fromkeys(batch, _REJECTED))
            batches += _halves(batch)
            if not answered and (refusals > MAX_REFUSALS or not batches):
                self._servers.failed("it refuses every question")
                raise errors.Unavailable("the attestation server", "it refuses every question")
        return answers

    def _ask_batch(self, names: Sequence[str]) -> Optional[dict[str, Answer]]:
        """Return the answers to one batch, None if the server refuses it. Raises Unavailable."""
        sent_ms = self._clock.now_ms()

        def read(reply: Reply) -> Optional[dict[str, Answer]]:
            if reply.status in OAT_REFUSED:
                return None
            return _answers(reply, sent_ms, self._clock.now_ms() - sent_ms)

        answers = self._servers.ask(self._path, _question(names), sent_ms, read)
        if answers is None:
            return None
        omitted = odd_answers.omitted(sent_ms)
        return {name: answers.get(name.lower(), omitted) for name in names}


def probe(options: OatServers, url: str) -> Probe:
    """Return how one server answers a question about no host.

    A refusal is an answer, too: some releases refuse an empty list of names.

    Raises:
        Unavailable: it does not answer.
    """
    message = {"hosts": [], "count": 0}
    return failover.probe(
        options, url, _path(options), message, _headers(options), OK | OAT_REFUSED
    )


def _headers(options: OatServers) -> dict[str, str]:
    return {"x-auth-blob": options.auth_blob} if options.auth_blob else {}


def _path(options: OatServers) -> str:
    return (options.path or OAT_PATHS[options.release]) + "/PollHosts"


def _question(names: Sequence[str]) -> dict[str, Any]:
    message = oat.encode_poll(oat.Poll(tuple(names)))
    message["count"] = len(names)
    return message


def _halves(batch: list[str]) -> list[list[str]]:
    """Return the batches to ask instead of one that was refused; the first half is popped first."""
    if len(batch) < 2:
        return []
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]


def _answers(reply: Reply, sent_ms: int, took_ms: int) -> dict[str, Answer]:
    """Return the answers in a reply, by name in lower case. Raises InvalidMessage."""
    date = _parse_date(reply.date)
    answers: dict[str, Answer] = {}
    for host in oat.decode_answer(reply.body):
        name = host.host_name.lower()
        if name in answers:
            answers[name] = odd_answers.named_twice(sent_ms)
        else:
            answers[name] = _answer(host, date, sent_ms, took_ms)
    return answers


def _answer(
    host: oat.PolledHost, date: Optional[datetime.datetime], sent_ms: int, took_ms: int
) -> Answer:
    try:
        level = Level(host.trust_lvl)
    except ValueError:
        # "pending", and whatever a server may invent.
        reason = f"the server says {host.trust_lvl[:20]!r}, which is no verdict"
        return Answer(Level.UNKNOWN, sent_ms, code="level_unknown", reason=reason)
    if level in (Level.UNKNOWN, Level.TIMEOUT):
        reason = f"the OpenAttestation server says {level.value}"
        return Answer(level, sent_ms, code=f"oat_{level.value}", reason=reason)
    age_ms = _age_ms(host.vtime, date)
    if age_ms is None:
        reason = f"the server says {level.value}, but not since when"
        return Answer(Level.UNKNOWN, sent_ms, code="no_age", reason=reason)
    return _dated_answer(level, sent_ms, age_ms, took_ms)


def _dated_answer(level: Level, sent_ms: int, age_ms: int, took_ms: int) -> Answer:
    """Return the answer `trusted` or `untrusted`, which the server gave with a moment.

    It is fresh when the host was attested while this question was open: its age, less what the
    HTTP Date is cut by, is no longer than the question took.
    """
    fresh = age_ms - DATE_RESOLUTION_MS <= took_ms
    if level is Level.TRUSTED:
        return Answer(level, sent_ms, age_ms, fresh=fresh)
    reason = "the OpenAttestation server says untrusted, and no more"
    return Answer(level, sent_ms, age_ms, fresh=fresh, code="oat_untrusted", reason=reason)


def _age_ms(vtime: Optional[datetime.datetime], date: Optional[datetime.datetime]) -> Optional[int]:
    """Return Date - vtime, both the server's own clock, rounded up; None without one of them."""
    if vtime is None or date is None:
        return None
    age_ms = int((date - vtime).total_seconds() * 1000)
    if age_ms < -MAX_NEGATIVE_AGE_MS:
        return None
    return max(age_ms, 0) + DATE_RESOLUTION_MS


def _parse_date(header: str) -> Optional[datetime.datetime]:
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else None


def _name_unfit(now_ms: int) -> Answer:
    reason = "OpenAttestation 1.x cannot take this host's name"
    return Answer(Level.UNKNOWN, now_ms, code="name_unfit", reason=reason)


def _unfit_for_oat_1(name: str) -> bool:
    if not name or len(name) > OAT_1_NAME_LENGTH:
        return True
    return not OAT_1_FORBIDDEN.isdisjoint(name)
