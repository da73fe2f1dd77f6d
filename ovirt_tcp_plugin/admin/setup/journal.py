# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What setup did, in a file for root alone: first the intent, then the change, then its result.

A new version of the journal is written beside it, synced, and takes its place at once: whenever
setup is killed, the file says what may have been done. It holds no secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import fcntl
import json
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Optional

from ovirt_tcp_plugin import durable, errors
from ovirt_tcp_plugin.messages import json_fields

DEFAULT_DIRECTORY = Path("/var/lib/ovirt-tcp/setup")
VERSION = 1
# A thousand clusters with all their properties take less.
MAX_SIZE = 4 * 1024 * 1024
MAX_ENTRIES = 10_000
MAX_TEXT = 1024


class EntryState(enum.Enum):
    """How far a change is."""

    INTENDED = "intended"
    DONE = "done"
    UNDOING = "undoing"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One change. All values are JSON values; None is nothing.

    Attributes:
        kind, subject: what was changed; unique together.
        before: what was there.
        desired: what was to be there; `wanted` in the file.
        after: what the change left there, None while that is not known. While the same change is
            made again with another desired value, it is what the first left.
        at: when the entry changed last, ISO 8601 in UTC.
    """

    kind: str
    subject: str
    state: EntryState
    before: Any
    desired: Any
    after: Any
    at: str

    @property
    def left(self) -> tuple[Any, ...]:
        """What the change left; if it may not have been finished, all that it may have left."""
        if self.state is EntryState.DONE:
            return (self.after,)
        return tuple(value for value in (self.desired, self.after) if value is not None)

    def encode(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "state": self.state.value,
            "before": self.before,
            "wanted": self.desired,
            "after": self.after,
            "at": self.at,
        }


class Journal:
    """`<directory>/journal.json`. Reading it makes nothing; the first entry makes the directory.

    Raises:
        InvalidConfig: there is a journal that cannot be read or believed.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal.json"
        self._entries = {(entry.kind, entry.subject): entry for entry in _read(self.path)}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in the order in which their changes were begun."""
        return tuple(self._entries.values())

    def entry(self, kind: str, subject: str) -> Optional[Entry]:
        """Return the entry of a change, None if there is none."""
        return self._entries.get((kind, subject))

    def intend(self, kind: str, subject: str, before: Any, desired: Any) -> None:
        """Note what will be changed."""
        earlier = self.entry(kind, subject)
        after = None if earlier is None else earlier.after
        self._put(Entry(kind, subject, EntryState.INTENDED, before, desired, after, _now()))

    def done(self, kind: str, subject: str, after: Any) -> None:
        """Note what an intended change left."""
        entry = self._entries[kind, subject]
        done = dataclasses.replace(entry, state=EntryState.DONE, after=after, at=_now())
        self._put(done)

    def redate(self, kinds: Collection[str]) -> None:
        """Date these changes by now: the clock was set back since, so their dates say nothing."""
        for key, entry in self._entries.items():
            if entry.kind in kinds:
                self._entries[key] = dataclasses.replace(entry, at=_now())
        self._write()

    def undoing(self, entry: Entry) -> None:
        """Note that a change will be undone."""
        self._put(dataclasses.replace(entry, state=EntryState.UNDOING, at=_now()))

    def put_back(self, entry: Entry) -> None:
        """Note that a change was not undone after all: it is as the entry says."""
        self._put(entry)

    def drop(self, entry: Entry) -> None:
        """Forget a change: it is undone."""
        del self._entries[entry.kind, entry.subject]
        self._write()

    def _put(self, entry: Entry) -> None:
        self._entries[entry.kind, entry.subject] = entry
        self._write()

    def _write(self) -> None:
        acts = [entry.encode() for entry in self._entries.values()]
        content = json.dumps({"version": VERSION, "acts": acts}, indent=2).encode()
        try:
            durable.replace(self.path, content)
        except OSError as e:
            fault = f"the journal cannot be written: {e.strerror}"
            raise errors.InvalidConfig(str(self.path), [fault]) from e


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other setup out while the context lasts, and make the directory.

    Raises:
        Conflict: another setup is running.
        InvalidConfig: the directory cannot be made or used.
    """
    try:
        durable.make_directory(directory)
        _check_owner(directory, directory.lstat())
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        fault = f"it cannot be used ({e.strerror}): run setup as root"
        raise errors.InvalidConfig(str(directory), [fault]) from e
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise errors.Conflict("another ovirt-tcp setup is running: wait until it ends") from e
        yield
    finally:
        os.close(lock)


def _read(path: Path) -> list[Entry]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return []
    except OSError as e:
        fault = f"the journal cannot be read ({e.strerror}): run setup as root"
        raise errors.InvalidConfig(str(path), [fault]) from e
    _check_owner(path, status)
    try:
        return _entries(content)
    except (errors.InvalidMessage, ValueError, KeyError) as e:
        step = (
            "bring it back from a backup, or move it away and undo by hand what setup did; without"
            " it setup cannot undo anything"
        )
        fault = f"the journal is damaged ({e}): {step}"
        raise errors.InvalidConfig(str(path), [fault]) from e


def _entries(untrusted: bytes) -> list[Entry]:
    """Return the entries in a journal. Raises InvalidMessage, ValueError, KeyError."""
    members = json_fields.parse_members(untrusted, "journal", MAX_SIZE)
    json_fields.integer(members, "version", VERSION, VERSION)
    acts = json_fields.items(members, "acts", MAX_ENTRIES)
    return [_entry(json_fields.members(act, "act")) for act in acts]


def _check_owner(path: Path, status: os.stat_result) -> None:
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid != os.geteuid() or others_write:
        fault = "it belongs to somebody else, or others may write it"
        raise errors.InvalidConfig(str(path), [fault])


def _entry(members: Any) -> Entry:
    return Entry(
        kind=json_fields.text(members, "kind", MAX_TEXT),
        subject=json_fields.text(members, "subject", MAX_TEXT),
        state=EntryState(json_fields.text(members, "state", MAX_TEXT)),
        before=members["before"],
        desired=members["wanted"],
        after=members["after"],
        at=json_fields.text(members, "at", MAX_TEXT),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
