# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Hosts: lists, actions, and what they report of their VDSM hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import invalid
from ovirt_tcp_plugin.lab.engine.hosts import Hosts
from ovirt_tcp_plugin.lab.engine.model import NOT_RUNNING, Host, Model, Vm
from ovirt_tcp_plugin.lab.engine.rest import search
from ovirt_tcp_plugin.lab.engine.scheduling import Scheduling

_FIELDS: dict[str, Callable[[Host], object]] = {
    name: lambda host, name=name: getattr(host, name)  # type: ignore[misc]
    for name in ("id", "name", "address", "status", "external_status")
}
# How messages name an action.
_ACTIONS = {"activate": "activate", "deactivate": "maintenance", "refresh": "refresh"}


class HostPaths:
    """`hosts`."""

    def __init__(self, tables: Model, scheduling: Scheduling, hosts: Hosts) -> None:
        self._model, self._scheduling, self._hosts = tables, scheduling, hosts
        self.routes: dict[str, Callable[..., Element]] = {
            "GET hosts": self._list,
            "GET hosts/{}": self._get,
            "PUT hosts/{}": self._update,
            "GET hosts/{}/hooks": self._hooks,
            "POST hosts/{}/(activate|deactivate|refresh)": self._act,
        }

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            rows = list(self._model.hosts.values())
            if "migration_target_of" in query:
                vms = [
                    self._model.find("vms", uid) for uid in query["migration_target_of"].split(",")
                ]
                rows = [
                    host
                    for host in rows
                    if all(host in self._scheduling.can_schedule(vm) for vm in vms)
                ]
            found = search.listed(query, rows, _FIELDS)
            running = self._running() if found else {}
            whole = _all_content(query)
            return documents.listing(
                "hosts", [documents.host(host, whole, running.get(host.id, ())) for host in found]
            )

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return documents.host(
                self._model.find("hosts", uid), _all_content(query), self._model.vms_on(uid)
            )

    def _running(self) -> dict[str, list[Vm]]:
        """Return the VMs of each host that has some."""
        running: dict[str, list[Vm]] = {}
        for vm in self._model.vms.values():
            if vm.host and vm.status not in NOT_RUNNING:
                running.setdefault(vm.host, []).append(vm)
        return running

    def _update(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        """Status and external status are no part of an edit: they are passed over without a
        word."""
        with self._model.lock:
            host: Host = self._model.find("hosts", uid)
            host.name = documents.text(given, "name") or host.name
            return documents.host(host, vms=self._model.vms_on(uid))

    def _hooks(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        host: Host = self._model.find("hosts", uid)
        hooks = [
            documents.hook(uid, point, name, checksum)
            for (point, name), checksum in host.hooks.items()
        ]
        return documents.listing("hooks", hooks)

    def _act(self, query: Mapping[str, str], given: Element, uid: str, verb: str) -> Element:
        host = self._model.hosts.get(uid)
        if host is None:
            raise invalid(f"Cannot {_ACTIONS[verb]} Host. Invalid Host Id.")
        if verb == "activate":
            self._hosts.activate(host)
        elif verb == "deactivate":
            self._hosts.deactivate(host, documents.text(given, "reason") or "")
        # A refresh of a host that is Up judges nothing anew.
        return documents.action(documents.bare_host(uid), given, job=verb == "activate")


def _all_content(query: Mapping[str, str]) -> bool:
    return query.get("all_content") == "true"
