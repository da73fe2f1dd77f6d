# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which certificate authority enrolled the hosts of this database."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store.schema import authority


def claim(connection: Connection, digests: Sequence[str]) -> None:
    """Return if all servers on this database hold the authority with the first of these digests.

    Args:
        digests: SHA-256 of the certificates, hex: of the authority in use, and of those that it
            took the place of.

    The first server to come decides, and the first one with a renewed authority. With two
    authorities each agent would be known to one server only.

    Raises:
        Conflict: another one is in use.
    """
    known = connection.execute(sa.select(authority.c.digest)).scalar()
    if known is None:
        connection.execute(sa.insert(authority).values(digest=digests[0]))
    elif known == digests[0]:
        return
    elif known in digests:
        replace(connection, digests[0])
    else:
        raise errors.Conflict(
            "the hosts in this database were enrolled by another authority: copy ca.pem and ca.key "
            "from the other server"
        )


def replace(connection: Connection, digest: str) -> None:
    """Have the servers on this database hold this authority, whatever was before."""
    connection.execute(sa.delete(authority))
    connection.execute(sa.insert(authority).values(digest=digest))
