# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""No number stands for two events, each has a use, and the lab's log has the same numbers."""

from __future__ import annotations

import pytest

from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.engine.events import EngineEvent
from ovirt_tcp_plugin.lab.engine import audit_log

SETS = {name: value for name, value in vars(events).items() if isinstance(value, frozenset)}

# The lab's names, where the broker goes by the event, too.
LAB_NAMES = {
    "ENGINE_START": EngineEvent.VDC_START,
    "ENFORCEMENT_STARTED": EngineEvent.AFFINITY_RULES_ENFORCEMENT_MANAGER_START,
    "VM_ADDED": EngineEvent.USER_ADD_VM,
    "VM_UPDATED": EngineEvent.USER_UPDATE_VM,
    "VM_CLONED": EngineEvent.USER_ADD_VM_FINISHED_SUCCESS,
    "VM_IMPORTED": EngineEvent.VM_IMPORT_FROM_CONFIGURATION_EXECUTED_SUCCESSFULLY,
    "CLUSTER_UPDATED": EngineEvent.USER_UPDATE_CLUSTER,
    "IMPORTED_FROM_TRUSTED": EngineEvent.IMPORTEXPORT_IMPORT_VM_FROM_TRUSTED_TO_UNTRUSTED,
    "IMPORTED_FROM_UNTRUSTED": EngineEvent.IMPORTEXPORT_IMPORT_VM_FROM_UNTRUSTED_TO_TRUSTED,
    "VM_STARTED": EngineEvent.USER_STARTED_VM,
    "MIGRATION_DONE": EngineEvent.VM_MIGRATION_DONE,
    "HOST_DETECTED": EngineEvent.VDS_DETECTED,
    "HOST_IN_MAINTENANCE": EngineEvent.VDS_MAINTENANCE,
    "HOST_ACTIVATED": EngineEvent.VDS_ACTIVATE,
    "HOST_TO_MAINTENANCE": EngineEvent.USER_VDS_MAINTENANCE,
    "HOST_STUCK": EngineEvent.USER_VDS_MAINTENANCE_MIGRATION_FAILED,
    "HOST_CONNECTING": EngineEvent.VDS_HOST_NOT_RESPONDING_CONNECTING,
    "HOST_NOT_RESPONDING": EngineEvent.VDS_HOST_NOT_RESPONDING,
    "HOST_RECOVERS": EngineEvent.VDS_ACTIVATE_ASYNC,
    "HOST_UNTRUSTED": EngineEvent.VDS_UNTRUSTED,
    "GROUP_ADDED": EngineEvent.USER_ADDED_AFFINITY_GROUP,
    "GROUP_UPDATED": EngineEvent.USER_UPDATED_AFFINITY_GROUP,
    "GROUP_REMOVED": EngineEvent.USER_REMOVED_AFFINITY_GROUP,
    "POLICY_ADDED": EngineEvent.USER_ADD_CLUSTER_POLICY,
    "POLICY_UPDATED": EngineEvent.USER_UPDATE_CLUSTER_POLICY,
    "POLICY_REMOVED": EngineEvent.USER_REMOVE_CLUSTER_POLICY,
    "HOST_LACKS_FEATURES": EngineEvent.HOST_FEATURES_INCOMPATIBILE_WITH_CLUSTER,
}


def test_a_number_stands_for_one_event() -> None:
    assert len({int(event) for event in EngineEvent}) == len(EngineEvent.__members__)


def test_every_event_has_a_meaning() -> None:
    assert frozenset().union(*SETS.values()) == set(EngineEvent)


def test_what_means_a_start_a_host_or_an_arrival_means_nothing_else() -> None:
    exclusive = (
        events.ENGINE_STARTED,
        events.ENGINE_ANSWERS_AGAIN,
        events.HOST_LEFT_UP,
        events.HOST_CAME_UP,
        events.VM_ARRIVED,
        events.LISTING_DUE,
        events.VM_CHANGED,
        events.GROUP_EDITED,
    )
    members = [event for meaning in exclusive for event in meaning]
    assert len(members) == len(set(members))


def test_a_warning_is_either_of_trust_lost_or_of_trust_gained() -> None:
    assert not events.TRUST_LOST & events.TRUST_GAINED
    assert all("FROM_TRUSTED_TO_UNTRUSTED" in event.name for event in events.TRUST_LOST)
    assert all("FROM_UNTRUSTED_TO_TRUSTED" in event.name for event in events.TRUST_GAINED)


@pytest.mark.parametrize("name", LAB_NAMES)
def test_the_lab_writes_the_number_that_the_broker_reads(name: str) -> None:
    assert getattr(audit_log, name) == LAB_NAMES[name]


def test_the_lab_has_no_other_name_for_an_event_of_the_brokers() -> None:
    bounds = {"EXTERNAL_FLOOD_S", "MAX_TEXT"}
    known = {int(event) for event in EngineEvent}
    names = set()
    for name, value in vars(audit_log).items():
        if name.isupper() and name not in bounds and isinstance(value, int) and value in known:
            names.add(name)
    assert names == set(LAB_NAMES)
