# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker knows, as JSON objects for `ovirt-tcp` and other programs. Pure."""

from __future__ import annotations

from typing import Any

from ovirt_tcp_plugin.broker.state.readout import HostState, PoolState


def describe_host(state: HostState) -> dict[str, Any]:
    """Return a host."""
    host = state.host
    verdict = state.verdict
    ended = verdict.level is not state.level
    return {
        "id": host.id,
        "name": host.name,
        "verifier_name": state.verifier_name,
        "status": host.status,
        "level": state.level.value,
        "code": "verdict_ended" if ended else verdict.code,
        "reason": "the last verdict ended" if ended else verdict.reason,
        "age_ms": max(state.now_ms - verdict.born_ms, 0),
        "ends_in_ms": verdict.end_ms - state.now_ms if state.trusted else None,
        "boot_id": verdict.boot_id,
        "last_failure": state.last_failure,
        "inside_wall": state.inside_wall,
        "stays_inside": state.stays_inside,
        "quarantined": state.quarantined,
    }


def describe_pool(state: PoolState) -> dict[str, Any]:
    """Return a pool."""
    return {
        "cluster_id": state.pool.cluster_id,
        "name": state.pool.name,
        "scope": state.pool.scope.value,
        "policy": state.pool.policy,
        "policy_state": state.pool.policy_state.value,
        "hosts_inside": list(state.hosts_inside),
        "vms_inside": state.vms_inside,
        "observation": state.observation,
        "guard_tripped": state.guard_tripped,
        "held": list(state.held),
    }
