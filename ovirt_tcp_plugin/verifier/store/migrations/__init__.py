# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The schema's way from release to release (alembic). Revisions are added, never changed."""

from __future__ import annotations

import sqlalchemy as sa

# What databases of this release have; a test compares it with the scripts.
NEWEST = "0008"


class Impossible(Exception):
    """The database has a revision that this release does not know."""


def upgrade(engine: sa.engine.Engine, revision: str = NEWEST) -> None:
    """Bring the database to a revision, by default the newest, in one transaction.

    Several servers may try at once.

    Raises:
        Impossible: it has a revision that this release does not know.
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached or changed.
    """
    if _revision(engine) == revision:
        return
    # Half a second of every command, and hardly any has something to change.
    from ovirt_tcp_plugin.verifier.store.migrations import steps

    try:
        steps.upgrade(engine, revision)
    except steps.CommandError as e:
        raise Impossible(str(e)) from e


def _revision(engine: sa.engine.Engine) -> str:
    """Return the database's revision, empty if it has no schema yet."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return ""
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return str(revision or "")
