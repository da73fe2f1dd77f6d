# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Tokens by which callers are known, and with which hosts enrol. Only their digests are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.tokens import IDENTIFIER_LENGTH, NEVER, digest, identifier
from ovirt_tcp_plugin.verifier.store import columns, withdrawals
from ovirt_tcp_plugin.verifier.store.schema import tokens

# Whoever may make tokens cannot fill the database with them; twice the hosts of a large site.
MAX_WAITING = 20_000


@dataclasses.dataclass(frozen=True)
class Token:
    """What a bearer may do: role, and for a token that enrols a host which one, and until when.

    `end_s` is in seconds of the wall clock (UTC epoch).
    """

    role: str
    host_name: str = ""
    host_id: str = ""
    note: str = ""
    end_s: int = NEVER


def add(connection: Connection, secret: str, token: Token) -> None:
    """Keep a token."""
    row = {"digest": digest(secret), **dataclasses.asdict(token)}
    connection.execute(sa.insert(tokens).values(**row))


def add_bounded(connection: Connection, secret: str, token: Token) -> None:
    """Keep a token that enrols a host, unless too many wait already.

    Raises:
        Conflict: MAX_WAITING wait.
    """
    waiting = sa.select(sa.func.count()).where(tokens.c.role == "enrolment")
    if (connection.execute(waiting.where(tokens.c.host_name != "")).scalar() or 0) >= MAX_WAITING:
        reason = (
            f"{MAX_WAITING} tokens that enrol hosts wait to be used: remove some "
            "(ovirt-tcp-verifier token list), or wait until they end"
        )
        raise errors.Conflict(reason)
    add(connection, secret, token)


def find(connection: Connection, secret: str) -> Optional[Token]:
    """Return what the bearer of `secret` may do, None if it is no token."""
    selection = sa.select(tokens).where(tokens.c.digest == digest(secret))
    row = connection.execute(selection).mappings().first()
    return None if row is None else _decode(row)


def every(connection: Connection) -> Mapping[str, Token]:
    """Return all tokens by their public names."""
    in_order = sa.select(tokens).order_by(tokens.c.role, tokens.c.host_name, tokens.c.digest)
    rows = connection.execute(in_order).mappings()
    return {identifier(str(row["digest"])): _decode(row) for row in rows}


def remove(connection: Connection, called: str) -> None:
    """Remove the token that is called so; its bearer is a stranger from now on. Raises NotFound."""
    begins_so = sa.func.substr(tokens.c.digest, 1, IDENTIFIER_LENGTH) == called
    digests = connection.execute(sa.select(tokens.c.digest).where(begins_so)).scalars().all()
    if not digests:
        raise errors.NotFound("token", called)
    connection.execute(sa.delete(tokens).where(begins_so))
    for removed in digests:
        withdrawals.add(connection, withdrawals.Withdrawal(withdrawals.TOKEN, "", str(removed)))


def spend(connection: Connection, secret: str, host_name: str) -> bool:
    """Use up the token that enrols this host, and every other one made for it.

    A spare one would undo it later.

    Returns:
        Whether there was such a token; if not, nothing is changed.
    """
    enrols = tokens.c.role == "enrolment"
    of_host = sa.delete(tokens).where(enrols, tokens.c.host_name == host_name)
    spending = of_host.where(tokens.c.digest == digest(secret))
    if connection.execute(spending).rowcount != 1:
        return False
    connection.execute(of_host)
    return True


def forget_ended(connection: Connection, now_s: int) -> None:
    """Remove the tokens that ended before `now_s` (seconds of the UTC epoch)."""
    connection.execute(sa.delete(tokens).where(tokens.c.end_s <= now_s))


def _decode(row: Any) -> Token:
    """Return the token in a row; one whose end cannot be read has ended."""
    try:
        end_s = columns.number(row["end_s"])
    except columns.BadValue:
        end_s = 0
    return Token(
        role=str(row["role"]),
        host_name=str(row["host_name"]),
        host_id=str(row["host_id"]),
        note=str(row["note"]),
        end_s=end_s,
    )


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError."""
    for name in ("digest", "role", "host_name", "host_id", "note"):
        columns.text(row[name])
    columns.number(row["end_s"])
