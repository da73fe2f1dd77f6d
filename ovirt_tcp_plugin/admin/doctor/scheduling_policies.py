# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Judges what an administrator set at the engine: unit, policies, custom property, rights. Pure."""

from __future__ import annotations

import collections
import datetime
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from ovirt_tcp_plugin.admin.doctor.findings import DoctorFinding, fail, named, warning
from ovirt_tcp_plugin.admin.doctor.observations import ObservedSite, SchedulerOptions
from ovirt_tcp_plugin.engine.engine_start import RESTART
from ovirt_tcp_plugin.engine.inspection import PolicyUnits
from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.filter_unit import FilterState
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY, PERMITS
from ovirt_tcp_plugin.placement.pools import AFFINITY_FILTER, PolicyState

# Whoever has one of these can give himself all others.
WIDE_PERMITS = frozenset(
    {"manipulate_permissions", "manipulate_roles", "manipulate_users", "configure_engine"}
)
# The engine waits for the filter under the lock of a cluster.
MAX_RESPONSE_MS = 10_000

_DISCOVERY = (
    "start ovirt-tcp-filterd if it does not run, then restart the engine, which looks for units"
    " only at its start"
)
_SETUP = "ovirt-tcp setup sets it; it counts from the engine's next start"


def unit(site: ObservedSite, started: Optional[datetime.datetime]) -> Iterable[DoctorFinding]:
    """Judge whether the engine knows our filter unit, and asks it.

    Args:
        started: when the engine started last, None where that cannot be seen.
    """
    state = filter_unit.filter_state(site.listing.units, started)
    if state is not FilterState.ASKED:
        fault = filter_unit.FAULTS[state]
        text = f"{fault}. The wall still holds, but first starts of VMs are not filtered."
        yield fail(state.value, text, _DISCOVERY)


def scheduler(
    options: SchedulerOptions, names: Collection[str], port: int
) -> Iterable[DoctorFinding]:
    """Judge how the engine asks for its external scheduler.

    Args:
        names, port: those of filterd.
    """
    if not options.enabled:
        text = (
            "ExternalSchedulerEnabled is not true: from the engine's next start it does not ask the"
            " filter."
        )
        yield fail("scheduler_disabled", text, _SETUP)
    if options.host not in names or options.port != port:
        text = (
            f"ExternalSchedulerServiceURL leads to {options.host}:{options.port}; filterd is at"
            f" port {port} of this machine."
        )
        step = "set it by engine-config, or server.port of filterd.yaml; then restart the engine"
        yield fail("scheduler_elsewhere", text, step)
    if options.response_ms > MAX_RESPONSE_MS:
        text = (
            f"ExternalSchedulerResponseTimeout is {options.response_ms} ms: so long a filter that"
            " hangs stops a cluster."
        )
        yield warning("scheduler_timeout", text, _SETUP)


def pools(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether there is anything to protect."""
    if not site.pools:
        name = filter_unit.NAME
        text = f"No cluster has a scheduling policy with {name}, so no VM is protected."
        step = f"give a cluster a policy with {name} (Clusters > Edit > Scheduling Policy)"
        yield warning("no_pool", text, step)


def suspended(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether pools have policies without our unit: only a person ends a pool."""
    for pool in site.pools.values():
        name = filter_unit.NAME
        subject = f"Cluster {pool.name} is a trusted pool, but its policy {pool.policy}"
        if pool.policy_state is PolicyState.OTHER:
            text = f"{subject} has no {name}: the engine does not ask the filter."
            step = (
                f"give it back its policy (Clusters > Edit > Scheduling Policy), or end the pool:"
                f" ovirt-tcp pool end {pool.name}"
            )
            yield fail("pool_policy", text, step)
        elif pool.policy_state is PolicyState.UPGRADE:
            text = (
                f"{subject} is that of a cluster upgrade: its wall protects it, but the engine does"
                " not ask the filter."
            )
            step = "nothing while the upgrade goes on; afterwards see that it has its policy back"
            yield warning("pool_upgrade", text, step)


def policies(site: ObservedSite, units: Mapping[str, PolicyUnits]) -> Iterable[DoctorFinding]:
    """Judge what else the policies of pools need."""
    affinity_ids = {unit.id for unit in site.listing.units if unit.name == AFFINITY_FILTER}
    for cluster in site.listing.clusters:
        policy = site.listing.policy(cluster)
        if cluster.id not in site.pools or policy is None:
            continue
        subject = f"Policy {policy.name} of cluster {cluster.name}"
        if not policy.filter_ids & affinity_ids:
            yield _no_affinity_filter(subject, policy.name)
        if policy.id in units and not units[policy.id].balance_ids:
            yield _no_balance(subject, policy.name)


def _no_affinity_filter(subject: str, policy_name: str) -> DoctorFinding:
    text = f"{subject} has no filter {AFFINITY_FILTER}: its wall stops nobody."
    step = f"add {AFFINITY_FILTER} to the filters of policy {policy_name}"
    return fail("no_affinity_filter", text, step)


def _no_balance(subject: str, policy_name: str) -> DoctorFinding:
    text = (
        f"{subject} has no balance unit: balancing ends for this cluster, and for every cluster"
        " after it."
    )
    step = f"choose a load balancer in policy {policy_name}; None if nothing is to be moved"
    return fail("no_balance", text, step)


def stuck(site: ObservedSite, units: Mapping[str, PolicyUnits]) -> Iterable[DoctorFinding]:
    """Judge whether a refused edit stayed in the engine's memory (`BackendPolicyUnitsResource`)."""
    names = {unit.id: unit.name for unit in site.listing.units}
    for policy_id, policy in units.items():
        unit_names = [names.get(unit_id, unit_id) for unit_id in policy.filter_ids]
        if policy.locked and filter_unit.NAME in unit_names:
            clusters = site.listing.clusters
            users = [cluster.name for cluster in clusters if cluster.policy_id == policy_id]
            yield _phantom_unit(policy.name, users)
        doubled = _doubled(policy.filter_ids) | _doubled(policy.weight_ids)
        if doubled:
            doubled_names = [names.get(unit_id, unit_id) for unit_id in doubled]
            yield _doubled_units(policy.name, doubled_names)


def _phantom_unit(policy_name: str, cluster_names: Sequence[str]) -> DoctorFinding:
    text = (
        f"The engine's own policy {policy_name} shows {filter_unit.NAME}, which stayed in memory"
        " after a refused edit: every cluster with it counts as a trusted pool (now:"
        f" {named(cluster_names) or 'none'})."
    )
    return fail("policy_stuck", text, f"{RESTART}: its memory forgets it")


def _doubled_units(policy_name: str, unit_names: Sequence[str]) -> DoctorFinding:
    text = (
        f"Policy {policy_name} has {named(unit_names)} twice in the engine's memory after a refused"
        " edit: the engine refuses every later edit, but works by it as before."
    )
    step = f"{RESTART}; a policy that no cluster uses can also be removed and made again"
    return warning("policy_stuck", text, step)


def trusted_service(site: ObservedSite) -> Iterable[DoctorFinding]:
    """Judge whether somebody switched on the feature of 2013.

    Its client has reached no server since oVirt 4.4.
    """
    names = [cluster.name for cluster in site.listing.clusters if cluster.trusted_service]
    if names:
        text = (
            f"trusted_service is set on {named(names)}: the engine asks by a client that reaches no"
            " server, and takes each host out of service at its next activation, and all of them"
            " when the engine restarts."
        )
        step = (
            "edit these clusters and switch `Enable Trusted Service` off; pools work without it."
            " Then activate the hosts"
        )
        yield fail("trusted_service", text, step)


def marks(site: ObservedSite, definitions: Mapping[str, str]) -> Iterable[DoctorFinding]:
    """Judge whether VMs can be marked.

    Args:
        definitions: UserDefinedVMProperties by cluster id.
    """
    for pool in site.pools.values():
        if _defines_mark(definitions.get(pool.cluster_id, "")):
            continue
        what = f"The custom property {MARK_PROPERTY} is not defined for the level of cluster"
        step = (
            f"engine-config -m UserDefinedVMProperties='{MARK_PROPERTY}=^(true|false)$'"
            " --cver=LEVEL, with the cluster's level, and restart the engine"
        )
        if pool.scope is Scope.MARKED_VMS:
            text = f"{what} {pool.name}: marks are dropped, and no VM there is protected."
            yield fail("property_undefined", text, step)
        else:
            text = f"{what} {pool.name}; all of its VMs are protected all the same."
            yield warning("property_undefined", text, step)


def rights(permits: Collection[str]) -> Iterable[DoctorFinding]:
    """Judge what the broker's user may do.

    Args:
        permits: names of its permits on the whole system.
    """
    missing = set(PERMITS.values()) - set(permits)
    if missing:
        text = f"The broker's user at the engine lacks rights on the system: {named(missing)}."
        step = "give its role these permits, and the user that role on System"
        yield fail("permit_missing", text, step)
    elif WIDE_PERMITS & set(permits):
        text = "The broker's user can give itself any right at the engine."
        step = f"let the broker use a user whose role has just {named(PERMITS.values())}"
        yield warning("permits_wide", text, step)


def _doubled(unit_ids: Collection[str]) -> set[str]:
    counts = collections.Counter(unit_ids)
    return {unit_id for unit_id, count in counts.items() if count > 1}


def _defines_mark(definitions: str) -> bool:
    """Return whether `key=regex;key=regex` lets a VM be marked (`SimpleCustomPropertiesUtil`)."""
    for definition in definitions.split(";"):
        name, _, pattern = definition.partition("=")
        if name.strip() == MARK_PROPERTY:
            try:
                return re.fullmatch(pattern, "true") is not None
            except re.error:
                return False
    return False
