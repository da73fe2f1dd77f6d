# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tables.

`migrations/` makes them and changes them from release to release; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

NAME = sa.String(255)
DIGEST = sa.String(64)
UUID = sa.String(36)

metadata = sa.MetaData()

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("host_name", NAME, nullable=False),
    sa.Column("host_id", UUID, nullable=False),
    sa.Column("note", NAME, nullable=False),
    sa.Column("end_s", sa.BigInteger, nullable=False),
)

# Who a host is: what enrolment bound to its name.
hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("name", NAME, primary_key=True),
    sa.Column("host_id", UUID, nullable=False),
    sa.Column("ek_digest", DIGEST, nullable=False, unique=True),
    sa.Column("ek_certificate", sa.LargeBinary, nullable=False),
    sa.Column("ek_public", sa.LargeBinary, nullable=False),
    sa.Column("ak_public", sa.LargeBinary, nullable=False),
    sa.Column("certificate_digest", DIGEST, nullable=False, unique=True),
    # Why its EK is believed: "vendor", "registered" or "first_use".
    sa.Column("endorsed_by", sa.String(20), nullable=False),
    # Family of its TPM, "2.0" or "1.2": the form of both keys.
    sa.Column("tpm_family", sa.String(8), nullable=False),
)

# EKs that the administrator vouches for, with or without a vendor's certificate.
registered_eks = sa.Table(
    "registered_eks",
    metadata,
    sa.Column("ek_digest", DIGEST, primary_key=True),
    sa.Column("host_name", NAME, nullable=False, unique=True),
)

# Questions to a host. Somebody asks (asked + 1); a challenge goes out (issued = asked); its
# evidence comes (answered = issued). One row a host, so one nonce a host.
rounds = sa.Table(
    "rounds",
    metadata,
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

# What a host's last authentic evidence showed. `policy` is the version of the reference values it
# was judged by.
results = sa.Table(
    "results",
    metadata,
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

# The version of all reference values: one row, one number, which every change moves on.
policy = sa.Table("policy", metadata, sa.Column("version", sa.BigInteger, primary_key=True))

reference_sets = sa.Table(
    "reference_sets",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)

# OpenAttestation's own records, by kind: OEMs, operating systems, MLEs, registered hosts. They are
# what its tools show; nobody is judged by them.
oat_records = sa.Table(
    "oat_records",
    metadata,
    sa.Column("kind", sa.String(10), primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("version", sa.String(100), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)

# Which certificate authority this database's hosts were enrolled by: all servers on it must hold
# the same one.
authority = sa.Table("authority", metadata, sa.Column("digest", DIGEST, primary_key=True))

# The keys that sign verdicts, one in each state: all servers on this database sign with the active
# one.
verdict_keys = sa.Table(
    "verdict_keys",
    metadata,
    sa.Column("state", sa.String(10), primary_key=True),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    # PKCS #8, encrypted; empty when the key signs no more.
    sa.Column("private", sa.Text, nullable=False),
)
