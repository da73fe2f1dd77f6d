# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The message from broker to filterd: a pool's verdicts with their ends, and its VMs' marks. Pure.

Everything in it ends by itself, so that filterd stays right without the broker. A snapshot of
another boot of this machine has the times of a clock that is gone, and is refused.
"""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, Verdict, VmTrust

VERSION = 1
MAX_HOSTS = 10_000
MAX_VMS = 200_000
# 10,000 hosts with a reason each, and 200,000 VMs.
MAX_SIZE = 32 * 1024 * 1024
MAX_REASON_LENGTH = 500
MAX_CODE_LENGTH = 64
MAX_ID_LENGTH = 64
MAX_MS = 2**53
# Beside the snapshots: when all of them were right.
CONFIRMATION_FILE = "confirmed"
MAX_CONFIRMATION_SIZE = 1024

_WHAT = "snapshot"
_ID_CHARACTERS = f"-{string.ascii_letters}{string.digits}".encode("ascii")
_LEVELS = {level.value: level for level in Level}
# Of a verdict, in the order of its array.
_COLUMNS = ("level", "born_ms", "end_ms", "code", "reason")


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

    def vm(self, vm_id: str) -> VmTrust:
        """Return a VM as the rule sees it."""
        return VmTrust(self.vms.get(vm_id), vm_id in self.exempt)

    def with_vms_of(self, earlier: Snapshot) -> Snapshot:
        """Return it with the VMs of an earlier one, for a broker that has not listed them yet.

        What it knows of single VMs itself is newer.
        """
        vms = {**earlier.vms, **self.vms}
        return dataclasses.replace(self, vms=vms, exempt=earlier.exempt)


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
    members = json_fields.members(json_fields.parse(untrusted, _WHAT, MAX_SIZE), _WHAT)
    json_fields.integer(members, "version", VERSION, VERSION)
    if json_fields.text(members, "boot_id", 64) != boot_id:
        raise errors.InvalidMessage(_WHAT, "it is of another boot of this machine")
    hosts = _mapping(members, "hosts", MAX_HOSTS)
    vms = _mapping(members, "vms", MAX_VMS)
    exempt = json_fields.items(members, "exempt", MAX_VMS)
    pool_id = members.get("pool_id")
    # In one go: there may be thousands of pools with few hosts each.
    identifiers = _identifiers([pool_id, *hosts, *vms, *exempt])
    return Snapshot(
        pool_id=identifiers[0],
        scope=_scope(members.get("scope")),
        boot_id=boot_id,
        written_ms=json_fields.integer(members, "written_ms", 0, MAX_MS),
        hosts=dict(zip(hosts, _verdicts(hosts.values()))),
        vms=dict(zip(vms, _marks(vms.values()))),
        exempt=frozenset(identifiers[len(identifiers) - len(exempt) :]),
    )


def encode_confirmation(boot_id: str, confirmed_ms: int) -> bytes:
    """Return that all snapshots were right at that moment, as JSON."""
    return json.dumps(
        {"version": VERSION, "boot_id": boot_id, "confirmed_ms": confirmed_ms}
    ).encode("utf-8")


def decode_confirmation(untrusted: bytes, boot_id: str) -> int:
    """Return when all snapshots were right. Raises InvalidMessage: malformed, or of another boot of
    this machine."""
    members = json_fields.members(json_fields.parse(untrusted, _WHAT, MAX_CONFIRMATION_SIZE), _WHAT)
    json_fields.integer(members, "version", VERSION, VERSION)
    if json_fields.text(members, "boot_id", 64) != boot_id:
        raise errors.InvalidMessage(_WHAT, "it is of another boot of this machine")
    return json_fields.integer(members, "confirmed_ms", 0, MAX_MS)


def _encode_verdict(verdict: Verdict) -> list[Any]:
    return [
        verdict.level.value,
        verdict.born_ms,
        verdict.end_ms,
        verdict.code[:MAX_CODE_LENGTH],
        verdict.reason[:MAX_REASON_LENGTH],
    ]


def _scope(untrusted: object) -> Scope:
    try:
        return Scope(untrusted)
    except ValueError:
        raise errors.InvalidMessage(_WHAT, "its scope is unknown") from None


def _mapping(members: Mapping[str, object], name: str, most: int) -> Mapping[str, object]:
    mapping = json_fields.members(members.get(name), name)
    if len(mapping) > most:
        raise errors.InvalidMessage(_WHAT, f"more than {most} {name}")
    return mapping


# What follows looks at whole columns at once: filterd reads ten thousand verdicts between two calls
# of the engine.


def _verdicts(untrusted: Collection[object]) -> Iterable[Verdict]:
    """Return the verdicts in a column of lists. Raises InvalidMessage."""
    if not untrusted:
        return ()
    if not _all_are(list, untrusted):
        raise errors.InvalidMessage(_WHAT, "a verdict is not an array")
    rows = cast("Collection[list[Any]]", untrusted)
    if set(map(len, rows)) != {len(_COLUMNS)}:
        raise errors.InvalidMessage(_WHAT, "a verdict has not five members")
    levels, born_ms, end_ms, codes, reasons = zip(*rows)
    _check_levels(levels)
    _check_times(born_ms)
    _check_times(end_ms)
    _check_texts(codes, MAX_CODE_LENGTH)
    _check_texts(reasons, MAX_REASON_LENGTH)
    return map(Verdict, map(_LEVELS.__getitem__, levels), born_ms, end_ms, codes, reasons)


def _all_are(kind: type, values: Iterable[object]) -> bool:
    """Return whether all values are exactly of a type: True is no number here."""
    return set(map(type, values)) <= {kind}


def _check_levels(levels: Sequence[Any]) -> None:
    if not _all_are(str, levels) or not set(levels) <= set(_LEVELS):
        raise errors.InvalidMessage(_WHAT, "a verdict's level is unknown")


def _check_times(times: Sequence[Any]) -> None:
    # Below 0 is before this machine's boot: a server may have evidence that is older than that.
    if not _all_are(int, times) or max(map(abs, times)) > MAX_MS:
        raise errors.InvalidMessage(_WHAT, "a verdict's time is not a number of milliseconds")


def _check_texts(texts: Sequence[Any], longest: int) -> None:
    if not _all_are(str, texts) or max(map(len, texts)) > longest:
        raise errors.InvalidMessage(_WHAT, "a verdict's code or reason is not a short text")


def _marks(untrusted: Collection[object]) -> Iterable[bool]:
    if not _all_are(bool, untrusted):
        raise errors.InvalidMessage(_WHAT, "a VM's mark is neither true nor false")
    return cast("Iterable[bool]", untrusted)


def _identifiers(untrusted: Collection[object]) -> Sequence[str]:
    """Return ids as they are. Raises InvalidMessage if one of them is none."""
    if not _all_are(str, untrusted):
        raise errors.InvalidMessage(_WHAT, "an id is no text")
    ids = cast("Sequence[str]", tuple(untrusted))
    lengths = set(map(len, ids))
    if min(lengths) < 1 or max(lengths) > MAX_ID_LENGTH:
        raise errors.InvalidMessage(_WHAT, f"an id has not 1 to {MAX_ID_LENGTH} characters")
    joined = "".join(ids)
    if not joined.isascii() or joined.encode("ascii").translate(None, _ID_CHARACTERS):
        fault = "an id has other characters than letters, digits and -"
        raise errors.InvalidMessage(_WHAT, fault)
    return ids
