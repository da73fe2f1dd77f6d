# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""OpenAttestation's own records: what its tools wrote, to be shown as they wrote it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Optional

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.verifier.store import columns
from ovirt_tcp_plugin.verifier.store.schema import oat_records as table

log = logging.getLogger("verifier.store")

Record = Mapping[str, str]
OEM = "oem"
OS = "os"
MLE = "mle"
HOST = "host"


class OatRecords:
    """The records of one kind, within one transaction. A name without versions has the empty one.

    Args:
        kind: OEM, OS, MLE or HOST.
    """

    def __init__(self, connection: Connection, kind: str) -> None:
        self._connection = connection
        self._kind = kind

    def find(self, name: str, version: str = "") -> Optional[Record]:
        """Return a record, None if there is none; one that cannot be read is empty."""
        selection = sa.select(table.c.content).where(self._is_record(name, version))
        content = self._connection.execute(selection).scalar()
        if content is None:
            return None
        return self._decode(name, content)

    def every(self) -> list[Record]:
        """Return the readable records, sorted by name and version."""
        of_kind = sa.select(table).where(table.c.kind == self._kind)
        in_order = of_kind.order_by(table.c.name, table.c.version)
        records = []
        for row in self._connection.execute(in_order).mappings():
            record = self._decode(row["name"], row["content"])
            if record:
                records.append(record)
        return records

    def put(self, record: Record, name: str, version: str = "") -> None:
        """Keep a record, new or changed."""
        content = json.dumps(dict(record))
        update = sa.update(table).where(self._is_record(name, version))
        changed = self._connection.execute(update.values(content=content)).rowcount
        if changed == 0:
            row = {"kind": self._kind, "name": name, "version": version, "content": content}
            self._connection.execute(sa.insert(table).values(**row))

    def remove(self, name: str, version: str = "") -> bool:
        """Remove a record; return whether there was one."""
        removal = sa.delete(table).where(self._is_record(name, version))
        return self._connection.execute(removal).rowcount == 1

    def _is_record(self, name: str, version: str) -> sa.ColumnElement[bool]:
        is_of_kind = table.c.kind == self._kind
        has_name = table.c.name == name
        has_version = table.c.version == version
        return sa.and_(is_of_kind, has_name, has_version)

    def _decode(self, name: str, content: str) -> Record:
        """Return a record; one that cannot be read is empty, and logged."""
        try:
            return _decode(content)
        except (ValueError, TypeError, AttributeError, RecursionError):
            log.error("record unreadable kind=%s name=%s", self._kind, name)
            return {}


def check(row: Any) -> None:
    """Return if a row of the table can be read.

    Raises ValueError, TypeError, AttributeError or RecursionError.
    """
    for name in ("kind", "name", "version"):
        columns.text(row[name])
    if row["kind"] not in (OEM, OS, MLE, HOST):
        raise columns.BadValue("a kind that does not exist")
    _decode(row["content"])


def _decode(content: str) -> Record:
    members = json.loads(content)
    return {name: columns.text(text) for name, text in members.items()}
