# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What `doctor` reads at the engine beyond the broker's own lists, by the oVirt SDK."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine.sdk import Access, Sdk

# (hook point, file name) -> checksum, as a host reports them.
Hooks = Mapping[tuple[str, str], str]

# What a permission may be on instead of the whole system.
_OBJECTS = (
    "data_center",
    "cluster",
    "host",
    "storage_domain",
    "vm",
    "vm_pool",
    "template",
    "disk",
)


@dataclasses.dataclass(frozen=True)
class PolicyUnits:
    """The ids of a scheduling policy's units, as often as the engine shows them.

    Attributes:
        locked: whether it is one of the engine's own, which nobody may edit.
    """

    name: str
    locked: bool
    filter_ids: tuple[str, ...]
    weight_ids: tuple[str, ...]
    balance_ids: tuple[str, ...]


class EngineInspection:
    """The engine's REST API, read only. Every method raises what `Sdk.call` does."""

    def __init__(self, access: Access) -> None:
        self._call = Sdk(access).call

    def policy_units(self) -> dict[str, PolicyUnits]:
        """Return the units of every scheduling policy, by id, as the engine's memory has them."""

        def read(system: Any) -> dict[str, PolicyUnits]:
            service = system.scheduling_policies_service()
            return {
                policy.id: _policy_units(policy, service.policy_service(policy.id))
                for policy in service.list()
            }

        return self._call("list the units of policies", read)

    def vm_properties(self) -> dict[str, str]:
        """Return the definitions of VMs' custom properties, by cluster id.

        Every user may read them (`GetSystemOptionQuery`).
        """

        def read(system: Any) -> dict[str, str]:
            option = system.options_service().option_service("UserDefinedVMProperties").get()
            by_level = {value.version: value.value or "" for value in option.values or []}
            definitions: dict[str, str] = {}
            for cluster in system.clusters_service().list():
                definitions[cluster.id] = by_level.get(_level(cluster.version), "")
            return definitions

        return self._call("read UserDefinedVMProperties", read)

    def permits(self) -> frozenset[str]:
        """Return the names of what our user may do on the whole system."""

        def read(system: Any) -> frozenset[str]:
            user = system.get().authenticated_user
            service = system.users_service().user_service(user.id).permissions_service()
            permissions = [permission for permission in service.list() if not _object(permission)]
            names: set[str] = set()
            for role_id in {permission.role.id for permission in permissions}:
                role = system.roles_service().role_service(role_id)
                names |= {permit.name for permit in role.permits_service().list()}
            return frozenset(names)

        return self._call("list our user's permits", read)

    def hooks(self, host_ids: Iterable[str], within_s: float) -> dict[str, Hooks]:
        """Return the VDSM hooks that each of these hosts reports, by host id.

        Args:
            within_s: longest time for all hosts, in seconds.

        Raises:
            Unavailable: also when it takes too long.
        """
        deadline = time.monotonic() + within_s
        hooks: dict[str, Hooks] = {}
        for host_id in host_ids:
            if time.monotonic() > deadline:
                fault = f"only {len(hooks)} hosts' hooks were read within {within_s:.0f} s"
                raise errors.Unavailable("the engine", fault)
            read = functools.partial(_hooks, host_id)
            try:
                hooks[host_id] = self._call("list a host's hooks", read)
            except errors.NotFound:  # it was removed since it was listed
                continue
        return hooks

    def addresses(self) -> dict[str, frozenset[str]]:
        """Return by what names and addresses VMs are known, in lower case, by VM id.

        Guest agents report most of them.
        """

        def read(system: Any) -> dict[str, frozenset[str]]:
            listed = system.vms_service().list(follow="reported_devices")
            return {vm.id: _addresses(vm) for vm in listed}

        return self._call("list VMs with their addresses", read)


def _policy_units(policy: Any, service: Any) -> PolicyUnits:
    filters = tuple(unit.id for unit in service.filters_service().list())
    weights = tuple(unit.id for unit in service.weights_service().list())
    balances = tuple(unit.id for unit in service.balances_service().list())
    return PolicyUnits(policy.name or "", bool(policy.locked), filters, weights, balances)


def _level(version: Any) -> str:
    return f"{version.major}.{version.minor}" if version else ""


def _object(permission: Any) -> bool:
    """Return whether a permission is on a single object, and not on the system."""
    return any(getattr(permission, kind) for kind in _OBJECTS)


def _hooks(host_id: str, system: Any) -> Hooks:
    hooks: dict[tuple[str, str], str] = {}
    for hook in system.hosts_service().host_service(host_id).hooks_service().list():
        # The checksum is a SHA-256, whatever the member's name says (HostMapper).
        checksum = (hook.md5 or "").lower()
        hooks[hook.event_name or "", hook.name or ""] = checksum
    return hooks


def _addresses(vm: Any) -> frozenset[str]:
    names = [vm.name, vm.fqdn]
    for device in vm.reported_devices or []:
        names += [ip.address for ip in device.ips or []]
    return frozenset(name.lower().rstrip(".") for name in names if name)
