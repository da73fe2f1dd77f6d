# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The broker's SQLite file: the tokens of its interface, its history, and what it remembers of VMs.

Verdicts are not in it: placement does not depend on it.

Acknowledged means committed: it survives kill -9 and a power failure (WAL mode with
synchronous=FULL).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from ovirt_tcp_plugin import durable, errors

log = logging.getLogger("broker.database")

FILE_NAME = "broker.db"
VERSION = 1
# `token add` may hold the lock; after this time the caller is told.
WITHIN_S = 5

_TABLES = (
    """
    CREATE TABLE tokens (
        digest TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        note TEXT NOT NULL,
        end_s INTEGER NOT NULL
    )
    """,
    # event_number: custom_id of the engine's event that it is or is to become (waiting); null when
    # it is ours alone.
    """
    CREATE TABLE history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        severity TEXT NOT NULL,
        code TEXT NOT NULL,
        text TEXT NOT NULL,
        host_id TEXT NOT NULL,
        host TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        vm TEXT NOT NULL,
        cluster_id TEXT NOT NULL,
        event_number INTEGER,
        waiting INTEGER NOT NULL
    )
    """,
    # What is remembered of VMs: vm_records.Record.
    """
    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        cluster_id TEXT NOT NULL,
        pool TEXT NOT NULL,
        marked INTEGER NOT NULL,
        needs_trust INTEGER NOT NULL,
        warned TEXT NOT NULL,
        gone INTEGER NOT NULL
    )
    """,
    "CREATE INDEX history_at ON history (at_ms)",
    "CREATE INDEX history_numbered ON history (id) WHERE event_number IS NOT NULL",
    "CREATE INDEX history_waiting ON history (id) WHERE waiting",
)


class Database:
    """`<directory>/broker.db`, or one in memory.

    Thread-safe; other processes may use the file at the same time.

    Raises:
        InvalidConfig: it cannot be opened, or is of a newer release.
    """

    def __init__(self, directory: Optional[Path]) -> None:
        self._lock = threading.Lock()
        path = str(directory / FILE_NAME) if directory else ":memory:"
        try:
            if directory:
                durable.make_directory(directory)
                durable.ensure(directory / FILE_NAME)
            self._connection = sqlite3.connect(
                path, timeout=WITHIN_S, isolation_level=None, check_same_thread=False
            )
            self._prepare(path)
        except (OSError, sqlite3.Error) as e:
            raise errors.InvalidConfig(path, [f"the database cannot be opened: {e}"]) from e

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; what is written is committed when this ends, or undone by an error.

        Raises:
            Unavailable: the file did not take it.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                with self._connection:
                    yield self._connection
            except sqlite3.Error as e:
                log.error("database error=%s", e)
                reason = "it did not do what it was asked; the log says why"
                raise errors.Unavailable("the broker's database", reason) from e

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to read one thing. Raises Unavailable."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as e:
                log.error("database error=%s", e)
                reason = "it did not answer; the log says why"
                raise errors.Unavailable("the broker's database", reason) from e

    def _prepare(self, path: str) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise errors.InvalidConfig(path, ["it belongs to a newer release"])
            if version == 0:
                for statement in _TABLES:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")


def open_anyway(directory: Path) -> Database:
    """Return the database for the service, which starts without one, too.

    Placement does not depend on it. One that is corrupt is set aside. While there is none to be
    had, as on a full disk, it is in memory, and no token is known.

    Raises:
        InvalidConfig: it is of a newer release.
    """
    for _ in range(2):
        try:
            return _checked(directory)
        except errors.InvalidConfig as e:
            if e.__cause__ is None:
                raise
            fault = e
        if not _is_corrupt(fault.__cause__):
            break
        _set_aside(directory / FILE_NAME, fault)
    log.error(
        "no database error=%s; no token is known, and the history ends with this process", fault
    )
    return Database(None)


def _set_aside(path: Path, fault: errors.InvalidConfig) -> None:
    log.error(
        "database corrupt error=%s set_aside=%s.broken; tokens must be made again", fault, path
    )
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.replace(f"{path}{suffix}", f"{path}.broken{suffix}")


def _checked(directory: Path) -> Database:
    database = Database(directory)
    try:
        with database.reading() as connection:
            (outcome,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if outcome != "ok":
            raise sqlite3.DatabaseError(str(outcome))
    except (errors.Unavailable, sqlite3.Error) as e:
        database.close()
        cause = e.__cause__ if isinstance(e, errors.Unavailable) else e
        fault = f"the database cannot be read: {cause}"
        raise errors.InvalidConfig(str(directory / FILE_NAME), [fault]) from cause
    return database


def _is_corrupt(error: Optional[BaseException]) -> bool:
    """Return whether a file is corrupt, and not only locked, or its disk full or gone."""
    if isinstance(error, sqlite3.OperationalError):
        return False
    return isinstance(error, sqlite3.DatabaseError)
