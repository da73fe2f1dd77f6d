# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Rows that cannot be read, for the people who put them right.

Whoever meets such a row sets it aside; so it hurts only what it is about, and nobody might notice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages.reference_values import MLE_PREFIX
from ovirt_tcp_plugin.verifier.store import (
    challenges,
    columns,
    endorsements,
    hosts,
    oat_records,
    references,
    results,
    tokens,
    verdict_keys,
)
from ovirt_tcp_plugin.verifier.store.schema import metadata

# What the address of a row is called: no column can be relied on.
_ADDRESS: Mapping[str, str] = {"sqlite": "rowid", "postgresql": "ctid"}
_MAX_NAME_LENGTH = 80

_RESTORE = "restore a backup of the database"


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A table's rows.

    Attributes:
        name: the column that says what a row is about.
        check: raises what a decoder raises.
        next_step: what is left to do once the row is mended, or instead.
        mends: whether `mend` does something about it.
    """

    name: str
    check: Callable[[Any], None]
    next_step: str
    mends: bool = True


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot be read.

    Attributes:
        table: its table.
        address: where the database keeps it, as text.
        name: what it is about, if that can be read.
        next_step: what a person does.
        mends: whether `mend` does something about it.
    """

    table: str
    address: str
    name: str
    next_step: str
    mends: bool


def _check_version(row: Any) -> None:
    columns.number(row["version"])


def _check_digest(row: Any) -> None:
    columns.text(row["digest"])


_KINDS: Mapping[str, _Kind] = {
    "tokens": _Kind("note", tokens.check, "`token add` or `token enrol` makes another token"),
    "hosts": _Kind("name", hosts.check, "enrol the host again: `token enrol HOST`"),
    "registered_eks": _Kind("host_name", endorsements.check, "`ek add` registers it again"),
    "rounds": _Kind("host_name", challenges.check, "nothing; the host is asked again"),
    "results": _Kind("host_name", results.check, "nothing; the host's next evidence is judged"),
    "oat_records": _Kind("name", oat_records.check, "enter it again with OpenAttestation's tool"),
    "policy": _Kind("version", _check_version, "nothing; every host is judged again"),
    "reference_sets": _Kind("name", references.check, "import or enter the set again"),
    "authority": _Kind("digest", _check_digest, _RESTORE, mends=False),
    "verdict_keys": _Kind(
        "state",
        verdict_keys.check,
        "`verdict-key prepare`, `export` and `activate` give the hosts another key, or " + _RESTORE,
        mends=False,
    ),
}
TABLES = tuple(_KINDS)
_MLE_STEP = "remove or register its MLE again: its hosts are judged by this set only"


def find(connection: Connection) -> list[BadRow]:
    """Return every row that cannot be read, table by table."""
    bad_rows = []
    for table, kind in _KINDS.items():
        # Plain SQL: SQLAlchemy would give up a whole table for one value of another type.
        rows = connection.exec_driver_sql(
            f"SELECT {_address(connection)} AS row_address, {table}.* FROM {table}"  # noqa: S608
        )
        for row in rows.mappings():
            if not _is_good(kind, _plain(row)):
                bad_rows.append(_bad_row(table, kind, row))
    return bad_rows


def mend(connection: Connection, table: str, address: str) -> BadRow:
    """Remove a row that cannot be read, or put in its place what the server starts from again.

    Raises:
        NotFound: there is no such row, or it is a good one.
        Conflict: only a person can put it right.
    """
    for bad_row in find(connection):
        if (bad_row.table, bad_row.address) == (table, address):
            break
    else:
        raise errors.NotFound("unreadable row", f"{address} in table {table}")
    if not bad_row.mends:
        raise errors.Conflict(f"{table} {bad_row.name}: {bad_row.next_step}")
    if table == "policy":
        references.begin_version(connection)
        return bad_row
    row = sa.literal_column(_address(connection)).cast(sa.Text) == address
    connection.execute(sa.delete(metadata.tables[table]).where(row))
    if table == "rounds":
        challenges.begin_missing(connection)
    if table == "reference_sets":
        references.begin_version(connection)
    return bad_row


def _address(connection: Connection) -> str:
    return _ADDRESS[connection.dialect.name]


def _plain(row: Any) -> dict[str, Any]:
    """Return a row with its bytes as SQLAlchemy gives them: PostgreSQL's driver has its own."""
    plain = {}
    for name, value in row.items():
        plain[name] = bytes(value) if isinstance(value, memoryview) else value
    return plain


def _is_good(kind: _Kind, row: Mapping[str, Any]) -> bool:
    try:
        kind.check(row)
    except (ValueError, TypeError, AttributeError, RecursionError, errors.InvalidMessage):
        return False
    return True


def _bad_row(table: str, kind: _Kind, row: Any) -> BadRow:
    name = str(row[kind.name])[:_MAX_NAME_LENGTH]
    next_step = kind.next_step
    mends = kind.mends
    if table == "reference_sets" and _may_be_mle(row):
        next_step = _MLE_STEP
        mends = False
    return BadRow(table, str(row["row_address"]), name, next_step, mends)


def _may_be_mle(row: Mapping[str, Any]) -> bool:
    """Return whether hosts may be judged by a set only: without it, by those that are for all."""
    name = row["name"]
    if not isinstance(name, str) or name.startswith(MLE_PREFIX):
        return True
    return f'"{MLE_PREFIX}' in str(row["content"])
