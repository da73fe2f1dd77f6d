# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The schema's way from release to release (alembic). Revisions are added, never changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

__all__ = ["NEWEST", "CommandError", "upgrade"]

# What databases of this release have; a test compares it with the scripts.
NEWEST = "0008"


def upgrade(engine: sa.engine.Engine, revision: str = "head") -> None:
    """Bring the database to a revision, by default the newest, in one transaction.

    Several servers may try at once.

    Raises:
        CommandError: it has a revision that this release does not know.
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached or changed.
    """
    config = Config()
    config.set_main_option("script_location", "ovirt_tcp_plugin.verifier.store:migrations")
    with engine.connect() as plain:
        connection = plain.execution_options(writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7418781)")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
