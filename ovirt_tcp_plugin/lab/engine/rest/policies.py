# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies and their units (`ClusterPolicyCRUDCommand`, `BackendPolicyUnitsResource`).

A policy can have no property that none of its units understands: a new one, without units, can have
none at all. A unit that is added is answered with 200.

REST changes the policy that the engine has in memory, and only then the command validates it: what
it refuses stays in memory, built-in policies included, until the engine starts again. The database
never sees it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, model, request_documents
from ovirt_tcp_plugin.lab.engine.documents import actions, scheduling_policies
from ovirt_tcp_plugin.lab.engine.elements import listing
from ovirt_tcp_plugin.lab.engine.errors import Fault, invalid, mandatory, refusal
from ovirt_tcp_plugin.lab.engine.model import Model, SchedulingPolicy
from ovirt_tcp_plugin.lab.engine.rest import properties
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes, follows
from ovirt_tcp_plugin.lab.engine.xml_text import Element


@dataclasses.dataclass(frozen=True)
class _Units:
    """A kind of units in a policy.

    Attributes:
        tag: of a unit.
        type: of a unit, as `schedulingpolicyunits` has it.
        number: tag of what a unit has beside its id, empty if it has nothing.
        title: what refusals call the type.
    """

    tag: str
    type: str
    number: str
    title: str


# By path element, which is also the policy's attribute.
_UNITS = {
    "filters": _Units("filter", "filter", "position", "Filtering"),
    "weights": _Units("weight", "weight", "factor", "score function"),
    "balances": _Units("balance", "load_balancing", "", "load balancing logic"),
}
_POLICY = "schedulingpolicies/{}"


class PolicyPaths:
    """`schedulingpolicies` and `schedulingpolicyunits`."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        units = f"{_POLICY}/({'|'.join(_UNITS)})"
        self.routes: Routes = {
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

    # Units

    def _all_units(self, query: Query, _: Element) -> Element:
        units = map(scheduling_policies.unit, self._model.units.values())
        return listing("scheduling_policy_units", units)

    def _unit(self, query: Query, _: Element, uid: str) -> Element:
        return scheduling_policies.unit(self._model.units.find(uid))

    def _forget_unit(self, query: Query, _: Element, uid: str) -> Element:
        unit = self._model.units.find(uid)
        policies = self._model.policies.values()
        names = [policy.name for policy in policies if uid in policy.units()]
        if names:
            text = f"attached to the following cluster policies: {','.join(names)}."
            raise refusal(f"Cannot remove Policy Unit. Policy unit is {text}")
        del self._model.units[unit.id]
        return actions.complete()

    # Policies

    def _list(self, query: Query, _: Element) -> Element:
        with_filters = follows(query, "filters")
        rows: list[Element] = []
        for policy in self._model.policies.values():
            filters = _documents(policy, "filters") if with_filters else None
            rows.append(_document_of_policy(policy, filters))
        return listing("scheduling_policies", rows)

    def _get(self, query: Query, _: Element, uid: str) -> Element:
        return _document_of_policy(self._model.policies.find(uid))

    def _add(self, query: Query, document: Element) -> Element:
        name = document.findtext("name")
        if not name:
            raise mandatory("scheduling_policy.name")
        policy = SchedulingPolicy(model.new_id(), name, document.findtext("description", ""))
        policy.properties = request_documents.properties(document, "properties") or {}
        self._validate(policy, "add")
        self._model.policies[policy.id] = policy
        self._log(audit_log.POLICY_ADDED, policy, "added")
        return _document_of_policy(policy)

    def _update(self, query: Query, document: Element, uid: str) -> Element:
        def edit(policy: SchedulingPolicy) -> None:
            policy.name = document.findtext("name", policy.name)
            policy.description = document.findtext("description", policy.description)
            values = request_documents.properties(document, "properties")
            if values is not None:
                policy.properties = values

        return _document_of_policy(self._edit(uid, edit))

    def _remove(self, query: Query, _: Element, uid: str) -> Element:
        policy = self._model.policies.find(uid)
        if policy.locked:
            raise invalid("Cannot remove Scheduling Policy. Parameters are invalid.")
        clusters = self._model.clusters.values()
        names = [cluster.name for cluster in clusters if cluster.policy == uid]
        if names:
            attached = f"attached to cluster(s): {','.join(names)}"
            text = f"Scheduling Policy is {attached}, please unassign cluster(s)."
            raise invalid(f"Cannot remove Scheduling Policy. {text}")
        del self._model.policies[uid]
        self._model.unspoiled_policies.pop(uid, None)
        self._log(audit_log.POLICY_REMOVED, policy, "removed")
        return actions.complete()

    # Units of a policy

    def _units(self, query: Query, _: Element, uid: str, kind: str) -> Element:
        policy = self._model.policies.find(uid)
        return listing(kind, _documents(policy, kind))

    def _add_unit(self, query: Query, document: Element, uid: str, kind: str) -> Element:
        unit_id = request_documents.identifier(document, "scheduling_policy_unit")
        number = _number(document, kind)

        def edit(policy: SchedulingPolicy) -> None:
            unit_ids = getattr(policy, kind)
            if kind == "balances":
                unit_ids.clear()  # there is one at most
            unit_ids.append(unit_id)
            policy.numbers[unit_id] = number

        return _document(self._edit(uid, edit), kind, unit_id)

    def _remove_unit(self, query: Query, _: Element, uid: str, kind: str, unit_id: str) -> Element:
        def edit(policy: SchedulingPolicy) -> None:
            unit_ids = getattr(policy, kind)
            if unit_id in unit_ids:  # one that is absent is no fault
                unit_ids.remove(unit_id)

        self._edit(uid, edit)
        return actions.complete()

    # Edits

    def _edit(self, uid: str, edit: Callable[[SchedulingPolicy], None]) -> SchedulingPolicy:
        """Change the policy in memory, then validate it, and save it only if it is valid.

        Raises:
            Fault: there is no such policy, or it is not valid now.
        """
        policy = self._model.policies.find(uid)
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

    def _validate(self, policy: SchedulingPolicy, verb: str) -> None:
        """Raise Fault (400) for a policy that cannot be saved (`checkAddEditValidations`)."""
        prefix = f"Cannot {verb} Scheduling Policy."
        for other in self._model.policies.values():
            if other.id != policy.id and other.name == policy.name:
                raise invalid(f"{prefix} Name is in use.")
        seen: set[str] = set()
        self._validate_units(policy.filters, "filters", seen, prefix)
        _validate_positions(policy, prefix)
        self._validate_units(policy.weights, "weights", seen, prefix)
        self._validate_units(policy.balances, "balances", set(), prefix)
        known = self._model.understood(policy)
        properties.validate(f"{verb} Scheduling Policy", known, policy.properties)

    def _validate_units(self, units: Sequence[str], kind: str, seen: set[str], prefix: str) -> None:
        for uid in units:
            if uid in seen:
                raise invalid(f"{prefix} policy unit already exists in Scheduling Policy.")
            seen.add(uid)
            unit = self._model.units.get(uid)
            if unit is None:
                raise invalid(f"{prefix} Policy unit is unknown.")
            if unit.type != _UNITS[kind].type:
                raise invalid(f"{prefix} Policy unit doesn't implement {_UNITS[kind].title}.")

    def _log(self, code: int, policy: SchedulingPolicy, done: str) -> None:
        text = f"Scheduling Policy {policy.name} was {done}. (User: {self._model.acting_name()})"
        self._model.log(code, text)


def _validate_positions(policy: SchedulingPolicy, prefix: str) -> None:
    positions = [policy.numbers.get(uid, 0) for uid in set(policy.filters)]
    if positions.count(-1) > 1:
        raise invalid(f"{prefix} Only a single filter can be selected as first.")
    if positions.count(1) > 1:
        raise invalid(f"{prefix} Only a single filter can be selected as last.")


def _number(document: Element, kind: str) -> int:
    """Return a new unit's position or factor. Raises Fault (400)."""
    number = None
    if _UNITS[kind].number:
        number = request_documents.integer(document, _UNITS[kind].number)
    if number is not None:
        return number
    return 1 if kind == "weights" else 0


def _document_of_policy(
    policy: SchedulingPolicy, filters: Sequence[Element] | None = None
) -> Element:
    return scheduling_policies.policy(policy, policy.id == builtin.NONE_POLICY, filters)


def _documents(policy: SchedulingPolicy, kind: str) -> list[Element]:
    return [_document(policy, kind, unit_id) for unit_id in getattr(policy, kind)]


def _document(policy: SchedulingPolicy, kind: str, unit_id: str) -> Element:
    units = _UNITS[kind]
    numbers: dict[str, str] = {}
    if units.number:
        numbers[units.number] = str(policy.numbers.get(unit_id, 0))
    return scheduling_policies.policy_unit(units.tag, unit_id, numbers)
