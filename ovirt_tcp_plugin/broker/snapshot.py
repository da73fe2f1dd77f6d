# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The message from broker to filterd: one pool's verdicts with their ends, and its VMs' marks. Pure.

Everything in it ends by itself, so that filterd stays right without the broker. A snapshot of another boot of this
machine speaks of a clock that is gone, and is refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

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
MAX_MS = 2**53

_WHAT = "snapshot"
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


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
    exempt = fields.items(members, "exempt", MAX_VMS)
    return Snapshot(
        pool_id=_identifier(members.get("pool_id")),
        scope=Scope(scope),
        boot_id=boot_id,
        written_ms=fields.integer(members, "written_ms", 0, MAX_MS),
        hosts={_identifier(k): _verdict(v) for k, v in _mapping(members, "hosts", MAX_HOSTS).items()},
        vms={_identifier(k): _mark(v) for k, v in _mapping(members, "vms", MAX_VMS).items()},
        exempt=frozenset(_identifier(one) for one in exempt),
    )


def _encode_verdict(verdict: Verdict) -> list[Any]:
    return [verdict.level.value, verdict.born_ms, verdict.end_ms, verdict.code[:64], verdict.reason[:MAX_REASON_LENGTH]]


def _verdict(untrusted: object) -> Verdict:
    if not isinstance(untrusted, list) or len(untrusted) != 5:
        raise errors.InvalidMessage(_WHAT, "a verdict has not five members")
    level, born_ms, end_ms, code, reason = untrusted
    times = [born_ms, end_ms]
    # Below 0 is before this machine's boot: a server may tell of evidence that is older than that.
    if any(isinstance(one, bool) or not isinstance(one, int) or abs(one) > MAX_MS for one in times):
        raise errors.InvalidMessage(_WHAT, "a verdict's time is not a number of milliseconds")
    if not isinstance(code, str) or not isinstance(reason, str) or len(code) > 64 or len(reason) > MAX_REASON_LENGTH:
        raise errors.InvalidMessage(_WHAT, "a verdict's code or reason is not a short text")
    if level not in [one.value for one in Level]:
        raise errors.InvalidMessage(_WHAT, "a verdict's level is unknown")
    return Verdict(Level(level), born_ms, end_ms, code, reason)


def _mapping(members: Mapping[str, object], name: str, most: int) -> Mapping[str, object]:
    found = fields.members(members.get(name), name)
    if len(found) > most:
        raise errors.InvalidMessage(_WHAT, f"more than {most} {name}")
    return found


def _identifier(untrusted: object) -> str:
    if not isinstance(untrusted, str) or not _ID.fullmatch(untrusted):
        raise errors.InvalidMessage(_WHAT, "an id is not one")
    return untrusted


def _mark(untrusted: object) -> bool:
    if not isinstance(untrusted, bool):
        raise errors.InvalidMessage(_WHAT, "a VM's mark is neither true nor false")
    return untrusted
