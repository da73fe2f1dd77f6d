# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain steps 4 and 5: asks our own attestation server about hosts.

Names come in, an Answer for each goes out, whatever the server said. Nothing odd becomes trusted;
the only error is Unavailable, when no server gave an answer that could be parsed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovirt_tcp_plugin import errors, secret_files
from ovirt_tcp_plugin.broker.settings import OvirtTcpServers
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.verifiers import failover, odd_answers
from ovirt_tcp_plugin.broker.verifiers.failover import OK, Probe, Servers
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.https import Reply
from ovirt_tcp_plugin.messages import json_fields, oat, result

log = logging.getLogger("broker.sources")

# Where the server gives results (PROTOCOL.md of the verifier).
PATH = "/v1/results"


class OvirtTcpSource:
    """Our own server: results with ages and findings.

    Only evidence that was asked for after the question counts.
    """

    def __init__(self, options: OvirtTcpServers, token: str, clock: Clock) -> None:
        deadline_s = options.wait_s + options.connect_timeout_s
        self._servers = Servers(options, _headers(token), OK, deadline_s, clock)
        self._wait_ms = int(options.wait_s * 1000)
        self._clock = clock

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        sent_ms = self._clock.now_ms()

        def read(reply: Reply) -> dict[str, Answer]:
            took_ms = self._clock.now_ms() - sent_ms
            return _answers(reply.body, names, sent_ms, took_ms)

        message = _question(names, self._wait_ms)
        answers = self._servers.ask(PATH, message, sent_ms, read)
        return {name: answers.get(name, odd_answers.omitted(sent_ms)) for name in names}


def probe(options: OvirtTcpServers, url: str) -> Probe:
    """Return how one server answers a question about no host, which has nothing to wait for.

    Raises:
        Unavailable: it does not answer.
        InvalidConfig: the token file cannot be read.
    """
    headers = _headers(read_token(options.token_file))
    probed = failover.probe(options, url, PATH, _question([], 0), headers, OK)
    return dataclasses.replace(probed, unreadable_rows=_unreadable_rows(probed.body))


def _unreadable_rows(body: bytes) -> int:
    """Return what the answer to a question about no host says; 0 if it does not."""
    try:
        members = json_fields.members(
            json_fields.parse(body, "results", failover.MAX_PROBE_ANSWER_SIZE), "results"
        )
        return json_fields.integer(members, "unreadable_rows", 0, 2**53)
    except errors.InvalidMessage:  # a server of an older release, or none of ours
        return 0


def read_token(path: Path) -> str:
    """Return the token in a file. Raises InvalidConfig: it cannot be read."""
    secret_files.warn_if_open(path)
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        fault = f"the verifier's token cannot be read: {e}"
        raise errors.InvalidConfig(str(path), [fault]) from e


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _question(names: Sequence[str], wait_ms: int) -> dict[str, object]:
    return {"hosts": list(names), "max_age_ms": None, "wait_ms": wait_ms}


def _answers(body: bytes, names: Sequence[str], sent_ms: int, took_ms: int) -> dict[str, Answer]:
    """Return the answers in a body, by name. Raises InvalidMessage: it cannot be parsed at all."""
    members = json_fields.members(
        json_fields.parse(body, "results", oat.MAX_ANSWER_SIZE), "results"
    )
    answers: dict[str, Answer] = {}
    for host in json_fields.items(members, "hosts", 2 * len(names)):
        try:
            decoded = result.decode(host)
        except errors.InvalidMessage as e:
            log.warning("odd answer=%s", e)
            continue
        name = decoded.host_name
        if name in answers:
            answers[name] = odd_answers.named_twice(sent_ms)
        elif name in names:
            answers[name] = _answer(decoded, sent_ms, took_ms)
    return answers


def _answer(decoded: result.AttestationResult, sent_ms: int, took_ms: int) -> Answer:
    code = ""
    reason = ""
    if decoded.findings:
        code = decoded.findings[0].code
        reason = decoded.findings[0].text
    return Answer(
        level=decoded.level,
        sent_ms=sent_ms,
        age_ms=decoded.age_ms,
        lifetime_ms=decoded.lifetime_ms,
        fresh=decoded.age_ms is not None and decoded.age_ms <= took_ms,
        code=code,
        reason=reason,
        boot_id=decoded.boot_id,
    )
