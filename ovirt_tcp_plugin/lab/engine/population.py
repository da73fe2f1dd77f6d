# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Fills the tables with what a configuration names: users, clusters, hosts and VMs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovirt_tcp_plugin.lab.engine import builtin, model
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.model import (
    EngineUser,
    Model,
    Role,
    SimulatedCluster,
    SimulatedHost,
    SimulatedVm,
)
from ovirt_tcp_plugin.lab.engine.permits import PERMITS

SUPER_USER = "00000000-0000-0000-0000-000000000001"


def fill(tables: Model, config: Config) -> None:
    """Fill the tables of a new engine."""
    _add_builtin_roles(tables)
    _add_users(tables, config.users, {SUPER_USER})
    _add_users(tables, config.directory, set())
    for name in config.clusters:
        _add_cluster(tables, name)
    cluster_ids = {cluster.name: cluster.id for cluster in tables.clusters.values()}
    for description in config.hosts:
        host = _host(description, cluster_ids)
        tables.hosts[host.id] = host
    host_ids = {host.name: host.id for host in tables.hosts.values()}
    for description in config.vms:
        vm = _vm(description, cluster_ids, host_ids)
        tables.vms[vm.id] = vm


def _add_cluster(tables: Model, name: str) -> None:
    cluster = SimulatedCluster(model.new_id(), name)
    cluster.properties = tables.saved_properties(cluster.policy, {})
    tables.clusters[cluster.id] = cluster


def _add_builtin_roles(tables: Model) -> None:
    every_permit = set(PERMITS.values())
    tables.roles[SUPER_USER] = Role(SUPER_USER, "SuperUser", every_permit, mutable=False)
    for uid, name, permits, _ in builtin.EVERYONES_ROLES:
        tables.roles[uid] = Role(uid, name, set(permits), mutable=False)


def _add_users(tables: Model, passwords: Mapping[str, str], roles: set[str]) -> None:
    for name, password in passwords.items():
        user = EngineUser(model.new_id(), name, password, set(roles))
        tables.users[user.id] = user


def _host(description: Mapping[str, Any], cluster_ids: Mapping[str, str]) -> SimulatedHost:
    cluster_id = cluster_ids[description["cluster"]]
    host = SimulatedHost(model.new_id(), description["name"], description["address"], cluster_id)
    host.status = description.get("status", model.UP)
    host.hosted_engine = description.get("hosted_engine", False)
    host.features = set(description.get("features", ()))
    host.hook_directory = description.get("hook_directory", "")
    return host


def _vm(
    description: Mapping[str, Any], cluster_ids: Mapping[str, str], host_ids: Mapping[str, str]
) -> SimulatedVm:
    vm = SimulatedVm(model.new_id(), description["name"], cluster_ids[description["cluster"]])
    for name in ("high_availability", "priority", "origin", "affinity"):
        if name in description:
            setattr(vm, name, description[name])
    vm.custom_properties = dict(description.get("custom_properties", {}))
    vm.pinned_to = tuple(host_ids[name] for name in description.get("pinned_to", ()))
    if description.get("host"):
        vm.host = host_ids[description["host"]]
        vm.status = model.UP
    return vm
