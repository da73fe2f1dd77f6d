# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies and their units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Optional

from ovirt_tcp_plugin.lab.engine.elements import (
    append_links,
    append_texts,
    boolean,
    element,
    entity,
    link,
    listing,
    properties,
)
from ovirt_tcp_plugin.lab.engine.model import PolicyUnit, SchedulingPolicy
from ovirt_tcp_plugin.lab.engine.xml_text import Element


def unit(row: PolicyUnit) -> Element:
    """Return a scheduling policy unit.

    REST has no name for the type of those that are no filter, weight or balance.
    """
    root = entity("scheduling_policy_unit", row.id, "schedulingpolicyunits")
    append_texts(
        root,
        name=row.name,
        description=row.description,
        enabled=boolean(row.enabled),
        internal=boolean(row.internal),
    )
    root.extend(properties("properties", "property", row.properties))
    if row.type:
        append_texts(root, type=row.type)
    return root


def policy(
    row: SchedulingPolicy, default: bool, filters: Optional[Iterable[Element]] = None
) -> Element:
    """Return a scheduling policy.

    Args:
        default: whether a new cluster has it.
        filters: the policy's filters, if they were asked for (`follow`).
    """
    root = entity("scheduling_policy", row.id, "schedulingpolicies", name=row.name)
    if row.description:
        append_texts(root, description=row.description)
    append_links(root, f"schedulingpolicies/{row.id}", "filters weights balances")
    append_texts(root, default_policy=boolean(default), locked=boolean(row.locked))
    root.extend(properties("properties", "property", row.properties))
    if filters is not None:
        root.append(listing("filters", filters))
    return root


def policy_unit(kind: str, uid: str, number: Mapping[str, str]) -> Element:
    """Return a filter, weight or balance of a policy; its id is its unit's, as in the engine.

    Args:
        number: `position` of a filter or `factor` of a weight.
    """
    root = element(kind, uid, **number)
    root.append(link("scheduling_policy_unit", uid, "schedulingpolicyunits"))
    return root
