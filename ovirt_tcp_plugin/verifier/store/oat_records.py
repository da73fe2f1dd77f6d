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
    statement = sa.select(table.c.content).where(_is_record(kind, name, version))
    content = connection.execute(statement).scalar()
    return None if content is None else _decode(kind, name, content)


def every(connection: Connection, kind: str) -> list[Record]:
    """Return the records of a kind, sorted by name and version.

    Those that cannot be read are left out.
    """
    of_kind = sa.select(table).where(table.c.kind == kind)
    rows = connection.execute(of_kind.order_by(table.c.name, table.c.version)).mappings()
    records = [_decode(kind, row["name"], row["content"]) for row in rows]
    return [record for record in records if record]


def put(connection: Connection, kind: str, record: Record, name: str, version: str = "") -> None:
    """Keep a record, new or changed."""
    content = json.dumps(dict(record))
    change = sa.update(table).where(_is_record(kind, name, version)).values(content=content)
    if connection.execute(change).rowcount == 0:
        row = {"kind": kind, "name": name, "version": version, "content": content}
        connection.execute(sa.insert(table).values(**row))


def remove(connection: Connection, kind: str, name: str, version: str = "") -> bool:
    """Remove a record; return whether there was one."""
    removal = sa.delete(table).where(_is_record(kind, name, version))
    return connection.execute(removal).rowcount == 1


def _is_record(kind: str, name: str, version: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.kind == kind, table.c.name == name, table.c.version == version)


def _decode(kind: str, name: str, content: str) -> Record:
    """Return a record; one that cannot be read is empty, and logged."""
    try:
        members = json.loads(content)
        return {str(member): str(text) for member, text in members.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.error("record unreadable kind=%s name=%s", kind, name)
        return {}
