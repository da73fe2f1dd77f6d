# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Statements that run for every evidence: with SQLite they go to its driver as they are.

There SQLAlchemy's own work for a statement is several times the database's; with PostgreSQL the way
there is longer than both, and SQLAlchemy knows better than we do what a lost connection looks like.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection


class PreparedStatement:
    """A statement, built once.

    Args:
        statement: with parameters of texts, numbers and bytes only.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self._text = str(compiled)
        self._names = tuple(statement.selected_columns.keys()) if statement.is_select else ()

    def first(self, connection: Connection, parameters: Mapping[str, object]) -> Any:
        """Return the first row as a mapping from the names of its columns, None if there is none.

        Raises:
            SQLAlchemyError: the database did not do it.
        """
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, parameters).mappings().first()
        row, _ = self._run(connection, parameters)
        return None if row is None else dict(zip(self._names, row))

    def change(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Return how many rows were changed. Raises as `first` does."""
        if connection.dialect.name != "sqlite":
            return int(connection.execute(self._statement, parameters).rowcount)
        _, changed = self._run(connection, parameters)
        return changed

    def _run(self, connection: Connection, parameters: Mapping[str, object]) -> tuple[Any, int]:
        """Return the first row, and how many were changed."""
        driver: Any = connection.connection.dbapi_connection
        try:
            cursor = driver.execute(self._text, parameters)
            return cursor.fetchone(), cursor.rowcount
        except sqlite3.Error as e:
            raise sa.exc.DBAPIError(self._text, None, e) from e
