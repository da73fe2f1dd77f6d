# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""All rows of a database, out of it and into an empty one, of either kind."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store import (
    challenges,
    references,
    results,
    schema,
    withdrawals,
)
from ovirt_tcp_plugin.verifier.store.withdrawals import Withdrawal

log = logging.getLogger("verifier.store")

# Some MiB at most: what a host measured may be 100 KiB.
ROWS_AT_A_TIME = 50


class Rows(NamedTuple):
    """Some rows of a table, each a mapping from columns to JSON values."""

    table: str
    rows: list[Mapping[str, Any]]


def dump(connection: Connection) -> Iterator[Rows]:
    """Yield all rows, as one transaction sees them."""
    streamed = connection.execution_options(stream_results=True, yield_per=ROWS_AT_A_TIME)
    for table in schema.metadata.sorted_tables:
        answer = streamed.execute(sa.select(table)).mappings()
        for part in answer.partitions(ROWS_AT_A_TIME):
            yield Rows(table.name, [_encode(dict(row)) for row in part])


def load(connection: Connection, parts: Iterable[Rows]) -> int:
    """Insert rows into the tables of an empty database, and return how many.

    Raises:
        InvalidMessage: a table or column is not of the database's revision.
    """
    tables = sa.MetaData()
    tables.reflect(connection)
    # The migrations made one row of it.
    connection.execute(sa.delete(tables.tables["policy"]))
    count = 0
    for part in parts:
        table = tables.tables.get(part.table)
        if table is None or part.table == "alembic_version":
            raise errors.InvalidMessage("backup", f"there is no table {part.table!r}")
        try:
            rows = [_decode(row) for row in part.rows]
        except (ValueError, TypeError, KeyError) as e:
            raise errors.InvalidMessage("backup", f"rows of {part.table} cannot be read") from e
        count += _insert(connection, table, rows)
    return count


def _insert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, and return how many; one that was corrupt before hurts no other."""
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table), rows)
        return len(rows)
    except (sa.exc.SQLAlchemyError, ValueError, TypeError) as e:
        if len(rows) == 1:
            log.error("row not restored table=%s error=%s", table.name, str(e).splitlines()[0])
            return 0
    return sum(_insert(connection, table, [row]) for row in rows)


def settle(connection: Connection, gone: Iterable[Withdrawal]) -> None:
    """Void what must not be believed of an earlier day, and take back what was taken back since.

    Every result loses its age and every nonce ends, so that each host is asked again; tokens that
    enrol hosts go, since they may have been used.
    """
    withdrawals.add_all(connection, gone)
    gone_now = frozenset(withdrawals.every(connection))
    connection.execute(sa.update(schema.results).values(clock_id=results.VOID))
    challenges.drop_all(connection)
    challenges.ask_all(connection)
    tokens = schema.tokens
    connection.execute(
        sa.delete(tokens).where(tokens.c.role == "enrolment", tokens.c.host_name != "")
    )
    _withdraw_hosts(connection, gone_now)
    _withdraw_values(connection, gone_now)
    for kind, withdraw in _REMOVALS.items():
        for withdrawal in gone_now:
            if withdrawal.kind == kind:
                connection.execute(withdraw(withdrawal))
    _promote_key(connection)


def _withdraw_hosts(connection: Connection, gone: frozenset[Withdrawal]) -> None:
    hosts = schema.hosts
    columns = (hosts.c.name, hosts.c.ek_public, hosts.c.ak_public)
    for name, ek_public, ak_public in connection.execute(sa.select(*columns)).all():
        if withdrawals.host(name, bytes(ek_public), bytes(ak_public)) in gone:
            challenges.end(connection, name)
            results.remove(connection, name)
            connection.execute(sa.delete(hosts).where(hosts.c.name == name))


def _withdraw_values(connection: Connection, gone: frozenset[Withdrawal]) -> None:
    for known in references.hold(connection):
        names = [
            value.identifier
            for value in known.values
            if withdrawals.value(known.name, value.identifier) in gone
        ]
        if names:
            references.put(connection, known.withdrawn(names))


def _promote_key(connection: Connection) -> None:
    """Have the prepared key sign if the active one is gone."""
    keys = schema.verdict_keys
    states = set(connection.execute(sa.select(keys.c.state)).scalars())
    if "active" not in states and "next" in states:
        connection.execute(sa.update(keys).where(keys.c.state == "next").values(state="active"))


_REMOVALS: Mapping[str, Callable[[Withdrawal], Any]] = {
    withdrawals.TOKEN: lambda gone: sa.delete(schema.tokens).where(
        schema.tokens.c.digest == gone.detail
    ),
    withdrawals.EK: lambda gone: sa.delete(schema.registered_eks).where(
        schema.registered_eks.c.host_name == gone.name,
        schema.registered_eks.c.ek_digest == gone.detail,
    ),
    withdrawals.SET: lambda gone: sa.delete(schema.reference_sets).where(
        schema.reference_sets.c.name == gone.name
    ),
    withdrawals.VERDICT_KEY: lambda gone: sa.delete(schema.verdict_keys).where(
        schema.verdict_keys.c.key_id == gone.detail,
        schema.verdict_keys.c.state != "former",
    ),
}


def _encode(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _encode_value(stored) for name, stored in row.items()}


def _encode_value(stored: object) -> object:
    if isinstance(stored, (bytes, memoryview)):
        return {"base64": base64.b64encode(bytes(stored)).decode("ascii")}
    return stored


def _decode(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _decode_value(stored) for name, stored in row.items()}


def _decode_value(stored: object) -> object:
    if isinstance(stored, dict):
        return base64.b64decode(str(stored["base64"]), validate=True)
    return stored
