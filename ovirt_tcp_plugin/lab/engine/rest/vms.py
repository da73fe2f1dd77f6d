# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VMs: lists, edits and actions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log, model, ovf, request_documents
from ovirt_tcp_plugin.lab.engine.documents import actions, inventory
from ovirt_tcp_plugin.lab.engine.elements import boolean, listing
from ovirt_tcp_plugin.lab.engine.errors import refusal
from ovirt_tcp_plugin.lab.engine.model import DOWN, Model, SimulatedCluster, SimulatedVm
from ovirt_tcp_plugin.lab.engine.ovf import Configuration
from ovirt_tcp_plugin.lab.engine.rest import properties, search
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes, all_content, follows
from ovirt_tcp_plugin.lab.engine.vms import VmLifecycle
from ovirt_tcp_plugin.lab.engine.xml_text import Element

# Of those in `VmConditionFieldAutoCompleter`; there is none for the origin.
_FIELDS: dict[str, Callable[[SimulatedVm], object]] = {
    "id": operator.attrgetter("id"),
    "name": operator.attrgetter("name"),
    "status": operator.attrgetter("status"),
    "fqdn": operator.attrgetter("fqdn"),
    "next_run_config_exists": lambda vm: boolean(vm.next_run is not None),
}
# PredefinedVMProperties of the clusters' level: name -> regular expression.
_PREDEFINED = {
    "sap_agent": "^(true|false)$",
    "sndbuf": "^[0-9]+$",
    "vhost": "^(([a-zA-Z0-9_]*):(true|false))(,(([a-zA-Z0-9_]*):(true|false)))*$",
    "viodiskcache": "^(none|writeback|writethrough)$",
    "mdev_type": "^.*$",
    "hugepages": "^[0-9]+$",
}


class VmPaths:
    """`vms`.

    Args:
        properties: definitions of UserDefinedVMProperties: name -> regular expression.
    """

    def __init__(self, tables: Model, vms: VmLifecycle, properties: Mapping[str, str]) -> None:
        self._model = tables
        self._vms = vms
        self._user_defined = properties
        self.routes: Routes = {
            "GET vms": self._list,
            "POST vms": self._add,
            "GET vms/{}": self._get,
            "PUT vms/{}": self._update,
            "DELETE vms/{}": self._remove,
            "POST vms/{}/clone": self._clone,
        }
        self.waiting_routes: Routes = {
            "POST vms/{}/(start|stop|shutdown|suspend|migrate)": self._act,
        }

    def _list(self, query: Query, _: Element) -> Element:
        inline = follows(query, "reported_devices")
        candidates = list(self._model.vms.values())
        vms = search.listed(query, candidates, _FIELDS)
        return listing("vms", [inventory.vm(vm, inline=inline) for vm in vms])

    def _get(self, query: Query, _: Element, uid: str) -> Element:
        next_run = query.get("next_run") == "true"
        vm = self._model.vms.find(uid)
        configuration = self._ovf(vm) if all_content(query) else None
        return inventory.vm(vm, next_run, configuration=configuration)

    def _ovf(self, vm: SimulatedVm) -> str:
        trusted_service = self._model.clusters[vm.cluster].trusted_service
        return ovf.write(Configuration(vm.id, vm.name, trusted_service, vm.custom_properties))

    # New VMs

    def _add(self, query: Query, document: Element) -> Element:
        configuration = document.findtext("initialization/configuration/data")
        if configuration is not None:
            return self._import(query, document, configuration)
        cluster = self._cluster(document)
        vm = SimulatedVm(model.new_id(), document.findtext("name", ""), cluster.id)
        vm.high_availability = document.findtext("high_availability/enabled") == "true"
        vm.priority = int(document.findtext("high_availability/priority") or vm.priority)
        vm.custom_properties = self._properties(document, "add VM") or {}
        _place(vm, document)
        self._model.vms[vm.id] = vm
        text = f"VM {vm.name} was created."
        self._model.log(audit_log.VM_ADDED, text, vm=vm.id, cluster=cluster.id)
        return inventory.vm(vm)

    def _import(self, query: Query, document: Element, text: str) -> Element:
        """A VM from an OVF: properties that are not defined here are dropped."""
        configuration = ovf.read(text)
        cluster = self._cluster(document)
        uid = model.new_id() if query.get("clone") == "true" else configuration.vm_id
        if uid in self._model.vms:
            raise refusal("Import VM failed - VM Id already exist in the system.")
        vm = SimulatedVm(uid, document.findtext("name") or configuration.name, cluster.id)
        vm.custom_properties = self._matching(configuration.properties)
        self._model.vms[uid] = vm
        text = f"VM {vm.name} has been successfully imported."
        self._model.log(audit_log.VM_IMPORTED, text, vm=uid, cluster=cluster.id)
        if configuration.trusted_service is not cluster.trusted_service:
            self._warn_of_trust(vm, configuration)
        return inventory.vm(vm)

    def _warn_of_trust(self, vm: SimulatedVm, configuration: Configuration) -> None:
        """A foreign TrustedService is accepted, with a warning."""
        code = audit_log.IMPORTED_FROM_UNTRUSTED
        if configuration.trusted_service:
            code = audit_log.IMPORTED_FROM_TRUSTED
        text = f"The VM {vm.name} was imported across the bounds of trust."
        self._model.log(code, text, "warning", vm=vm.id, cluster=vm.cluster)

    def _clone(self, query: Query, document: Element, uid: str) -> Element:
        vm = self._model.vms.find(uid)
        if vm.status != DOWN:
            raise refusal("Cannot clone VM. VM is not down.")
        copy = SimulatedVm(model.new_id(), document.findtext("vm/name", ""), vm.cluster)
        copy.high_availability = vm.high_availability
        copy.custom_properties = dict(vm.custom_properties)
        self._model.vms[copy.id] = copy
        text = f"VM {copy.name} creation has been completed."
        self._model.log(audit_log.VM_CLONED, text, vm=copy.id, cluster=vm.cluster)
        return actions.complete()

    # Edits

    def _update(self, query: Query, document: Element, uid: str) -> Element:
        vm = self._model.vms.find(uid)
        custom_properties = self._properties(document, "edit VM")
        cluster_id = request_documents.identifier(document, "cluster") or vm.cluster
        if self._model.clusters.find(cluster_id).id != vm.cluster:
            self._move(vm, cluster_id)
        if custom_properties is not None and vm.status == DOWN:
            vm.custom_properties = custom_properties
            vm.next_run = None
        elif custom_properties is not None:
            vm.next_run = custom_properties
        _place(vm, document)
        text = f"VM {vm.name} configuration was updated by {self._model.acting_name()}."
        self._model.log(audit_log.VM_UPDATED, text, vm=uid, cluster=cluster_id)
        return inventory.vm(vm)

    def _move(self, vm: SimulatedVm, cluster_id: str) -> None:
        """Another cluster: the VM leaves every affinity group (ChangeVMClusterCommand)."""
        if vm.status != DOWN:
            raise refusal("Cannot edit VM. VM is running.")
        del self._model.vms[vm.id]
        vm.cluster = cluster_id
        self._model.vms[vm.id] = vm
        self._leave_groups(vm.id)

    def _remove(self, query: Query, _: Element, uid: str) -> Element:
        vm = self._model.vms.find(uid)
        if vm.status != DOWN:
            raise refusal("Cannot remove VM. VM is running.")
        del self._model.vms[uid]
        self._leave_groups(uid)
        return actions.complete()

    def _leave_groups(self, vm_id: str) -> None:
        for group in self._model.groups.values():
            group.vms = [uid for uid in group.vms if uid != vm_id]

    # Actions

    def _act(self, query: Query, document: Element, uid: str, verb: str) -> Element:
        vm = self._model.vms.find(uid)
        if verb == "start":
            self._start(vm, document)
        elif verb == "suspend":
            self._vms.suspend(vm)
        elif verb == "migrate":
            self._migrate(vm, document)
        else:
            self._vms.stop(vm)
        return actions.complete(actions.bare_vm(uid), document, job=True)

    def _start(self, vm: SimulatedVm, document: Element) -> None:
        run_once = None
        changes = document.find("vm")
        if changes is not None:
            run_once = self._properties(changes, "run VM")
        self._vms.start(vm, run_once=run_once)

    def _migrate(self, vm: SimulatedVm, document: Element) -> None:
        target = request_documents.identifier(document, "host")
        hosts = [target] if target else None
        force = document.findtext("force") == "true"
        self._vms.migrate(vm, hosts=hosts, force=force)

    # Parts of documents

    def _cluster(self, document: Element) -> SimulatedCluster:
        cluster_id = request_documents.identifier(document, "cluster")
        return self._model.clusters.find(cluster_id)

    def _properties(self, document: Element, what: str) -> Optional[dict[str, str]]:
        """Return the custom properties of a document, None without any. Raises Fault (400)."""
        values = request_documents.properties(document, "custom_properties")
        if values is not None:
            properties.validate(what, self._definitions(), values)
        return values

    def _definitions(self) -> dict[str, str]:
        return {**_PREDEFINED, **self._user_defined}

    def _matching(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the properties that are defined and match; an import drops the others silently."""
        definitions = self._definitions()
        matching: dict[str, str] = {}
        for name, value in values.items():
            if name in definitions and re.fullmatch(definitions[name], value):
                matching[name] = value
        return matching


def _place(vm: SimulatedVm, document: Element) -> None:
    if document.find("placement_policy") is None:
        return
    vm.affinity = document.findtext("placement_policy/affinity") or vm.affinity
    hosts = document.findall("placement_policy/hosts/host")
    vm.pinned_to = tuple(host.get("id", "") for host in hosts)
