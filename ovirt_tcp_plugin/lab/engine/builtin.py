# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What every engine is born with: policy units and scheduling policies.

Sources: `InternalPolicyUnits`, `InternalClusterPolicies`. Ids and names are the engine's own. Only
the units that do something here are known to `scheduling` and `rounds`.
"""

from __future__ import annotations

# Filters of every policy that an engine is born with, by name: id.
FILTERS = {
    "CPU": "6d636bf6-a35c-4f9d-b68d-0731f720cddc",
    "CPUOverloaded": "98842bc5-4094-4b83-8224-7b50f86a94c9",
    "Emulated-Machine": "58894b5b-d55d-4f85-8f82-5bf217e640b0",
    "HA": "e659c871-0bf1-4ccc-b748-f28f5d08dffd",
    "Swap": "43b9e654-337f-4b0d-a896-cbb22ce5a7fc",
    "Memory": "c9ddbb34-0e1d-4061-a8d7-b0893fa80932",
    "NUMA": "fcbfe4b1-b83e-4428-b9d3-b3d348b93be6",
    "HugePages": "23e07b34-66dd-4735-bc45-bcddded02c05",
    "Migration": "e659c871-0bf1-4ccc-b748-f28f5d08ddda",
    "VmAffinityGroups": "84e6ddee-ab0d-42dd-82f0-c297779db566",
    "VmToHostsAffinityGroups": "e69808a9-8a41-40f1-94ba-dd5d385d82d8",
    "Network": "72163d1c-9468-4480-99d9-0888664eb143",
    "HostedEngineSpares": "53bff075-8306-446f-a53b-9c872a29d197",
    "Migration-Tsc-Frequency": "47ea3cd0-8a2f-438d-9f63-49534178882a",
    "Host-hooks": "aae8c702-4756-4934-b84c-8daf59efc134",
}
AFFINITY_FILTER = FILTERS["VmToHostsAffinityGroups"]
MEMORY_FILTER = FILTERS["Memory"]
# PinToHost and its like run in every policy and can be put into none, so they have no row here.
_MAINTENANCE_FILTER = {"ClusterInMaintenance": "0bd8fef9-bcb4-4250-9998-410f01608d9b"}
_UPGRADE_FILTER = {"InClusterUpgrade": "84e6ddee-ab0d-42dd-82f0-c298889db567"}
# The filters that each policy runs first and last: -1 and 1.
POSITIONS = {
    FILTERS["CPU"]: -1,
    _MAINTENANCE_FILTER["ClusterInMaintenance"]: -1,
    FILTERS["Host-hooks"]: 1,
}
CLUSTER_MAINTENANCE_FILTER = _MAINTENANCE_FILTER["ClusterInMaintenance"]

# Weights by name: id.
_CPU_EVEN = "7db4ab05-81ab-42e8-868a-aee2df483edb"
_MEMORY_EVEN = "4134247a-9c58-4b9a-8593-530bb9e37c59"
_CPU_SAVING = "736999d0-1023-46a4-9a75-1316ed50e15b"
_MEMORY_SAVING = "9dfe6086-646d-43b8-8eef-4d94de8472c8"
_GUESTS_EVEN = "3ba8c988-f779-42c0-90ce-caa8243edee7"
_WEIGHTS = {
    "OptimalForCpuEvenDistribution": _CPU_EVEN,
    "OptimalForMemoryEvenDistribution": _MEMORY_EVEN,
    "OptimalForCpuPowerSaving": _CPU_SAVING,
    "OptimalForMemoryPowerSaving": _MEMORY_SAVING,
    "OptimalForEvenGuestDistribution": _GUESTS_EVEN,
    "PreferredHosts": "591cdb81-ba67-45b4-9642-e28f61a97d57",
    "HA": "98e92667-6161-41fb-b3fa-34f820ccbc4b",
    "OptimalForHaReservation": "7f262d70-6cac-11e3-981f-0800200c9a66",
    "VmAffinityGroups": "84e6ddee-ab0d-42dd-82f0-c297779db567",
    "VmToHostsAffinityGroups": "427aed70-dae3-48ba-8fe9-a902a9d563c8",
    "CPU for high performance VMs": "71931e14-f0e6-4f91-a7c8-d494a26e3a09",
    "CPU and NUMA pinning compatibility": "1b14ac11-20e9-4593-a149-2eb83c60a330",
    "Fit VM to single host NUMA node": "f58c1cb9-d91f-48a6-a196-c6d22fb10c4e",
    "InClusterUpgrade": "84e6ddee-ab0d-42dd-82f0-c298889db568",
}
_COMMON_WEIGHTS = {
    _WEIGHTS["PreferredHosts"]: 99,
    _WEIGHTS["HA"]: 1,
    _WEIGHTS["OptimalForHaReservation"]: 1,
    _WEIGHTS["VmAffinityGroups"]: 1,
    _WEIGHTS["VmToHostsAffinityGroups"]: 20,
    _WEIGHTS["CPU for high performance VMs"]: 4,
    _WEIGHTS["CPU and NUMA pinning compatibility"]: 5,
}

# Balances by name: id.
_BALANCES = {
    "None": "38440000-8cf0-14bd-c43e-10b96e4ef00a",
    "OptimalForEvenDistribution": "7db4ab05-81ab-42e8-868a-aee2df483ed2",
    "OptimalForEvenGuestDistribution": "d58c8e32-44e1-418f-9222-52cd887bf9e0",
    "OptimalForPowerSaving": "736999d0-1023-46a4-9a75-1316ed50e151",
}
NO_BALANCE = _BALANCES["None"]
GUEST_BALANCE = _BALANCES["OptimalForEvenGuestDistribution"]

# Selectors by name: id. REST has no word for their type.
_SELECTORS = {
    "BasicWeighting": "0c89f215-9c4f-4bbb-8419-31a2d43ae7ea",
    "RankSelector": "b280e7de-5df8-401e-b004-a1414d79a687",
}


def _units(ids_by_name: dict[str, str], kind: str) -> list[tuple[str, str, str]]:
    return [(uid, name, kind) for name, uid in ids_by_name.items()]


# (id, name, type)
UNITS = [
    *_units(FILTERS, "filter"),
    *_units(_MAINTENANCE_FILTER, "filter"),
    *_units(_UPGRADE_FILTER, "filter"),
    *_units(_WEIGHTS, "weight"),
    *_units(_BALANCES, "load_balancing"),
    *_units(_SELECTORS, ""),
]

# The group of all users, and what everybody has by it: id of a role, its name and permits, and the
# template that it is for, empty where REST shows none (`00600_insert_permissions.sql`).
EVERYONE = "eee00000-0000-0000-0000-123456789eee"
BLANK_TEMPLATE = "00000000-0000-0000-0000-000000000000"
EVERYONES_ROLES = [
    (
        "def00009-0000-0000-0000-def000000009",
        "UserTemplateBasedVm",
        ("create_vm", "assign_cpu_profile"),
        BLANK_TEMPLATE,
    ),
    ("def00017-0000-0000-0000-def000000017", "CpuProfileOperator", ("assign_cpu_profile",), ""),
    ("def00021-0000-0000-0000-def000000015", "UserProfileEditor", ("edit_profile",), ""),
]
# What `permissions` has of them: those on the whole system.
ON_THE_SYSTEM = "UserProfileEditor"

_UTILIZATION = {"HighUtilization": "^([5-9][0-9])$"}
_MINUTES = {"CpuOverCommitDurationMinutes": "^([1-9][0-9]*)$"}
_RATIO = {"VCpuToPhysicalCpuRatio": r"^([0-2](\.([0-9]+))?)$"}
_MEMORY = {
    "MaxFreeMemoryForOverUtilized": "^([1-9][0-9]*)$",
    "MinFreeMemoryForUnderUtilized": "^([1-9][0-9]*)$",
}
_GRACE = {"SpmVmGrace": "^([0-9]|[1-9][0-9]+)$"}
# Properties that a unit understands, by its id: name and regular expression of the whole value
# (`PolicyUnitParameter`).
PARAMETERS = {
    FILTERS["CPUOverloaded"]: {**_UTILIZATION, **_MINUTES},
    FILTERS["Swap"]: {"MaximumAllowedSwapUsage": "^1?[0-9]?[0-9]$"},
    FILTERS["HostedEngineSpares"]: {"HeSparesCount": "^([0-9][0-9]*)$"},
    _CPU_EVEN: _RATIO,
    _CPU_SAVING: _UTILIZATION,
    _MEMORY_SAVING: _MEMORY,
    _GUESTS_EVEN: _GRACE,
    _WEIGHTS["OptimalForHaReservation"]: {"ScaleDown": "(100|[1-9]|[1-9][0-9])$"},
    _BALANCES["OptimalForEvenDistribution"]: {**_UTILIZATION, **_MEMORY, **_MINUTES, **_RATIO},
    _BALANCES["OptimalForPowerSaving"]: {
        **_UTILIZATION,
        **_MEMORY,
        **_MINUTES,
        "LowUtilization": "^([0-9]|[1-4][0-9])$",
        "EnableAutomaticHostPowerManagement": "^(true|false)$",
        "HostsInReserve": "^[0-9][0-9]*$",
    },
    GUEST_BALANCE: {
        **_GRACE,
        "HighVmCount": "^([0-9]|[1-9][0-9]+)$",
        "MigrationThreshold": "^([2-9]|[1-9][0-9]+)$",
    },
}

NONE_POLICY = "b4ed2332-a7ac-4d5f-9596-99a439cb2812"
_OVERLOAD = {"CpuOverCommitDurationMinutes": "2", "HighUtilization": "80"}
_USUAL = list(FILTERS.values())
_EVEN = {_CPU_EVEN: 2, _MEMORY_EVEN: 1, **_COMMON_WEIGHTS}
# (id, name, filters, factor by weight, balance, properties)
POLICIES = [
    (NONE_POLICY, "none", _USUAL, _EVEN, NO_BALANCE, _OVERLOAD),
    (
        "7677771e-5eab-422e-83fa-dc04080d21b7",
        "cluster_maintenance",
        [CLUSTER_MAINTENANCE_FILTER, *_USUAL],
        _EVEN,
        NO_BALANCE,
        _OVERLOAD,
    ),
    (
        "20d25257-b4bd-4589-92a6-c4c5c5d3fd1a",
        "evenly_distributed",
        _USUAL,
        _EVEN,
        _BALANCES["OptimalForEvenDistribution"],
        {"HeSparesCount": "0", **_OVERLOAD, "VCpuToPhysicalCpuRatio": "0"},
    ),
    (
        "5a2b0939-7d46-4b73-a469-e9c2c7fc6a53",
        "power_saving",
        _USUAL,
        {_CPU_SAVING: 2, _MEMORY_SAVING: 1, **_COMMON_WEIGHTS},
        _BALANCES["OptimalForPowerSaving"],
        {"HeSparesCount": "0", **_OVERLOAD, "LowUtilization": "20"},
    ),
    (
        "8d5d7bec-68de-4a67-b53e-0ac54686d579",
        "vm_evenly_distributed",
        _USUAL,
        {_GUESTS_EVEN: 2, **_COMMON_WEIGHTS},
        GUEST_BALANCE,
        {
            "HeSparesCount": "0",
            **_OVERLOAD,
            "HighVmCount": "10",
            "MigrationThreshold": "5",
            "SpmVmGrace": "5",
        },
    ),
]
