# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reference values, by set, under one version that every change moves on."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier.store import withdrawals
from ovirt_tcp_plugin.verifier.store.schema import policy, reference_sets

log = logging.getLogger("verifier.store")


@dataclasses.dataclass(frozen=True)
class Stored:
    """All reference values at one version. `unreadable` names the sets whose rows are corrupt."""

    version: int
    sets: tuple[ReferenceSet, ...]
    unreadable: tuple[str, ...] = ()


def version(connection: Connection) -> int:
    """Return the version of the reference values."""
    return int(connection.execute(sa.select(policy.c.version)).scalar_one())


def load(connection: Connection) -> Stored:
    """Return all reference values; a set that cannot be read is named and hurts no other."""
    sets = []
    unreadable = []
    by_name = sa.select(reference_sets).order_by(reference_sets.c.name)
    for name, content in connection.execute(by_name):
        try:
            sets.append(reference_values.decode(json.loads(content)))
        except (ValueError, TypeError, RecursionError, errors.InvalidMessage):
            log.error("reference values unreadable set=%s", name)
            unreadable.append(str(name))
    return Stored(version(connection), tuple(sets), tuple(unreadable))


def put(connection: Connection, values: ReferenceSet) -> None:
    """Keep a set, new or changed. Raises Conflict if it could not be read again."""
    encoded = reference_values.encode(values)
    try:
        reference_values.decode(encoded)
    except errors.InvalidMessage as e:
        raise errors.Conflict(f"{values.name} cannot be kept: {e}") from e
    _note_withdrawn(connection, values)
    content = json.dumps(encoded)
    has_name = reference_sets.c.name == values.name
    update = sa.update(reference_sets).where(has_name).values(content=content)
    if connection.execute(update).rowcount == 0:
        row = {"name": values.name, "content": content}
        connection.execute(sa.insert(reference_sets).values(**row))
    _move_on(connection)


def remove(connection: Connection, name: str) -> None:
    """Withdraw a set. Raises NotFound."""
    _note_withdrawn(connection, ReferenceSet(name))
    withdrawals.add(connection, withdrawals.Withdrawal(withdrawals.SET, name, ""))
    removal = sa.delete(reference_sets).where(reference_sets.c.name == name)
    if connection.execute(removal).rowcount == 0:
        raise errors.NotFound("set of reference values", name)
    _move_on(connection)


def _note_withdrawn(connection: Connection, values: ReferenceSet) -> None:
    """Remember which values of a set are gone with a change of it, and which are back."""
    present = {value.identifier for value in values.values}
    before = _identifiers(connection, values.name)
    for identifier in before - present:
        withdrawals.add(connection, withdrawals.value(values.name, identifier))
    for identifier in present - before:
        withdrawals.forget(connection, withdrawals.value(values.name, identifier))
    if present:
        back = withdrawals.Withdrawal(withdrawals.SET, values.name, "")
        withdrawals.forget(connection, back)


def _identifiers(connection: Connection, name: str) -> set[str]:
    """Return the identifiers of the values in a set, as far as it can be read."""
    selection = sa.select(reference_sets.c.content).where(reference_sets.c.name == name)
    content = connection.execute(selection).scalar()
    try:
        known = reference_values.decode(json.loads(content or ""))
    except (ValueError, TypeError, RecursionError, errors.InvalidMessage):
        return set()
    return {value.identifier for value in known.values}


def hold(connection: Connection) -> Sequence[ReferenceSet]:
    """Return all sets for a change of them.

    No other server changes them before this transaction ends.
    """
    _move_on(connection)
    return load(connection).sets


def _move_on(connection: Connection) -> None:
    connection.execute(sa.update(policy).values(version=policy.c.version + 1))
