# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""VMs: lists, edits and actions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import audit_log, documents, model, ovf
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import refusal
from ovirt_tcp_plugin.lab.engine.model import DOWN, Model, Vm
from ovirt_tcp_plugin.lab.engine.ovf import Configuration
from ovirt_tcp_plugin.lab.engine.rest import properties, search
from ovirt_tcp_plugin.lab.engine.vms import Vms

# Of those in `VmConditionFieldAutoCompleter`; there is none for the origin.
_FIELDS: dict[str, Callable[[Vm], object]] = {
    **{
        name: lambda vm, name=name: getattr(vm, name)  # type: ignore[misc]
        for name in ("id", "name", "status", "fqdn")
    },
    "next_run_config_exists": lambda vm: "true" if vm.next_run is not None else "false",
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
    """`vms`. `properties` are the definitions of UserDefinedVMProperties: name -> regular
    expression."""

    def __init__(self, tables: Model, vms: Vms, properties: Mapping[str, str]) -> None:
        self._model, self._vms, self._definitions = tables, vms, properties
        self.routes: dict[str, Callable[..., Element]] = {
            "GET vms": self._list,
            "POST vms": self._add,
            "GET vms/{}": self._get,
            "PUT vms/{}": self._update,
            "DELETE vms/{}": self._remove,
            "POST vms/{}/clone": self._clone,
            "POST vms/{}/(start|stop|shutdown|suspend|migrate)": self._act,
        }

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            rows = search.listed(query, list(self._model.vms.values()), _FIELDS)
            inline = "reported_devices" in query.get("follow", "").split(",")
            return documents.listing("vms", [documents.vm(one, inline=inline) for one in rows])

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            configuration = None
            if query.get("all_content") == "true":
                trusted = self._model.clusters[vm.cluster].trusted_service
                configuration = ovf.write(
                    Configuration(vm.id, vm.name, trusted, vm.custom_properties)
                )
            return documents.vm(vm, query.get("next_run") == "true", configuration=configuration)

    def _import(self, query: Mapping[str, str], given: Element, text: str) -> Element:
        """A VM from an OVF. A foreign flag only warns; properties that are not defined here are
        dropped."""
        found = ovf.read(text)
        with self._model.lock:
            cluster = self._model.find("clusters", documents.identifier(given, "cluster"))
            uid = model.new_id() if query.get("clone") == "true" else found.vm_id
            if uid in self._model.vms:
                raise refusal("Import VM failed - VM Id already exist in the system.")
            vm = Vm(uid, documents.text(given, "name") or found.name, cluster.id)
            vm.custom_properties = self._defined(found.properties)
            self._model.vms[uid] = vm
            links = {"vm": uid, "cluster": cluster.id}
            self._model.log(
                audit_log.VM_IMPORTED, f"VM {vm.name} has been successfully imported.", **links
            )
            if found.trusted_service is not cluster.trusted_service:
                trusted = found.trusted_service
                code = (
                    audit_log.IMPORTED_FROM_TRUSTED
                    if trusted
                    else audit_log.IMPORTED_FROM_UNTRUSTED
                )
                self._model.log(
                    code,
                    f"The VM {vm.name} was imported across the bounds of trust.",
                    "warning",
                    **links,
                )
            return documents.vm(vm)

    def _clone(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            if vm.status != DOWN:
                raise refusal("Cannot clone VM. VM is not down.")
            copy = Vm(model.new_id(), documents.text(given, "vm/name") or "", vm.cluster)
            copy.high_availability, copy.custom_properties = (
                vm.high_availability,
                dict(vm.custom_properties),
            )
            self._model.vms[copy.id] = copy
            text = f"VM {copy.name} creation has been completed."
            self._model.log(audit_log.VM_CLONED, text, vm=copy.id, cluster=vm.cluster)
            return documents.action()

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        configuration = documents.text(given, "initialization/configuration/data")
        if configuration is not None:
            return self._import(query, given, configuration)
        with self._model.lock:
            cluster = documents.identifier(given, "cluster")
            vm = Vm(
                model.new_id(),
                documents.text(given, "name") or "",
                self._model.find("clusters", cluster).id,
            )
            vm.high_availability = documents.text(given, "high_availability/enabled") == "true"
            vm.priority = int(documents.text(given, "high_availability/priority") or vm.priority)
            vm.custom_properties = self._properties(given, "add VM") or {}
            self._place(vm, given)
            self._model.vms[vm.id] = vm
            self._model.log(
                audit_log.VM_ADDED, f"VM {vm.name} was created.", vm=vm.id, cluster=cluster
            )
            return documents.vm(vm)

    def _update(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            values = self._properties(given, "edit VM")
            cluster = documents.identifier(given, "cluster") or vm.cluster
            if self._model.find("clusters", cluster).id != vm.cluster:
                self._move(vm, cluster)
            if values is not None and vm.status == DOWN:
                vm.custom_properties, vm.next_run = values, None
            elif values is not None:
                vm.next_run = values
            self._place(vm, given)
            text = f"VM {vm.name} configuration was updated by {self._model.acting_name()}."
            self._model.log(audit_log.VM_UPDATED, text, vm=uid, cluster=cluster)
            return documents.vm(vm)

    def _remove(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            if vm.status != DOWN:
                raise refusal("Cannot remove VM. VM is running.")
            del self._model.vms[uid]
            self._leave_groups(uid)
            return documents.action()

    def _act(self, query: Mapping[str, str], given: Element, uid: str, verb: str) -> Element:
        vm: Vm = self._model.find("vms", uid)
        if verb == "start":
            self._vms.start(vm, run_once=self._properties(given.find("vm"), "run VM"))
        elif verb == "suspend":
            self._vms.suspend(vm)
        elif verb == "migrate":
            target = documents.identifier(given, "host")
            force = documents.text(given, "force") == "true"
            self._vms.migrate(vm, hosts=[target] if target else None, force=force)
        else:
            self._vms.stop(vm)
        return documents.action(documents.bare_vm(uid), given, job=True)

    def _move(self, vm: Vm, cluster: str) -> None:
        """Another cluster: the VM leaves every affinity group (ChangeVMClusterCommand)."""
        if vm.status != DOWN:
            raise refusal("Cannot edit VM. VM is running.")
        del self._model.vms[vm.id]
        vm.cluster = cluster
        self._model.vms[vm.id] = vm
        self._leave_groups(vm.id)

    def _leave_groups(self, vm_id: str) -> None:
        for group in self._model.groups.values():
            group.vms = [one for one in group.vms if one != vm_id]

    def _place(self, vm: Vm, given: Element) -> None:
        if given.find("placement_policy") is not None:
            vm.affinity = documents.text(given, "placement_policy/affinity") or vm.affinity
            vm.pinned_to = tuple(
                one.get("id", "") for one in given.findall("placement_policy/hosts/host")
            )

    def _properties(self, given: Element | None, what: str) -> dict[str, str] | None:
        found = documents.properties(given, "custom_properties")
        if found is not None:
            properties.validate(what, {**_PREDEFINED, **self._definitions}, found)
        return found

    def _defined(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the properties that are defined and match; an import drops the others without a
        word.
        """
        definitions = {**_PREDEFINED, **self._definitions}
        return {
            k: v for k, v in given.items() if k in definitions and re.fullmatch(definitions[k], v)
        }
