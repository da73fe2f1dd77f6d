# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The reference values: import, preview, stage, activate, withdraw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields, oat, reference_values
from ovirt_tcp_plugin.messages.findings import FindingCode
from ovirt_tcp_plugin.messages.result import Finding, encode_findings
from ovirt_tcp_plugin.verifier.enrolment import check_host_name
from ovirt_tcp_plugin.verifier.reference_values import Preview
from ovirt_tcp_plugin.verifier.store import references
from ovirt_tcp_plugin.verifier.web.access import CallerKind
from ovirt_tcp_plugin.verifier.web.handler import Handler, log

# A golden host's agent may have to be woken, and its TPM to quote.
IMPORT_WAIT_MS = 15_000


class _Import(NamedTuple):
    """Whose boot becomes reference values of which set; staged ones wait for `activate`.

    `without_kernel`: a measured launch may lack the kernel's step.
    """

    set_name: str
    host_name: str
    staged: bool
    without_kernel: bool


class ReferenceValues(Handler):
    """All sets; a golden host's present boot becomes a new one, or adds its values to one."""

    callers = frozenset({CallerKind.POLICY})

    async def get(self) -> None:
        stored = await self.context.database.read(references.load)
        sets = [reference_values.encode(known) for known in stored.sets]
        self.answer({"reference_values": sets, "unreadable": list(stored.unreadable)})

    async def post(self) -> None:
        request = _decode_import(self.body("reference values request"))
        findings = await self._attest(request.host_name)
        service = self.context.reference_values
        imported = await service.import_boot(
            request.set_name,
            request.host_name,
            findings,
            request.staged,
            request.without_kernel,
        )
        await self.context.attestation.judge_all()
        log.info(
            "reference_values imported set=%s host=%s staged=%s",
            request.set_name,
            request.host_name,
            request.staged,
        )
        mixtures = reference_values.encode_mixtures(imported)
        self.answer({**reference_values.encode(imported), "mixtures": mixtures})

    async def _attest(self, host_name: str) -> Sequence[Finding]:
        """Return the findings of evidence that the host gives now.

        Raises:
            NotFound: it is not enrolled.
            Unavailable: it gives none in time.
        """
        clock = self.context.clock
        asked_ms = clock.now_ms()
        (result,) = await self.context.attestation.results(
            [host_name], None, IMPORT_WAIT_MS, self.turn
        )
        codes = {finding.code for finding in result.findings}
        if FindingCode.NOT_ENROLLED.code in codes:
            raise errors.NotFound("enrolled host", host_name)
        if result.age_ms is None or result.age_ms > clock.now_ms() - asked_ms:
            reason = f"no evidence within {IMPORT_WAIT_MS // 1000} s"
            raise errors.Unavailable(f"host {host_name}", reason)
        return result.findings


class ReferenceSetOfName(Handler):
    """One set; removing it has every host judged again."""

    callers = frozenset({CallerKind.POLICY})

    async def delete(self, name: str) -> None:
        reference_values.check_name(name)
        await self.context.reference_values.withdraw(name, ())
        await self.context.attestation.judge_all()
        log.info("reference_values removed set=%s", name)
        self.answer({"removed": name})


class ReferenceChange(Handler):
    """Add a value to a set, activate staged ones, or withdraw some."""

    callers = frozenset({CallerKind.POLICY})

    async def post(self, name: str, verb: str) -> None:
        reference_values.check_name(name)
        service = self.context.reference_values
        members = self.body("reference values change")
        if verb == "add":
            value = reference_values.decode_value(members.get("value"))
            changed = await service.add(name, value)
        elif verb == "activate":
            identifiers = _identifiers(members, "values")
            changed = await service.activate(name, identifiers)
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

    callers = frozenset({CallerKind.POLICY})

    async def post(self) -> None:
        members = self.body("preview")
        activate = _by_set(members, "activate")
        withdraw = _by_set(members, "withdraw")
        previews = await self.context.reference_values.preview(activate, withdraw)
        mixtures = await self._mixtures(activate)
        changes = [_encode_preview(preview) for preview in previews]
        self.answer({"changes": changes, "mixtures": mixtures})

    async def _mixtures(self, set_names: Iterable[str]) -> Mapping[str, object]:
        """Return the parts of which these sets mix values, by set, where one does."""
        version = await self.context.reference_values.newest()
        mixtures: dict[str, object] = {}
        for known in version.sets:
            if known.name in set_names and known.mixtures():
                mixtures[known.name] = reference_values.encode_mixtures(known)
        return mixtures


def _decode_import(members: Mapping[str, object]) -> _Import:
    """Return the import in a request. Raises InvalidMessage, Refused (host_name)."""
    set_name = json_fields.text(members, "name", reference_values.MAX_NAME_LENGTH)
    host_name = json_fields.text(members, "host", oat.MAX_NAME_LENGTH).lower()
    staged = _flag(members, "staged")
    without_kernel = _flag(members, "without_kernel")
    reference_values.check_name(set_name)
    check_host_name(host_name)
    return _Import(set_name, host_name, staged, without_kernel)


def _flag(members: Mapping[str, object], name: str) -> bool:
    """Return a member that is false where it is absent. Raises InvalidMessage."""
    flag = members.get(name, False)
    if not isinstance(flag, bool):
        reason = f"{name} is neither true nor false"
        raise errors.InvalidMessage("reference values request", reason)
    return flag


def _encode_preview(preview: Preview) -> dict[str, object]:
    return {
        "host_name": preview.host_name,
        "now": preview.now.value,
        "then": preview.then.value,
        "findings": encode_findings(preview.findings),
    }


def _by_set(members: Mapping[str, object], name: str) -> Mapping[str, Sequence[str]]:
    sets = json_fields.members(members.get(name, {}), name)
    return {set_name: _identifiers(sets, set_name) for set_name in sets}


def _identifiers(members: Mapping[str, object], name: str) -> list[str]:
    identifiers = json_fields.items(members, name, reference_values.MAX_VALUES)
    if not all(isinstance(item, str) and len(item) == 12 for item in identifiers):
        raise errors.InvalidMessage(name, "an identifier of a value is not 12 hex digits")
    return [str(item) for item in identifiers]
