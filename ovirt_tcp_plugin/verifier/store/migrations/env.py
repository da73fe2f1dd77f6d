# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Run by alembic: migrate over the connection that `upgrade` opened, in its transaction."""

from __future__ import annotations

from alembic import context

from ovirt_tcp_plugin.verifier.store import schema

context.configure(
    connection=context.config.attributes["connection"], target_metadata=schema.metadata
)
context.run_migrations()
