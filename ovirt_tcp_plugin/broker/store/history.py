# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker noticed and did, kept over restarts; also the queue of the engine's events."""

from __future__ import annotations

import datetime
import secrets
import sqlite3
from collections.abc import Iterable
from typing import Any, Optional

from ovirt_tcp_plugin.broker.store.database import Database
from ovirt_tcp_plugin.placement.inventory import Notice

# An event's custom_id is an int32.
MAX_EVENT_NUMBER = 2**31 - 1
MAX_TEXT = 2_000
# One answer has no more: 20 MB at worst.
MAX_ENTRIES = 10_000

# So many stay whatever their age: a clock that is wrong for a moment must not take everything away.
LEAST_ENTRIES = 1_000

_DAY_MS = 86_400_000

_INSERT = """
    INSERT INTO history (
        at_ms, severity, code, text, host_id, host, vm_id, vm, cluster_id, event_number, waiting
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FIND = """
    SELECT * FROM history
    WHERE at_ms >= ?
        AND (? = '' OR ? IN (host, host_id))
        AND (? = '' OR ? IN (vm, vm_id))
    ORDER BY id DESC LIMIT ?
"""
_WAITING = "SELECT * FROM history WHERE waiting ORDER BY id LIMIT ?"
_SETTLE = "UPDATE history SET waiting = 0 WHERE waiting AND event_number = ?"
# The parameters of these two are the same: what is beyond the number of entries, and what is too
# old.
_COUNT_LOST = """
    SELECT COUNT(*) FROM history
    WHERE waiting AND (id <= ? OR (at_ms < ? AND id <= ?))
"""
_FORGET = "DELETE FROM history WHERE id <= ? OR (at_ms < ? AND id <= ?)"

# The columns that people see.
_SHOWN = ("severity", "code", "text", "host", "host_id", "vm", "vm_id", "cluster_id")


class History:
    """The entries, oldest first, in number and age bounded.

    Args:
        entries, days: how much is kept.

    Every method raises Unavailable when the database does not do its part.
    """

    def __init__(self, database: Database, entries: int, days: float) -> None:
        self._database = database
        self._entries = entries
        self._age_ms = int(days * _DAY_MS)

    def record(self, notices: Iterable[Notice], now_ms: int) -> int:
        """Keep these for good; return how many older ones fell out before they could become events.

        Args:
            now_ms: the wall clock in milliseconds.
        """
        with self._database.transaction() as connection:
            for notice in notices:
                number = _event_number() if notice.event else None
                connection.execute(_INSERT, _row(notice, number))
            return self._forget(connection, now_ms)

    def waiting(self, most: int) -> list[tuple[int, Notice]]:
        """Return up to `most` entries that are to become events, the oldest first.

        Returns:
            of each its custom_id, and the notice.
        """
        with self._database.reading() as connection:
            rows = connection.execute(_WAITING, (most,)).fetchall()
        return [(row["event_number"], _notice(row)) for row in rows]

    def settle(self, number: int) -> None:
        """The event of this number is written, or never can be."""
        with self._database.transaction() as connection:
            connection.execute(_SETTLE, (number,))

    def find(
        self, host: str = "", vm: str = "", since_ms: int = 0, most: int = MAX_ENTRIES
    ) -> list[dict[str, Any]]:
        """Return the newest `most` entries about a host and a VM, the oldest first.

        Args:
            host, vm: names or ids, or empty for all.
            since_ms: wall clock in milliseconds; entries before it are left out.
        """
        parameters = (since_ms, host, host, vm, vm, most)
        with self._database.reading() as connection:
            rows = connection.execute(_FIND, parameters).fetchall()
        return [_describe(row) for row in reversed(rows)]

    def _forget(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """Forget what is beyond the bounds; return how many of these still waited to be events."""
        newest = connection.execute("SELECT MAX(id) FROM history").fetchone()[0]
        bounds = (newest - self._entries, now_ms - self._age_ms, newest - LEAST_ENTRIES)
        lost = connection.execute(_COUNT_LOST, bounds).fetchone()[0]
        connection.execute(_FORGET, bounds)
        return int(lost)


def _event_number() -> int:
    """Return the custom_id of a new event.

    By chance: with a number that was used before the engine takes no event, as if it were a second
    try of that one. So it is neither counted, in case that this file is lost, nor taken from the
    clock, which another broker has, too.
    """
    return secrets.randbelow(MAX_EVENT_NUMBER) + 1


def _row(notice: Notice, number: Optional[int]) -> tuple[object, ...]:
    return (
        notice.at_ms,
        notice.severity,
        notice.code,
        notice.text[:MAX_TEXT],
        notice.host_id,
        notice.host,
        notice.vm_id,
        notice.vm,
        notice.cluster_id,
        number,
        notice.event,
    )


def _notice(row: sqlite3.Row) -> Notice:
    return Notice(
        row["code"],
        row["severity"],
        row["text"],
        row["host_id"],
        row["vm_id"],
        row["cluster_id"],
        at_ms=row["at_ms"],
        host=row["host"],
        vm=row["vm"],
    )


def _describe(row: sqlite3.Row) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(row["at_ms"] / 1000, datetime.timezone.utc)
    described: dict[str, Any] = {
        "id": row["id"],
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    for name in _SHOWN:
        described[name] = row[name]
    return described
