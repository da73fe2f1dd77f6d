# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What setup does, in order: phase 1 on the engine machine, the engine's restart, phase 2 by REST; and the way back."""

from __future__ import annotations

import dataclasses
import datetime
import socket
import urllib.parse
from collections.abc import Callable, Collection, Iterable
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup import options
from ovirt_tcp_plugin.admin.setup.access import GrantRole, MakeRole, find_user, missing_user
from ovirt_tcp_plugin.admin.setup.changes import Act
from ovirt_tcp_plugin.admin.setup.cluster import UsePolicy
from ovirt_tcp_plugin.admin.setup.journal import Entry, Journal, State
from ovirt_tcp_plugin.admin.setup.options import DefineProperty, SetOption
from ovirt_tcp_plugin.admin.setup.scheduling_policy import KnowUnit, MakePolicy
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.engine import filterd_client
from ovirt_tcp_plugin.engine.admin_client import Administration
from ovirt_tcp_plugin.engine.affinity_conflicts import conflicts
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.engine.engine_start import RESTART
from ovirt_tcp_plugin.engine.scheduling_policies import CLUSTER_MAINTENANCE, Content, for_pool
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import UNIT_NAME, Cluster
from ovirt_tcp_plugin.placement.pools import Pool, Pools

# The engine asks while it holds the lock of a cluster; filterd answers from memory. As installed it would wait 120 s.
RESPONSE_TIMEOUT_MS = 3000
DEFAULT_SOURCE = "evenly_distributed"
START_BROKER = "systemctl enable --now ovirt-tcp-broker"
START_FILTERD = "systemctl enable --now ovirt-tcp-filterd.socket ovirt-tcp-filterd.service"

_CONNECT_WITHIN_S = 1.0
# The journal drops what is below a millisecond, so an act may be that much later than it says.
_JOURNAL_STEP = datetime.timedelta(milliseconds=1)
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_PHASE_1 = frozenset({SetOption.kind, DefineProperty.kind})
# What no pool needs to be kept, or what the engine itself keeps as long as a cluster uses it.
POLICY_KINDS = frozenset({UsePolicy.kind, MakePolicy.kind})


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the administrator asked for.

    Attributes:
        ha_retry_s: seconds until a VM that was not restarted often enough is tried again; None leaves it.
        policy: name of the scheduling policy to make.
        copy_from: name of the one that it is a copy of; empty for the clusters' present one.
        scope: who needs trust; None for all VMs, or whom the policy says that is there already.
        clusters: names of the clusters that become trusted pools.
        broker_user: as whom the broker logs in.
    """

    ha_retry_s: Optional[int] = None
    policy: str = "ovirt-tcp"
    copy_from: str = ""
    scope: Optional[Scope] = None
    clusters: tuple[str, ...] = ()
    broker_user: str = ""


def first(config: EngineConfig, wishes: Wishes) -> list[Act]:
    """Return the acts of phase 1."""
    acts: list[Act] = [
        SetOption(config, options.SCHEDULER_ENABLED, "true"),
        SetOption(config, options.SCHEDULER_TIMEOUT, str(RESPONSE_TIMEOUT_MS)),
    ]
    acts += [DefineProperty(config, level) for level in sorted(config.values(options.PROPERTIES))]
    if wishes.ha_retry_s is not None:
        acts.append(SetOption(config, options.HA_RETRY, str(wishes.ha_retry_s)))
    return acts


def check_filterd(config: EngineConfig) -> None:
    """See that filterd answers where the engine will ask. Raises Conflict with what to do."""
    url = config.value(options.SCHEDULER_URL)
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 80
    except ValueError as e:
        raise errors.Conflict(f"{options.SCHEDULER_URL} is {url}, which is no address: {e}") from e
    if parts.hostname not in _HERE:
        what = f"{options.SCHEDULER_URL} is {url}, another external scheduler's, and the engine asks only one"
        raise errors.Conflict(f"{what}: ovirt-tcp-filterd answers at http://localhost:18781/")
    try:
        found = filterd_client.discover(parts.hostname, port).get("filters", ())
    except errors.Unavailable as e:
        what = f"ovirt-tcp-filterd does not answer at {url} ({e.reason}): {START_FILTERD}, then run setup again"
        raise errors.Conflict(f"{what}. Do not restart the engine before: it looks for filterd only at its start") from e
    if UNIT_NAME not in found:
        raise errors.Conflict(f"another external scheduler answers at {url}: the engine asks only one, stop that or this")


def check_start(journal: Journal, started: Callable[[], datetime.datetime], dry_run: bool) -> None:
    """See that the engine started after the last act of phase 1. Raises Conflict with what to do.

    Both times are of this machine's clock. Where they show that it was set back in between, only
    another start counts.

    Args:
        started: returns when the engine started; raises Conflict.
        dry_run: whether the journal stays as it is.
    """
    acts = [entry for entry in journal.entries if entry.kind in _PHASE_1]
    if not acts:
        return
    changed = max(datetime.datetime.fromisoformat(entry.at) for entry in acts)
    engine_start = started()
    now = datetime.datetime.now(datetime.timezone.utc)
    again = f"{RESTART}, then run setup again"
    if changed > now:
        if not dry_run:
            journal.redate(_PHASE_1)
        clock = "the clock of this machine was set back since phase 1"
        raise errors.Conflict(f"{clock}: once more {again}")
    if engine_start > now:
        clock = "the clock of this machine was set back since the engine started"
        raise errors.Conflict(f"{clock}: {again}")
    if engine_start < changed + _JOURNAL_STEP:
        raise errors.Conflict(f"the engine has not been started since phase 1: {again}")


def check_unit(engine: Administration) -> None:
    """See that the engine has found our unit. Raises Conflict with what to do."""
    units = [one for one in engine.units() if one.name == UNIT_NAME]
    if not any(one.enabled for one in units):
        what = "disabled" if units else "did not find"
        why = f"the engine {what} the filter unit {UNIT_NAME} at its start: filterd did not answer then"
        raise errors.Conflict(f"{why}. It answers now: {RESTART}, then run setup again")


def note_unit(engine: Administration, journal: Journal) -> None:
    """Have the journal know the unit, if the engine could find it only because of phase 1."""
    enabled = journal.entry(SetOption.kind, options.SCHEDULER_ENABLED)
    unit = KnowUnit(engine)
    known = journal.entry(unit.kind, unit.subject)
    noted = known is not None and known.state is not State.INTENDED
    if enabled is not None and enabled.before.lower() != "true" and not noted:
        there = unit.look(None)
        journal.intend(unit.kind, unit.subject, None, there)
        journal.done(unit.kind, unit.subject, there)


def second(engine: Administration, wishes: Wishes) -> list[Act]:
    """Return the acts of phase 2. Raises NotFound when there is no such cluster."""
    known = {one.name: one for one in engine.clusters()}
    for name in wishes.clusters:
        if name not in known:
            raise errors.NotFound("cluster", f"{name} at the engine")
    clusters = [known[name] for name in wishes.clusters]
    check_upgrades(clusters, "setup")
    acts: list[Act] = [
        MakePolicy(engine, wishes.policy, lambda: _copy(engine, wishes, clusters)),
        MakeRole(engine),
    ]
    if find_user(engine, wishes.broker_user) is not None:
        acts.append(GrantRole(engine, wishes.broker_user))
    return acts + [UsePolicy(engine, one.id, one.name, wishes.policy, wishes.scope) for one in clusters]


def check_upgrades(clusters: Iterable[Cluster], command: str) -> None:
    """See that none of these clusters is being upgraded. Raises Conflict with what to do.

    Meanwhile it has a scheduling policy that is neither to be copied nor to be come back to.
    """
    names = [cluster.name for cluster in clusters if cluster.policy_id == CLUSTER_MAINTENANCE]
    if names:
        policy = "its scheduling policy is cluster_maintenance"
        what = f"cluster {', '.join(names)} is being upgraded: {policy}"
        raise errors.Conflict(f"{what}. Wait until the upgrade has ended, then run {command} again")


def left_to_do(engine: Administration, wishes: Wishes, broker: Settings) -> list[str]:
    """Return what setup cannot do, or may not."""
    listing = engine.listing()
    pools = _pools(engine)
    told = [one.text for one in conflicts(pools, listing.vms, engine.forbidding_groups(pools), broker.pools.exempt_vms)]
    if find_user(engine, wishes.broker_user) is None:
        told.append(missing_user(wishes.broker_user))
    if not pools:
        told.append(f"no cluster is a trusted pool yet: ovirt-tcp setup --policy {wishes.policy} --cluster NAME")
    elif not _listens(broker.api.address, broker.api.port):
        told.append(f"ovirt-tcp-broker does not run, and until it does no VM starts in a trusted pool: {START_BROKER}")
    return told


def ways_back(journal: Journal, config: EngineConfig, engine: Administration) -> list[tuple[Act, Entry]]:
    """Return the acts of the journal: clusters first, which use policies, then the last one first.

    A cluster that got a second policy stands in the journal before that.
    """
    entries = sorted(reversed(journal.entries), key=lambda entry: entry.kind != UsePolicy.kind)
    return [(_act(entry, config, engine), entry) for entry in entries]


def pools_left(engine: Administration, pools: Collection[Cluster]) -> str:
    """Return why walls, the broker's role and the engine's configuration cannot be undone yet."""
    names = ", ".join(sorted(cluster.name for cluster in pools))
    locked = {policy.id: policy.name for policy in engine.policies() if policy.locked}
    used = {cluster.policy_id for cluster in pools}
    phantoms = sorted(name for policy_id, name in locked.items() if policy_id in used)
    kept = "its wall, the broker's role and the engine's configuration stay"
    what = f"Cluster {names} is a trusted pool, so {kept}"
    if phantoms:
        memory = f"has {UNIT_NAME} only in the engine's memory, after an edit that it refused"
        cure = f"{RESTART}, then run setup --remove again."
        return f"{what}: {', '.join(phantoms)} {memory}. {cure}"
    return f"{what}: give it another scheduling policy, then run setup --remove again."


def _pools(engine: Administration) -> dict[str, Pool]:
    pools = Pools()
    pools.update(engine.listing())
    return pools.by_cluster


def _act(entry: Entry, config: EngineConfig, engine: Administration) -> Act:
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
        names = {one.id: one.name for one in engine.clusters()}
        return UsePolicy(engine, entry.subject, names.get(entry.subject, entry.subject))
    raise errors.Conflict(f"the journal has an act of an unknown kind, {entry.kind}: a newer release made it")


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


def _copy(engine: Administration, wishes: Wishes, clusters: Collection[Cluster]) -> tuple[Content, str]:
    """Return the content of the policy to make, and the name of its source. Raises Conflict when that is not clear."""
    named = {one.name: one.id for one in engine.policies()}
    present = sorted({name for name, uid in named.items() for cluster in clusters if cluster.policy_id == uid})
    if len(present) > 1 and not wishes.copy_from:
        what = f"the clusters have different scheduling policies ({', '.join(present)})"
        raise errors.Conflict(f"{what}: say by --copy-policy which one is to be copied, or set them up one by one")
    source = wishes.copy_from or (present[0] if present else DEFAULT_SOURCE)
    if source not in named:
        raise errors.Conflict(f"there is no scheduling policy {source} to copy: name another one by --copy-policy")
    if named[source] == CLUSTER_MAINTENANCE:
        what = f"{source} is for clusters that are being upgraded"
        why = "only highly available VMs start with it"
        raise errors.Conflict(f"{what}, and {why}: name another one by --copy-policy")
    unit = next(one.id for one in engine.units() if one.name == UNIT_NAME and one.enabled)
    return for_pool(engine.content(named[source]), unit, wishes.scope or Scope.ALL_VMS), f"copy of {source}"
