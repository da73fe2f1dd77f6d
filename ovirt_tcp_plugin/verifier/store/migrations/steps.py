# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The steps from one revision of the schema to another, by alembic."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

__all__ = ["CommandError", "upgrade"]


def upgrade(engine: sa.engine.Engine, revision: str) -> None:
    """Take all steps to a revision.

    Raises:
        CommandError: the database has a revision that this release does not know.
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
