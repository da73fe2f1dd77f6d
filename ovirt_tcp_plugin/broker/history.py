# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker noticed and did, kept over restarts; also the queue of what is to become an event of the engine."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterable
from typing import Any

from ovirt_tcp_plugin.broker.database import Database
from ovirt_tcp_plugin.broker.inventory import Notice

# An event's custom_id is an int32.
MAX_EVENT_NUMBER = 2**31 - 1
MAX_TEXT = 2_000
# One answer holds no more: 20 MB at worst.
MAX_ENTRIES = 10_000

# So many stay whatever their age: a clock that is wrong for a moment may not take everything away.
LEAST_ENTRIES = 1_000

_DAY_MS = 86_400_000


class History:
    """The entries, oldest first, in number and age bounded.

    Args:
        entries, days: how much is kept.

    Every method raises Unavailable when the database does not do its part.
    """

    def __init__(self, database: Database, entries: int, days: float) -> None:
        self._database, self._entries, self._age_ms = database, entries, int(days * _DAY_MS)

    def record(self, notices: Iterable[Notice], now_ms: int) -> int:
        """Keep these for good; return how many older ones fell out before they could become events.

        Args:
            now_ms: the wall clock in milliseconds.
        """
        with self._database.transaction() as connection:
            number = _last_number(connection)
            for notice in notices:
                if notice.event:
                    # The clock goes along in case that this file is lost: a number that was used before is no event.
                    number = max(number + 1, now_ms // 1000) % MAX_EVENT_NUMBER
                connection.execute(
                    "INSERT INTO history (at_ms, severity, code, text, host_id, host, vm_id, vm, cluster_id, event_number,"
                    " waiting) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        notice.at_ms,
                        notice.severity,
                        notice.code,
                        notice.text[:MAX_TEXT],
                        notice.host_id,
                        notice.host,
                        notice.vm_id,
                        notice.vm,
                        notice.cluster_id,
                        number if notice.event else None,
                        notice.event,
                    ),
                )
            return self._forget(connection, now_ms)

    def waiting(self, most: int) -> list[tuple[int, Notice]]:
        """Return (custom_id, notice) of up to `most` entries that are to become events, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM history WHERE waiting ORDER BY id LIMIT ?", (most,)).fetchall()
        return [(row["event_number"], _notice(row)) for row in rows]

    def settle(self, number: int) -> None:
        """The event of this number is written, or never can be."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE history SET waiting = 0 WHERE waiting AND event_number = ?", (number,))

    def find(self, host: str = "", vm: str = "", since_ms: int = 0, most: int = MAX_ENTRIES) -> list[dict[str, Any]]:
        """Return the newest `most` entries about a host and a VM, each by name or id or empty for all, the oldest first.

        Args:
            since_ms: wall clock in milliseconds; entries before it are left out.
        """
        query = (
            "SELECT * FROM history WHERE at_ms >= ? AND (? = '' OR ? IN (host, host_id)) AND (? = '' OR ? IN (vm, vm_id))"
            " ORDER BY id DESC LIMIT ?"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, (since_ms, host, host, vm, vm, most)).fetchall()
        return [_describe(row) for row in reversed(rows)]

    def _forget(self, connection: sqlite3.Connection, now_ms: int) -> int:
        newest = connection.execute("SELECT MAX(id) FROM history").fetchone()[0]
        bounds = (newest - self._entries, now_ms - self._age_ms, newest - LEAST_ENTRIES)
        query = "SELECT COUNT(*) FROM history WHERE waiting AND (id <= ? OR (at_ms < ? AND id <= ?))"
        lost = connection.execute(query, bounds).fetchone()[0]
        connection.execute("DELETE FROM history WHERE id <= ? OR (at_ms < ? AND id <= ?)", bounds)
        return int(lost)


def _last_number(connection: sqlite3.Connection) -> int:
    query = "SELECT event_number FROM history WHERE event_number IS NOT NULL ORDER BY id DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row["event_number"])


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
    return {
        "id": row["id"],
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **{name: row[name] for name in ("severity", "code", "text", "host", "host_id", "vm", "vm_id", "cluster_id")},
    }
