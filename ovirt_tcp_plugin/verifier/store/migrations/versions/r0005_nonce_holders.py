# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which address a nonce was sent to, and where a host's evidence comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; nothing is known of the nonces and hosts of before."""
    op.add_column("rounds", sa.Column("holder", sa.String(64)))
    op.add_column("rounds", sa.Column("held_ms", sa.BigInteger))
    op.add_column("rounds", sa.Column("home", sa.String(64)))
