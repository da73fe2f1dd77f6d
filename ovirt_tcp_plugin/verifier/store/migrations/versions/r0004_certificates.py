# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Client certificates that are renewed without a person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Give each host room for the next certificate beside the one in use."""
    op.add_column("hosts", sa.Column("next_digest", sa.String(64)))
    op.add_column("hosts", sa.Column("certificate_end_s", sa.BigInteger))
    op.create_index("hosts_next_digest", "hosts", ["next_digest"], unique=True)
