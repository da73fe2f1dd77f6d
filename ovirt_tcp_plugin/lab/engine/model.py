# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the simulated engine knows: its tables.

Names, ids and rules are oVirt's (engine 4.5: `VDSStatus`, `VMStatus`, `0000_config.sql`).
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional, TypeVar, Union

from ovirt_tcp_plugin.lab.engine import builtin
from ovirt_tcp_plugin.lab.engine.audit_log import ACTING, AuditEvent, AuditLog
from ovirt_tcp_plugin.lab.engine.clock import EngineClock
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.faults import Faults
from ovirt_tcp_plugin.lab.engine.options import LEVEL

# Statuses of hosts; VMs have the first two, too.
UP = "up"
DOWN = "down"
PREPARING = "preparing_for_maintenance"
MAINTENANCE = "maintenance"
CONNECTING = "connecting"
NON_RESPONSIVE = "non_responsive"
NON_OPERATIONAL = "non_operational"
# Statuses in which a VM occupies no host.
NOT_RUNNING = frozenset({DOWN, "suspended"})


@dataclasses.dataclass
class SimulatedHost:
    """A host. `powered` and `boots` are the truth, `status` what the engine believes.

    Attributes:
        external_status: ok, or what an external event set; anything else switches fencing off.
        features: additional cluster features that the host reports.
        hooks: VDSM hooks that it reports: (event, name) -> checksum.
        hosted_engine: whether the VM that carries the engine can run here.
        hook_directory: the VDSM hooks that really run there, empty for none.
        next_step_at: when its initialization or its grace period ends, or its VMs are asked to move
            away again; on the engine's clock.
    """

    id: str
    name: str
    address: str
    cluster: str
    status: str = UP
    status_detail: str = ""
    external_status: str = "ok"
    features: set[str] = dataclasses.field(default_factory=set)
    hooks: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    hosted_engine: bool = False
    hook_directory: str = ""
    powered: bool = True
    boots: int = 0
    next_step_at: float = 0.0


@dataclasses.dataclass
class SimulatedVm:
    """A VM.

    Attributes:
        next_run: custom properties that take effect at its next start.
        run_once: custom properties of this run only; REST does not show them.
        affinity: migratable, user_migratable or pinned; `pinned_to` are the host ids of the
            placement policy.
        fqdn, ips: what its guest agent reports.
        boots: its host's count of boots when it was started there: another count means that it died
            with its host.
        tried: hosts on which this start or migration failed already.
        restart: it is down by no user's will and highly available; `tries` counts the restarts,
            `retry_at` is the next.
        change_ends_at: when its start, suspension or migration ends, on the engine's clock.
    """

    id: str
    name: str
    cluster: str
    status: str = DOWN
    host: str = ""
    high_availability: bool = False
    priority: int = 1
    origin: str = "ovirt"
    custom_properties: dict[str, str] = dataclasses.field(default_factory=dict)
    next_run: Optional[dict[str, str]] = None
    run_once: Optional[dict[str, str]] = None
    affinity: str = "migratable"
    pinned_to: tuple[str, ...] = ()
    fqdn: str = ""
    ips: tuple[str, ...] = ()
    boots: int = 0
    busy: bool = False
    migrating_to: str = ""
    tried: list[str] = dataclasses.field(default_factory=list)
    restart: bool = False
    tries: int = 0
    retry_at: float = 0.0
    change_ends_at: float = 0.0

    @property
    def hosted_engine(self) -> bool:
        """Whether it carries the engine itself."""
        return self.origin in ("hosted_engine", "managed_hosted_engine")

    @property
    def pinned(self) -> bool:
        """Whether it cannot leave its host."""
        return self.affinity == "pinned"

    @property
    def running_properties(self) -> Mapping[str, str]:
        """The custom properties that its hosts are told of."""
        return self.custom_properties if self.run_once is None else self.run_once


@dataclasses.dataclass
class SimulatedCluster:
    """A cluster with its scheduling policy.

    Attributes:
        level: compatibility version.
        features: the additional features that its hosts must have.
    """

    id: str
    name: str
    policy: str = builtin.NONE_POLICY
    properties: dict[str, str] = dataclasses.field(default_factory=dict)
    trusted_service: bool = False
    level: str = LEVEL
    features: list[str] = dataclasses.field(default_factory=list)
    scheduling: threading.Lock = dataclasses.field(default_factory=threading.Lock)


@dataclasses.dataclass
class PolicyUnit:
    """A policy unit; external ones come from discovery.

    Attributes:
        enabled: in the scheduler's memory, which is what it obeys and what REST shows.
        saved: in the database's row, as other transactions see it.
    """

    id: str
    name: str
    type: str
    internal: bool = True
    enabled: bool = True
    saved: bool = True
    description: str = ""
    properties: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class SchedulingPolicy:
    """A scheduling policy: ids of its units.

    It is what the engine has in memory, which its database agrees to until an edit is refused.

    Attributes:
        numbers: positions of filters and factors of weights, by unit id.
    """

    id: str
    name: str
    description: str = ""
    locked: bool = False
    properties: dict[str, str] = dataclasses.field(default_factory=dict)
    filters: list[str] = dataclasses.field(default_factory=list)
    weights: list[str] = dataclasses.field(default_factory=list)
    balances: list[str] = dataclasses.field(default_factory=list)
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)

    def units(self) -> list[str]:
        """Return the ids of all its units."""
        return [*self.filters, *self.weights, *self.balances]


@dataclasses.dataclass
class Rule:
    """One of the two rules of an affinity group."""

    enabled: bool = False
    enforcing: bool = False
    positive: bool = True


@dataclasses.dataclass
class AffinityLabel:
    """A label with the ids of the hosts and VMs that bear it."""

    id: str
    name: str
    hosts: list[str] = dataclasses.field(default_factory=list)
    vms: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class AffinityGroup:
    """An affinity group of a cluster. Whoever bears one of its labels is a member, too."""

    id: str
    name: str
    cluster: str
    hosts_rule: Rule
    vms_rule: Rule
    hosts: list[str] = dataclasses.field(default_factory=list)
    vms: list[str] = dataclasses.field(default_factory=list)
    host_labels: list[str] = dataclasses.field(default_factory=list)
    vm_labels: list[str] = dataclasses.field(default_factory=list)
    description: str = ""


@dataclasses.dataclass
class Role:
    """A role: names of permits."""

    id: str
    name: str
    permits: set[str]
    mutable: bool = True
    description: str = ""


@dataclasses.dataclass
class EngineUser:
    """A user with the ids of the roles that it has on the whole system."""

    id: str
    name: str
    password: str
    roles: set[str] = dataclasses.field(default_factory=set)

    @property
    def qualified_name(self) -> str:
        """Its name with the provider of authorization: admin@internal is admin@internal-authz."""
        return f"{self.name}-authz"


@dataclasses.dataclass(frozen=True)
class Timings:
    """How long things take, in seconds.

    First what the world takes, then the engine's own settings with their defaults.
    """

    host_initialization: float = 0.5
    event_after_up: float = 0.5  # the host is Up before VDS_DETECTED is logged (InitVdsOnUpCommand)
    not_responding_after: float = 0.5
    vm_start: float = 0.3
    vm_suspend: float = 0.3
    migration: float = 0.5
    restart: float = 1.0  # the engine is away

    external_response: float = 3.0  # ExternalSchedulerResponseTimeout, as installed
    evacuation_retry: float = 300.0  # HostPreparingForMaintenanceIdleTime
    ha_retry: float = 30.0  # RetryToRunAutoStartVmShortIntervalInSeconds
    ha_long_retry: float = 1800.0  # RetryToRunAutoStartVmLongIntervalInSeconds
    ha_short_tries: int = 10  # NumOfTriesToRunFailedAutoStartVmInShortIntervals
    enforcer: float = 60.0  # AffinityRulesEnforcementManagerRegularInterval
    balancing: float = 60.0  # VdsLoadBalancingIntervalInMinutes
    auto_recovery: float = 300.0  # AutoRecoverySchedule
    session_idle: float = 1800.0  # UserSessionTimeOutInterval
    refused_log_in: float = 0.0  # a real one answers after 5 s
    locked_account: float = 3600.0  # of aaa-jdbc, after MAX_FAILURES_SINCE_SUCCESS refused log-ins
    # ENGINE_INTERVAL_IN_SECONDS of ovirt-engine-notifier (300), 0 if that is not installed.
    notifier: float = 0.0


Row = TypeVar("Row")


class Table(dict[str, Row]):
    """Rows by id."""

    def find(self, uid: str) -> Row:
        """Return a row. Raises Fault (404)."""
        row = self.get(uid)
        if row is None:
            raise Fault(404, "Operation Failed", f"[Entity not found: {uid}]")
        return row


InCluster = TypeVar("InCluster", bound="Union[SimulatedHost, SimulatedVm]")


class ByCluster(Table[InCluster]):
    """Rows by id, and by their cluster: large engines have many.

    A row that changes its cluster is taken out and put in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of: dict[str, dict[str, InCluster]] = {}

    def __setitem__(self, uid: str, row: InCluster) -> None:
        if uid in self:
            del self[uid]
        super().__setitem__(uid, row)
        self._of.setdefault(row.cluster, {})[uid] = row

    def __delitem__(self, uid: str) -> None:
        del self._of[self[uid].cluster][uid]
        super().__delitem__(uid)

    def of(self, cluster: str) -> Collection[InCluster]:
        """Return the rows of a cluster."""
        return self._of.get(cluster, {}).values()


class Model:
    """The engine's tables. Everything happens under `lock`, but never a call to another process."""

    def __init__(self, timings: Timings, clock: EngineClock, faults: Faults) -> None:
        self.lock = threading.RLock()
        self.timings = timings
        self.clock = clock
        self.faults = faults
        self.hosts: ByCluster[SimulatedHost] = ByCluster()
        self.vms: ByCluster[SimulatedVm] = ByCluster()
        self.clusters: Table[SimulatedCluster] = Table()
        self.groups: Table[AffinityGroup] = Table()
        self.labels: Table[AffinityLabel] = Table()
        self.roles: Table[Role] = Table()
        self.users: Table[EngineUser] = Table()
        self.audit_log = AuditLog(clock, faults)
        self.journal: list[dict[str, Any]] = []
        self.units = _builtin_units()
        self.policies = _builtin_policies()
        # The database's rows of those policies that a refused edit left otherwise in memory, by id.
        self.unspoiled_policies: dict[str, SchedulingPolicy] = {}

    @property
    def events(self) -> Sequence[AuditEvent]:
        """The rows of the audit log, oldest first."""
        return self.audit_log.rows

    def now(self) -> float:
        """Return the engine's clock, in seconds."""
        return self.clock.now()

    def log(self, code: int, description: str, severity: str = "normal", **links: str) -> None:
        """Add a row to the audit log."""
        with self.lock:
            self.audit_log.write(code, description, severity, **links)

    def vms_on(self, host_id: str) -> list[SimulatedVm]:
        """Return the VMs that run on a host."""
        host = self.hosts.get(host_id)
        if host is None:
            return []
        vms = self.vms.of(host.cluster)
        return [vm for vm in vms if vm.host == host_id and vm.status not in NOT_RUNNING]

    def up_hosts(self, cluster: str) -> list[SimulatedHost]:
        """Return the hosts of a cluster that are Up."""
        return [host for host in self.hosts.of(cluster) if host.status == UP]

    def acting_name(self) -> str:
        """Return whose request this thread works on, as events name him."""
        user = self.users.get(ACTING.get()[0])
        return "SYSTEM" if user is None else user.qualified_name

    def permits(self, user: EngineUser) -> set[str]:
        """Return what a user may do."""
        permits: set[str] = set()
        for role_id in user.roles:
            permits |= self.roles[role_id].permits
        return permits

    def understood(self, policy: SchedulingPolicy) -> dict[str, str]:
        """Return the properties that the units of a policy understand.

        By name: the regular expression of their whole value.
        """
        known: dict[str, str] = {}
        for uid in policy.units():
            unit = self.units.get(uid)
            if unit is not None:
                known |= unit.properties
        return known

    def saved_properties(self, policy_id: str, values: Mapping[str, str]) -> dict[str, str]:
        """Return the properties of a cluster as it is saved.

        What it has stays, the policy's own fill in the rest, and what no unit of the policy
        understands is dropped. A later edit of the policy does not reach the cluster
        (`ClusterOperationCommandBase.updateClusterPolicyProperties`).
        """
        policy = self.policies[policy_id]
        known = self.understood(policy)
        merged = {**policy.properties, **values}
        return {name: value for name, value in merged.items() if name in known}

    def members(self, group: AffinityGroup) -> tuple[set[str], set[str]]:
        """Return the ids of a group's hosts and VMs, those of its labels among them."""
        hosts = set(group.hosts)
        vms = set(group.vms)
        for label_id in group.host_labels:
            if label_id in self.labels:
                hosts.update(self.labels[label_id].hosts)
        for label_id in group.vm_labels:
            if label_id in self.labels:
                vms.update(self.labels[label_id].vms)
        return hosts, vms


def _builtin_units() -> Table[PolicyUnit]:
    units: Table[PolicyUnit] = Table()
    for uid, name, kind in builtin.UNITS:
        properties = dict(builtin.PARAMETERS.get(uid, {}))
        units[uid] = PolicyUnit(uid, name, kind, properties=properties)
    return units


def _builtin_policies() -> Table[SchedulingPolicy]:
    policies: Table[SchedulingPolicy] = Table()
    for uid, name, filters, factors, balance, properties in builtin.POLICIES:
        policy = SchedulingPolicy(uid, name, locked=True, properties=dict(properties))
        policy.filters = list(filters)
        policy.weights = list(factors)
        policy.balances = [balance]
        for unit_id in filters:
            policy.numbers[unit_id] = builtin.POSITIONS.get(unit_id, 0)
        policy.numbers |= factors
        policies[uid] = policy
    return policies


def new_id() -> str:
    """Return a fresh UUID as the engine writes them."""
    return str(uuid.uuid4())
