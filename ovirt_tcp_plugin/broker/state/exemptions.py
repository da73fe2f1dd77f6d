# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which VMs make use of being exempt: they run where a VM that needs trust could not. Pure.

Chain step 6 lets them; this has every use reported. It sees what the engine's lists show, and
nothing between two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ovirt_tcp_plugin.broker.state.inventory_view import InventoryView
from ovirt_tcp_plugin.broker.state.verdicts import VerdictCache
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement import decision
from ovirt_tcp_plugin.placement.decision import Scope, Verdict, VmTrust, needs_trust
from ovirt_tcp_plugin.placement.inventory import Host, Notice, Vm


class ExemptionWatch:
    """Has each use reported once while it lasts. Not thread-safe."""

    def __init__(self, inventory: InventoryView, verdicts: VerdictCache) -> None:
        self._inventory = inventory
        self._verdicts = verdicts
        # Keys of the uses that were reported and last.
        self._reported: frozenset[str] = frozenset()

    def observe(self, now_ms: int) -> list[Notice]:
        """Hosts or VMs were listed; return the notices of the uses that are new."""
        if not self._inventory.listing.clusters:
            # VMs are not listed yet: what was reported before a restart still stands.
            return []
        pools = self._inventory.pools.by_cluster.values()
        scopes = {pool.cluster_id: pool.scope for pool in pools}
        vms = self._exempt_vms()
        notices = uses(vms, scopes, self._refused_hosts(vms, now_ms))
        news = [notice for key, notice in notices.items() if key not in self._reported]
        self._reported = frozenset(notices)
        return news

    def encode(self) -> list[str]:
        """Return what a restart needs."""
        return sorted(self._reported)

    @staticmethod
    def decode(encoded: Iterable[object]) -> frozenset[str]:
        """Return what `encode` gave, for `restore`. Raises TypeError."""
        return frozenset(str(key) for key in encoded)

    def restore(self, reported: frozenset[str]) -> None:
        """Take over what was reported before a restart."""
        self._reported = reported

    def _exempt_vms(self) -> list[Vm]:
        vms = self._inventory.vms.by_id
        return [vms[vm_id] for vm_id in self._inventory.exempt if vm_id in vms]

    def _refused_hosts(self, vms: Iterable[Vm], now_ms: int) -> dict[str, tuple[Host, Verdict]]:
        """Return those of the VMs' hosts that get no VM now, with the verdict that says why."""
        refused: dict[str, tuple[Host, Verdict]] = {}
        for vm in vms:
            host = self._inventory.hosts.get(vm.host_id)
            if host is not None and self._is_refused(host.id, now_ms):
                verdict = self._inventory.shown(host.id, self._verdicts, now_ms)
                refused[host.id] = (host, verdict)
        return refused

    def _is_refused(self, host_id: str, now_ms: int) -> bool:
        """Return whether a host has been asked about since it last came Up, and is not trusted."""
        entry = self._verdicts.entry(host_id)
        if entry is None:
            return False
        has_verdict = entry.verdict.level in (Level.UNTRUSTED, Level.TRUSTED)
        if not has_verdict and entry.failures == 0:
            return False
        return not decision.holds(self._inventory.shown(host_id, self._verdicts, now_ms), now_ms)


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
