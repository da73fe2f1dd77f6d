# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The reference values: import, preview, stage, activate, withdraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, oat, reference_values
from ovirt_tcp_plugin.messages.result import encode_findings
from ovirt_tcp_plugin.verifier.enrolment import check_host_name
from ovirt_tcp_plugin.verifier.store import references
from ovirt_tcp_plugin.verifier.web.access import Caller
from ovirt_tcp_plugin.verifier.web.handler import Handler, log

# A golden host's agent may have to be woken, and its TPM to quote.
IMPORT_WAIT_MS = 15_000


class ReferenceValues(Handler):
    """All sets; a golden host's present boot becomes a new one, or adds its values to one."""

    callers = frozenset({Caller.POLICY})

    async def get(self) -> None:
        known = await self.context.database.read(references.load)
        sets = [reference_values.encode(one) for one in known.sets]
        self.answer({"reference_values": sets, "unreadable": list(known.unreadable)})

    async def post(self) -> None:
        members = self.body("reference values request")
        name = json_fields.text(members, "name", reference_values.MAX_NAME_LENGTH)
        host_name = json_fields.text(members, "host", oat.MAX_NAME_LENGTH).lower()
        staged = members.get("staged", False)
        if not isinstance(staged, bool):
            raise errors.InvalidMessage(
                "reference values request", "staged is neither true nor false"
            )
        reference_values.check_name(name)
        check_host_name(host_name)
        attestation = self.context.attestation
        asked_ms = self.context.clock.now_ms()
        (golden,) = await attestation.results([host_name], None, IMPORT_WAIT_MS)
        if any(finding.code == "not_enrolled" for finding in golden.findings):
            raise errors.NotFound("enrolled host", host_name)
        if golden.age_ms is None or golden.age_ms > self.context.clock.now_ms() - asked_ms:
            raise errors.Unavailable(
                f"host {host_name}", f"no evidence within {IMPORT_WAIT_MS // 1000} s"
            )
        good = await self.context.reference_values.import_boot(
            name, host_name, golden.findings, staged
        )
        await attestation.judge_all()
        log.info("reference_values imported set=%s host=%s staged=%s", name, host_name, staged)
        self.answer(reference_values.encode(good))


class ReferenceSetOfName(Handler):
    """One set; removing it has every host judged anew."""

    callers = frozenset({Caller.POLICY})

    async def delete(self, name: str) -> None:
        reference_values.check_name(name)
        await self.context.reference_values.withdraw(name, ())
        await self.context.attestation.judge_all()
        log.info("reference_values removed set=%s", name)
        self.answer({"removed": name})


class ReferenceChange(Handler):
    """Add a value to a set, activate staged ones, or withdraw some."""

    callers = frozenset({Caller.POLICY})

    async def post(self, name: str, verb: str) -> None:
        reference_values.check_name(name)
        service = self.context.reference_values
        members = self.body("reference values change")
        if verb == "add":
            changed = await service.add(name, reference_values.decode_value(members.get("value")))
        elif verb == "activate":
            changed = await service.activate(name, _identifiers(members, "values"))
        else:
            identifiers = _identifiers(members, "values")
            if not identifiers:
                raise errors.InvalidMessage("reference values change", "it names no value")
            changed = await service.withdraw(name, identifiers)
        await self.context.attestation.judge_all()
        log.info("reference_values changed set=%s verb=%s", name, verb)
        self.answer(reference_values.encode(changed))


class ReferencePreview(Handler):
    """A change -> the hosts whose level it would change. Nothing is changed."""

    callers = frozenset({Caller.POLICY})

    async def post(self) -> None:
        members = self.body("preview")
        changes = await self.context.reference_values.preview(
            _by_set(members, "activate"), _by_set(members, "withdraw")
        )
        encoded = [
            {
                "host_name": one.host_name,
                "now": one.now.value,
                "then": one.then.value,
                "findings": encode_findings(one.findings),
            }
            for one in changes
        ]
        self.answer({"changes": encoded})


def _by_set(members: Mapping[str, object], name: str) -> Mapping[str, Sequence[str]]:
    sets = json_fields.members(members.get(name, {}), name)
    return {one: _identifiers(sets, one) for one in sets}


def _identifiers(members: Mapping[str, object], name: str) -> list[str]:
    identifiers = json_fields.items(members, name, reference_values.MAX_VALUES)
    if not all(isinstance(one, str) and len(one) == 12 for one in identifiers):
        raise errors.InvalidMessage(name, "an identifier of a value is not 12 hex digits")
    return [str(one) for one in identifiers]
