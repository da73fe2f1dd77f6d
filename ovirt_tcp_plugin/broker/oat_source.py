# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks an OpenAttestation server (1.0, 1.5 to 1.7, 2.x) by PollHosts, with Nova's header.

Ages are the server's own: its `Date` header minus the verdict's `vtime`. A verdict without an age counts for nothing.
"""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https
from ovirt_tcp_plugin.broker.clock import Clock
from ovirt_tcp_plugin.broker.sources import Answer
from ovirt_tcp_plugin.messages import oat
from ovirt_tcp_plugin.messages.result import Level

PATHS = {
    "oat-1.0": "/OpenAttestationWebServices/V1.0",
    "oat-1.5": "/AttestationService/resources",
    "oat-2": "/AttestationService/resources",
}

# OpenAttestation 1.x refuses the whole batch for one such name.
_MAX_NAME_LENGTH = 50
_REFUSED_CHARACTERS = frozenset("#&+:\"'")

# `Date` is cut to whole seconds, so that an honest server may seem to be up to one second ahead of itself.
_MAX_NEGATIVE_MS = 2_000
_DATE_CUT_MS = 1_000

# Status codes by which OpenAttestation refuses a batch because of a name; all others are the server's own trouble.
_REFUSED = frozenset({400, 500})
_ANSWERED = frozenset({200, 201, 202})
# One bad name in 1000 stands alone after 10 halvings. More refusals in a row without any answer: it is not a name.
_MAX_REFUSALS = 12

_LEVELS = {"trusted": Level.TRUSTED, "untrusted": Level.UNTRUSTED, "timeout": Level.TIMEOUT}


class OatSource:
    """One address of an OpenAttestation server.

    Args:
        kind: one of PATHS.
        url: its root, such as https://oat.example.com:8443.
        path: in front of /PollHosts; empty means the usual one of that kind.
        auth_blob: sent as x-auth-blob if not empty.
        ca_file: authority of its certificate.
    """

    def __init__(
        self, kind: str, url: str, path: str, auth_blob: str, ca_file: Path, bounds: https.Bounds, clock: Clock
    ) -> None:
        self._first_generation = kind != "oat-2"
        self._peer = f"the OpenAttestation server at {url}"
        self._url = url.rstrip("/") + "/" + (path or PATHS[kind]).strip("/") + "/PollHosts"
        self._headers = {"x-auth-blob": auth_blob} if auth_blob else {}
        self._ca_file = ca_file
        self._bounds = bounds
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when the server answered for none that it was asked."""
        now_ms = self._clock.now_ms()
        answers: dict[str, Answer] = {}
        if self._first_generation:
            for name in names:
                fault = refused_name(name)
                if fault:
                    answers[name] = Answer(Level.UNKNOWN, now_ms, code="name_not_possible", reason=fault)
        batches = [[name for name in names if name not in answers]]
        refusals = answered = 0
        while batches:
            batch = batches.pop()
            if not batch:
                continue
            polled = self._poll(batch)
            if polled is not None:
                answers.update(polled)
                answered += 1
                continue
            refusals += 1
            if refusals > _MAX_REFUSALS and not answered:
                raise errors.Unavailable(self._peer, "it refuses every question")
            if len(batch) == 1:
                reason = "the server refuses the host's name"
                answers[batch[0]] = Answer(Level.UNKNOWN, now_ms, code="name_refused", reason=reason)
            else:
                middle = len(batch) // 2
                batches += [batch[middle:], batch[:middle]]
        if refusals and not answered:
            raise errors.Unavailable(self._peer, "it refuses every question")
        return answers

    def _poll(self, names: Sequence[str]) -> Optional[Mapping[str, Answer]]:
        """Return the server's answers to one batch, None if it refuses the batch. Raises Unavailable."""
        message = {**oat.encode_poll(oat.Poll(tuple(names))), "count": len(names)}
        sent_ms = self._clock.now_ms()
        reply = https.post(self._peer, self._url, message, self._headers, self._ca_file, self._bounds)
        received_ms = self._clock.now_ms()
        if reply.status in _REFUSED:
            return None
        if reply.status not in _ANSWERED:
            raise errors.Unavailable(self._peer, f"it answers with status {reply.status}")
        try:
            hosts = oat.decode_answer(reply.body)
        except errors.InvalidMessage as e:
            raise errors.Unavailable(self._peer, f"its answer cannot be understood: {e}") from e
        return _match(names, hosts, _date(reply.date), sent_ms, received_ms)


def refused_name(name: str) -> str:
    """Return why OpenAttestation 1.x cannot take this name, empty if it can."""
    try:
        if ipaddress.ip_address(name.strip("[]")).version == 6:
            return "OpenAttestation 1.x cannot take an IPv6 address"
    except ValueError:
        pass
    if not 0 < len(name) <= _MAX_NAME_LENGTH:
        return f"OpenAttestation 1.x cannot take a name of more than {_MAX_NAME_LENGTH} characters"
    if _REFUSED_CHARACTERS & set(name):
        return "OpenAttestation 1.x cannot take a name with one of # & + : \" '"
    return ""


def _match(
    names: Sequence[str],
    hosts: Sequence[oat.HostTrust],
    date: Optional[datetime.datetime],
    sent_ms: int,
    received_ms: int,
) -> Mapping[str, Answer]:
    answers = {
        name: Answer(Level.UNKNOWN, sent_ms, code="not_answered", reason="the server left the host out")
        for name in names
    }
    seen: set[str] = set()
    for host in hosts:
        name = host.host_name.lower()
        if name in seen:
            reason = "the server named the host twice in one answer"
            answers[name] = Answer(Level.UNKNOWN, sent_ms, code="answered_twice", reason=reason)
        elif name in answers:
            seen.add(name)
            answers[name] = _answer(host, date, sent_ms, received_ms)
    return answers


def _answer(host: oat.HostTrust, date: Optional[datetime.datetime], sent_ms: int, received_ms: int) -> Answer:
    level = _LEVELS.get(host.trust_lvl, Level.UNKNOWN)
    if level in (Level.UNKNOWN, Level.TIMEOUT):
        # `pending` and whatever a server may invent say nothing about the host.
        reason = f"the attestation server says {host.trust_lvl[:20]!r}"
        return Answer(level, sent_ms, code=f"server_says_{level.value}", reason=reason)
    raw_age_ms = None if date is None or host.vtime is None else _milliseconds(date - host.vtime)
    if raw_age_ms is None or raw_age_ms < -_MAX_NEGATIVE_MS:
        reason = f"the attestation server says {level.value}, but not since when"
        return Answer(Level.UNKNOWN, sent_ms, code="no_age", reason=reason)
    return Answer(
        level=level,
        sent_ms=sent_ms,
        age_ms=max(raw_age_ms, 0) + _DATE_CUT_MS,
        fresh=raw_age_ms <= received_ms - sent_ms,
        code="" if level is Level.TRUSTED else "server_says_untrusted",
        reason="" if level is Level.TRUSTED else "the attestation server says untrusted, and no more",
    )


def _milliseconds(span: datetime.timedelta) -> int:
    return span // datetime.timedelta(milliseconds=1)


def _date(header: str) -> Optional[datetime.datetime]:
    """Return the moment of a `Date` header, None if it is missing or says no zone."""
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
