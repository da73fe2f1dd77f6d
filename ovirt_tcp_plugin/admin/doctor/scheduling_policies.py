# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges what an administrator set at the engine: unit, policies, custom property, rights. Pure."""

from __future__ import annotations

import collections
import datetime
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Optional

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, warning
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite, SchedulerOptions
from ovirt_tcp_plugin.engine.inspection import PolicyUnits
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.filter_unit import FAULTS, FilterState, filter_state
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY, PERMITS, UNIT_NAME

AFFINITY_FILTER = "VmToHostsAffinityGroups"
# Whoever has one of these can give himself all others.
WIDE_PERMITS = frozenset({"manipulate_permissions", "manipulate_roles", "manipulate_users", "configure_engine"})
# The engine waits for the filter under the lock of a cluster.
MAX_RESPONSE_MS = 10_000

RESTART = "systemctl restart ovirt-engine"
_DISCOVERY = (
    "start ovirt-tcp-filterd if it does not run, then restart the engine, which looks for units only at its start"
)
_SETUP = "ovirt-tcp setup sets it; it counts from the engine's next start"


def unit(site: ObservedSite, started: Optional[datetime.datetime]) -> Iterable[DoctorFinding]:
    """Judge whether the engine knows our filter unit, and asks it.

    Args:
        started: when the engine started last, None where that cannot be seen.
    """
    state = filter_state(site.listing.units, started)
    if state is not FilterState.ASKED:
        text = f"{FAULTS[state]}. The wall still holds, but first starts of VMs are not filtered."
        yield fail(state.value, text, _DISCOVERY)


def scheduler(found: SchedulerOptions, ours: Collection[str], port: int) -> Iterable[DoctorFinding]:
    """Judge how the engine asks for its external scheduler.

    Args:
        ours, port: names and port of filterd.
    """
    if not found.enabled:
        text = "ExternalSchedulerEnabled is not true: from the engine's next start the filter is asked no more."
        yield fail("scheduler_disabled", text, _SETUP)
    if found.host not in ours or found.port != port:
        text = f"ExternalSchedulerServiceURL leads to {found.host}:{found.port}; filterd is at port {port} of this machine."
        step = "set it by engine-config, or server.port of filterd.yaml; then restart the engine"
        yield fail("scheduler_elsewhere", text, step)
    if found.response_ms > MAX_RESPONSE_MS:
        text = f"ExternalSchedulerResponseTimeout is {found.response_ms} ms: so long a filter that hangs stops a cluster."
        yield warning("scheduler_timeout", text, _SETUP)


def pools(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether there is anything to protect."""
    if not site.pools:
        text = f"No cluster has a scheduling policy with {UNIT_NAME}, so no VM is protected."
        yield warning("no_pool", text, f"give a cluster a policy with {UNIT_NAME} (Clusters > Edit > Scheduling Policy)")


def policies(site: ObservedSite, units: Mapping[str, PolicyUnits]) -> Iterable[DoctorFinding]:
    """Judge what else the policies of pools need."""
    affinity = {one.id for one in site.listing.units if one.name == AFFINITY_FILTER}
    for cluster in site.listing.clusters:
        policy = site.listing.policy(cluster)
        if cluster.id not in site.pools or policy is None:
            continue
        if not policy.filter_ids & affinity:
            text = f"Policy {policy.name} of cluster {cluster.name} has no filter {AFFINITY_FILTER}: its wall stops nobody."
            yield fail("no_affinity_filter", text, f"add {AFFINITY_FILTER} to the filters of policy {policy.name}")
        if policy.id in units and not units[policy.id].balance_ids:
            text = (
                f"Policy {policy.name} of cluster {cluster.name} has no balance unit: balancing ends for this cluster, "
                "and for every cluster after it."
            )
            yield fail("no_balance", text, f"choose a load balancer in policy {policy.name}, None if nothing is to move")


def stuck(site: ObservedSite, units: Mapping[str, PolicyUnits]) -> Iterable[DoctorFinding]:
    """Judge whether a refused edit stayed in the engine's memory (`BackendPolicyUnitsResource`)."""
    ours = {unit.id for unit in site.listing.units if unit.name == UNIT_NAME}
    names = {unit.id: unit.name for unit in site.listing.units}
    for policy_id, policy in units.items():
        in_use = sorted(one.name for one in site.listing.clusters if one.policy_id == policy_id)
        if policy.locked and ours & set(policy.filter_ids):
            text = (
                f"The engine's own policy {policy.name} shows {UNIT_NAME}, which stayed in memory "
                "after a refused edit: every cluster with it counts as a trusted pool "
                f"(now: {named(in_use) or 'none'})."
            )
            yield fail("policy_stuck", text, f"{RESTART}: its memory forgets it")
        doubled = _doubled(policy.filter_ids) | _doubled(policy.weight_ids)
        if doubled:
            units_named = named(names.get(unit_id, unit_id) for unit_id in doubled)
            text = (
                f"Policy {policy.name} has {units_named} twice in the engine's memory after a "
                "refused edit: the engine refuses every later edit, but works by it as before."
            )
            step = f"{RESTART}; a policy that no cluster uses can also be removed and made again"
            yield warning("policy_stuck", text, step)


def trusted_service(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether somebody switched on the feature of 2013, whose client has reached no server since oVirt 4.4."""
    names = [cluster.name for cluster in site.listing.clusters if cluster.trusted_service]
    if names:
        text = (
            f"trusted_service is set on {named(names)}: the engine asks by a client that reaches no server, and takes each "
            "host out of service at its next activation, and all of them when the engine restarts."
        )
        step = "edit these clusters and switch `Enable Trusted Service` off; pools work without it. Then activate the hosts"
        yield fail("trusted_service", text, step)


def marks(site: ObservedSite, definitions: Mapping[str, str]) -> Iterable[DoctorFinding]:
    """Judge whether VMs can be marked.

    Args:
        definitions: UserDefinedVMProperties by cluster id.
    """
    for pool in site.pools.values():
        if _defines(definitions.get(pool.cluster_id, "")):
            continue
        text = f"The custom property {MARK_PROPERTY} is not defined for the level of cluster {pool.name}"
        step = (
            f"engine-config -m UserDefinedVMProperties='{MARK_PROPERTY}=^(true|false)$' --cver=LEVEL, with the cluster's "
            "level, and restart the engine"
        )
        if pool.scope is Scope.MARKED_VMS:
            yield fail("property_undefined", f"{text}: marks are dropped, and no VM there is protected.", step)
        else:
            yield warning("property_undefined", f"{text}; all of its VMs are protected all the same.", step)


def rights(permits: Collection[str]) -> Iterable[DoctorFinding]:
    """Judge what the broker's user may do."""
    missing = set(PERMITS.values()) - set(permits)
    if missing:
        text = f"The broker's user at the engine lacks rights on the system: {named(missing)}."
        yield fail("permit_missing", text, "give its role these permits, and the user that role on System")
    elif WIDE_PERMITS & set(permits):
        text = "The broker's user can give itself any right at the engine."
        yield warning("permits_wide", text, f"let the broker use a user whose role has just {named(PERMITS.values())}")


def _doubled(unit_ids: Collection[str]) -> set[str]:
    return {unit_id for unit_id, times in collections.Counter(unit_ids).items() if times > 1}


def _defines(definition: str) -> bool:
    """Return whether `key=regex;key=regex` lets a VM be marked (`SimpleCustomPropertiesUtil`)."""
    for one in definition.split(";"):
        name, _, pattern = one.partition("=")
        if name.strip() == MARK_PROPERTY:
            try:
                return re.fullmatch(pattern, "true") is not None
            except re.error:
                return False
    return False
