# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The digests of the event logs that a result comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; the logs of all hosts are unknown until they send them again."""
    logs = sa.Column("logs", sa.Text, nullable=False, server_default="")
    op.add_column("results", logs)
