# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What setup does, in order, and the way back.

Phase 1 on the engine machine, the engine's restart by the administrator, phase 2 by REST.
"""

from __future__ import annotations

import datetime
import functools
import socket
import urllib.parse
from collections.abc import Callable, Collection, Iterable

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup import options
from ovirt_tcp_plugin.admin.setup.access import GrantRole, MakeRole, find_user, missing_user
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.cluster import UsePolicy
from ovirt_tcp_plugin.admin.setup.desired_state import DesiredState
from ovirt_tcp_plugin.admin.setup.journal import Entry, EntryState, Journal
from ovirt_tcp_plugin.admin.setup.options import DefineProperty, SetOption
from ovirt_tcp_plugin.admin.setup.scheduling_policy import KnowUnit, MakePolicy
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.engine.admin_client import AdminClient
from ovirt_tcp_plugin.engine.affinity_conflicts import conflicts
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.engine.engine_start import RESTART
from ovirt_tcp_plugin.engine.scheduling_policies import Content, for_pool
from ovirt_tcp_plugin.placement import filter_unit
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Cluster
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE, Pool, Pools

# The engine asks while it holds the lock of a cluster; filterd answers from memory. As installed it
# would wait 120 s.
RESPONSE_TIMEOUT_MS = 3000
DEFAULT_SOURCE = "evenly_distributed"
START_BROKER = "systemctl enable --now ovirt-tcp-broker"
START_FILTERD = "systemctl enable --now ovirt-tcp-filterd.socket ovirt-tcp-filterd.service"
FILTERD_URL = "http://localhost:18781/"

_CONNECT_WITHIN_S = 1.0
# The journal drops what is below a millisecond, so a change may be that much later than it says.
_JOURNAL_STEP = datetime.timedelta(milliseconds=1)
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_PHASE_1 = frozenset({SetOption.kind, DefineProperty.kind})
# What no pool needs to be kept, or what the engine itself keeps as long as a cluster uses it.
POLICY_KINDS = frozenset({UsePolicy.kind, MakePolicy.kind})


def first(config: EngineConfig, desired: DesiredState) -> list[Change]:
    """Return the changes of phase 1."""
    changes: list[Change] = [
        SetOption(config, options.SCHEDULER_ENABLED, "true"),
        SetOption(config, options.SCHEDULER_TIMEOUT, str(RESPONSE_TIMEOUT_MS)),
    ]
    for level in sorted(config.values(options.PROPERTIES)):
        changes.append(DefineProperty(config, level))
    if desired.ha_retry_s is not None:
        changes.append(SetOption(config, options.HA_RETRY, str(desired.ha_retry_s)))
    return changes


def check_filterd(config: EngineConfig) -> None:
    """Check that filterd answers where the engine will ask. Raises Conflict with what to do."""
    url = config.value(options.SCHEDULER_URL)
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 80
    except ValueError as e:
        what = f"{options.SCHEDULER_URL} is {url}, which is no address ({e})"
        step = f"set it to {FILTERD_URL} by engine-config"
        raise errors.Conflict(f"{what}: {step}") from e
    if parts.hostname not in _HERE:
        other = "another external scheduler's, and the engine asks only one"
        what = f"{options.SCHEDULER_URL} is {url}, {other}"
        raise errors.Conflict(f"{what}: ovirt-tcp-filterd answers at {FILTERD_URL}")
    try:
        filters = filterd_client.discover(parts.hostname, port).get("filters", ())
    except errors.Unavailable as e:
        what = f"ovirt-tcp-filterd does not answer at {url} ({e.reason})"
        step = f"{START_FILTERD}, then run setup again"
        why = "it looks for filterd only at its start"
        warning = f"Do not restart the engine before: {why}"
        raise errors.Conflict(f"{what}: {step}. {warning}") from e
    if filter_unit.NAME not in filters:
        what = f"another external scheduler answers at {url}, and the engine asks only one"
        raise errors.Conflict(f"{what}: stop that one, or do without ovirt-tcp")


def check_start(
    journal: Journal, engine_start: Callable[[], datetime.datetime], dry_run: bool
) -> None:
    """Check that the engine started after the last change of phase 1.

    Both times are of this machine's clock. Where they show that it was set back in between, only
    another start counts.

    Args:
        engine_start: returns when the engine started; raises Conflict.
        dry_run: whether the journal stays as it is.

    Raises:
        Conflict: it did not, or that cannot be told; with what to do.
    """
    entries = [entry for entry in journal.entries if entry.kind in _PHASE_1]
    if not entries:
        return
    changed = max(datetime.datetime.fromisoformat(entry.at) for entry in entries)
    started = engine_start()
    now = datetime.datetime.now(datetime.timezone.utc)
    again = f"{RESTART}, then run setup again"
    if changed > now:
        if not dry_run:
            journal.redate(_PHASE_1)
        clock = "the clock of this machine was set back since phase 1"
        raise errors.Conflict(f"{clock}: once more {again}")
    if started > now:
        clock = "the clock of this machine was set back since the engine started"
        raise errors.Conflict(f"{clock}: {again}")
    if started < changed + _JOURNAL_STEP:
        raise errors.Conflict(f"the engine has not been started since phase 1: {again}")


def check_unit(engine: AdminClient) -> None:
    """Check that the engine has found our unit. Raises Conflict with what to do."""
    units = [unit for unit in engine.units() if unit.name == filter_unit.NAME]
    if any(unit.enabled for unit in units):
        return
    verb = "disabled" if units else "did not find"
    what = f"the engine {verb} the filter unit {filter_unit.NAME} at its start"
    why = "filterd did not answer then"
    raise errors.Conflict(f"{what}: {why}. It answers now: {RESTART}, then run setup again")


def note_unit(engine: AdminClient, journal: Journal) -> None:
    """Have the journal know the unit, if the engine could find it only because of phase 1."""
    enabled = journal.entry(SetOption.kind, options.SCHEDULER_ENABLED)
    if enabled is None or enabled.before.lower() == "true":
        return
    unit = KnowUnit(engine)
    entry = journal.entry(unit.kind, unit.subject)
    if entry is not None and entry.state is not EntryState.INTENDED:
        return
    unit_id = unit.look(None)
    journal.intend(unit.kind, unit.subject, None, unit_id)
    journal.done(unit.kind, unit.subject, unit_id)


def second(engine: AdminClient, desired: DesiredState, exempt: Collection[str]) -> list[Change]:
    """Return the changes of phase 2.

    Args:
        exempt: the broker's option `exempt_vms`.

    Raises:
        NotFound: there are no such clusters; all are named.
        Conflict: a cluster is being upgraded, or has a rule that forbids its wall; with what to do.
    """
    known = {cluster.name: cluster for cluster in engine.clusters()}
    unknown = [name for name in desired.clusters if name not in known]
    if unknown:
        raise errors.NotFound("cluster", f"{', '.join(unknown)} at the engine")
    clusters = [known[name] for name in desired.clusters]
    check_upgrades(clusters, "setup")
    if clusters:
        check_rules(engine, clusters, desired.scope or Scope.ALL_VMS, exempt)
    copy = functools.partial(_copy, engine, desired, clusters)
    changes: list[Change] = [MakePolicy(engine, desired.policy, copy), MakeRole(engine)]
    if find_user(engine, desired.broker_user) is not None:
        changes.append(GrantRole(engine, desired.broker_user))
    for cluster in clusters:
        use = UsePolicy(engine, cluster.id, cluster.name, desired.policy, desired.scope)
        changes.append(use)
    return changes


def check_upgrades(clusters: Iterable[Cluster], command: str) -> None:
    """Check that none of these clusters is being upgraded. Raises Conflict with what to do.

    Meanwhile it has a scheduling policy that is neither to be copied nor to be restored.
    """
    names = [cluster.name for cluster in clusters if cluster.policy_id == CLUSTER_MAINTENANCE]
    if names:
        policy = "its scheduling policy is cluster_maintenance"
        what = f"cluster {', '.join(names)} is being upgraded: {policy}"
        raise errors.Conflict(f"{what}. Wait until the upgrade has ended, then run {command} again")


def check_rules(
    engine: AdminClient, clusters: Iterable[Cluster], scope: Scope, exempt: Collection[str]
) -> None:
    """Check that no affinity group keeps VMs of future walls off hosts. Raises Conflict.

    The engine refuses edits in such a cluster, so its wall would not stay as it has to be.
    """
    pools = {cluster.id: Pool(cluster.id, cluster.name, scope) for cluster in clusters}
    groups = engine.enforcing_groups(pools)
    if not groups:
        return
    for conflict in conflicts(pools, engine.listing().vms, groups, exempt):
        if conflict.forbids:
            step = f"{conflict.next_step[0].upper()}{conflict.next_step[1:]}"
            raise errors.Conflict(f"{conflict.text} {step}, then run setup again")


def left_to_do(engine: AdminClient, desired: DesiredState, broker: Settings) -> list[str]:
    """Return what setup cannot do, or may not, as sentences for people."""
    listing = engine.listing()
    pools = _pools(engine)
    groups = engine.enforcing_groups(pools)
    tasks: list[str] = []
    for conflict in conflicts(pools, listing.vms, groups, broker.pools.exempt_vms):
        tasks.append(conflict.text)
    if find_user(engine, desired.broker_user) is None:
        tasks.append(missing_user(desired.broker_user))
    if not pools:
        step = f"ovirt-tcp setup --policy {desired.policy} --cluster NAME"
        tasks.append(f"no cluster is a trusted pool yet: {step}")
    elif not _listens(broker.api.address, broker.api.port):
        what = "ovirt-tcp-broker does not run, and until it does no VM starts in a trusted pool"
        tasks.append(f"{what}: {START_BROKER}")
    return tasks


def ways_back(
    journal: Journal, config: EngineConfig, engine: AdminClient
) -> list[tuple[Change, Entry]]:
    """Return the changes of the journal: clusters first, which use policies, then the last one
    first.

    A cluster that got a second policy stands in the journal before that.
    """
    entries = sorted(reversed(journal.entries), key=lambda entry: entry.kind != UsePolicy.kind)
    return [(_change(entry, config, engine), entry) for entry in entries]


def pools_left(engine: AdminClient, pools: Collection[Cluster]) -> str:
    """Return why walls, the broker's role and the engine's configuration cannot be undone yet."""
    names = ", ".join(sorted(cluster.name for cluster in pools))
    kept = "its wall, the broker's role and the engine's configuration stay"
    what = f"Cluster {names} is a trusted pool, so {kept}"
    policy_ids = {cluster.policy_id for cluster in pools}
    # The engine's own policies have our unit only in its memory.
    phantoms = [
        policy.name for policy in engine.policies() if policy.locked and policy.id in policy_ids
    ]
    if phantoms:
        where = "only in the engine's memory, after an edit that it refused"
        why = f"{', '.join(sorted(phantoms))} has {filter_unit.NAME} {where}"
        return f"{what}: {why}. {RESTART}, then run setup --remove again."
    return f"{what}: give it another scheduling policy, then run setup --remove again."


def _pools(engine: AdminClient) -> dict[str, Pool]:
    pools = Pools()
    pools.update(engine.listing())
    return pools.by_cluster


def _change(entry: Entry, config: EngineConfig, engine: AdminClient) -> Change:
    """Return the change that an entry is about. Raises Conflict: a newer release made it."""
    if entry.kind == SetOption.kind:
        return SetOption(config, entry.subject)
    if entry.kind == DefineProperty.kind:
        return DefineProperty(config, entry.subject)
    if entry.kind == MakePolicy.kind:
        return MakePolicy(engine, entry.subject)
    if entry.kind == MakeRole.kind:
        return MakeRole(engine)
    if entry.kind == GrantRole.kind:
        return GrantRole(engine, entry.subject)
    if entry.kind == KnowUnit.kind:
        return KnowUnit(engine)
    if entry.kind == UsePolicy.kind:
        names = {cluster.id: cluster.name for cluster in engine.clusters()}
        return UsePolicy(engine, entry.subject, names.get(entry.subject, entry.subject))
    what = f"the journal has a change of an unknown kind, {entry.kind}"
    raise errors.Conflict(f"{what}: a newer release made it; use that to undo it")


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


def _copy(
    engine: AdminClient, desired: DesiredState, clusters: Collection[Cluster]
) -> tuple[Content, str]:
    """Return the content of the policy to make, and what it comes from, in a few words.

    Raises:
        Conflict: it is not clear which policy to copy, or that one cannot be copied; with what to
            do.
    """
    policy_ids = {policy.name: policy.id for policy in engine.policies()}
    source = desired.copy_from or _source(policy_ids, clusters)
    if source not in policy_ids:
        what = f"there is no scheduling policy {source} to copy"
        raise errors.Conflict(f"{what}: name another one by --copy-policy")
    if policy_ids[source] == CLUSTER_MAINTENANCE:
        what = f"{source} is for clusters that are being upgraded"
        why = "only highly available VMs start with it"
        raise errors.Conflict(f"{what}, and {why}: name another one by --copy-policy")
    unit_id = _unit_id(engine)
    content = for_pool(engine.content(policy_ids[source]), unit_id, desired.scope or Scope.ALL_VMS)
    return content, f"copy of {source}"


def _source(policy_ids: dict[str, str], clusters: Collection[Cluster]) -> str:
    """Return the name of the policy that the clusters have now. Raises Conflict: several."""
    present_ids = {cluster.policy_id for cluster in clusters}
    names = sorted(name for name, policy_id in policy_ids.items() if policy_id in present_ids)
    if len(names) > 1:
        what = f"the clusters have different scheduling policies ({', '.join(names)})"
        step = "say by --copy-policy which one is to be copied, or set them up one by one"
        raise errors.Conflict(f"{what}: {step}")
    return names[0] if names else DEFAULT_SOURCE


def _unit_id(engine: AdminClient) -> str:
    """Return the id of our unit, which `check_unit` has seen."""
    for unit in engine.units():
        if unit.name == filter_unit.NAME and unit.enabled:
            return unit.id
    raise errors.NotFound("filter unit", f"{filter_unit.NAME} at the engine")
