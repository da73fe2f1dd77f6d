# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What was taken back and must not come to life again when an older database is restored.

One row for each thing that is gone: an enrolled chip, a caller's token, a registered EK, a
reference value, a key that signed verdicts. What is added again is gone no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.verifier.store.schema import withdrawals

HOST = "host"
TOKEN = "token"  # noqa: S105 - a kind
EK = "ek"
SET = "set"
VALUE = "value"
VERDICT_KEY = "key"
KINDS = frozenset({HOST, TOKEN, EK, SET, VALUE, VERDICT_KEY})


class Withdrawal(NamedTuple):
    """Something that is gone.

    Attributes:
        kind: one of KINDS.
        name: of the host or the set of reference values; empty otherwise.
        detail: which of that name: a digest or an id, at most 64 characters.
    """

    kind: str
    name: str
    detail: str


def host(name: str, ek_public: bytes, ak_public: bytes) -> Withdrawal:
    """Return the withdrawal of an enrolled chip with its keys."""
    return Withdrawal(HOST, name, hashlib.sha256(ek_public + ak_public).hexdigest())


def value(set_name: str, identifier: str) -> Withdrawal:
    """Return the withdrawal of a reference value."""
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
    return Withdrawal(VALUE, set_name, digest)


def add(connection: Connection, gone: Withdrawal) -> None:
    """Remember that something is gone."""
    if connection.execute(sa.select(withdrawals).where(_is(gone))).first() is None:
        connection.execute(sa.insert(withdrawals).values(**gone._asdict()))


def forget(connection: Connection, back: Withdrawal) -> None:
    """Forget that something was gone: it was added again."""
    connection.execute(sa.delete(withdrawals).where(_is(back)))


def every(connection: Connection) -> list[Withdrawal]:
    """Return all that is gone."""
    in_order = sa.select(withdrawals).order_by(*withdrawals.c)
    return [Withdrawal(*map(str, row)) for row in connection.execute(in_order)]


def add_all(connection: Connection, gone: Iterable[Withdrawal]) -> None:
    """Remember several."""
    for withdrawal in gone:
        add(connection, withdrawal)


def _is(withdrawal: Withdrawal) -> sa.ColumnElement[bool]:
    return sa.and_(
        withdrawals.c.kind == withdrawal.kind,
        withdrawals.c.name == withdrawal.name,
        withdrawals.c.detail == withdrawal.detail,
    )
