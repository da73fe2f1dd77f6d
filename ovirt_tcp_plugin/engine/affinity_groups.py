# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The SDK's affinity groups as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovirt_tcp_plugin.placement.affinity_rules import AffinityRule, EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import WALL_DESCRIPTION, bears_wall_name


def enforcing_group(cluster_id: str, group: Any) -> EnforcingGroup:
    """Return a group of the SDK with the members that it shows, without those of its labels."""
    return EnforcingGroup(
        group.id,
        group.name or "",
        cluster_id,
        _rule(group.hosts_rule),
        _rule(group.vms_rule),
        frozenset(host.id for host in group.hosts or ()),
        frozenset(vm.id for vm in group.vms or ()),
    )


def with_rules_that_bind(cluster_id: str, groups: Iterable[Any]) -> list[EnforcingGroup]:
    """Return the groups of a cluster that take hosts away from VMs, but its walls."""
    enforcing: list[EnforcingGroup] = []
    for group in groups:
        if is_wall(cluster_id, group):
            continue
        value = enforcing_group(cluster_id, group)
        if value.hosts_rule.binds or value.vms_rule.forbids:
            enforcing.append(value)
    return enforcing


def is_wall(cluster_id: str, group: Any) -> bool:
    """Return whether a group of the SDK is a wall of its cluster.

    One that somebody renamed is still a wall: a second one beside it would leave it to itself.
    """
    named = bears_wall_name(group.name or "", cluster_id)
    return named or group.description == WALL_DESCRIPTION


def _rule(rule: Any) -> AffinityRule:
    if not rule:
        return AffinityRule()
    return AffinityRule(bool(rule.enabled), bool(rule.enforcing), bool(rule.positive))
