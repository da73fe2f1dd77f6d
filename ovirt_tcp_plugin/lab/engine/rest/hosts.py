# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts: lists, actions, and what they report of their VDSM hooks."""

from __future__ import annotations

import operator
from collections.abc import Callable

from ovirt_tcp_plugin.lab.engine.documents import actions, inventory
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import invalid
from ovirt_tcp_plugin.lab.engine.hosts import HostLifecycle
from ovirt_tcp_plugin.lab.engine.model import NOT_RUNNING, Model, SimulatedHost, SimulatedVm
from ovirt_tcp_plugin.lab.engine.rest import search
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes, all_content
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling
from ovirt_tcp_plugin.lab.engine.xml_text import Element

_FIELDS: dict[str, Callable[[SimulatedHost], object]] = {
    name: operator.attrgetter(name)
    for name in ("id", "name", "address", "status", "external_status")
}
# How messages name an action.
_ACTIONS = {"activate": "activate", "deactivate": "maintenance", "refresh": "refresh"}


class HostPaths:
    """`hosts`."""

    def __init__(self, tables: Model, scheduling: Scheduling, hosts: HostLifecycle) -> None:
        self._model = tables
        self._scheduling = scheduling
        self._hosts = hosts
        self.routes: Routes = {
            "GET hosts": self._list,
            "GET hosts/{}": self._get,
            "PUT hosts/{}": self._update,
            "GET hosts/{}/hooks": self._hooks,
        }
        self.waiting_routes: Routes = {
            "POST hosts/{}/(activate|deactivate|refresh)": self._act,
        }

    def _list(self, query: Query, _: Element) -> Element:
        candidates = list(self._model.hosts.values())
        if "migration_target_of" in query:
            vm_ids = query["migration_target_of"].split(",")
            candidates = self._migration_targets(candidates, vm_ids)
        hosts = search.listed(query, candidates, _FIELDS)
        # Looks at all VMs, which a search that names no host can save.
        vms_by_host = self._running_vms() if hosts else {}
        rows: list[Element] = []
        for host in hosts:
            vms = vms_by_host.get(host.id, ())
            rows.append(inventory.host(host, all_content(query), vms))
        return listing("hosts", rows)

    def _migration_targets(
        self, hosts: list[SimulatedHost], vm_ids: list[str]
    ) -> list[SimulatedHost]:
        for vm_id in vm_ids:
            vm = self._model.vms.find(vm_id)
            targets = self._scheduling.can_schedule(vm)
            hosts = [host for host in hosts if host in targets]
        return hosts

    def _running_vms(self) -> dict[str, list[SimulatedVm]]:
        """Return the VMs of each host that has some."""
        running: dict[str, list[SimulatedVm]] = {}
        for vm in self._model.vms.values():
            if vm.host and vm.status not in NOT_RUNNING:
                running.setdefault(vm.host, []).append(vm)
        return running

    def _get(self, query: Query, _: Element, uid: str) -> Element:
        host = self._model.hosts.find(uid)
        return inventory.host(host, all_content(query), self._model.vms_on(uid))

    def _update(self, query: Query, document: Element, uid: str) -> Element:
        """Status and external status are no part of an edit: they are ignored silently."""
        host = self._model.hosts.find(uid)
        host.name = document.findtext("name") or host.name
        return inventory.host(host, vms=self._model.vms_on(uid))

    def _hooks(self, query: Query, _: Element, uid: str) -> Element:
        host = self._model.hosts.find(uid)
        hooks: list[Element] = []
        for (point, name), checksum in host.hooks.items():
            hooks.append(inventory.hook(uid, point, name, checksum))
        return listing("hooks", hooks)

    def _act(self, query: Query, document: Element, uid: str, verb: str) -> Element:
        host = self._model.hosts.get(uid)
        if host is None:
            raise invalid(f"Cannot {_ACTIONS[verb]} Host. Invalid Host Id.")
        if verb == "activate":
            self._hosts.activate(host)
        elif verb == "deactivate":
            self._hosts.deactivate(host, document.findtext("reason", ""))
        # A refresh of a host that is Up decides nothing again.
        return actions.complete(actions.bare_host(uid), document, job=verb == "activate")
