# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NAME = sa.String(255)
DIGEST = sa.String(64)
UUID = sa.String(36)


def upgrade() -> None:
    """Make the tables."""
    _identity()
    _attestation()
    op.create_table(
        "reference_sets",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    policy = op.create_table("policy", sa.Column("version", sa.BigInteger, primary_key=True))
    op.bulk_insert(policy, [{"version": 1}])
    op.create_table("authority", sa.Column("digest", DIGEST, primary_key=True))


def _identity() -> None:
    op.create_table(
        "tokens",
        sa.Column("digest", DIGEST, primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("host_name", NAME, nullable=False),
        sa.Column("host_id", UUID, nullable=False),
        sa.Column("note", NAME, nullable=False),
        sa.Column("end_s", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "hosts",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("host_id", UUID, nullable=False),
        sa.Column("ek_digest", DIGEST, nullable=False, unique=True),
        sa.Column("ek_certificate", sa.LargeBinary, nullable=False),
        sa.Column("ek_public", sa.LargeBinary, nullable=False),
        sa.Column("ak_public", sa.LargeBinary, nullable=False),
        sa.Column("certificate_digest", DIGEST, nullable=False, unique=True),
        sa.Column("endorsed_by", sa.String(20), nullable=False),
        sa.Column("tpm_family", sa.String(8), nullable=False),
    )
    op.create_table(
        "registered_eks",
        sa.Column("ek_digest", DIGEST, primary_key=True),
        sa.Column("host_name", NAME, nullable=False, unique=True),
    )


def _attestation() -> None:
    op.create_table(
        "rounds",
        sa.Column("host_name", NAME, primary_key=True),
        sa.Column("asked", sa.BigInteger, nullable=False),
        sa.Column("issued", sa.BigInteger, nullable=False),
        sa.Column("answered", sa.BigInteger, nullable=False),
        sa.Column("nonce", DIGEST),
        sa.Column("selection", sa.Text),
        sa.Column("clock_id", UUID),
        sa.Column("born_ms", sa.BigInteger),
        sa.Column("end_ms", sa.BigInteger),
    )
    op.create_table(
        "results",
        sa.Column("host_name", NAME, primary_key=True),
        sa.Column("level", sa.String(20), nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
        sa.Column("clock_id", UUID, nullable=False),
        sa.Column("born_ms", sa.BigInteger, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("boot_id", UUID, nullable=False),
        sa.Column("measured", sa.Text, nullable=False),
        sa.Column("policy", sa.BigInteger, nullable=False),
    )
