# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Attestation results: what the verifier says of a host, and why (chain steps 3 and 4)."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields


class Level(enum.Enum):
    """Trust level, spelled as OpenAttestation spells it (`trust_lvl`)."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One failed check.

    Attributes:
        check: number of the check in `verifier/appraisal/`.
        code: stable word for programs, such as `pcr_differs`.
        text: one plain sentence for a person.
        expected, seen: the two values that differ, as text; empty when there are none.
    """

    check: int
    code: str
    text: str
    expected: str = ""
    seen: str = ""


@dataclasses.dataclass(frozen=True)
class AttestationResult:
    """The verifier's statement on one host.

    Attributes:
        host_name: name as enrolled, lower case.
        level: trust level.
        findings: why it is not trusted; empty if it is.
        age_ms: milliseconds since the nonce was issued that this result rests on, by the verifier's
            CLOCK_BOOTTIME; None when no evidence stands behind it.
        lifetime_ms: how long after its birth the result may be relied on.
        boot_id: the host's kernel boot id at that time; empty when no evidence stands behind the
            result.
        tpm_family: family of the TPM that signed that evidence, "2.0" or "1.2"; empty when there is
            none. What a TPM 1.2 signs rests on SHA-1.
    """

    host_name: str
    level: Level
    findings: tuple[Finding, ...] = ()
    age_ms: Optional[int] = None
    lifetime_ms: int = 0
    boot_id: str = ""
    tpm_family: str = ""


def encode(result: AttestationResult) -> dict[str, Any]:
    """Return the JSON object of a result."""
    return {
        **vars(result),
        "level": result.level.value,
        "findings": encode_findings(result.findings),
    }


def encode_findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the JSON array of findings."""
    return [dataclasses.asdict(finding) for finding in findings]


def decode(untrusted: object) -> AttestationResult:
    """Return the result in a JSON object from a verifier.

    Raises:
        InvalidMessage: on any missing, mistyped or oversized member.
    """
    members = json_fields.members(untrusted, "attestation result")
    age = members.get("age_ms")
    return AttestationResult(
        host_name=json_fields.text(members, "host_name", 255),
        level=_level(json_fields.text(members, "level", 20)),
        findings=tuple(_finding(item) for item in json_fields.items(members, "findings", 256)),
        age_ms=None if age is None else json_fields.integer(members, "age_ms", 0, 2**53),
        lifetime_ms=json_fields.integer(members, "lifetime_ms", 0, 2**53),
        boot_id=json_fields.text(members, "boot_id", 36),
        tpm_family=json_fields.text(members, "tpm_family", 8),
    )


def _level(name: str) -> Level:
    try:
        return Level(name)
    except ValueError:
        raise errors.InvalidMessage("attestation result", f"unknown level {name[:20]!r}") from None


def _finding(untrusted: object) -> Finding:
    members: Mapping[str, object] = json_fields.members(untrusted, "finding")
    return Finding(
        check=json_fields.integer(members, "check", 0, 1000),
        code=json_fields.text(members, "code", 64),
        text=json_fields.text(members, "text", 2000),
        expected=json_fields.text(members, "expected", 2000),
        seen=json_fields.text(members, "seen", 2000),
    )
