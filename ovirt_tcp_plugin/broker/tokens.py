# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tokens of the broker's interface, and what each role may do."""

from __future__ import annotations

import dataclasses
import enum
import sqlite3
from collections.abc import Mapping
from typing import Optional

from ovirt_tcp_plugin import errors, tokens
from ovirt_tcp_plugin.broker.database import Database


class Caller(enum.Enum):
    """Who may call a route. Values are the roles of tokens, but for the first."""

    ANYONE = "anyone"
    VIEWER = "viewer"
    OPERATOR = "operator"


# Who works may look, too.
INCLUDES: Mapping[str, frozenset[Caller]] = {
    "viewer": frozenset({Caller.VIEWER}),
    "operator": frozenset({Caller.VIEWER, Caller.OPERATOR}),
}


@dataclasses.dataclass(frozen=True)
class Bearer:
    """Who shows a token: what the token is called in public, and what he may call."""

    identifier: str
    callers: frozenset[Caller]


class Tokens:
    """The tokens in the broker's database.

    Every method raises Unavailable when the database does not do its part.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        """Keep a token. `end_s`: in seconds of the UTC epoch."""
        row = (tokens.digest(secret), role, note, end_s)
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", row)

    def find(self, secret: str, now_s: float) -> Optional[Bearer]:
        """Return who the bearer of `secret` is, None if it is no token or has ended.

        Args:
            now_s: seconds of the UTC epoch.
        """
        query = "SELECT digest, role FROM tokens WHERE digest = ? AND end_s > ?"
        with self._database.reading() as connection:
            row = connection.execute(query, (tokens.digest(secret), now_s)).fetchone()
        if row is None:
            return None
        callers = INCLUDES.get(row["role"], frozenset())
        return Bearer(tokens.identifier(row["digest"]), callers)

    def every(self) -> list[tokens.Listed]:
        """Return all tokens."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM tokens ORDER BY role, digest").fetchall()
        return [_listed(row) for row in rows]

    def remove(self, identifier: str) -> None:
        """Remove the token that is called so; its bearer is a stranger then. Raises NotFound."""
        query = "DELETE FROM tokens WHERE substr(digest, 1, ?) = ?"
        parameters = (tokens.IDENTIFIER_LENGTH, identifier)
        with self._database.transaction() as connection:
            removed = connection.execute(query, parameters).rowcount
        if not removed:
            raise errors.NotFound("token", identifier)


def _listed(row: sqlite3.Row) -> tokens.Listed:
    identifier = tokens.identifier(row["digest"])
    return tokens.Listed(identifier, row["role"], row["note"], row["end_s"])
