# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Reference values, by set, under one version that every change moves on."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import reference_values
from ovirt_tcp_plugin.messages.reference_values import ReferenceSet
from ovirt_tcp_plugin.verifier.store import columns, withdrawals
from ovirt_tcp_plugin.verifier.store.schema import policy, reference_sets, results

log = logging.getLogger("verifier.store")

# More changes of the reference values than a server makes between two results that it keeps.
_FAR = 1_000_000


@dataclasses.dataclass(frozen=True)
class Stored:
    """All reference values at one version. `unreadable` names the sets whose rows are corrupt."""

    version: int
    sets: tuple[ReferenceSet, ...]
    unreadable: tuple[str, ...] = ()


def version(connection: Connection) -> int:
    """Return the version of the reference values. Raises Unavailable if it cannot be read."""
    return decode_version(connection.execute(sa.select(policy.c.version)).scalar())


def decode_version(stored: object) -> int:
    """Return the version that is stored.

    Raises:
        Unavailable: it cannot be read. Nobody is judged then: a version that is too low would let
            values count that were withdrawn.
    """
    try:
        return columns.number(stored)
    except columns.BadValue as e:
        reason = (
            "the version of its reference values cannot be read: "
            "`ovirt-tcp-verifier record mend` on the server's machine"
        )
        raise errors.Unavailable("the store", reason) from e


def load(connection: Connection) -> Stored:
    """Return all reference values; a set that cannot be read is named and hurts no other."""
    sets = []
    unreadable = []
    by_name = sa.select(reference_sets).order_by(reference_sets.c.name)
    for name, content in connection.execute(by_name):
        try:
            values = _decode(content)
        except (ValueError, TypeError, RecursionError, errors.InvalidMessage):
            log.error("reference values unreadable set=%s", name)
            unreadable.append(str(name))
            continue
        if values.name == name:
            sets.append(values)
        else:
            # A change of the set would not find it, and leave it to count beside its successor.
            log.error("reference values unreadable set=%s: its row has another name", values.name)
            unreadable.append(values.name)
    return Stored(version(connection), tuple(sets), tuple(unreadable))


def check(row: Any) -> None:
    """Return if a row of the sets can be read.

    Raises ValueError, TypeError, RecursionError or InvalidMessage.
    """
    if _decode(row["content"]).name != row["name"]:
        raise columns.BadValue("its name is not its content's")


def _decode(content: str) -> ReferenceSet:
    return reference_values.decode(json.loads(content))


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


def begin_version(connection: Connection) -> None:
    """Have the version start again, far beyond any that a server may remember.

    Every host is judged again then.
    """
    highest = 0
    for number in connection.execute(sa.select(results.c.policy)).scalars():
        if isinstance(number, int) and number < columns.MAX_NUMBER // 2:
            highest = max(highest, number)
    connection.execute(sa.delete(policy))
    connection.execute(sa.insert(policy).values(version=highest + _FAR))
