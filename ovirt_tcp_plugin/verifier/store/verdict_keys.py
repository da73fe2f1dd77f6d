# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The keys that sign verdicts, for all servers on this database: at most one in each state.

What is kept of a private key is encrypted under a secret that only the holders of the authority's
key have.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store import columns, withdrawals
from ovirt_tcp_plugin.verifier.store.schema import verdict_keys

log = logging.getLogger("verifier.store")

# Signs; will sign, and the hosts may know it already; signed before.
ACTIVE = "active"
NEXT = "next"
FORMER = "former"


@dataclasses.dataclass(frozen=True)
class StoredKey:
    """A key by its id: `public` and `private` are PEM, `private` encrypted."""

    key_id: str
    public: str
    private: str


def begin(connection: Connection, key: StoredKey) -> None:
    """Make `key` the active one if there is no key yet.

    A key that cannot be read is not replaced: the hosts would refuse what another one signs.
    """
    if is_empty(connection):
        _add(connection, ACTIVE, key)


def active(connection: Connection) -> Optional[StoredKey]:
    """Return the key that signs."""
    return every(connection).get(ACTIVE)


def every(connection: Connection) -> Mapping[str, StoredKey]:
    """Return the keys by state."""
    by_state = sa.select(verdict_keys).order_by(verdict_keys.c.state)
    keys = {}
    for row in connection.execute(by_state).mappings():
        try:
            check(row)
        except ValueError:
            log.error("record unreadable table=verdict_keys state=%s", row["state"])
            continue
        keys[row["state"]] = StoredKey(row["key_id"], row["public"], row["private"])
    return keys


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError."""
    for name in ("state", "key_id", "public", "private"):
        columns.text(row[name])
    if row["state"] not in (ACTIVE, NEXT, FORMER):
        raise columns.BadValue("a state that does not exist")


def is_empty(connection: Connection) -> bool:
    """Return whether there is no key at all, not even one that cannot be read."""
    return connection.execute(sa.select(verdict_keys.c.state)).first() is None


def prepare(connection: Connection, key: StoredKey) -> None:
    """Keep the key that will sign next. Raises Conflict when there is one."""
    known = every(connection).get(NEXT)
    if known is not None:
        raise errors.Conflict(f"key {known.key_id} is prepared already: activate it first")
    _add(connection, NEXT, key)


def activate(connection: Connection) -> StoredKey:
    """Have the next key sign from now on, and return it. Raises NotFound when none is prepared."""
    coming = every(connection).get(NEXT)
    if coming is None:
        command = "ovirt-tcp-verifier verdict-key prepare"
        raise errors.NotFound("prepared verdict key", f"yet: `{command}` makes one")
    state = verdict_keys.c.state
    forget_former = sa.delete(verdict_keys).where(state == FORMER)
    connection.execute(forget_former)
    signed = active(connection)
    if signed is not None:
        gone = withdrawals.Withdrawal(withdrawals.VERDICT_KEY, "", signed.key_id)
        withdrawals.add(connection, gone)
    # Its private part is of no more use to us, and of some to a thief.
    retire = sa.update(verdict_keys).where(state == ACTIVE).values(state=FORMER, private="")
    connection.execute(retire)
    promote = sa.update(verdict_keys).where(state == NEXT).values(state=ACTIVE)
    connection.execute(promote)
    return coming


def protect(connection: Connection, key_id: str, private: str) -> None:
    """Keep the private part of a key in another encryption."""
    of_key = sa.and_(verdict_keys.c.key_id == key_id, verdict_keys.c.private != "")
    connection.execute(sa.update(verdict_keys).where(of_key).values(private=private))


def replace_all(connection: Connection, key: StoredKey) -> None:
    """Forget all keys, which nobody can read any more, and sign with this one."""
    connection.execute(sa.delete(verdict_keys))
    _add(connection, ACTIVE, key)


def _add(connection: Connection, state: str, key: StoredKey) -> None:
    connection.execute(sa.insert(verdict_keys).values(state=state, **dataclasses.asdict(key)))
