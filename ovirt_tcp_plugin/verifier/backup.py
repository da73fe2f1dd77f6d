# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A backup in one file: gzip of JSON lines.

The first line says what it is, then come the files of the authority and the rows of the database as
one transaction saw them, and the last line says that it is whole. It holds `ca.key`: keep it as
that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.verifier.store.transfer import Rows

FORMAT = "ovirt-tcp-verifier backup"
VERSION = 1
# Rows of hosts that measured much; a longer line is not ours.
MAX_LINE_SIZE = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a backup begins with.

    Attributes:
        revision: of the database's schema.
        made_s: when it was made, seconds of the UTC epoch.
        files: content by name, such as `ca.key`.
    """

    revision: str
    made_s: int
    files: Mapping[str, str]


def write(path: Path, contents: Contents, parts: Iterator[Rows]) -> int:
    """Write a backup, whole or not at all, and return its number of rows.

    For its owner only from the first moment.

    Raises:
        Conflict: the file exists.
        Unavailable: it cannot be written.
    """
    if path.exists():
        raise errors.Conflict(f"{path} exists: choose another name, or remove it first")
    fresh = path.with_name(f"{path.name}.new")
    count = 0
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with gzip.GzipFile(fileobj=file, mode="wb") as packed:
                head = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(contents)}
                packed.write(_line(head))
                for part in parts:
                    packed.write(_line({"table": part.table, "rows": part.rows}))
                    count += len(part.rows)
                packed.write(_line({"end": count}))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        durable.sync(path.parent)
    except OSError as e:
        raise errors.Unavailable(f"backup {path}", e.strerror or str(e)) from e
    return count


class Reader:
    """A backup that is read.

    Attributes:
        contents: what it begins with.

    Raises:
        InvalidMessage: it is no backup.
        Unavailable: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.closing(self._lines()) as lines:
            head = next(lines, {})
        if head.get("format") != FORMAT or head.get("version") != VERSION:
            raise errors.InvalidMessage("backup", f"{path} is none of this release")
        files = head.get("files")
        if not isinstance(files, dict):
            raise errors.InvalidMessage("backup", "it has no files")
        self.contents = Contents(str(head.get("revision")), int(head.get("made_s", 0)), files)

    def parts(self) -> Iterator[Rows]:
        """Yield all rows. Raises InvalidMessage at the end if it is not whole."""
        count = 0
        ended = False
        with contextlib.closing(self._lines()) as lines:
            next(lines)
            # To the very end of the file, where gzip has its checksum.
            for line in lines:
                if "end" in line:
                    ended = line["end"] == count
                    continue
                rows = line.get("rows")
                if not isinstance(rows, list):
                    raise errors.InvalidMessage("backup", "a line has no rows")
                count += len(rows)
                yield Rows(str(line.get("table")), rows)
        if not ended:
            raise errors.InvalidMessage("backup", "it is not whole")

    def _lines(self) -> Generator[dict[str, Any], None, None]:
        try:
            with gzip.open(self._path, "rb") as packed:
                while line := packed.readline(MAX_LINE_SIZE):
                    members = json.loads(line)
                    if not isinstance(members, dict):
                        raise errors.InvalidMessage("backup", "a line is no JSON object")
                    yield members
        except (EOFError, ValueError, RecursionError, gzip.BadGzipFile) as e:
            raise errors.InvalidMessage("backup", f"{self._path} is damaged or none") from e
        except OSError as e:
            raise errors.Unavailable(f"backup {self._path}", e.strerror or str(e)) from e


def _line(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members).encode("ascii") + b"\n"
