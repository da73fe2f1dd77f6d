# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The message from broker to filterd: one pool's verdicts with their ends, and its VMs' marks. Pure.

Everything in it ends by itself, so that filterd stays right without the broker. A snapshot of another boot of this
machine speaks of a clock that is gone, and is refused.
"""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.decision import Scope, Verdict, Vm
from ovirt_tcp_plugin.messages import fields
from ovirt_tcp_plugin.messages.result import Level

VERSION = 1
MAX_HOSTS = 10_000
MAX_VMS = 200_000
# 10,000 hosts with a reason each, and 200,000 VMs.
MAX_SIZE = 32 * 1024 * 1024
MAX_REASON_LENGTH = 500
MAX_ID_LENGTH = 64
MAX_MS = 2**53
# Beside the snapshots: when all of them were right.
CONFIRMATION_FILE = "confirmed"
MAX_CONFIRMATION_SIZE = 1024

_WHAT = "snapshot"
_ID_CHARACTERS = f"-{string.ascii_letters}{string.digits}".encode("ascii")
_LEVELS = {level.value: level for level in Level}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One pool at one moment.

    Attributes:
        pool_id: the cluster's id.
        scope: who in the pool needs trust.
        boot_id: boot of this machine whose CLOCK_BOOTTIME the times are of.
        written_ms: that clock when it was written; a later one replaces an earlier one.
        hosts: every host of the cluster by id; refused ones are in it with their reason.
        vms: whether the VM is marked, by id; a VM that is not in it counts as marked.
        exempt: ids of VMs that may run anywhere.
    """

    pool_id: str
    scope: Scope
    boot_id: str
    written_ms: int
    hosts: Mapping[str, Verdict]
    vms: Mapping[str, bool]
    exempt: frozenset[str]

    def vm(self, vm_id: str) -> Vm:
        """Return a VM as the rule sees it."""
        return Vm(self.vms.get(vm_id), vm_id in self.exempt)


def encode(snapshot: Snapshot) -> bytes:
    """Return the snapshot as JSON."""
    content = {
        "version": VERSION,
        "pool_id": snapshot.pool_id,
        "scope": snapshot.scope.value,
        "boot_id": snapshot.boot_id,
        "written_ms": snapshot.written_ms,
        "hosts": {host_id: _encode_verdict(verdict) for host_id, verdict in snapshot.hosts.items()},
        "vms": dict(snapshot.vms),
        "exempt": sorted(snapshot.exempt),
    }
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode("utf-8")


def decode(untrusted: bytes, boot_id: str) -> Snapshot:
    """Return the snapshot in a file's content.

    Args:
        boot_id: the running boot of this machine.

    Raises:
        InvalidMessage: truncated, of another version or boot, mistyped, or too large.
    """
    members = fields.members(fields.parse(untrusted, _WHAT, MAX_SIZE), _WHAT)
    fields.integer(members, "version", VERSION, VERSION)
    if fields.text(members, "boot_id", 64) != boot_id:
        raise errors.InvalidMessage(_WHAT, "it is of another boot of this machine")
    scope = members.get("scope")
    if scope not in [one.value for one in Scope]:
        raise errors.InvalidMessage(_WHAT, "its scope is unknown")
    hosts = _mapping(members, "hosts", MAX_HOSTS)
    vms = _mapping(members, "vms", MAX_VMS)
    exempt = fields.items(members, "exempt", MAX_VMS)
    if not set(map(type, vms.values())) <= {bool}:
        raise errors.InvalidMessage(_WHAT, "a VM's mark is neither true nor false")
    return Snapshot(
        pool_id=_identifiers([members.get("pool_id")])[0],
        scope=Scope(scope),
        boot_id=boot_id,
        written_ms=fields.integer(members, "written_ms", 0, MAX_MS),
        hosts=dict(zip(_identifiers(hosts), _verdicts(hosts.values()))),
        vms=dict(zip(_identifiers(vms), cast("Iterable[bool]", vms.values()))),
        exempt=frozenset(_identifiers(exempt)),
    )


def encode_confirmation(boot_id: str, confirmed_ms: int) -> bytes:
    """Return that all snapshots were right at that moment, as JSON."""
    return json.dumps({"version": VERSION, "boot_id": boot_id, "confirmed_ms": confirmed_ms}).encode("utf-8")


def decode_confirmation(untrusted: bytes, boot_id: str) -> int:
    """Return when all snapshots were right. Raises InvalidMessage: malformed, or of another boot of this machine."""
    members = fields.members(fields.parse(untrusted, _WHAT, MAX_CONFIRMATION_SIZE), _WHAT)
    fields.integer(members, "version", VERSION, VERSION)
    if fields.text(members, "boot_id", 64) != boot_id:
        raise errors.InvalidMessage(_WHAT, "it is of another boot of this machine")
    return fields.integer(members, "confirmed_ms", 0, MAX_MS)


def _encode_verdict(verdict: Verdict) -> list[Any]:
    return [verdict.level.value, verdict.born_ms, verdict.end_ms, verdict.code[:64], verdict.reason[:MAX_REASON_LENGTH]]


# What follows looks at whole columns at once: filterd reads ten thousand verdicts between two calls of the engine.


def _verdicts(untrusted: Collection[object]) -> Iterable[Verdict]:
    if not set(map(type, untrusted)) <= {list} or not set(map(len, cast("Collection[list[Any]]", untrusted))) <= {5}:
        raise errors.InvalidMessage(_WHAT, "a verdict has not five members")
    levels, born_ms, end_ms, codes, reasons = zip(*cast("Collection[list[Any]]", untrusted)) if untrusted else [()] * 5
    for times in (born_ms, end_ms):
        # Below 0 is before this machine's boot: a server may tell of evidence that is older than that.
        if not set(map(type, times)) <= {int} or max(map(abs, times), default=0) > MAX_MS:
            raise errors.InvalidMessage(_WHAT, "a verdict's time is not a number of milliseconds")
    for texts, longest in ((codes, 64), (reasons, MAX_REASON_LENGTH)):
        if not set(map(type, texts)) <= {str} or max(map(len, texts), default=0) > longest:
            raise errors.InvalidMessage(_WHAT, "a verdict's code or reason is not a short text")
    if not set(map(type, levels)) <= {str} or not set(levels) <= set(_LEVELS):
        raise errors.InvalidMessage(_WHAT, "a verdict's level is unknown")
    return map(Verdict, map(_LEVELS.__getitem__, levels), born_ms, end_ms, codes, reasons)


def _mapping(members: Mapping[str, object], name: str, most: int) -> Mapping[str, object]:
    found = fields.members(members.get(name), name)
    if len(found) > most:
        raise errors.InvalidMessage(_WHAT, f"more than {most} {name}")
    return found


def _identifiers(untrusted: Collection[object]) -> Sequence[str]:
    """Return ids as they are. Raises InvalidMessage if one of them is none."""
    ids = cast("Sequence[str]", tuple(untrusted))
    if not set(map(type, ids)) <= {str}:
        raise errors.InvalidMessage(_WHAT, "an id is no text")
    if ids and not 0 < min(map(len, ids)) <= max(map(len, ids)) <= MAX_ID_LENGTH:
        raise errors.InvalidMessage(_WHAT, f"an id has not 1 to {MAX_ID_LENGTH} characters")
    if not "".join(ids).isascii() or "".join(ids).encode("ascii").translate(None, _ID_CHARACTERS):
        raise errors.InvalidMessage(_WHAT, "an id has other characters than letters, digits and -")
    return ids
