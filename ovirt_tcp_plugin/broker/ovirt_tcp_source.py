# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks our own attestation server: results with findings and exact ages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https
from ovirt_tcp_plugin.broker.clock import Clock
from ovirt_tcp_plugin.broker.sources import Answer
from ovirt_tcp_plugin.messages import fields, result
from ovirt_tcp_plugin.messages.result import Level

# 20 hosts with 256 findings of 6 KiB each would be 30 MiB; real ones have a few.
MAX_ANSWER_SIZE = 32 * 1024 * 1024


class OvirtTcpSource:
    """One address of our attestation server.

    Args:
        url: its root.
        token_file: read at every question, so that a token can be replaced while we run.
        ca_file: authority of its certificate.
        wait_ms: how long it may wait for its hosts.
    """

    def __init__(
        self, url: str, token_file: Path, ca_file: Path, wait_ms: int, bounds: https.Bounds, clock: Clock
    ) -> None:
        self._peer = f"the attestation server at {url}"
        self._url = url.rstrip("/") + "/v1/results"
        self._token_file = token_file
        self._ca_file = ca_file
        self._wait_ms = wait_ms
        self._bounds = bounds
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name, from evidence that is asked for now. Raises Unavailable."""
        message = {"hosts": list(names), "max_age_ms": None, "wait_ms": self._wait_ms}
        headers = {"Authorization": f"Bearer {self._token()}"}
        sent_ms = self._clock.now_ms()
        reply = https.post(self._peer, self._url, message, headers, self._ca_file, self._bounds)
        received_ms = self._clock.now_ms()
        if reply.status != 200:
            raise errors.Unavailable(self._peer, f"it answers with status {reply.status}: {_reason(reply.body)}")
        try:
            members = fields.members(fields.parse(reply.body, "results", MAX_ANSWER_SIZE), "results")
            items = fields.items(members, "hosts", 2 * len(names) + 16)
        except errors.InvalidMessage as e:
            raise errors.Unavailable(self._peer, f"its answer cannot be understood: {e}") from e
        return self._match(names, items, sent_ms, received_ms)

    def _match(
        self, names: Sequence[str], items: Sequence[object], sent_ms: int, received_ms: int
    ) -> Mapping[str, Answer]:
        answers = {
            name: Answer(Level.UNKNOWN, sent_ms, code="not_answered", reason="the server left the host out")
            for name in names
        }
        seen: set[str] = set()
        for item in items:
            try:
                one = result.decode(item)
            except errors.InvalidMessage:
                # It speaks of nobody who can be told; its host stays "left out".
                continue
            name = one.host_name.lower()
            if name in seen:
                reason = "the server named the host twice in one answer"
                answers[name] = Answer(Level.UNKNOWN, sent_ms, code="answered_twice", reason=reason)
            elif name in answers:
                seen.add(name)
                answers[name] = _answer(one, sent_ms, received_ms)
        return answers

    def _token(self) -> str:
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise errors.Unavailable(self._peer, f"our token for it cannot be read: {e}") from e


def _answer(one: result.AttestationResult, sent_ms: int, received_ms: int) -> Answer:
    first = one.findings[0] if one.findings else None
    return Answer(
        level=one.level,
        sent_ms=sent_ms,
        age_ms=one.age_ms,
        lifetime_ms=one.lifetime_ms if one.age_ms is not None else None,
        fresh=one.age_ms is not None and one.age_ms <= received_ms - sent_ms,
        code=first.code if first else "",
        reason=_sentence(one.findings),
        boot_id=one.boot_id,
    )


def _sentence(findings: Sequence[result.Finding]) -> str:
    if not findings:
        return ""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return findings[0].text + more


def _reason(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())
