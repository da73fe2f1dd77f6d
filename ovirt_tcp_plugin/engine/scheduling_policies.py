# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a scheduling policy consists of, and how one for a trusted pool is made from another. Pure.

REST has no copy: a policy is read unit by unit and made again. Ids of the engine's own units:
`InternalPolicyUnits`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.filter_unit import SCOPE_PROPERTY

# VmToHostsAffinityGroups: without it nobody keeps the wall.
AFFINITY_FILTER = "e69808a9-8a41-40f1-94ba-dd5d385d82d8"
# None: without any balance unit the engine's balancing round dies at the first cluster with such a
# policy, and no cluster after it is balanced (`SchedulingManager.performLoadBalancing`).
NO_BALANCE = "38440000-8cf0-14bd-c43e-10b96e4ef00a"


@dataclasses.dataclass(frozen=True)
class Content:
    """The units of a policy, and its properties.

    Attributes:
        filters: position by unit id: -1 first, 1 last, 0 anywhere.
        weights: factor by unit id.
        balance: unit id, empty if there is none.
    """

    filters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)
    balance: str = ""
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def encode(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dataclasses.asdict(self)


def decode(encoded: Mapping[str, Any]) -> Content:
    """Return what `encode` wrote, among other members."""
    return Content(
        filters=encoded["filters"],
        weights=encoded["weights"],
        balance=encoded["balance"],
        properties=encoded["properties"],
    )


def for_pool(source: Content, unit_id: str, scope: Scope) -> Content:
    """Return a copy of a policy for a trusted pool.

    With our filter unit, the filter that keeps the wall, and a balance unit in any case.

    Args:
        unit_id: that of our filter unit.
    """
    filters = dict(source.filters)
    filters.setdefault(AFFINITY_FILTER, 0)
    filters[unit_id] = 0
    properties = {**source.properties, SCOPE_PROPERTY: scope.value}
    return Content(filters, source.weights, source.balance or NO_BALANCE, properties)
