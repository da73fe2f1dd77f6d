# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What administrators do all day at an engine, none of which means "please stop protecting".

Each act changes the simulated engine's tables as the real one's commands do, with their events.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, model
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.placement.inventory import (
    MARK_PROPERTY,
    WALL_DESCRIPTION,
    bears_wall_name,
    wall_name,
)
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE

NEGATIVE = model.Rule(enabled=True, enforcing=True, positive=False)
POSITIVE = model.Rule(enabled=True, enforcing=True, positive=True)
HOST_ADDED = 42
HOST_UPDATED = 43
HOST_REMOVED = 44


class Acts:
    """At the engine's only pool.

    Args:
        kept: names of hosts that stay where they are, and in service.
    """

    def __init__(self, engine: EngineSimulator, chance: random.Random, kept: set[str]) -> None:
        self._engine = engine
        self._tables = engine.model
        self._chance = chance
        self._kept = kept
        self.cluster_id = next(iter(self._tables.clusters))
        self._policy = self._cluster.policy
        self._number = 0
        other = model.SimulatedCluster(model.new_id(), "Elsewhere")
        self._tables.clusters[other.id] = other
        self._other_id = other.id
        self._extra_hosts: list[str] = []

    def all(self) -> list[Callable[[], None]]:
        """Return the acts."""
        return [
            self.begin_upgrade,
            self.end_upgrade,
            self.use_another_policy,
            self.use_the_trusted_policy,
            self.rename_the_policy,
            self.edit_the_policy,
            self.rename_the_cluster,
            self.need_marks_only,
            self.need_trust_of_all,
            self.edit_cluster_properties,
            self.set_trusted_service,
            self.raise_the_level,
            self.add_a_cluster,
            self.remove_a_cluster,
            self.maintain_a_host,
            self.activate_hosts,
            self.rename_a_host,
            self.add_a_host,
            self.remove_a_host,
            self.move_a_host_away,
            self.move_hosts_back,
            self.lose_a_host,
            self.make_a_vm,
            self.remove_a_vm,
            self.mark_a_vm,
            self.unmark_a_vm,
            self.rename_a_vm,
            self.move_a_vm_away,
            self.move_vms_back,
            self.mark_for_the_next_start,
            self.weaken_the_wall,
            self.rename_the_wall,
            self.remove_the_wall,
            self.label_the_wall,
            self.let_all_hosts_in,
            self.put_hosts_out,
            self.let_vms_out,
            self.copy_the_wall,
            self.add_a_negative_rule,
            self.add_a_positive_rule,
            self.remove_own_rules,
            self.add_a_label,
            self.log_everybody_out,
            self.clear_the_event_log,
        ]

    def beside_vms(self) -> list[Callable[[], None]]:
        """Return those that leave VMs and hosts where they are, and the walls as they are."""
        return [
            self.begin_upgrade,
            self.end_upgrade,
            self.use_another_policy,
            self.use_the_trusted_policy,
            self.rename_the_policy,
            self.edit_the_policy,
            self.rename_the_cluster,
            self.raise_the_level,
            self.add_a_cluster,
            self.remove_a_cluster,
            self.mark_a_vm,
            self.unmark_a_vm,
            self.rename_a_vm,
            self.mark_for_the_next_start,
            self.rename_the_wall,
            self.copy_the_wall,
            self.put_hosts_out,
            self.add_a_label,
            self.log_everybody_out,
            self.clear_the_event_log,
        ]

    def of_open_walls(self) -> list[Callable[[], None]]:
        """Return those that leave a wall open until the broker puts it right."""
        return [
            self.weaken_the_wall,
            self.remove_the_wall,
            self.label_the_wall,
            self.let_all_hosts_in,
            self.let_vms_out,
        ]

    # The cluster and its policies

    def begin_upgrade(self) -> None:
        self._use_policy(CLUSTER_MAINTENANCE)

    def end_upgrade(self) -> None:
        self._use_policy(self._policy)

    def use_another_policy(self) -> None:
        self._use_policy(builtin.NONE_POLICY)

    def use_the_trusted_policy(self) -> None:
        self._use_policy(self._policy)

    def rename_the_policy(self) -> None:
        self._tables.policies[self._policy].name = self._name("trusted")
        self._log(audit_log.POLICY_UPDATED)

    def edit_the_policy(self) -> None:
        policy = self._tables.policies[self._policy]
        policy.properties = {"HighUtilization": str(self._chance.randrange(50, 99))}
        self._log(audit_log.POLICY_UPDATED)

    def rename_the_cluster(self) -> None:
        self._cluster.name = self._name("Trusted")
        self._log(audit_log.CLUSTER_UPDATED)

    def need_marks_only(self) -> None:
        self._scope({"trust_scope": "marked_vms"})

    def need_trust_of_all(self) -> None:
        self._scope({})

    def edit_cluster_properties(self) -> None:
        properties = {**self._cluster.properties, "HighUtilization": "80"}
        self._cluster.properties = properties
        self._log(audit_log.CLUSTER_UPDATED)

    def set_trusted_service(self) -> None:
        self._cluster.trusted_service = not self._cluster.trusted_service
        self._log(audit_log.CLUSTER_UPDATED)

    def raise_the_level(self) -> None:
        for vm in self._vms():
            vm.next_run = dict(vm.custom_properties)
        self._log(audit_log.CLUSTER_UPDATED)

    def add_a_cluster(self) -> None:
        cluster = model.SimulatedCluster(model.new_id(), self._name("New"))
        self._tables.clusters[cluster.id] = cluster
        self._log(809)

    def remove_a_cluster(self) -> None:
        for cluster in list(self._tables.clusters.values()):
            if cluster.name.startswith("New"):
                del self._tables.clusters[cluster.id]
                self._log(813)

    # Hosts

    def maintain_a_host(self) -> None:
        host = self._host()
        if host is None:
            return
        self._empty(host)
        host.status = "maintenance"
        host.status_detail = "a new disk"
        self._log(audit_log.HOST_TO_MAINTENANCE, host=host.id)

    def activate_hosts(self) -> None:
        """All of them, also those that the broker took out of service."""
        for host in self._hosts():
            if host.status == "maintenance":
                self._up(host)

    def rename_a_host(self) -> None:
        for host_id in self._extra_hosts:
            self._tables.hosts[host_id].name = self._name("new")
            self._log(HOST_UPDATED, host=host_id)

    def add_a_host(self) -> None:
        if len(self._extra_hosts) > 2:
            return
        name = self._name("new")
        host = model.SimulatedHost(model.new_id(), name, f"{name}.lab", self.cluster_id)
        self._tables.hosts[host.id] = host
        self._extra_hosts.append(host.id)
        self._log(HOST_ADDED, host=host.id)

    def remove_a_host(self) -> None:
        if not self._extra_hosts:
            return
        host_id = self._extra_hosts.pop()
        self._empty(self._tables.hosts[host_id])
        del self._tables.hosts[host_id]
        for group in self._tables.groups.values():
            group.hosts = [member for member in group.hosts if member != host_id]
        self._log(HOST_REMOVED)

    def move_a_host_away(self) -> None:
        for host_id in self._extra_hosts[:1]:
            host = self._tables.hosts[host_id]
            self._empty(host)
            host.cluster = self._other_id
            for group in self._tables.groups.values():
                group.hosts = [member for member in group.hosts if member != host_id]
            self._log(HOST_UPDATED, host=host_id)

    def move_hosts_back(self) -> None:
        for host_id in self._extra_hosts:
            self._tables.hosts[host_id].cluster = self.cluster_id
            self._log(HOST_UPDATED, host=host_id)

    def lose_a_host(self) -> None:
        host = self._host()
        if host is not None:
            self._empty(host)
            self._log(audit_log.HOST_CONNECTING, host=host.id)
            self._up(host)

    # VMs

    def make_a_vm(self) -> None:
        if len(self._tables.vms) > 30:
            return
        vm = model.SimulatedVm(model.new_id(), self._name("vm"), self.cluster_id)
        self._tables.vms[vm.id] = vm
        self._log(audit_log.VM_ADDED, vm=vm.id)

    def remove_a_vm(self) -> None:
        vm = self._vm()
        if vm.status != "down":
            return
        del self._tables.vms[vm.id]
        for group in self._tables.groups.values():
            group.vms = [member for member in group.vms if member != vm.id]
        self._log(113)

    def mark_a_vm(self) -> None:
        self._edit_vm(self._vm(), {MARK_PROPERTY: "true"})

    def unmark_a_vm(self) -> None:
        self._edit_vm(self._vm(), {})

    def rename_a_vm(self) -> None:
        vm = self._vm()
        vm.name = self._name("vm")
        self._log(audit_log.VM_UPDATED, vm=vm.id)

    def move_a_vm_away(self) -> None:
        vm = self._vm()
        if vm.status == "down" and len(self._vms()) > 2:
            self._move_vm(vm, self._other_id)

    def move_vms_back(self) -> None:
        for vm in self._tables.vms.values():
            if vm.cluster == self._other_id:
                self._move_vm(vm, self.cluster_id)

    def mark_for_the_next_start(self) -> None:
        vm = self._vm()
        vm.next_run = {MARK_PROPERTY: "true"}
        self._log(audit_log.VM_UPDATED, vm=vm.id)

    # Walls and other groups

    def weaken_the_wall(self) -> None:
        for wall in self.walls():
            wall.hosts_rule = model.Rule(enabled=True, enforcing=False, positive=True)
            self._edited()

    def rename_the_wall(self) -> None:
        for wall in self.walls():
            wall.name = self._name("whatever")
            self._edited()

    def remove_the_wall(self) -> None:
        for wall in self.walls():
            del self._tables.groups[wall.id]
            self._log(audit_log.GROUP_REMOVED)

    def label_the_wall(self) -> None:
        label = self._label([host.id for host in self._hosts()])
        for wall in self.walls():
            wall.host_labels.append(label.id)
            self._edited()

    def let_all_hosts_in(self) -> None:
        for wall in self.walls():
            wall.hosts = [host.id for host in self._hosts()]
            self._edited()

    def put_hosts_out(self) -> None:
        for wall in self.walls():
            wall.hosts = wall.hosts[1:]
            self._edited()

    def let_vms_out(self) -> None:
        for wall in self.walls():
            wall.vms = []
            self._edited()

    def copy_the_wall(self) -> None:
        for wall in self.walls()[:1]:
            twin = copy.deepcopy(wall)
            twin.id = model.new_id()
            twin.name = f"{wall_name(self.cluster_id)}-{self._name('copy')[-1]}"
            twin.hosts = [host.id for host in self._hosts()]
            self._tables.groups[twin.id] = twin
            self._log(audit_log.GROUP_ADDED)

    def add_a_negative_rule(self) -> None:
        self._add_group(NEGATIVE)

    def add_a_positive_rule(self) -> None:
        self._add_group(POSITIVE)

    def remove_own_rules(self) -> None:
        for group in list(self._tables.groups.values()):
            if not self._is_wall(group):
                del self._tables.groups[group.id]
                self._log(audit_log.GROUP_REMOVED)

    def add_a_label(self) -> None:
        self._label([host.id for host in self._hosts()[:1]])
        self._log(audit_log.LABEL_ADDED)

    # The engine

    def log_everybody_out(self) -> None:
        self._engine.sessions.end_all()

    def clear_the_event_log(self) -> None:
        for row in self._tables.audit_log.rows[:-100]:
            row.deleted = True

    # What is there

    def walls(self) -> list[model.AffinityGroup]:
        """Return the walls, whoever edited them."""
        groups = self._tables.groups.values()
        return [group for group in groups if self._is_wall(group)]

    def vms_needing_trust(self) -> set[str]:
        """Return the ids of the VMs that belong behind the wall."""
        marks_only = self._cluster.properties.get("trust_scope") == "marked_vms"
        return {vm.id for vm in self._vms() if not marks_only or _is_marked(vm)}

    def hosts(self) -> list[model.SimulatedHost]:
        """Return the pool's hosts."""
        return self._hosts()

    # Inside

    @property
    def _cluster(self) -> model.SimulatedCluster:
        return self._tables.clusters[self.cluster_id]

    def _is_wall(self, group: model.AffinityGroup) -> bool:
        if group.cluster != self.cluster_id:
            return False
        named = bears_wall_name(group.name, self.cluster_id)
        return named or group.description == WALL_DESCRIPTION

    def _name(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number}"

    def _hosts(self) -> list[model.SimulatedHost]:
        hosts = self._tables.hosts.values()
        return [host for host in hosts if host.cluster == self.cluster_id]

    def _host(self) -> model.SimulatedHost | None:
        hosts = [host for host in self._hosts() if host.status == "up"]
        free = [host for host in hosts if host.name not in self._kept]
        return self._chance.choice(free) if free else None

    def _vms(self) -> list[model.SimulatedVm]:
        vms = self._tables.vms.values()
        return [vm for vm in vms if vm.cluster == self.cluster_id]

    def _vm(self) -> model.SimulatedVm:
        return self._chance.choice(self._vms())

    def _empty(self, host: model.SimulatedHost) -> None:
        """Move a host's VMs to one that is kept in service."""
        target = next(other for other in self._hosts() if other.name in self._kept)
        for vm in self._tables.vms.values():
            if vm.host == host.id:
                vm.host = target.id

    def _up(self, host: model.SimulatedHost) -> None:
        host.status = "up"
        host.status_detail = ""
        self._log(audit_log.HOST_DETECTED, host=host.id)

    def _edit_vm(self, vm: model.SimulatedVm, properties: dict[str, str]) -> None:
        vm.custom_properties = properties
        vm.next_run = None
        self._log(audit_log.VM_UPDATED, vm=vm.id)

    def _move_vm(self, vm: model.SimulatedVm, cluster_id: str) -> None:
        vm.cluster = cluster_id
        for group in self._tables.groups.values():
            group.vms = [member for member in group.vms if member != vm.id]
        self._log(audit_log.VM_UPDATED, vm=vm.id)

    def _use_policy(self, policy_id: str) -> None:
        self._cluster.policy = policy_id
        self._log(audit_log.CLUSTER_UPDATED)

    def _scope(self, properties: dict[str, str]) -> None:
        """Only a policy with our unit has the property."""
        if self._cluster.policy == self._policy:
            self._cluster.properties = properties
            self._log(audit_log.CLUSTER_UPDATED)

    def _add_group(self, hosts_rule: model.Rule) -> None:
        """The engine would refuse two that contradict each other."""
        self.remove_own_rules()
        group = model.AffinityGroup(
            model.new_id(), self._name("licence"), self.cluster_id, hosts_rule, model.Rule()
        )
        group.hosts = [self._hosts()[0].id]
        group.vms = [self._vm().id]
        self._tables.groups[group.id] = group
        self._log(audit_log.GROUP_ADDED)

    def _label(self, host_ids: list[str]) -> model.AffinityLabel:
        label = model.AffinityLabel(model.new_id(), self._name("label"), hosts=host_ids)
        self._tables.labels[label.id] = label
        return label

    def _edited(self) -> None:
        self._log(audit_log.GROUP_UPDATED)

    def _log(self, code: int, **links: str) -> None:
        self._tables.log(code, "An administrator did something.", **links)


def _is_marked(vm: model.SimulatedVm) -> bool:
    next_run = vm.next_run or {}
    return "true" in (vm.custom_properties.get(MARK_PROPERTY), next_run.get(MARK_PROPERTY))
