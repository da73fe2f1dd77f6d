# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The tables.

`migrations/` makes them and changes them from release to release; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table, Text

NAME = String(255)
DIGEST = String(64)
UUID = String(36)
# An address, or a /64 of IPv6.
ACCOUNT = String(64)

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("role", String(20), nullable=False),
    Column("host_name", NAME, nullable=False),
    Column("host_id", UUID, nullable=False),
    Column("note", NAME, nullable=False),
    Column("end_s", BigInteger, nullable=False),
)

# Who a host is: what enrolment bound to its name.
hosts = Table(
    "hosts",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("host_id", UUID, nullable=False),
    Column("ek_digest", DIGEST, nullable=False, unique=True),
    Column("ek_certificate", LargeBinary, nullable=False),
    Column("ek_public", LargeBinary, nullable=False),
    Column("ak_public", LargeBinary, nullable=False),
    Column("certificate_digest", DIGEST, nullable=False, unique=True),
    # Why its EK is believed: "vendor", "registered" or "first_use".
    Column("endorsed_by", String(20), nullable=False),
    # Family of its TPM, "2.0" or "1.2": the form of both keys.
    Column("tpm_family", String(8), nullable=False),
    # A client certificate that was issued and not shown yet: until then both are good.
    Column("next_digest", DIGEST),
    # When the certificate in use ends, in seconds of the UTC epoch; null until it is shown again
    # to this release.
    Column("certificate_end_s", BigInteger),
    Index("hosts_next_digest", "next_digest", unique=True),
)

# EKs that the administrator vouches for, with or without a vendor's certificate.
registered_eks = Table(
    "registered_eks",
    metadata,
    Column("ek_digest", DIGEST, primary_key=True),
    Column("host_name", NAME, nullable=False, unique=True),
)

# Questions to a host. Somebody asks (asked + 1); a challenge goes out (issued = asked); its
# evidence comes (answered = issued). One row a host, so one nonce a host.
rounds = Table(
    "rounds",
    metadata,
    Column("host_name", NAME, primary_key=True),
    Column("asked", BigInteger, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("nonce", DIGEST),
    Column("selection", Text),
    Column("clock_id", UUID),
    Column("born_ms", BigInteger),
    Column("end_ms", BigInteger),
    # The address that the nonce was sent to, and since when it has had nonces without evidence, by
    # the wall clock: servers on several machines compare it.
    Column("holder", ACCOUNT),
    Column("held_ms", BigInteger),
    # The address that the last authentic evidence came from.
    Column("home", ACCOUNT),
)

# What a host's last authentic evidence showed. `policy` is the version of the reference values it
# was judged by, `profile` the PCRs that were required, `logs` the digests of the event logs that
# `measured` comes from.
results = Table(
    "results",
    metadata,
    Column("host_name", NAME, primary_key=True),
    Column("level", String(20), nullable=False),
    Column("findings", Text, nullable=False),
    Column("clock_id", UUID, nullable=False),
    Column("born_ms", BigInteger, nullable=False),
    Column("boot", Text, nullable=False),
    Column("boot_id", UUID, nullable=False),
    Column("measured", Text, nullable=False),
    Column("policy", BigInteger, nullable=False),
    Column("logs", Text, nullable=False, server_default=""),
    Column("profile", String(80), nullable=False, server_default=""),
)

# The version of all reference values: one row, one number, which every change moves on.
policy = Table("policy", metadata, Column("version", BigInteger, primary_key=True))

reference_sets = Table(
    "reference_sets",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("content", Text, nullable=False),
)

# OpenAttestation's own records, by kind: OEMs, operating systems, MLEs, registered hosts. They are
# what its tools show; nobody is judged by them.
oat_records = Table(
    "oat_records",
    metadata,
    Column("kind", String(10), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("version", String(100), primary_key=True),
    Column("content", Text, nullable=False),
)

# Which certificate authority this database's hosts were enrolled by: all servers on it must hold
# the same one.
authority = Table("authority", metadata, Column("digest", DIGEST, primary_key=True))

# The keys that sign verdicts, one in each state: all servers on this database sign with the active
# one.
verdict_keys = Table(
    "verdict_keys",
    metadata,
    Column("state", String(10), primary_key=True),
    Column("key_id", String(16), nullable=False),
    Column("public", Text, nullable=False),
    # PKCS #8, encrypted; empty when the key signs no more.
    Column("private", Text, nullable=False),
)

# What was taken back, so that restoring an older database does not revive it.
withdrawals = Table(
    "withdrawals",
    metadata,
    Column("kind", String(10), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("detail", DIGEST, primary_key=True),
)
