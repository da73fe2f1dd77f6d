# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What is known of hosts, for the broker and for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from prometheus_client import CONTENT_TYPE_LATEST

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import components, json_fields, oat, public_keys, result
from ovirt_tcp_plugin.messages.result import AttestationResult
from ovirt_tcp_plugin.tokens import NEVER
from ovirt_tcp_plugin.verifier import revocation, server_certificate, upkeep
from ovirt_tcp_plugin.verifier.appraisal import measured
from ovirt_tcp_plugin.verifier.appraisal.measured import Measured
from ovirt_tcp_plugin.verifier.enrolment import check_host_name
from ovirt_tcp_plugin.verifier.fair_share import parts
from ovirt_tcp_plugin.verifier.store import hosts, tokens
from ovirt_tcp_plugin.verifier.store import results as stored_results
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler, HandlerContext, log

_UNMARKED = {"endorsed_by": "", "tpm_family": ""}


class Results(Handler):
    """Host names -> results with findings and ages. Our own, richer form of PollHosts."""

    callers = frozenset({CallerKind.VIEWER})
    max_body_size = oat.MAX_POLL_SIZE

    async def post(self) -> None:
        members = json_fields.parse_members(
            self.content, "results request", self.max_body_size, oat.MAX_POLL_VALUES
        )
        untrusted_names = json_fields.items(members, "hosts", oat.MAX_HOSTS)
        names = [_name(name) for name in untrusted_names]
        max_age_ms = None
        if members.get("max_age_ms") is not None:
            max_age_ms = json_fields.integer(members, "max_age_ms", 0, 2**53)
        wait_ms = json_fields.integer(members, "wait_ms", 0, 60_000)
        if not names:
            # Who asks about nobody wants to know how the server is.
            self.answer({"hosts": [], "unreadable_rows": self.context.metrics.bad_row_count})
            return
        async with self.question(len(names)):
            results = await self.ask(names, max_age_ms, wait_ms)
            await self.answer_hosts(results, _encode)


class Hosts(Handler):
    """Every enrolled host with its last result, however old; nobody is asked again."""

    callers = frozenset({CallerKind.VIEWER})

    async def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        content = await self.context.host_list.get(self._list)
        self.finish(content)

    async def _list(self) -> bytes:
        marks = await self.context.database.read(hosts.marks)
        results = await self.context.attestation.last_results(self.turn)
        texts = []
        for part in parts(results):
            async with self.turn():
                encoded = _encode_marked(part, marks, self.context.review.withdrawn)
                texts.append(json.dumps(encoded)[1:-1])
        return b'{"hosts": [' + ", ".join(texts).encode() + b"]}"


class Upkeep(Handler):
    """What an administrator has to do in time."""

    callers = frozenset({CallerKind.VIEWER})

    async def get(self) -> None:
        context = self.context
        ends = await upkeep_of(context)
        withdrawn = list(context.review.withdrawn.values())
        now_s = _now_s(context)
        duties = upkeep.duties(ends, withdrawn, now_s)
        duties += revocation.duties(context.review.revocations, context.clock.wall())
        ending = upkeep.soon(ends, now_s)[: oat.MAX_HOSTS]
        self.answer(
            {
                "duties": [dataclasses.asdict(duty) for duty in duties],
                "ends": [dataclasses.asdict(end) for end in ending],
                "withdrawn": [dataclasses.asdict(host) for host in withdrawn[: oat.MAX_HOSTS]],
            }
        )


async def upkeep_of(context: HandlerContext) -> list[upkeep.End]:
    """Return all that ends. Raises Unavailable."""
    ca = context.authority
    ends = [upkeep.End(upkeep.AUTHORITY, "", _end_s(ca.certificate))]
    ends += [upkeep.End(upkeep.FORMER_AUTHORITY, "", _end_s(root)) for root in ca.roots[1:]]
    try:
        certificate = server_certificate.load(context.options)
        ends.append(upkeep.End(upkeep.SERVER, "", _end_s(certificate)))
    except errors.InvalidConfig as e:
        log.warning("certificate unreadable reason=%s", e)
    certificates = await context.database.read(hosts.certificate_ends)
    for name, end_s in certificates.items():
        if end_s is not None:
            ends.append(upkeep.End(upkeep.AGENT, name, end_s))
    stored = await context.database.read(tokens.every)
    for identifier, token in stored.items():
        # One that enrols a host is made for a day.
        if token.end_s != NEVER and not token.host_name:
            name = f"{identifier} ({token.role})"
            ends.append(upkeep.End(upkeep.TOKEN, name, token.end_s))
    return ends


def _end_s(certificate: x509.Certificate) -> int:
    _, end = public_keys.life(certificate)
    return int(end.timestamp())


def _now_s(context: HandlerContext) -> int:
    return int(context.clock.wall().timestamp())


class Void(Handler):
    """The end of every trusted result older than a time; all hosts are asked again."""

    callers = frozenset({CallerKind.OPERATOR})

    async def post(self) -> None:
        members = self.body("void request")
        older_than_ms = json_fields.integer(members, "older_than_ms", 0, 2**53)
        voided = await self.context.attestation.void(older_than_ms)
        log.warning("results voided older_than_ms=%d hosts=%d", older_than_ms, len(voided))
        self.answer({"hosts": voided})


class HostOfName(Handler):
    """One enrolled host; to remove it is how a replaced TPM gets its name back."""

    callers = frozenset({CallerKind.OPERATOR})

    async def delete(self, name: str) -> None:
        check_host_name(name)
        await self.context.database.write(lambda c: hosts.remove(c, name))
        log.warning("host removed host=%s", name)
        self.answer({"removed": name})


class BootOfHost(Handler):
    """What a host's last evidence proved of its boot, and what its logs have beside that."""

    callers = frozenset({CallerKind.VIEWER})

    async def get(self, name: str) -> None:
        check_host_name(name)
        texts = await self.context.database.read(lambda c: stored_results.measured(c, [name]))
        try:
            proven = measured.decode(texts.get(name, ""))
        except errors.InvalidMessage:
            proven = Measured({}, ())  # no evidence yet, or told as record_unreadable
        self.answer({"host_name": name, **_encode_boot(proven)})


class MetricsText(Handler):
    """The server's counters for Prometheus."""

    callers = frozenset({CallerKind.VIEWER, CallerKind.METRICS_NETWORK})

    async def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        text = await self.context.metrics_text.get(self._render)
        self.finish(text)

    async def _render(self) -> bytes:
        context = self.context
        results = await context.attestation.last_results(self.turn)
        version = await context.reference_values.newest()
        counts = context.server.counts if context.server else {}
        ends = await upkeep_of(context)
        context.metrics.show_upkeep(ends, len(context.review.withdrawn), _now_s(context))
        return context.metrics.render(results, len(version.unreadable), counts)


class Health(Handler):
    """Whether the server answers."""

    callers = frozenset({CallerKind.ANYONE})

    def get(self) -> None:
        self.answer({"status": "serving"})


def _encode(results: Sequence[AttestationResult]) -> list[dict[str, Any]]:
    return [result.encode(known) for known in results]


def _encode_boot(proven: Measured) -> dict[str, Any]:
    steps = []
    for step in proven.steps:
        text = components.text(step.component) + components.switched(step)
        steps.append({**step._asdict(), "text": text})
    values = {str(pcr): value for pcr, value in proven.values.items()}
    notes = list(proven.notes)
    return {"bank": proven.bank, "values": values, "steps": steps, "notes": notes}


def _encode_marked(
    results: Sequence[AttestationResult],
    marks: Mapping[str, Mapping[str, str]],
    withdrawn: Mapping[str, upkeep.Withdrawn],
) -> list[dict[str, Any]]:
    encoded = []
    for known in results:
        # Whoever enrolled between the two questions has no marks yet.
        mark = marks.get(known.host_name, _UNMARKED)
        host = withdrawn.get(known.host_name)
        fault = host.text if host else ""
        encoded.append({**result.encode(known), **mark, "endorsement_fault": fault})
    return encoded


def _name(untrusted: object) -> str:
    if (
        not isinstance(untrusted, str)
        or len(untrusted) > oat.MAX_NAME_LENGTH
        or not json_fields.encodable(untrusted)
    ):
        reason = "a host name is not a text of at most 255 characters"
        raise errors.InvalidMessage("results request", reason)
    return untrusted
