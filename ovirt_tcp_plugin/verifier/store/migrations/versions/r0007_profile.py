# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The profile that a result was judged by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; earlier results are judged again by today's profile."""
    profile = sa.Column("profile", sa.String(80), nullable=False, server_default="")
    op.add_column("results", profile)
