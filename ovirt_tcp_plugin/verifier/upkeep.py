# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator has to do in time: what ends soon, and whose TPM lost its word. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

DAY_S = 86_400
# Long enough for a holiday and a change request.
WARNING_S = 60 * DAY_S

SERVER = "server"
AUTHORITY = "authority"
FORMER_AUTHORITY = "former_authority"
AGENT = "agent"
TOKEN = "token"  # noqa: S105 - a kind
KINDS = (SERVER, AUTHORITY, FORMER_AUTHORITY, AGENT, TOKEN)

REVOKED = "ek_revoked"

MAX_NAMES = 10

_WITHDRAWN_STEP = "vouch for these TPMs (ovirt-tcp-verifier ek add), or remove the hosts"
_REVOKED_STEP = (
    "put these hosts into maintenance, ask the maker why it revoked them, and replace the TPMs "
    "(ovirt-tcp hosts replace-tpm) or remove the hosts; ovirt-tcp-verifier ek add vouches for one"
)

_STEPS = {
    SERVER: "ovirt-tcp-verifier authority certify",
    AUTHORITY: "ovirt-tcp-verifier authority renew",
    FORMER_AUTHORITY: "copy ca.pem to every broker and command line that has only the former one",
    AGENT: "see why the agent does not renew it: journalctl -u ovirt-tcp-agent on the host",
    TOKEN: "make another one: ovirt-tcp-verifier token add",
}
_NAMES = {
    SERVER: "the server's certificate",
    AUTHORITY: "the certificate authority",
    FORMER_AUTHORITY: "a former certificate authority",
    AGENT: "the client certificate",
    TOKEN: "the token",
}


@dataclasses.dataclass(frozen=True)
class End:
    """What ends: its kind, one of KINDS, its name, and when, in seconds of the UTC epoch."""

    kind: str
    name: str
    end_s: int


@dataclasses.dataclass(frozen=True)
class Withdrawn:
    """A host whose TPM nobody vouches for any more.

    Attributes:
        code: vendor_gone, ek_revoked, ek_removed or first_use_off.
        text: one plain sentence.
    """

    host_name: str
    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Duty:
    """One thing to do: a sentence, and the next step."""

    text: str
    next_step: str


def soon(ends: Iterable[End], now_s: int) -> list[End]:
    """Return what ends within WARNING_S, or has ended, the earliest first."""
    ending = [end for end in ends if end.end_s - now_s <= WARNING_S]
    return sorted(ending, key=lambda end: end.end_s)


def duties(ends: Iterable[End], withdrawn: Iterable[Withdrawn], now_s: int) -> list[Duty]:
    """Return what to do, at most one duty for each kind of end and of withdrawal."""
    ending = soon(ends, now_s)
    found = []
    for kind in KINDS:
        of_kind = [end for end in ending if end.kind == kind]
        if of_kind:
            found.append(Duty(_sentence(kind, of_kind, now_s), _STEPS[kind]))
    by_text: dict[tuple[str, str], list[str]] = {}
    for host in withdrawn:
        by_text.setdefault((host.text, host.code), []).append(host.host_name)
    for (text, code), names in sorted(by_text.items()):
        step = _REVOKED_STEP if code == REVOKED else _WITHDRAWN_STEP
        found.append(Duty(f"{text}: {_named(names)}", step))
    return found


def _sentence(kind: str, ends: Sequence[End], now_s: int) -> str:
    days = (ends[0].end_s - now_s) // DAY_S
    when = f"ends in {days} days" if days >= 0 else "has ended"
    names = _named([end.name for end in ends if end.name])
    return f"{_NAMES[kind]} {when}: {names}" if names else f"{_NAMES[kind]} {when}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES])
    more = len(names) - MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
