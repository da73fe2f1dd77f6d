# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an administrator asks of the engine and the broker never does, by the oVirt SDK.

`setup` and `doctor` use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ovirtsdk4 import types

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine import affinity_groups
from ovirt_tcp_plugin.engine.client import read_clusters, read_listing, read_units
from ovirt_tcp_plugin.engine.scheduling_policies import Content
from ovirt_tcp_plugin.engine.sdk import Access, Sdk, properties
from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import Cluster, Listing, Unit


@dataclasses.dataclass(frozen=True)
class Named:
    """A scheduling policy, role or user.

    Attributes:
        locked: whether it is a policy of the engine's own, which nobody may edit.
    """

    id: str
    name: str
    description: str = ""
    locked: bool = False


@dataclasses.dataclass(frozen=True)
class Permission:
    """A role that a user has on the whole system."""

    id: str
    role_id: str
    user_id: str


class AdminClient:
    """The engine's REST API for an administrator. Every method raises what `Sdk.call` does."""

    def __init__(self, access: Access) -> None:
        self._call = Sdk(access).call

    def enforcing_groups(self, cluster_ids: Iterable[str]) -> tuple[EnforcingGroup, ...]:
        """Return the affinity groups of these clusters with a rule that takes hosts away from VMs.

        The walls are not among them.
        """

        def read(system: Any) -> tuple[EnforcingGroup, ...]:
            groups: list[EnforcingGroup] = []
            for cluster_id in cluster_ids:
                groups += _enforcing(system, cluster_id)
            return tuple(groups)

        return self._call("list affinity groups", read)

    def listing(self) -> Listing:
        """Return everything that the broker sees, too."""
        return self._call("list everything", read_listing)

    def clusters(self) -> tuple[Cluster, ...]:
        """Return all clusters."""
        return self._call("list clusters", read_clusters)

    def units(self) -> tuple[Unit, ...]:
        """Return all scheduling policy units."""
        return self._call("list policy units", read_units)

    # Scheduling policies

    def policies(self) -> tuple[Named, ...]:
        """Return all scheduling policies."""

        def read(system: Any) -> tuple[Named, ...]:
            listed = system.scheduling_policies_service().list()
            return tuple(
                Named(policy.id, policy.name or "", policy.description or "", bool(policy.locked))
                for policy in listed
            )

        return self._call("list policies", read)

    def content(self, policy_id: str) -> Content:
        """Return what a policy consists of."""

        def read(system: Any) -> Content:
            service = _policy(system, policy_id)
            filters: dict[str, int] = {}
            for unit in service.filters_service().list():
                filters[_unit_id(unit)] = unit.position or 0
            weights: dict[str, int] = {}
            for unit in service.weights_service().list():
                weights[_unit_id(unit)] = unit.factor or 0
            balances = [_unit_id(unit) for unit in service.balances_service().list()]
            balance = balances[0] if balances else ""
            return Content(filters, weights, balance, properties(service.get().properties))

        return self._call("read a policy", read)

    def add_policy(self, name: str, description: str) -> str:
        """Make a policy without units, and return its id. No cluster may use it yet."""
        policy = types.SchedulingPolicy(name=name, description=description)

        def add(system: Any) -> str:
            return str(system.scheduling_policies_service().add(policy).id)

        return self._call("add a policy", add)

    def add_filter(self, policy_id: str, unit_id: str, position: int) -> None:
        """Add a filter to a policy that was just made, once.

        The engine edits the policy in its memory before it validates
        (`BackendPolicyUnitsResource`): what it refuses stays there until its restart, and one that
        is there twice makes it refuse every later edit of this policy.
        """
        unit = types.Filter(scheduling_policy_unit=_unit(unit_id), position=position)

        def add(system: Any) -> None:
            _policy(system, policy_id).filters_service().add(unit)

        self._call("add a filter", add)

    def add_weight(self, policy_id: str, unit_id: str, factor: int) -> None:
        """Add a weight to a policy that was just made, once, as with a filter."""
        unit = types.Weight(scheduling_policy_unit=_unit(unit_id), factor=factor)

        def add(system: Any) -> None:
            _policy(system, policy_id).weights_service().add(unit)

        self._call("add a weight", add)

    def set_balance(self, policy_id: str, unit_id: str) -> None:
        """Give a policy this balance."""
        unit = types.Balance(scheduling_policy_unit=_unit(unit_id))

        def add(system: Any) -> None:
            _policy(system, policy_id).balances_service().add(unit)

        self._call("set a balance", add)

    def set_properties(self, policy_id: str, values: Mapping[str, str]) -> None:
        """Give a policy these properties; its units must know them."""
        change = types.SchedulingPolicy(properties=_properties(values))
        self._call("set properties", lambda system: _policy(system, policy_id).update(change))

    def remove_policy(self, policy_id: str) -> None:
        """Remove a policy that no cluster uses."""
        self._call("remove a policy", lambda system: _policy(system, policy_id).remove())

    def remove_unit(self, unit_id: str) -> None:
        """Remove an external policy unit that no policy uses."""

        def remove(system: Any) -> None:
            system.scheduling_policy_units_service().unit_service(unit_id).remove()

        self._call("remove a policy unit", remove)

    def use_policy(self, cluster_id: str, policy_id: str, values: Mapping[str, str]) -> None:
        """Have a cluster use a policy, with these properties.

        Its other properties stay, where the policy knows them.
        """
        change = types.Cluster(
            scheduling_policy=types.SchedulingPolicy(id=policy_id),
            custom_scheduling_policy_properties=_properties(values),
        )

        def update(system: Any) -> None:
            system.clusters_service().cluster_service(cluster_id).update(change)

        self._call("set a policy", update)

    def remove_group(self, cluster_id: str, group_id: str) -> None:
        """Remove an affinity group. It may be gone already."""

        def groups(system: Any) -> Any:
            return system.clusters_service().cluster_service(cluster_id).affinity_groups_service()

        def remove(system: Any) -> None:
            groups(system).group_service(group_id).remove()

        def is_listed(system: Any) -> bool:
            return any(group.id == group_id for group in groups(system).list())

        try:
            self._call("remove an affinity group", remove)
        except (errors.Conflict, errors.NotFound):
            # For a group that is gone the engine answers 400, with an error of its own
            # (`AffinityGroup` is null).
            if self._call("list affinity groups", is_listed):
                raise

    def activate(self, host_id: str) -> None:
        """Ask for a host's activation; it is Up later."""

        def activate(system: Any) -> None:
            system.hosts_service().host_service(host_id).activate(async_=True)

        self._call("activate a host", activate)

    # Users

    def users(self) -> tuple[Named, ...]:
        """Return all users that the engine knows; a name is `<login>@<provider>`.

        The provider is that of authorization.
        """
        users = self._call("list users", lambda system: system.users_service().list())
        return tuple(Named(user.id, user.user_name or "") for user in users)

    def roles(self) -> tuple[Named, ...]:
        """Return all roles."""
        return self._call("list roles", lambda system: _named(system.roles_service().list()))

    def permits(self, role_id: str) -> frozenset[str]:
        """Return the ids of a role's permits."""

        def read(system: Any) -> frozenset[str]:
            service = system.roles_service().role_service(role_id).permits_service()
            return frozenset(permit.id for permit in service.list())

        return self._call("list permits", read)

    def add_role(self, name: str, description: str, permit_ids: Collection[str]) -> str:
        """Make a role for administrators, and return its id."""
        role = types.Role(
            name=name,
            description=description,
            administrative=True,
            permits=[types.Permit(id=permit_id) for permit_id in sorted(permit_ids)],
        )
        return self._call("add a role", lambda system: str(system.roles_service().add(role).id))

    def remove_role(self, role_id: str) -> None:
        """Remove a role that nobody has."""

        def remove(system: Any) -> None:
            system.roles_service().role_service(role_id).remove()

        self._call("remove a role", remove)

    def permissions(self) -> tuple[Permission, ...]:
        """Return which users have which roles on the whole system."""
        listed = self._call("list permissions", lambda system: system.permissions_service().list())
        return tuple(
            Permission(permission.id, permission.role.id, permission.user.id)
            for permission in listed
            if permission.user and permission.role
        )

    def grant(self, role_id: str, user_id: str) -> str:
        """Give a user a role on the whole system, and return the permission's id."""
        permission = types.Permission(role=types.Role(id=role_id), user=types.User(id=user_id))

        def add(system: Any) -> str:
            return str(system.permissions_service().add(permission).id)

        return self._call("grant a role", add)

    def revoke(self, permission_id: str) -> None:
        """Take a permission back."""

        def remove(system: Any) -> None:
            system.permissions_service().permission_service(permission_id).remove()

        self._call("revoke a role", remove)


def _named(listed: Iterable[Any]) -> tuple[Named, ...]:
    return tuple(Named(item.id, item.name or "", item.description or "") for item in listed)


def _policy(system: Any, policy_id: str) -> Any:
    return system.scheduling_policies_service().policy_service(policy_id)


def _unit(unit_id: str) -> types.SchedulingPolicyUnit:
    return types.SchedulingPolicyUnit(id=unit_id)


def _unit_id(listed: Any) -> str:
    """Return the id of the unit that a filter, weight or balance of a policy stands for."""
    unit = listed.scheduling_policy_unit
    return str(unit.id if unit else listed.id)


def _properties(values: Mapping[str, str]) -> list[types.Property]:
    return [types.Property(name=name, value=value) for name, value in values.items()]


def _enforcing(system: Any, cluster_id: str) -> Iterable[EnforcingGroup]:
    service = system.clusters_service().cluster_service(cluster_id).affinity_groups_service()
    for group in affinity_groups.with_rules_that_bind(cluster_id, service.list()):
        host_ids, vm_ids = _members(system, service.group_service(group.id))
        yield dataclasses.replace(group, host_ids=host_ids, vm_ids=vm_ids)


def _members(system: Any, group: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of a group's hosts and VMs, those that bear its labels among them."""
    hosts = {host.id for host in group.hosts_service().list()}
    vms = {vm.id for vm in group.vms_service().list()}
    labels = system.affinity_labels_service()
    for label in group.host_labels_service().list():
        hosts |= {host.id for host in labels.label_service(label.id).hosts_service().list()}
    for label in group.vm_labels_service().list():
        vms |= {vm.id for vm in labels.label_service(label.id).vms_service().list()}
    return frozenset(hosts), frozenset(vms)
