# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies and their units (`ClusterPolicyCRUDCommand`, `BackendPolicyUnitsResource`).

A policy can have no property that none of its units understands: a new one, without units, can have
none at all. A unit that is added is answered with 200.

REST changes the policy that the engine has in memory, and only then the command validates it:
    what it refuses stays in
memory, built-in policies included, until the engine starts again. The database never sees it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, documents, model
from ovirt_tcp_plugin.lab.engine.documents import Element
from ovirt_tcp_plugin.lab.engine.errors import Fault, invalid, mandatory, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, Policy
from ovirt_tcp_plugin.lab.engine.rest import properties

# Path element: (tag of one, type of its unit, tag of its number).
_UNITS = {
    "filters": ("filter", "filter", "position"),
    "weights": ("weight", "weight", "factor"),
    "balances": ("balance", "load_balancing", ""),
}
_WRONG_TYPE = {
    "filters": "Filtering",
    "weights": "score function",
    "balances": "load balancing logic",
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
            return documents.listing(
                "scheduling_policy_units", map(documents.unit, self._model.units.values())
            )

    def _unit(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return documents.unit(self._model.find("units", uid))

    def _forget_unit(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            unit = self._model.find("units", uid)
            users = [
                policy.name for policy in self._model.policies.values() if uid in _all_of(policy)
            ]
            if users:
                text = (
                    f"Policy unit is attached to the following cluster policies: {','.join(users)}."
                )
                raise refusal(f"Cannot remove Policy Unit. {text}")
            del self._model.units[unit.id]
            return documents.action()

    def _list(self, query: Mapping[str, str], _: Element) -> Element:
        with self._model.lock:
            follows = "filters" in query.get("follow", "").split(",")
            rows = self._model.policies.values()
            return documents.listing(
                "scheduling_policies",
                [
                    _whole(policy, _documents(policy, "filters") if follows else None)
                    for policy in rows
                ],
            )

    def _get(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            return _whole(self._model.find("policies", uid))

    def _add(self, query: Mapping[str, str], given: Element) -> Element:
        name = documents.text(given, "name")
        if not name:
            raise mandatory("scheduling_policy.name")
        with self._model.lock:
            policy = Policy(model.new_id(), name, documents.text(given, "description") or "")
            policy.properties = documents.properties(given, "properties") or {}
            self._validate(policy, "add")
            self._model.policies[policy.id] = policy
            self._log(audit_log.POLICY_ADDED, policy, "added")
            return _whole(policy)

    def _update(self, query: Mapping[str, str], given: Element, uid: str) -> Element:
        def edit(policy: Policy) -> None:
            for name in ("name", "description"):
                value = documents.text(given, name)
                setattr(policy, name, getattr(policy, name) if value is None else value)
            values = documents.properties(given, "properties")
            policy.properties = policy.properties if values is None else values

        return _whole(self._edit(uid, edit))

    def _remove(self, query: Mapping[str, str], _: Element, uid: str) -> Element:
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            if policy.locked:
                raise invalid("Cannot remove Scheduling Policy. Parameters are invalid.")
            users = [
                cluster.name
                for cluster in self._model.clusters.values()
                if cluster.policy == policy.id
            ]
            if users:
                text = (
                    f"Scheduling Policy is attached to cluster(s): {','.join(users)}, please "
                    "unassign cluster(s)."
                )
                raise invalid(f"Cannot remove Scheduling Policy. {text}")
            del self._model.policies[policy.id]
            self._model.unspoiled_policies.pop(policy.id, None)
            self._log(audit_log.POLICY_REMOVED, policy, "removed")
            return documents.action()

    def _units(self, query: Mapping[str, str], _: Element, uid: str, kind: str) -> Element:
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            return documents.listing(kind, _documents(policy, kind))

    def _add_unit(self, query: Mapping[str, str], given: Element, uid: str, kind: str) -> Element:
        tag, _, number = _UNITS[kind]
        unit = documents.identifier(given, "scheduling_policy_unit")
        default = 1 if kind == "weights" else 0
        value = documents.integer(given, number) if number else 0

        def edit(policy: Policy) -> None:
            units = getattr(policy, kind)
            if kind == "balances":
                units.clear()  # there is one at most
            units.append(unit)
            policy.numbers[unit] = default if value is None else value

        return _document(self._edit(uid, edit), kind, unit)

    def _remove_unit(
        self, query: Mapping[str, str], _: Element, uid: str, kind: str, unit: str
    ) -> Element:
        def edit(policy: Policy) -> None:
            units = getattr(policy, kind)
            if unit in units:  # one that is absent is no fault
                units.remove(unit)

        self._edit(uid, edit)
        return documents.action()

    def _edit(self, uid: str, edit: Callable[[Policy], None]) -> Policy:
        """Change the policy in memory, then validate it, and save it only if it is valid. Raises
        Fault.
        """
        with self._model.lock:
            policy: Policy = self._model.find("policies", uid)
            before = copy.deepcopy(policy)
            edit(policy)
            try:
                if policy.locked:
                    raise invalid("Cannot edit Scheduling Policy. Parameters are invalid.")
                self._validate(policy, "edit")
            except Fault:
                self._model.unspoiled_policies.setdefault(uid, before)
                raise
            self._model.unspoiled_policies.pop(uid, None)
            self._log(audit_log.POLICY_UPDATED, policy, "updated")
            return policy

    def _validate(self, policy: Policy, verb: str) -> None:
        """Raise Fault (400) for a policy that cannot be saved (`checkAddEditValidations`)."""
        prefix = f"Cannot {verb} Scheduling Policy."
        for other in self._model.policies.values():
            if other.id != policy.id and other.name == policy.name:
                raise invalid(f"{prefix} Name is in use.")
        seen: set[str] = set()
        self._validate_units(policy.filters, "filters", seen, prefix)
        positions = [policy.numbers.get(uid, 0) for uid in set(policy.filters)]
        if positions.count(-1) > 1:
            raise invalid(f"{prefix} Only a single filter can be selected as first.")
        if positions.count(1) > 1:
            raise invalid(f"{prefix} Only a single filter can be selected as last.")
        self._validate_units(policy.weights, "weights", seen, prefix)
        self._validate_units(policy.balances, "balances", set(), prefix)
        properties.validate(
            f"{verb} Scheduling Policy", self._model.understood(policy), policy.properties
        )

    def _validate_units(self, units: Sequence[str], kind: str, seen: set[str], prefix: str) -> None:
        for uid in units:
            if uid in seen:
                raise invalid(f"{prefix} policy unit already exists in Scheduling Policy.")
            seen.add(uid)
            unit = self._model.units.get(uid)
            if unit is None:
                raise invalid(f"{prefix} Policy unit is unknown.")
            if unit.type != _UNITS[kind][1]:
                raise invalid(f"{prefix} Policy unit doesn't implement {_WRONG_TYPE[kind]}.")

    def _log(self, code: int, policy: Policy, done: str) -> None:
        text = f"Scheduling Policy {policy.name} was {done}. (User: {self._model.acting_name()})"
        self._model.log(code, text)


def _all_of(policy: Policy) -> list[str]:
    return [*policy.filters, *policy.weights, *policy.balances]


def _whole(policy: Policy, filters: Sequence[Element] | None = None) -> Element:
    return documents.policy(policy, policy.id == builtin.NONE_POLICY, filters)


def _documents(policy: Policy, kind: str) -> list[Element]:
    return [_document(policy, kind, unit) for unit in getattr(policy, kind)]


def _document(policy: Policy, kind: str, unit: str) -> Element:
    tag, _, number = _UNITS[kind]
    return documents.policy_unit(
        tag, unit, {number: str(policy.numbers.get(unit, 0))} if number else {}
    )
