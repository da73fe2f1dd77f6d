# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's own records: what its tools wrote, to be shown as they wrote it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.verifier.store.schema import oat_records as table

log = logging.getLogger("verifier.store")

Record = Mapping[str, str]
OEM = "oem"
OS = "os"
MLE = "mle"
HOST = "host"


def find(connection: Connection, kind: str, name: str, version: str = "") -> Optional[Record]:
    """Return a record, None if there is none; one that cannot be read is empty."""
    content = connection.execute(
        sa.select(table.c.content).where(*_own(kind, name, version))
    ).scalar()
    return None if content is None else _decode(kind, name, content)


def every(connection: Connection, kind: str) -> list[Record]:
    """Return the records of a kind, sorted by name and version, without those that cannot be read."""
    rows = sa.select(table).where(table.c.kind == kind).order_by(table.c.name, table.c.version)
    decoded = (
        _decode(kind, row["name"], row["content"]) for row in connection.execute(rows).mappings()
    )
    return [record for record in decoded if record]


def put(connection: Connection, kind: str, record: Record, name: str, version: str = "") -> None:
    """Keep a record, new or changed."""
    content = json.dumps(dict(record))
    if (
        connection.execute(
            sa.update(table).where(*_own(kind, name, version)).values(content=content)
        ).rowcount
        == 0
    ):
        connection.execute(
            sa.insert(table).values(kind=kind, name=name, version=version, content=content)
        )


def remove(connection: Connection, kind: str, name: str, version: str = "") -> bool:
    """Remove a record; return whether there was one."""
    return connection.execute(sa.delete(table).where(*_own(kind, name, version))).rowcount == 1


def _own(kind: str, name: str, version: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.kind == kind, table.c.name == name, table.c.version == version


def _decode(kind: str, name: str, content: str) -> Record:
    try:
        return {str(member): str(text) for member, text in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.error("record unreadable kind=%s name=%s", kind, name)
        return {}
