# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the simulated engine knows: its tables, and its audit log.

Names, ids and rules are oVirt's (engine 4.5: `AuditLogType`, `AddExternalEventCommand`, `0000_config.sql`).
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
import time
import uuid
from typing import Any, Optional

# Units of the built-in policies that matter to us, by name: (id, type). Ids are the engine's own.
AFFINITY_UNIT = "VmToHostsAffinityGroups"
INTERNAL_UNITS = {
    AFFINITY_UNIT: ("e69808a9-8a41-40f1-94ba-dd5d385d82d8", "filter"),
    "Memory": ("c9ddbb34-0e1d-4061-a8d7-b0893fa80932", "filter"),
    "CPU": ("6d636bf6-a35c-4f9d-b68d-0731f720cddc", "filter"),
    "Migration": ("e659c871-0bf1-4ccc-b748-f28f5d08ddda", "filter"),
    "VmToHostsAffinityGroupsWeight": ("427aed70-dae3-48ba-8fe9-a902a9d563c8", "weight"),
    "OptimalForCpuEvenDistribution": ("7db4ab05-81ab-42e8-868a-aee2df483edb", "weight"),
    "None": ("38440000-8cf0-14bd-c43e-10b96e4ef00a", "load_balancing"),
}
NONE_POLICY_ID = "b4ed2332-a7ac-4d5f-9596-99a439cb2812"

# Codes of the audit log (AuditLogType).
ENGINE_START, VM_STARTED, VM_DOWN, VM_START_FAILED = 1, 153, 61, 54
MIGRATION_START, MIGRATION_DONE, NO_HOST_TO_MIGRATE_TO = 62, 63, 166
HOST_NOT_RESPONDING, HOST_DETECTED, HOST_IN_MAINTENANCE, HOST_ACTIVATED, HOST_TO_MAINTENANCE = 9027, 13, 15, 16, 600
HA_RESTART_FAILED, SCHEDULER_UNREACHABLE, PLUGIN_ERROR, SCHEDULER_ERROR = 9603, 9920, 10500, 10501
EXTERNAL_EVENT_CODES = {"normal": 9801, "warning": 9802, "error": 9803, "alert": 9804}


class Fault(Exception):
    """What REST answers when it refuses: HTTP status, reason and detail."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason} {detail}")
        self.status, self.reason, self.detail = status, reason, detail


@dataclasses.dataclass
class Host:
    """A host. `powered` is the truth, `status` what the engine believes."""

    id: str
    name: str
    address: str
    cluster: str
    status: str = "up"
    status_detail: str = ""
    powered: bool = True
    due: float = 0.0  # when the status changes next, monotonic seconds


@dataclasses.dataclass
class Vm:
    """A VM. `next_run` holds custom properties that take effect at its next start."""

    id: str
    name: str
    cluster: str
    status: str = "down"
    host: str = ""
    high_availability: bool = False
    custom_properties: dict[str, str] = dataclasses.field(default_factory=dict)
    next_run: Optional[dict[str, str]] = None
    starting: bool = False
    migrating_to: str = ""
    restart: bool = False
    due: float = 0.0


@dataclasses.dataclass
class Cluster:
    """A cluster with its scheduling policy."""

    id: str
    name: str
    policy: str = NONE_POLICY_ID
    properties: dict[str, str] = dataclasses.field(default_factory=dict)
    trusted_service: bool = False
    scheduling: threading.Lock = dataclasses.field(default_factory=threading.Lock)


@dataclasses.dataclass
class Unit:
    """A policy unit; external ones come from discovery."""

    id: str
    name: str
    type: str
    internal: bool = True
    enabled: bool = True
    description: str = ""
    properties: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Policy:
    """A scheduling policy: ids of its units."""

    id: str
    name: str
    locked: bool = False
    properties: dict[str, str] = dataclasses.field(default_factory=dict)
    filters: list[str] = dataclasses.field(default_factory=list)
    weights: list[str] = dataclasses.field(default_factory=list)
    balances: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Rule:
    """One of the two rules of an affinity group."""

    enabled: bool = False
    enforcing: bool = False
    positive: bool = True


@dataclasses.dataclass
class AffinityGroup:
    """An affinity group of a cluster."""

    id: str
    name: str
    cluster: str
    hosts_rule: Rule
    vms_rule: Rule
    hosts: list[str] = dataclasses.field(default_factory=list)
    vms: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Event:
    """A row of the audit log."""

    id: int
    code: int
    severity: str
    description: str
    time: datetime.datetime
    host: str = ""
    vm: str = ""
    cluster: str = ""
    origin: str = "oVirt"
    custom_id: int = -1


@dataclasses.dataclass(frozen=True)
class Timings:
    """How long things take, in seconds."""

    host_initialization: float = 0.5
    event_after_up: float = 0.5  # the host is Up before VDS_DETECTED is logged (InitVdsOnUpCommand)
    not_responding_after: float = 0.5
    vm_start: float = 0.3
    migration: float = 0.5
    enforcer: float = 60.0
    ha_retry: float = 2.0
    external_response: float = 3.0  # ExternalSchedulerResponseTimeout, as installed


class Model:
    """The engine's tables. Everything happens under `lock`, but never a call to another process."""

    def __init__(self, timings: Timings) -> None:
        self.lock = threading.RLock()
        self.timings = timings
        self.hosts: dict[str, Host] = {}
        self.vms: dict[str, Vm] = {}
        self.clusters: dict[str, Cluster] = {}
        self.groups: dict[str, AffinityGroup] = {}
        self.events: list[Event] = []
        self.journal: list[dict[str, Any]] = []
        self.units = {uid: Unit(uid, name, kind) for name, (uid, kind) in INTERNAL_UNITS.items()}
        internal = {kind: [uid for uid, k in INTERNAL_UNITS.values() if k == kind] for kind in ("filter", "weight")}
        none = Policy(NONE_POLICY_ID, "none", True, {}, internal["filter"], internal["weight"])
        none.balances = [INTERNAL_UNITS["None"][0]]
        self.policies = {NONE_POLICY_ID: none}

    def now(self) -> float:
        """Return the engine's clock, in seconds."""
        return time.monotonic()

    def log(self, code: int, description: str, severity: str = "normal", **links: Any) -> Event:
        """Add a row to the audit log."""
        with self.lock:
            row = Event(len(self.events) + 1, code, severity, description, _now(), **links)
            self.events.append(row)
            return row

    def add_external_event(self, description: str, severity: str, origin: str, custom_id: int, links: Any) -> Event:
        """Add an event of somebody else's (AddExternalEventCommand).

        Raises:
            Fault: the origin is the engine's own, or (origin, custom_id) is there already.
        """
        with self.lock:
            if origin.lower() == "ovirt" or severity not in EXTERNAL_EVENT_CODES:
                raise Fault(400, "Operation Failed", "[Origin or severity is not valid]")
            if any(row.origin == origin and row.custom_id == custom_id for row in self.events):
                raise Fault(400, "Operation Failed", "[Cannot add external event: duplicate Custom Id]")
            code = EXTERNAL_EVENT_CODES[severity]
            return self.log(code, description, severity, origin=origin, custom_id=custom_id, **links)

    def find(self, table: str, identifier: str) -> Any:
        """Return a row of `hosts`, `vms`, `clusters`, `groups`, `policies` or `units`. Raises Fault (404)."""
        row = getattr(self, table).get(identifier)
        if row is None:
            raise Fault(404, "Operation Failed", f"[Entity not found: {identifier}]")
        return row

    def vms_on(self, host_id: str) -> list[Vm]:
        """Return the VMs that run on a host."""
        return [vm for vm in self.vms.values() if vm.host == host_id and vm.status != "down"]


def new_id() -> str:
    """Return a fresh UUID as the engine writes them."""
    return str(uuid.uuid4())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
