# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator of oVirt does, with the real SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import ovirtsdk4
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import builtin
from ovirt_tcp_plugin.lab.narrator import StepFailed
from ovirt_tcp_plugin.lab.site import LabSite
from ovirt_tcp_plugin.lab.story.site_view import SiteView

# Validation and scheduling refuse with these.
_REFUSALS = (400, 409)


class Administrator:
    """Acts on the engine of a site. What may be refused returns whether the engine did it."""

    def __init__(self, site: LabSite) -> None:
        self._site = site
        self._view = SiteView(site)

    def make_pool(self) -> None:
        """Make a policy with our unit, and give it to the cluster.

        Raises:
            StepFailed: the engine has not enabled the unit.
        """
        policies = self._site.engine.scheduling_policies_service()
        policy = policies.add(types.SchedulingPolicy(name="trusted"))
        service = policies.policy_service(policy.id)
        for uid in (builtin.AFFINITY_FILTER, builtin.MEMORY_FILTER, self._our_unit()):
            service.filters_service().add(types.Filter(scheduling_policy_unit=_unit(uid)))
        balance = types.Balance(scheduling_policy_unit=_unit(builtin.NO_BALANCE))
        service.balances_service().add(balance)
        # Only now: a policy cannot have a property that none of its units understands.
        scope = types.Property(name="trust_scope", value="all_vms")
        service.update(types.SchedulingPolicy(properties=[scope]))
        change = types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy.id))
        clusters = self._site.engine.clusters_service()
        clusters.cluster_service(self._cluster_id()).update(change)

    def _cluster_id(self) -> str:
        (cluster,) = self._site.engine.clusters_service().list()
        return str(cluster.id)

    def _our_unit(self) -> str:
        units = self._site.engine.scheduling_policy_units_service().list()
        unit = next(unit for unit in units if unit.name == "TrustedHosts")
        if not unit.enabled:
            raise StepFailed("the engine discovered TrustedHosts, but it is not enabled")
        return str(unit.id)

    def activate(self, host: str) -> None:
        """Activate a host by hand."""
        host_id = self._view.host(host).id
        self._site.engine.hosts_service().host_service(host_id).activate()

    def add_vm(self, name: str) -> None:
        """Make a VM in the cluster."""
        cluster = types.Cluster(id=self._cluster_id())
        vm = types.Vm(name=name, cluster=cluster, template=types.Template(name="Blank"))
        self._site.engine.vms_service().add(vm)

    def start(self, vm: str) -> bool:
        """Start a VM."""
        return _is_done(self._vm(vm).start)

    def stop(self, vm: str) -> None:
        """Stop a VM."""
        self._vm(vm).stop()

    def migrate(self, vm: str, host: Optional[str] = None) -> bool:
        """Migrate a VM, to a host that the engine chooses or to this one."""
        service = self._vm(vm)
        if host is None:
            return _is_done(service.migrate)
        target = types.Host(id=self._view.host(host).id)
        return _is_done(lambda: service.migrate(host=target))

    def _vm(self, name: str) -> Any:
        service = self._site.engine.vms_service()
        vm = next(vm for vm in service.list() if vm.name == name)
        return service.vm_service(vm.id)


def _unit(uid: str) -> types.SchedulingPolicyUnit:
    return types.SchedulingPolicyUnit(id=uid)


def _is_done(act: Callable[[], object]) -> bool:
    """Return whether the engine does something, or refuses."""
    try:
        act()
    except ovirtsdk4.Error as e:
        if e.code in _REFUSALS:
            return False
        raise
    return True
