# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's records; a set of reference values may be for no host yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table, and say null for "all hosts", which an empty list said before."""
    op.create_table(
        "oat_records",
        sa.Column("kind", sa.String(10), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("version", sa.String(100), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    sets = sa.table("reference_sets", sa.column("content", sa.Text))
    content = sa.func.replace(sets.c.content, '"host_names": []', '"host_names": null')
    op.execute(sa.update(sets).values(content=content))
