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
        """Return the definitions of VMs' custom properties, by cluster id (`GetSystemOptionQuery`, for every user)."""

        def read(system: Any) -> dict[str, str]:
            option = system.options_service().option_service("UserDefinedVMProperties").get()
            values = {one.version: one.value or "" for one in option.values or []}
            return {one.id: values.get(_level(one.version), "") for one in system.clusters_service().list()}

        return self._call("read UserDefinedVMProperties", read)

    def permits(self) -> frozenset[str]:
        """Return the names of what our user may do on the whole system."""

        def read(system: Any) -> frozenset[str]:
            user = system.get().authenticated_user
            granted = system.users_service().user_service(user.id).permissions_service().list()
            roles = {one.role.id for one in granted if not _object(one)}
            services = [system.roles_service().role_service(role).permits_service() for role in roles]
            return frozenset(permit.name for service in services for permit in service.list())

        return self._call("list our user's permits", read)

    def hooks(self, host_ids: Iterable[str], within_s: float) -> dict[str, Hooks]:
        """Return the VDSM hooks that each of these hosts reports. Raises Unavailable, too, when it takes too long."""
        deadline, found = time.monotonic() + within_s, dict[str, Hooks]()
        for host_id in host_ids:
            if time.monotonic() > deadline:
                raise errors.Unavailable("the engine", f"only {len(found)} hosts' hooks were read within {within_s:.0f} s")
            try:
                found[host_id] = self._call("list a host's hooks", functools.partial(_hooks, host_id))
            except errors.NotFound:  # it was removed since it was listed
                continue
        return found

    def addresses(self) -> dict[str, frozenset[str]]:
        """Return by what names and addresses VMs are known, in lower case, by VM id; guest agents tell most of them."""

        def read(system: Any) -> dict[str, frozenset[str]]:
            return {vm.id: _addresses(vm) for vm in system.vms_service().list(follow="reported_devices")}

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
    kinds = ("data_center", "cluster", "host", "storage_domain", "vm", "vm_pool", "template", "disk")
    return any(getattr(permission, kind) for kind in kinds)


def _hooks(host_id: str, system: Any) -> Hooks:
    listed = system.hosts_service().host_service(host_id).hooks_service().list()
    # The checksum is a SHA-256, whatever the member's name says (HostMapper).
    return {(one.event_name or "", one.name or ""): (one.md5 or "").lower() for one in listed}


def _addresses(vm: Any) -> frozenset[str]:
    ips = [ip.address for device in vm.reported_devices or [] for ip in device.ips or []]
    return frozenset(one.lower().rstrip(".") for one in (vm.name, vm.fqdn, *ips) if one)
