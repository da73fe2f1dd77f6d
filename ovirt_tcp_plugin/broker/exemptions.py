# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which VMs make use of being exempt: they run where a VM that needs trust could not. Pure.

Chain step 6 lets them; this has every use reported. It sees what the engine's lists show, and
nothing between two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirt_tcp_plugin.broker.decision import Scope, Verdict, VmTrust, needs_trust
from ovirt_tcp_plugin.broker.inventory import Host, Notice, Vm


def uses(
    exempt: Iterable[Vm],
    scopes: Mapping[str, Scope],
    refused: Mapping[str, tuple[Host, Verdict]],
) -> dict[str, Notice]:
    """Return the notice of every use by its key, which is the same while the use lasts.

    Args:
        scopes: of the trusted pools, by cluster id.
        refused: by host id, the hosts that get no VM now, with the verdict that says why.
    """
    notices: dict[str, Notice] = {}
    for vm in exempt:
        scope = scopes.get(vm.cluster_id)
        if scope is None or vm.host_id not in refused:
            continue
        if needs_trust(VmTrust(vm.marked), scope):
            notice = _notice(vm, *refused[vm.host_id])
            notices[notice.key] = notice
    return notices


def _notice(vm: Vm, host: Host, verdict: Verdict) -> Notice:
    code = verdict.code or "verdict_ended"
    reason = verdict.reason or "its verdict ended"
    text = (
        f"VM {vm.name} runs on host {host.name}, which is not trusted ({code}): {reason}. "
        "The VM is exempt, so nothing is done about it."
    )
    return Notice(
        key=f"exempt {vm.id} {host.id}",
        severity="warning",
        text=text,
        host_id=host.id,
        vm_id=vm.id,
        cluster_id=vm.cluster_id,
    )
