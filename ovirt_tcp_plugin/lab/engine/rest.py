# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The REST API: which path does what. Handlers run in threads, because a start waits for the external scheduler."""

from __future__ import annotations

import collections
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.lifecycle import Lifecycle
from ovirt_tcp_plugin.lab.engine.model import AffinityGroup, Cluster, Event, Fault, Host, Model, Policy, Rule, Vm

Query = Mapping[str, str]
Handler = Callable[..., Element]

_MEMBERS = {"hosts": documents.host, "vms": documents.vm}
_UNITS = {"filters": "filter", "weights": "weight", "balances": "balance"}


class Rest:
    """The API over the tables. `answer` is the one door; it returns HTTP status and document."""

    def __init__(self, tables: Model, lifecycle: Lifecycle, users: Mapping[str, str]) -> None:
        self._model = tables
        self._lifecycle = lifecycle
        self._users = users
        self._tokens: set[str] = set()
        self.calls: collections.Counter[str] = collections.Counter()
        word = "([^/]+)"
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            ("GET", re.compile(""), lambda *_: Element("api")),
            ("GET", re.compile("clusters"), self._clusters),
            ("GET", re.compile(f"clusters/{word}"), self._cluster),
            ("PUT", re.compile(f"clusters/{word}"), self._update_cluster),
            ("GET", re.compile(f"clusters/{word}/affinitygroups"), self._groups),
            ("POST", re.compile(f"clusters/{word}/affinitygroups"), self._add_group),
            ("GET", re.compile(f"clusters/{word}/affinitygroups/{word}"), self._group),
            ("PUT", re.compile(f"clusters/{word}/affinitygroups/{word}"), self._update_group),
            ("DELETE", re.compile(f"clusters/{word}/affinitygroups/{word}"), self._remove_group),
            ("GET", re.compile(f"clusters/{word}/affinitygroups/{word}/(hosts|vms)"), self._members),
            ("POST", re.compile(f"clusters/{word}/affinitygroups/{word}/(hosts|vms)"), self._add_member),
            ("DELETE", re.compile(f"clusters/{word}/affinitygroups/{word}/(hosts|vms)/{word}"), self._remove_member),
            ("GET", re.compile("hosts"), self._hosts),
            ("GET", re.compile(f"hosts/{word}"), self._host),
            ("POST", re.compile(f"hosts/{word}/(activate|deactivate|refresh)"), self._act_on_host),
            ("GET", re.compile("vms"), self._vms),
            ("POST", re.compile("vms"), self._add_vm),
            ("GET", re.compile(f"vms/{word}"), self._vm),
            ("PUT", re.compile(f"vms/{word}"), self._update_vm),
            ("DELETE", re.compile(f"vms/{word}"), self._remove_vm),
            ("POST", re.compile(f"vms/{word}/(start|stop|shutdown|migrate)"), self._act_on_vm),
            ("GET", re.compile("events"), self._events),
            ("POST", re.compile("events"), self._add_event),
            ("GET", re.compile("schedulingpolicyunits"), self._all_units),
            ("GET", re.compile("schedulingpolicies"), self._policies),
            ("POST", re.compile("schedulingpolicies"), self._add_policy),
            ("GET", re.compile(f"schedulingpolicies/{word}"), self._policy),
            ("GET", re.compile(f"schedulingpolicies/{word}/(filters|weights|balances)"), self._policy_units),
            ("POST", re.compile(f"schedulingpolicies/{word}/(filters|weights|balances)"), self._add_policy_unit),
        ]

    def log_in(self, user: str, password: str) -> Optional[str]:
        """Return a token, None when user or password are wrong."""
        if self._users.get(user) != password:
            return None
        token = secrets.token_urlsafe(32)
        self._tokens.add(token)
        return token

    def log_out(self, token: str) -> None:
        """End a token."""
        self._tokens.discard(token)

    def knows(self, token: str) -> bool:
        """Return whether a token is good."""
        return token in self._tokens

    def end_tokens(self) -> None:
        """End all tokens: the engine restarts."""
        self._tokens.clear()

    def answer(self, verb: str, path: str, query: Query, body: bytes) -> tuple[int, Element]:
        """Return status and document of a request below /ovirt-engine/api."""
        is_action = verb == "POST" and path.count("/") == 2 and path.split("/")[0] in ("hosts", "vms")
        for route_verb, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None and verb == route_verb:
                self.calls[f"{verb} {pattern.pattern}"] += 1
                try:
                    given = documents.parse(body) if body else Element("none")
                    return (201 if verb == "POST" and not is_action else 200), handler(query, given, *match.groups())
                except Fault as e:
                    return e.status, documents.fault(e, is_action)
        return 404, documents.fault(Fault(404, "Operation Failed", f"[{verb} {path}]"), False)

    # Clusters and affinity groups

    def _clusters(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            return documents.listing("clusters", map(documents.cluster, self._model.clusters.values()))

    def _cluster(self, query: Query, _: Element, uid: str) -> Element:
        return documents.cluster(self._model.find("clusters", uid))

    def _update_cluster(self, query: Query, given: Element, uid: str) -> Element:
        with self._model.lock:
            cluster: Cluster = self._model.find("clusters", uid)
            policy = documents.identifier(given, "scheduling_policy")
            if policy:
                # The policy's defaults are copied when the cluster is saved; later edits of the policy do not reach it.
                chosen: Policy = self._model.find("policies", policy)
                cluster.policy, cluster.properties = chosen.id, dict(chosen.properties)
            properties = documents.properties(given, "custom_scheduling_policy_properties")
            cluster.properties = cluster.properties if properties is None else properties
            trusted = documents.text(given, "trusted_service")
            cluster.trusted_service = cluster.trusted_service if trusted is None else trusted == "true"
            return documents.cluster(cluster)

    def _groups(self, query: Query, _: Element, cluster: str) -> Element:
        with self._model.lock:
            self._model.find("clusters", cluster)
            own = [group for group in self._model.groups.values() if group.cluster == cluster]
            inline = "hosts" in query.get("follow", "")
            return documents.listing("affinity_groups", [documents.group(one, self._model, inline) for one in own])

    def _add_group(self, query: Query, given: Element, cluster: str) -> Element:
        with self._model.lock:
            self._model.find("clusters", cluster)
            name = documents.text(given, "name") or ""
            if any((one.cluster, one.name) == (cluster, name) for one in self._model.groups.values()):
                raise Fault(400, "Operation Failed", "[Affinity Group name already exists.]")
            rules = [documents.rule(given, "hosts_rule"), documents.rule(given, "vms_rule")]
            members = {
                kind: [one.get("id", "") for one in given.findall(f"{kind}/{kind[:-1]}")] for kind in _MEMBERS
            }
            group = AffinityGroup(model.new_id(), name, cluster, rules[0], rules[1], **members)
            self._validate(group)
            self._model.groups[group.id] = group
            return documents.group(group, self._model)

    def _find_group(self, cluster: str, uid: str) -> AffinityGroup:
        group: AffinityGroup = self._model.find("groups", uid)
        if group.cluster != cluster:
            raise Fault(404, "Operation Failed", "[Entity not found]")
        return group

    def _group(self, query: Query, _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            return documents.group(self._find_group(cluster, uid), self._model, "hosts" in query.get("follow", ""))

    def _update_group(self, query: Query, given: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            group = self._find_group(cluster, uid)
            for name in ("hosts_rule", "vms_rule"):
                if given.find(name) is not None:
                    rule: Rule = documents.rule(given, name)
                    setattr(group, name, rule)
            self._validate(group)
            return documents.group(group, self._model)

    def _remove_group(self, query: Query, _: Element, cluster: str, uid: str) -> Element:
        with self._model.lock:
            del self._model.groups[self._find_group(cluster, uid).id]
            return documents.action()

    def _validate(self, group: AffinityGroup) -> None:
        """A group's every member is validated again on each edit (EditAffinityGroupCommand)."""
        for kind in _MEMBERS:
            for uid in getattr(group, kind):
                if self._model.find(kind, uid).cluster != group.cluster:
                    raise Fault(409, "Operation Failed", f"[Member {uid} is of another cluster.]")

    def _members(self, query: Query, _: Element, cluster: str, uid: str, kind: str) -> Element:
        with self._model.lock:
            rows = getattr(self._model, kind)
            present = [rows[one] for one in getattr(self._find_group(cluster, uid), kind) if one in rows]
            return documents.listing(kind, [_MEMBERS[kind](one) for one in present])  # type: ignore[operator]

    def _add_member(self, query: Query, given: Element, cluster: str, uid: str, kind: str) -> Element:
        with self._model.lock:
            members = getattr(self._find_group(cluster, uid), kind)
            row = self._model.find(kind, given.get("id", ""))
            if row.cluster != cluster:
                raise Fault(409, "Operation Failed", "[Member is of another cluster.]")
            if row.id in members:
                raise Fault(400, "Operation Failed", "[Duplicate entity in the Affinity Group.]")
            members.append(row.id)
            return _MEMBERS[kind](row)  # type: ignore[operator,no-any-return]

    def _remove_member(self, query: Query, _: Element, cluster: str, uid: str, kind: str, member: str) -> Element:
        with self._model.lock:
            members = getattr(self._find_group(cluster, uid), kind)
            if member not in members:
                raise Fault(400, "Operation Failed", "[Provided VM/VDS is invalid (does not exist).]")
            members.remove(member)
            return documents.action()

    # Hosts and VMs

    def _hosts(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            return documents.listing("hosts", map(documents.host, self._model.hosts.values()))

    def _host(self, query: Query, _: Element, uid: str) -> Element:
        return documents.host(self._model.find("hosts", uid))

    def _act_on_host(self, query: Query, given: Element, uid: str, verb: str) -> Element:
        host: Host = self._model.find("hosts", uid)
        if verb == "activate":
            self._lifecycle.activate(host)
        elif verb == "deactivate":
            self._lifecycle.deactivate(host, documents.text(given, "reason") or "")
        return documents.action()

    def _vms(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            next_run = query.get("next_run") == "true"
            return documents.listing("vms", [documents.vm(one, next_run) for one in self._model.vms.values()])

    def _vm(self, query: Query, _: Element, uid: str) -> Element:
        return documents.vm(self._model.find("vms", uid), query.get("next_run") == "true")

    def _add_vm(self, query: Query, given: Element) -> Element:
        with self._model.lock:
            cluster = documents.identifier(given, "cluster")
            vm = Vm(model.new_id(), documents.text(given, "name") or "", self._model.find("clusters", cluster).id)
            vm.high_availability = documents.text(given, "high_availability/enabled") == "true"
            vm.custom_properties = documents.properties(given, "custom_properties") or {}
            self._model.vms[vm.id] = vm
            self._model.log(34, f"VM {vm.name} was created.", vm=vm.id, cluster=cluster)
            return documents.vm(vm)

    def _update_vm(self, query: Query, given: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            properties = documents.properties(given, "custom_properties")
            if properties is not None and vm.status == "down":
                vm.custom_properties, vm.next_run = properties, None
            elif properties is not None:
                vm.next_run = properties
            return documents.vm(vm)

    def _remove_vm(self, query: Query, _: Element, uid: str) -> Element:
        with self._model.lock:
            vm: Vm = self._model.find("vms", uid)
            if vm.status != "down":
                raise Fault(409, "Operation Failed", "[Cannot remove VM. VM is running.]")
            del self._model.vms[uid]
            for group in self._model.groups.values():
                group.vms = [one for one in group.vms if one != uid]
            return documents.action()

    def _act_on_vm(self, query: Query, given: Element, uid: str, verb: str) -> Element:
        vm: Vm = self._model.find("vms", uid)
        if verb == "start":
            self._lifecycle.start_vm(vm)
        elif verb == "migrate":
            target = documents.identifier(given, "host")
            self._lifecycle.migrate_vm(vm, hosts=[target] if target else None)
        else:
            self._lifecycle.stop_vm(vm)
        return documents.action()

    # Events

    def _events(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            rows = [row for row in self._model.events if row.id > int(query.get("from") or 0)]
            codes = {int(code) for code in re.findall(r"type\s*=\s*(\d+)", query.get("search", ""))}
            rows = [row for row in rows if not codes or row.code in codes]
            rows.sort(key=lambda row: row.id, reverse="asc" not in query.get("search", ""))
            return documents.listing("events", map(documents.event, rows[: int(query.get("max") or len(rows))]))

    def _add_event(self, query: Query, given: Element) -> Element:
        wanted = {name: documents.text(given, name) for name in ("description", "severity", "origin", "custom_id")}
        missing = [name for name, value in wanted.items() if not value]
        if missing:
            raise Fault(400, "Incomplete parameters", f"Event [{', '.join(missing)}] required for add")
        links: dict[str, Any] = {kind: documents.identifier(given, kind) for kind in ("host", "vm", "cluster")}
        row: Event = self._model.add_external_event(
            wanted["description"] or "", wanted["severity"] or "", wanted["origin"] or "",
            int(wanted["custom_id"] or 0), links,
        )  # fmt: skip
        return documents.event(row)

    # Scheduling policies

    def _all_units(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            return documents.listing("scheduling_policy_units", map(documents.unit, self._model.units.values()))

    def _policies(self, query: Query, _: Element) -> Element:
        with self._model.lock:
            return documents.listing("scheduling_policies", map(documents.policy, self._model.policies.values()))

    def _policy(self, query: Query, _: Element, uid: str) -> Element:
        return documents.policy(self._model.find("policies", uid))

    def _add_policy(self, query: Query, given: Element) -> Element:
        with self._model.lock:
            policy = Policy(model.new_id(), documents.text(given, "name") or "")
            policy.properties = documents.properties(given, "properties") or {}
            self._model.policies[policy.id] = policy
            return documents.policy(policy)

    def _policy_units(self, query: Query, _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            units = getattr(self._model.find("policies", uid), kind)
            return documents.listing(kind, [documents.policy_unit(_UNITS[kind], one) for one in units])

    def _add_policy_unit(self, query: Query, given: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            if policy.locked:
                raise Fault(409, "Operation Failed", "[Cannot edit a locked cluster policy.]")
            unit = self._model.find("units", documents.identifier(given, "scheduling_policy_unit"))
            getattr(policy, kind).append(unit.id)
            return documents.policy_unit(_UNITS[kind], unit.id)
