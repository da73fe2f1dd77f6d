# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker sees of an engine: plain values, read by `engine.client`, judged by pure code."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Optional

from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup

# What the names of our walls begin with, and how the engine shows that a group is one of them,
# whatever its name.
WALL_NAME = "ovirt-tcp-wall"
WALL_DESCRIPTION = "Hosts that are trusted now; kept by ovirt-tcp-broker."
MARK_PROPERTY = "trusted_host_flag"
# What the broker does: put hosts into maintenance and back, log in, write events, keep the wall
# (`ActionGroup`).
PERMITS = {
    "103": "manipulate_host",
    "1300": "login",
    "1400": "inject_external_events",
    "1550": "manipulate_affinity_groups",
}

# What our maintenance reasons begin with: by it we know a host of ours again, whatever else was
# lost.
REASON_PREFIX = "ovirt-tcp: "
UP = "up"
MAINTENANCE = "maintenance"
PREPARING = "preparing_for_maintenance"

# An `origin` of the VM that carries the engine itself.
HOSTED_ENGINE_ORIGINS = frozenset({"hosted_engine", "managed_hosted_engine"})


def wall_name(cluster_id: str) -> str:
    """Return the name of a cluster's wall.

    The engine has no two affinity groups of one name (`AddAffinityGroupCommand`).
    """
    return f"{WALL_NAME}-{cluster_id}"


def bears_wall_name(name: str, cluster_id: str) -> bool:
    """Return whether a name is one of a cluster's walls: the usual one, or a spare one."""
    usual = wall_name(cluster_id)
    return name == usual or name.startswith(f"{usual}-")


@dataclasses.dataclass(frozen=True)
class Host:
    """A host. `address` is what attestation servers know it by, unless configured otherwise."""

    id: str
    name: str
    address: str
    cluster_id: str
    status: str
    status_detail: str = ""

    @property
    def up(self) -> bool:
        """Whether the engine may place VMs on it."""
        return self.status == UP


@dataclasses.dataclass(frozen=True)
class Vm:
    """A VM.

    Attributes:
        marked: whether it asks for a trusted host in its current or its next-run configuration.
        hosted_engine: whether it carries the engine itself.
        next_run: whether it has another configuration for its next start.
    """

    id: str
    name: str
    cluster_id: str
    status: str = "down"
    host_id: str = ""
    marked: bool = False
    hosted_engine: bool = False
    next_run: bool = False


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster with its own scheduling properties, which override the policy's."""

    id: str
    name: str
    policy_id: str
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trusted_service: bool = False


@dataclasses.dataclass(frozen=True)
class Policy:
    """A scheduling policy with the ids of its filter units."""

    id: str
    name: str
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    filter_ids: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Unit:
    """A scheduling policy unit, as the engine's memory has it."""

    id: str
    name: str
    enabled: bool = True
    description: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """An affinity group.

    Attributes:
        enforcing: positive and enforcing for hosts, with no rule between VMs, of a name it needs.
    """

    id: str
    name: str
    host_ids: frozenset[str] = frozenset()
    vm_ids: frozenset[str] = frozenset()
    enforcing: bool = True
    # Labels, too, make hosts members: whoever bears one.
    host_label_ids: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Event:
    """An event of the engine's audit log."""

    id: int
    code: int
    host_id: str = ""
    vm_id: str = ""
    cluster_id: str = ""
    text: str = ""
    # Whose request it was; empty for the engine's own doings.
    user_id: str = ""


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something that the broker noticed or did, for its history and the engine's events.

    Attributes:
        key: tells two of the same meaning; it begins with a stable word, the code.
        event: whether it becomes an event of the engine, too.
        at_ms: when, by the wall clock; 0 until it is written.
        host, vm: their names then.
    """

    key: str
    severity: str
    text: str
    host_id: str = ""
    vm_id: str = ""
    cluster_id: str = ""
    event: bool = True
    at_ms: int = 0
    host: str = ""
    vm: str = ""

    @property
    def code(self) -> str:
        """The stable word."""
        return self.key.split(" ", 1)[0]


def shortened(names: Collection[str], most: int = 20) -> str:
    """Return names for a sentence; of many only the first ones."""
    shown = ", ".join(sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything, read list by list.

    What is not in it does not exist, with two exceptions. The engine may have failed to show single
    objects. And a VM may have been missed, since others came and went while pages were read.
    """

    clusters: tuple[Cluster, ...]
    policies: tuple[Policy, ...]
    units: tuple[Unit, ...]
    hosts: tuple[Host, ...]
    vms: tuple[Vm, ...]
    # The wall of each cluster that has one.
    walls: Mapping[str, Group] = dataclasses.field(default_factory=dict)
    # Ids of the hosts that can take the engine's own VM now; empty where the engine is no VM.
    engine_hosts: frozenset[str] = frozenset()
    # Ids of further walls by cluster id: one made in place of another, which did not go yet.
    surplus_walls: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    # Ids of the VMs that are listed, but not with all that marks them; they count as marked.
    unreadable_vms: frozenset[str] = frozenset()
    # Of so many VMs and hosts not even the ids could be read.
    nameless_vms: int = 0
    nameless_hosts: int = 0
    # Ids of the clusters whose walls could not be read.
    unreadable_walls: frozenset[str] = frozenset()
    # Groups of administrators that take hosts away from VMs; of their members those without labels.
    groups: tuple[EnforcingGroup, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all VMs could be read at least by their ids."""
        return self.nameless_vms == 0

    def wall_ids(self, cluster_id: str) -> list[str]:
        """Return the ids of all walls of a cluster."""
        wall = self.walls.get(cluster_id)
        usual = [] if wall is None else [wall.id]
        return usual + sorted(self.surplus_walls.get(cluster_id, ()))

    def policy(self, cluster: Cluster) -> Optional[Policy]:
        """Return the policy of a cluster, None if it was not listed."""
        return next((policy for policy in self.policies if policy.id == cluster.policy_id), None)


def is_in_maintenance(host: Host) -> bool:
    """Return whether a host is in maintenance, or on its way there."""
    return host.status in (MAINTENANCE, PREPARING)


def is_quarantined(host: Host) -> bool:
    """Return whether a host is in maintenance, or on its way there, for a reason of ours."""
    return is_in_maintenance(host) and host.status_detail.startswith(REASON_PREFIX)
