# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies and their units (`ClusterPolicyCRUDCommand`, `BackendPolicyUnitsResource`).

A policy can have no property that none of its units understands: a new one, without units, can have none at all. A unit
that is added is answered with 200.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping

from ovirt_tcp_plugin.lab.engine import documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, invalid
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
            "GET schedulingpolicyunits/{}": self._unit,
            "DELETE schedulingpolicyunits/{}": self._forget_unit,
            "GET schedulingpolicies": self._list,
            "POST schedulingpolicies": self._add,
            f"GET {_POLICY}": self._get,
            f"PUT {_POLICY}": self._update,
            f"DELETE {_POLICY}": self._remove,
            f"GET {units}": self._units,
            f"POST {units}": self._add_unit,
            f"DELETE {units}/{{}}": self._remove_unit,
        }

    def _all_units(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            return documents.listing("scheduling_policy_units", map(documents.unit, self._model.units.values()))

    def _unit(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return documents.unit(self._model.find("units", uid))

    def _forget_unit(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            unit = self._model.find("units", uid)
            users = [one.name for one in self._model.policies.values() if uid in (*one.filters, *one.weights, *one.balances)]
            if users:
                text = f"Policy unit is attached to the following cluster policies: {','.join(users)}."
                raise invalid(f"Cannot remove Policy Unit. {text}")
            del self._model.units[unit.id]
            return documents.action()

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            follows = "filters" in query.get("follow", "").split(",")
            rows = self._model.policies.values()
            return documents.listing(
                "scheduling_policies",
                [documents.policy(one, _documents(one, "filters") if follows else None) for one in rows],
            )

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        return documents.policy(self._model.find("policies", uid))

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        with self._model.lock:
            policy = Policy(model.new_id(), documents.text(given, "name") or "", documents.text(given, "description") or "")
            if any(one.name == policy.name for one in self._model.policies.values()):
                raise invalid("Cannot add Scheduling Policy. Name is in use.")
            policy.properties = self._valid(policy, documents.properties(given, "properties") or {}, "add")
            self._model.policies[policy.id] = policy
            return documents.policy(policy)

    def _update(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        with self._model.lock:
            policy = self._editable(uid)
            properties = documents.properties(given, "properties")
            policy.properties = self._valid(policy, policy.properties if properties is None else properties, "edit")
            description = documents.text(given, "description")
            policy.description = policy.description if description is None else description
            return documents.policy(policy)

    def _valid(self, policy: Policy, properties: dict[str, str], verb: str) -> dict[str, str]:
        """Return the properties. Raises Fault (400) if no unit of the policy understands one, or if a value is no good."""
        known = self._model.understood(policy)
        missing = [name for name in properties if name not in known]
        wrong = [name for name in properties if name in known and not re.fullmatch(known[name], properties[name])]
        if missing or wrong:
            what = "are not configured by the system" if missing else "have illegal values"
            text = f"Cannot {verb} Scheduling Policy if some of the specified custom properties {what}."
            raise invalid(f"{text} The keys are: {','.join(missing or wrong)}")
        return properties

    def _remove(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            policy = self._editable(uid)
            users = [cluster.name for cluster in self._model.clusters.values() if cluster.policy == policy.id]
            if users:
                text = f"Scheduling Policy is attached to cluster(s): {','.join(users)}, please unassign cluster(s)."
                raise invalid(f"Cannot remove Scheduling Policy. {text}")
            del self._model.policies[policy.id]
            return documents.action()

    def _units(self, query: Mapping[str, str], _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            return documents.listing(kind, _documents(policy, kind))

    def _add_unit(self, query: Mapping[str, str], given: Element, uid: str, kind: str) -> Element:
        _, unit_type, number = _UNITS[kind]
        with self._model.lock:
            policy = self._editable(uid)
            unit = self._model.find("units", documents.identifier(given, "scheduling_policy_unit"))
            units = getattr(policy, kind)
            if unit.id in units:
                raise invalid("Cannot edit Scheduling Policy. policy unit already exists in Scheduling Policy.")
            if unit.type != unit_type:
                raise invalid("Cannot edit Scheduling Policy. Policy unit doesn't implement it.")
            if kind == "balances":
                units.clear()  # there is one at most
            units.append(unit.id)
            policy.numbers[unit.id] = int(documents.text(given, number) or 0) if number else 0
            return _document(policy, kind, unit.id)

    def _remove_unit(self, query: Mapping[str, str], _: Element, uid: str, kind: str, unit: str) -> Element:
        with self._model.lock:
            policy = self._editable(uid)
            units = getattr(policy, kind)
            if unit not in units:
                raise Fault(404, "Operation Failed", "[Entity not found]")
            left = copy.copy(policy)
            setattr(left, kind, [one for one in units if one != unit])
            self._valid(left, policy.properties, "edit")
            units.remove(unit)
            return documents.action()

    def _editable(self, uid: str) -> Policy:
        policy: Policy = self._model.find("policies", uid)
        if policy.locked:
            raise invalid("Cannot edit Scheduling Policy. Parameters are invalid.")
        return policy


def _documents(policy: Policy, kind: str) -> list[Element]:
    return [_document(policy, kind, one) for one in getattr(policy, kind)]


def _document(policy: Policy, kind: str, unit: str) -> Element:
    tag, _, number = _UNITS[kind]
    return documents.policy_unit(tag, unit, {number: str(policy.numbers.get(unit, 0))} if number else {})
