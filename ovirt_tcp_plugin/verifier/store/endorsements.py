# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""EKs that the administrator vouches for.

They are read from the machine itself, or taken from the vendor's list of delivery.
"""

from __future__ import annotations

from typing import Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store.schema import registered_eks


def add(connection: Connection, ek_digest: str, host_name: str) -> None:
    """Register the EK of one host.

    Raises:
        Conflict: the EK or the host is registered already.
    """
    taken = (registered_eks.c.ek_digest == ek_digest) | (registered_eks.c.host_name == host_name)
    row = connection.execute(sa.select(registered_eks).where(taken)).mappings().first()
    if row is not None:
        raise errors.Conflict(
            f"{row['host_name']} is registered with EK {row['ek_digest']}: remove that first"
        )
    connection.execute(sa.insert(registered_eks).values(ek_digest=ek_digest, host_name=host_name))


def remove(connection: Connection, host_name: str) -> None:
    """Forget a host's registered EK; what is enrolled stays. Raises NotFound."""
    own = registered_eks.c.host_name == host_name
    if connection.execute(sa.delete(registered_eks).where(own)).rowcount == 0:
        raise errors.NotFound("registered EK of", host_name)


def host_of(connection: Connection, ek_digest: str) -> Optional[str]:
    """Return the host that this EK is registered for, None if it is not."""
    own = sa.select(registered_eks.c.host_name).where(registered_eks.c.ek_digest == ek_digest)
    return connection.execute(own).scalar()


def every(connection: Connection) -> list[tuple[str, str]]:
    """Return (host name, EK digest) of all, sorted by name."""
    rows = connection.execute(
        sa.select(registered_eks).order_by(registered_eks.c.host_name)
    ).mappings()
    return [(row["host_name"], row["ek_digest"]) for row in rows]
