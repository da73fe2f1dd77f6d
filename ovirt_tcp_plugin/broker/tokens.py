# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tokens of the broker's interface, and what each role may do."""

from __future__ import annotations

import dataclasses
import enum
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
    """The tokens in the broker's database. Every method raises Unavailable when that does not do its part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, secret: str, role: str, note: str, end_s: int) -> None:
        """Keep a token."""
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (tokens.digest(secret), role, note, end_s))

    def find(self, secret: str, now_s: float) -> Optional[Bearer]:
        """Return who the bearer of `secret` is at `now_s`, seconds of the UTC epoch; None if it is no token, or ended."""
        with self._database.reading() as connection:
            query = "SELECT digest, role FROM tokens WHERE digest = ? AND end_s > ?"
            row = connection.execute(query, (tokens.digest(secret), now_s)).fetchone()
        if row is None:
            return None
        return Bearer(tokens.identifier(row["digest"]), INCLUDES.get(row["role"], frozenset()))

    def every(self) -> list[tokens.Listed]:
        """Return all tokens."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM tokens ORDER BY role, digest").fetchall()
        return [tokens.Listed(tokens.identifier(row["digest"]), row["role"], row["note"], row["end_s"]) for row in rows]

    def remove(self, identifier: str) -> None:
        """Remove the token that is called so; its bearer is a stranger from now on. Raises NotFound."""
        with self._database.transaction() as connection:
            query = "DELETE FROM tokens WHERE substr(digest, 1, ?) = ?"
            removed = connection.execute(query, (tokens.IDENTIFIER_LENGTH, identifier)).rowcount
        if not removed:
            raise errors.NotFound("token", identifier)
