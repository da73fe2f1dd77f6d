# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The database: one writes, many read, and nobody waits in the server's loop.

One transaction at a time is written, many at once are read.

Work is a function of a connection. What is written meanwhile shares one transaction, so one flush
to the disk serves all; if a piece of it fails, each is done again in a transaction of its own, so
that a fault undoes only itself. Acknowledged means committed: it survives kill -9 (SQLite in WAL
mode with synchronous=FULL, PostgreSQL as it is set up).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import select
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import QueuePool

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.verifier.store import migrations, schema, transfer
from ovirt_tcp_plugin.verifier.store.transfer import Rows
from ovirt_tcp_plugin.verifier.store.withdrawals import Withdrawal

log = logging.getLogger("verifier.store")

T = TypeVar("T")
Work = Callable[[Connection], T]

READERS = 4
# A statement and a lock each end after this time; then the caller is told, and nothing is kept.
WITHIN_S = 5
# PostgreSQL itself ends what takes that long. One that says nothing at all, because its machine or
# its disk hangs, is given up after this time, connection by connection, and the caller after
# CALLER_WITHIN_S, when he may ask again.
ANSWER_WITHIN_S = WITHIN_S + 2
CALLER_WITHIN_S = 15

# 16 MiB of SQLite's log of writes.
_CHECKPOINT_PAGES = 4096

# A transaction begins at the earliest so long after the last: what comes meanwhile shares it, and
# its flush to the disk.
_GATHER_S = 0.002

# What the writers of all servers lock at PostgreSQL.
_WRITERS = 0x6F766972
# How often a writer looks whether another process has ended its transaction; one takes some
# milliseconds.
_LOOK_AGAIN_S = 0.001

_CONNECT = {
    "sqlite": {"timeout": WITHIN_S, "check_same_thread": False},
    "postgresql": {
        "tcp_user_timeout": WITHIN_S * 1000,
        "options": f"-c statement_timeout={WITHIN_S}s -c lock_timeout={WITHIN_S}s",
    },
}


class Database:
    """A database of the current schema.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////var/lib/ovirt-tcp/verifier/verifier.db` or
            `postgresql://verifier@db.example.com/ovirt_tcp`.

    Attributes:
        on_done: told the kind ("read", "write") and the seconds of each piece of work, waiting
            included.

    Raises:
        InvalidConfig: it cannot be opened, is of another kind, or belongs to a newer release.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        try:
            _make_file(self._engine)
            migrations.upgrade(self._engine)
        except (OSError, sa.exc.SQLAlchemyError, migrations.Impossible) as e:
            where = self._engine.url.render_as_string(hide_password=True)
            fault = f"the database cannot be opened: {_first_line(e)}"
            raise errors.InvalidConfig(where, [fault]) from e
        # SQLite's readers see one snapshot anyhow, and all of them are in the server's loop, on one
        # connection.
        self._reader: Optional[Connection] = None
        self._snapshots = self._engine
        if self.remote:
            self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._readers = concurrent.futures.ThreadPoolExecutor(READERS, "store-read")
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "store-write")
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._writing = False
        self.on_done: Callable[[str, float], None] = lambda work, seconds: None

    @property
    def remote(self) -> bool:
        """Whether it is a server of its own, which may be slow or away.

        Otherwise it is a file of this machine.
        """
        return self._engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Finish what is being written and give the connections back."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._end_reader()
        self._engine.dispose()

    def transact(self, work: Work[T]) -> T:
        """Do one piece of work in a transaction of its own, in the calling thread: for commands.

        Raises:
            Unavailable: the database did not do it.
        """
        outcome = self._commit([work])[0]
        if isinstance(outcome, errors.Error):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def snapshot(self, work: Work[T]) -> T:
        """Do work that only reads, on one snapshot, in the calling thread, beside all writers.

        Raises:
            Unavailable: the database did not answer.
        """
        return self._read(work)

    @staticmethod
    def is_used(url: str) -> bool:
        """Return whether there is a database with tables. Raises InvalidConfig."""
        engine = _engine(url)
        path = engine.url.database
        try:
            if engine.dialect.name == "sqlite" and path and not Path(path).exists():
                return False
            return bool(sa.inspect(engine).get_table_names())
        except sa.exc.SQLAlchemyError:
            return engine.dialect.name == "sqlite"  # damaged; the other kind says so when opened
        finally:
            engine.dispose()

    async def read(self, work: Work[T]) -> T:
        """Do work that only reads, on one snapshot.

        Raises:
            Unavailable: the database did not answer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if not self.remote:
                # SQLite answers from memory, and its readers wait for nobody; a thread would cost
                # more than the read.
                return self._read_here(work)
            return await _in_time(loop.run_in_executor(self._readers, self._read, work))
        finally:
            self.on_done("read", loop.time() - began)

    async def read_long(self, work: Work[T]) -> T:
        """Do work that reads very much, on one snapshot: in a thread, so that nobody waits for it.

        Raises:
            Unavailable: the database did not answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    async def write(self, work: Work[T]) -> T:
        """Do work that writes; return once it is committed.

        Raises:
            Unavailable: the database did not keep it.
        """
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, kept))
        began = loop.time()
        if not self._writing:
            self._write_waiting()
        try:
            return await (_in_time(kept) if self.remote else kept)
        finally:
            self.on_done("write", loop.time() - began)

    def _write_waiting(self) -> None:
        # Whoever was given up meanwhile was told that nothing is kept.
        batch = [(work, kept) for work, kept in self._waiting if not kept.done()]
        self._waiting = []
        self._writing = bool(batch)
        if batch:
            loop = asyncio.get_running_loop()
            all_work = [work for work, _ in batch]
            done = loop.run_in_executor(self._writer, self._commit, all_work)
            done.add_done_callback(functools.partial(self._acknowledge, batch))

    def _acknowledge(
        self, batch: list[tuple[Work[Any], asyncio.Future[Any]]], done: asyncio.Future[list[Any]]
    ) -> None:
        fault = done.exception()
        outcomes = [fault] * len(batch) if fault else done.result()
        for (_, kept), outcome in zip(batch, outcomes):
            if kept.done():
                continue  # who asked went away; what he asked for is done all the same
            if isinstance(outcome, BaseException):
                kept.set_exception(outcome)
            else:
                kept.set_result(outcome)
        asyncio.get_running_loop().call_later(_GATHER_S, self._write_waiting)

    def _commit(self, batch: list[Work[Any]]) -> list[Any]:
        """Return for each piece of work what it returned, or the error that undid it."""
        if len(batch) > 1:
            try:
                return self._commit_together(batch)
            except errors.Error as e:
                if _is_away(e.__cause__):
                    return [e] * len(batch)
        return [self._commit_alone(work) for work in batch]

    def _commit_together(self, batch: list[Work[Any]]) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                writing = connection.execution_options(writes=True)
                with writing.begin():
                    return [work(writing) for work in batch]
        # psycopg2 raises ValueError for a text with NUL.
        except (sa.exc.SQLAlchemyError, ValueError) as e:
            raise _unavailable(e) from e

    def _commit_alone(self, work: Work[Any]) -> Any:
        try:
            return self._commit_together([work])[0]
        except errors.Error as e:
            return e

    def _read_here(self, work: Work[T]) -> T:
        try:
            if self._reader is None:
                self._reader = self._engine.connect().execution_options(by_hand=True)
            driver: Any = self._reader.connection.dbapi_connection
            driver.execute("BEGIN")
            try:
                return work(self._reader)
            finally:
                driver.rollback()
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as e:
            self._end_reader()
            raise _unavailable(e) from e

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, work: Work[T]) -> T:
        try:
            with self._snapshots.connect() as connection, connection.begin():
                return work(connection)
        except sa.exc.SQLAlchemyError as e:
            raise _unavailable(e) from e


def load_backup(
    url: str, revision: str, parts: Callable[[], Iterable[Rows]], gone: Sequence[Withdrawal]
) -> int:
    """Replace a database by the rows of a backup, and return how many.

    Args:
        revision: of the schema that the rows are of.
        parts: returns the rows.
        gone: what was taken back since.

    Raises:
        InvalidConfig: the database cannot be opened, or the revision is of a newer release.
        InvalidMessage: the rows are not of this revision.
        Unavailable: the database did not keep them; it is empty then.
    """
    engine = _engine(url)
    try:
        _make_file(engine)
        _empty(engine)
        migrations.upgrade(engine, revision)
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            count = transfer.load(connection, parts())
        migrations.upgrade(engine)
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            transfer.settle(connection, gone)
    except (OSError, sa.exc.SQLAlchemyError, migrations.Impossible) as e:
        raise errors.Unavailable("the database", _first_line(e)) from e
    finally:
        engine.dispose()
    return count


def _empty(engine: sa.engine.Engine) -> None:
    """Remove all tables of ours; a file of SQLite is set aside."""
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path:
        for suffix in ("", "-wal", "-shm"):
            part = Path(path + suffix)
            if part.exists():
                part.replace(f"{path}.before{suffix}")
        return
    with engine.begin() as connection:
        tables = sa.MetaData()
        ours = {*schema.metadata.tables, "alembic_version"}
        tables.reflect(connection, only=lambda name, _: name in ours)
        tables.drop_all(connection)


async def _in_time(done: asyncio.Future[T]) -> T:
    """Return what comes of it.

    Raises Unavailable when that takes too long; what has not begun by then never does.
    """
    try:
        return await asyncio.wait_for(done, CALLER_WITHIN_S)
    except asyncio.TimeoutError as e:
        raise errors.Unavailable(
            "the store", f"its database did not answer within {CALLER_WITHIN_S} s"
        ) from e


def _is_away(error: Optional[BaseException]) -> bool:
    """Return whether the database itself is gone.

    Then no piece of work is to blame, and none can be done alone.
    """
    if isinstance(error, sa.exc.DBAPIError):
        return bool(error.connection_invalidated or error.statement is None)
    return isinstance(error, sa.exc.TimeoutError)


def _unavailable(error: Exception) -> errors.Unavailable:
    log.error("store error=%s", _first_line(error))
    return errors.Unavailable(
        "the store", "its database did not do what it was asked; the server's log says why"
    )


def _engine(url: str) -> sa.engine.Engine:
    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError as e:
        raise errors.InvalidConfig("store.url", ["it is no SQLAlchemy URL"]) from e
    kind = parsed.get_backend_name()
    if kind not in _CONNECT:
        raise errors.InvalidConfig("store.url", [f"{kind} is neither sqlite nor postgresql"])
    try:
        if kind == "postgresql":
            _bound_waits()
        engine = _create_engine(parsed, kind)
    except ImportError as e:
        fault = "PostgreSQL needs psycopg2: install python3-psycopg2"
        raise errors.InvalidConfig("store.url", [fault]) from e
    if kind == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        sa.event.listen(engine, "begin", _begin_postgresql)
    return engine


def _make_file(engine: sa.engine.Engine) -> None:
    """Make SQLite's file unless there is one, for its owner alone. Raises OSError.

    SQLite gives its other files the owner and mode of this one.
    """
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path:
        durable.ensure(Path(path))


def _create_engine(url: sa.engine.URL, kind: str) -> sa.engine.Engine:
    if url.drivername == "postgresql":
        # SQLAlchemy's choice of a driver changed from release to release; EL9 has this one.
        url = url.set(drivername="postgresql+psycopg2")
    return sa.create_engine(
        url,
        future=True,
        poolclass=QueuePool,
        pool_size=READERS + 1,
        pool_timeout=WITHIN_S,
        pool_pre_ping=kind != "sqlite",
        connect_args=_CONNECT[kind],
    )


def _bound_waits() -> None:
    """Have every wait for PostgreSQL end after ANSWER_WITHIN_S.

    Those of psycopg2 itself last for hours if its machine is gone.

    Raises:
        ImportError: psycopg2 is not installed.
    """
    from psycopg2 import OperationalError, extensions  # type: ignore[import-untyped]

    events = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}

    def wait(connection: Any) -> None:
        end_s = time.monotonic() + ANSWER_WITHIN_S
        while (state := connection.poll()) != extensions.POLL_OK:
            poll = select.poll()  # select() knows only the first 1024 files, and each agent has one
            poll.register(connection.fileno(), events[state])
            if not poll.poll(max(end_s - time.monotonic(), 0) * 1000):
                raise OperationalError(f"no answer within {ANSWER_WITHIN_S} s")

    extensions.set_wait_callback(wait)


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by rules of its own; `_begin_sqlite` does.
    connection.isolation_level = None
    # The driver would give up a whole answer for one text in it that a bad disk has spoilt; as it
    # is, its row is told to be corrupt, and the others are read.
    connection.text_factory = _decode_text
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    # The same few pages are written again and again; they are carried over from the log of writes
    # less often.
    cursor.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    cursor.close()


def _decode_text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("by_hand", False):
        return
    # A writer takes the lock at once: to take it later, after a read, fails if another process
    # wrote meanwhile.
    if not options.get("writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        if not _take_turn(cursor):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails, and says why
    finally:
        cursor.execute(f"PRAGMA busy_timeout={int(WITHIN_S * 1000)}")
        cursor.close()


def _take_turn(cursor: Any) -> bool:
    """Begin to write as soon as no other process does.

    Return whether that was possible within WITHIN_S.

    SQLite itself would look again after ever longer pauses, up to 100 ms, and hardly ever find the
    moment between two transactions of a busy neighbour.
    """
    end_s = time.monotonic() + WITHIN_S
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() >= end_s:
                return False
        time.sleep(_LOOK_AGAIN_S)


def _begin_postgresql(connection: Connection) -> None:
    # The same here: transactions of several servers that lock many rows in different orders would
    # undo each other.
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
