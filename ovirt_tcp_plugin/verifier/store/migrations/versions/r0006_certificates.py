# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Client certificates that are renewed without a person, and what a restore must not revive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Give each host room for the next certificate, and make the table of what is gone."""
    op.add_column("hosts", sa.Column("next_digest", sa.String(64)))
    op.add_column("hosts", sa.Column("certificate_end_s", sa.BigInteger))
    op.create_index("hosts_next_digest", "hosts", ["next_digest"], unique=True)
    op.create_table(
        "withdrawals",
        sa.Column("kind", sa.String(10), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("detail", sa.String(64), primary_key=True),
    )
