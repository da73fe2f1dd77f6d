# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which VMs make use of being exempt: they run where a VM that needs trust could not. Pure.

Chain step 6 lets them; this has every use told. It sees what the engine's lists show, and nothing between two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirt_tcp_plugin.broker.decision import Scope, Verdict, needs_trust
from ovirt_tcp_plugin.broker.decision import Vm as DecisionVm
from ovirt_tcp_plugin.broker.inventory import Host, Notice, Vm


def uses(
    exempt: Iterable[Vm], scopes: Mapping[str, Scope], refused: Mapping[str, tuple[Host, Verdict]]
) -> dict[str, Notice]:
    """Return the notice of every use by its key, which is the same while the use lasts.

    Args:
        scopes: of the trusted pools, by cluster id.
        refused: by host id, the hosts that get no VM now, with the verdict that says why.
    """
    told: dict[str, Notice] = {}
    for vm in exempt:
        scope = scopes.get(vm.cluster_id)
        if vm.host_id in refused and scope is not None and needs_trust(DecisionVm(vm.marked), scope):
            host, verdict = refused[vm.host_id]
            key = f"exempt {vm.id} {vm.host_id}"
            text = (
                f"VM {vm.name} runs on host {host.name}, which is not trusted ({verdict.code or 'verdict_ended'}): "
                f"{verdict.reason or 'its verdict ended'}. The VM is exempt, so nothing is done about it."
            )
            told[key] = Notice(key, "warning", text, host_id=host.id, vm_id=vm.id, cluster_id=vm.cluster_id)
    return told
