# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The keys that sign verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; the server makes the first key."""
    op.create_table(
        "verdict_keys",
        sa.Column("state", sa.String(10), primary_key=True),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("public", sa.Text, nullable=False),
        sa.Column("private", sa.Text, nullable=False),
    )
