# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which certificate authority enrolled the hosts of this database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.store.schema import authority


def claim(connection: Connection, digest: str) -> None:
    """Return if all servers on this database hold the authority of this digest.

    The digest is SHA-256 of the certificate, hex.

    The first server to come decides. With two authorities each agent would be known to one server
    only.

    Raises:
        Conflict: another one is in use.
    """
    known = connection.execute(sa.select(authority.c.digest)).scalar()
    if known is None:
        connection.execute(sa.insert(authority).values(digest=digest))
    elif known != digest:
        raise errors.Conflict(
            "the hosts in this database were enrolled by another authority: copy ca.pem and ca.key "
            "from the other server"
        )
