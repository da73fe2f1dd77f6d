# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""EKs that the administrator vouches for.

They are read from the machine itself, or taken from the vendor's list of delivery.
"""

from __future__ import annotations

from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store import columns, withdrawals
from ovirt_tcp_plugin.verifier.store.schema import registered_eks


def add(connection: Connection, ek_digest: str, host_name: str) -> None:
    """Register the EK of one host.

    Raises:
        Conflict: the EK or the host is registered already.
    """
    has_ek = registered_eks.c.ek_digest == ek_digest
    has_name = registered_eks.c.host_name == host_name
    selection = sa.select(registered_eks).where(has_ek | has_name)
    row = connection.execute(selection).mappings().first()
    if row is not None:
        name = row["host_name"]
        reason = f"{name} is registered with EK {row['ek_digest']}: remove that first"
        raise errors.Conflict(reason)
    registration = {"ek_digest": ek_digest, "host_name": host_name}
    connection.execute(sa.insert(registered_eks).values(**registration))
    back = withdrawals.Withdrawal(withdrawals.EK, host_name, ek_digest)
    withdrawals.forget(connection, back)


def remove(connection: Connection, host_name: str) -> None:
    """Forget a host's registered EK; what is enrolled stays. Raises NotFound."""
    of_host = registered_eks.c.host_name == host_name
    selection = sa.select(registered_eks.c.ek_digest).where(of_host)
    digests = connection.execute(selection).scalars().all()
    if not digests:
        raise errors.NotFound("registered EK of", host_name)
    connection.execute(sa.delete(registered_eks).where(of_host))
    for digest in digests:
        gone = withdrawals.Withdrawal(withdrawals.EK, host_name, str(digest))
        withdrawals.add(connection, gone)


def host_of(connection: Connection, ek_digest: str) -> Optional[str]:
    """Return the host that this EK is registered for, None if it is not."""
    has_ek = registered_eks.c.ek_digest == ek_digest
    selection = sa.select(registered_eks.c.host_name).where(has_ek)
    name = connection.execute(selection).scalar()
    return name if isinstance(name, str) else None


def every(connection: Connection) -> list[tuple[str, str]]:
    """Return (host name, EK digest) of all, sorted by name."""
    by_name = sa.select(registered_eks).order_by(registered_eks.c.host_name)
    rows = connection.execute(by_name).mappings()
    return [(str(row["host_name"]), str(row["ek_digest"])) for row in rows]


def check(row: Any) -> None:
    """Return if a row of the table can be read. Raises ValueError."""
    columns.text(row["ek_digest"])
    columns.text(row["host_name"])
