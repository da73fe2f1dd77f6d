# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 6, the one place with the rule: may this VM run on this host now?

Pure: VM, host's verdict and `now` come in, a Decision goes out. Filter, wall, `why` and the lab's
checks all ask here. It does not establish that the verdict is true, only whether it counts.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from ovirt_tcp_plugin.messages.result import Level


class Scope(enum.Enum):
    """Who needs trust in a pool: the unit's property `trust_scope`."""

    ALL_VMS = "all_vms"
    MARKED_VMS = "marked_vms"


class Verdict(NamedTuple):
    """An attestation result as the broker holds it.

    A tuple, since filterd makes ten thousand at once.

    Attributes:
        level: trust level.
        born_ms, end_ms: CLOCK_BOOTTIME of this machine in milliseconds; it counts while
            born_ms <= now < end_ms.
        code: stable word for why it is not trusted; empty if it is.
        reason: one plain sentence for why it is not trusted; empty if it is.
        boot_id: the host's boot in which the evidence was made; empty if the server does not say.
    """

    level: Level
    born_ms: int
    end_ms: int
    code: str = ""
    reason: str = ""
    boot_id: str = ""


@dataclasses.dataclass(frozen=True)
class VmTrust:
    """What the rule needs to know of a VM.

    Attributes:
        marked: whether `trusted_host_flag=true` is in its current or next-run configuration; None
            when the broker does not know the VM yet, which counts as marked.
        exempt: whether it is the hosted-engine VM or one of `exempt_vms`.
    """

    marked: Optional[bool]
    exempt: bool = False


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a VM may run on a host; `code` is stable, `reason` is one plain sentence."""

    allowed: bool
    code: str
    reason: str


def needs_trust(vm: VmTrust, scope: Scope) -> bool:
    """Return whether `vm` must run on a trusted host in a pool of that scope."""
    if vm.exempt:
        return False
    return scope is Scope.ALL_VMS or vm.marked is not False


def holds(verdict: Verdict, now_ms: int) -> bool:
    """Return whether a verdict is trusted and counts now.

    Whoever asks for a trusted host asks here; only `passing` repeats it, for speed.
    """
    return verdict.level is Level.TRUSTED and verdict.born_ms <= now_ms < verdict.end_ms


def passing(
    vm: VmTrust,
    scope: Scope,
    hosts: Sequence[str],
    verdicts: Mapping[str, Optional[Verdict]],
    now_ms: int,
) -> list[str]:
    """Return those of `hosts` that `decide` allows, in their order.

    The same rule for thousands of hosts in a call.

    Args:
        verdicts: by host. A host that is not in it does not pass, whatever the VM.
    """
    if not needs_trust(vm, scope):
        return [host for host in hosts if host in verdicts]
    trusted = Level.TRUSTED
    # `holds`, written out: a call for each of ten thousand hosts would double the time.
    return [
        host
        for host in hosts
        if (verdict := verdicts.get(host)) is not None
        and verdict.level is trusted
        and verdict.born_ms <= now_ms < verdict.end_ms
    ]


def decide(vm: VmTrust, scope: Scope, verdict: Optional[Verdict], now_ms: int) -> Decision:
    """Return whether `vm` may run on the host at `now_ms`.

    Args:
        verdict: the host's; None if the broker has none.
    """
    if vm.exempt:
        return Decision(True, "exempt", "the VM is exempt by configuration")
    if not needs_trust(vm, scope):
        return Decision(True, "not_marked", "the VM is not marked as needing a trusted host")
    if verdict is None:
        return Decision(False, "no_verdict", "the host has no verdict yet")
    if holds(verdict, now_ms):
        return Decision(True, "trusted", "the host is trusted")
    return _refused(verdict, now_ms)


def _refused(verdict: Verdict, now_ms: int) -> Decision:
    """Return the decision by a verdict that does not hold, with the reason why it does not."""
    if verdict.level is not Level.TRUSTED:
        code = verdict.code or verdict.level.value
        reason = verdict.reason or f"the host is {verdict.level.value}"
        return Decision(False, code, reason)
    if now_ms < verdict.born_ms:
        return Decision(False, "verdict_not_born", "the host's verdict is dated in the future")
    ago_s = (now_ms - verdict.end_ms) // 1000
    return Decision(False, "verdict_ended", f"the host's last verdict ended {ago_s} s ago")
