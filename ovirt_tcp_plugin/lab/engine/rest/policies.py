# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies and their units."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, Policy

# Path element: (tag of one, type of its unit, tag of its number).
_UNITS = {
    "filters": ("filter", "filter", "position"),
    "weights": ("weight", "weight", "factor"),
    "balances": ("balance", "load_balancing", ""),
}
_POLICY = "schedulingpolicies/{}"


class PolicyPaths:
    """`schedulingpolicies` and `schedulingpolicyunits`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        units = f"{_POLICY}/({'|'.join(_UNITS)})"
        self.routes: dict[str, Callable[..., Element]] = {
            "GET schedulingpolicyunits": self._all_units,
            "GET schedulingpolicies": self._list,
            "POST schedulingpolicies": self._add,
            f"GET {_POLICY}": self._get,
            f"DELETE {_POLICY}": self._remove,
            f"GET {units}": self._units,
            f"POST {units}": self._add_unit,
            f"DELETE {units}/{{}}": self._remove_unit,
        }

    def _all_units(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("scheduling_policy_units", map(documents.unit, self._model.units.values()))

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("scheduling_policies", map(documents.policy, self._model.policies.values()))

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        return documents.policy(self._model.find("policies", uid))

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        with self._model.lock:
            policy = Policy(model.new_id(), documents.text(given, "name") or "")
            if any(one.name == policy.name for one in self._model.policies.values()):
                raise refusal("Cannot add Scheduling Policy. Name is in use.")
            policy.properties = documents.properties(given, "properties") or {}
            self._model.policies[policy.id] = policy
            return documents.policy(policy)

    def _remove(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            policy = self._editable(uid)
            users = [cluster.name for cluster in self._model.clusters.values() if cluster.policy == policy.id]
            if users:
                raise refusal(f"Cannot remove Scheduling Policy. Scheduling Policy is attached to cluster(s): {users}.")
            del self._model.policies[policy.id]
            return documents.action()

    def _units(self, query: Mapping[str, str], _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            return documents.listing(kind, [_document(policy, kind, one) for one in getattr(policy, kind)])

    def _add_unit(self, query: Mapping[str, str], given: Element, uid: str, kind: str) -> Element:
        _, unit_type, number = _UNITS[kind]
        with self._model.lock:
            policy = self._editable(uid)
            unit = self._model.find("units", documents.identifier(given, "scheduling_policy_unit"))
            units = getattr(policy, kind)
            if unit.id in units:
                raise refusal("Cannot edit Scheduling Policy. policy unit already exists in Scheduling Policy.")
            if unit.type != unit_type:
                raise refusal("Cannot edit Scheduling Policy. Policy unit doesn't implement it.")
            units.append(unit.id)
            policy.numbers[unit.id] = int(documents.text(given, number) or 0) if number else 0
            return _document(policy, kind, unit.id)

    def _remove_unit(self, query: Mapping[str, str], _: Element, uid: str, kind: str, unit: str) -> Element:
        with self._model.lock:
            units = getattr(self._editable(uid), kind)
            if unit not in units:
                raise Fault(404, "Operation Failed", "[Entity not found]")
            units.remove(unit)
            return documents.action()

    def _editable(self, uid: str) -> Policy:
        policy: Policy = self._model.find("policies", uid)
        if policy.locked:
            raise refusal("Cannot edit Scheduling Policy. Scheduling Policy is locked, and cannot be editable.")
        return policy


def _document(policy: Policy, kind: str, unit: str) -> Element:
    tag, _, number = _UNITS[kind]
    return documents.policy_unit(tag, unit, {number: str(policy.numbers.get(unit, 0))} if number else {})
