# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What setup did, in a file for root alone: the intent is there before the act, the result after it.

Each change of the journal is written beside it, synced, and takes its place at once: whenever setup is killed, the file
says what may have been done. It holds no secret.
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
    """How far an act is."""

    INTENDED = "intended"
    DONE = "done"
    UNDOING = "undoing"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One act.

    Attributes:
        kind, subject: what was changed; unique together.
        before: what was there; None for nothing.
        wanted: what was to be there.
        after: what the act left there, None while it is not known. While the same act is done again with another wish, it
            is what the first left.
        at: when the entry changed last, ISO 8601 in UTC.
    """

    kind: str
    subject: str
    state: EntryState
    before: Any
    wanted: Any
    after: Any
    at: str

    @property
    def left(self) -> tuple[Any, ...]:
        """What the act left; if it is not known whether it was finished, all that it may have left."""
        if self.state is EntryState.DONE:
            return (self.after,)
        return tuple(one for one in (self.wanted, self.after) if one is not None)


class Journal:
    """`<directory>/journal.json`. Reading it makes nothing; the first entry makes the directory.

    Raises:
        InvalidConfig: there is a journal that cannot be read or believed.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal.json"
        self._entries = {(one.kind, one.subject): one for one in _read(self.path)}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The acts, in the order in which they were begun."""
        return tuple(self._entries.values())

    def entry(self, kind: str, subject: str) -> Optional[Entry]:
        """Return the entry of an act, None if there is none."""
        return self._entries.get((kind, subject))

    def intend(self, kind: str, subject: str, before: Any, wanted: Any) -> None:
        """Say what will be done."""
        earlier = self.entry(kind, subject)
        after = None if earlier is None else earlier.after
        self._put(Entry(kind, subject, EntryState.INTENDED, before, wanted, after, _now()))

    def done(self, kind: str, subject: str, after: Any) -> None:
        """Say what an intended act left."""
        self._put(dataclasses.replace(self._entries[kind, subject], state=EntryState.DONE, after=after, at=_now()))

    def redate(self, kinds: Collection[str]) -> None:
        """Date these acts by now: the clock was set back since, so their dates say nothing."""
        for key, entry in self._entries.items():
            if entry.kind in kinds:
                self._entries[key] = dataclasses.replace(entry, at=_now())
        self._write()

    def undoing(self, entry: Entry) -> None:
        """Say that an act will be undone."""
        self._put(dataclasses.replace(entry, state=EntryState.UNDOING, at=_now()))

    def put_back(self, entry: Entry) -> None:
        """Say that an act was not undone after all: it is as the entry says."""
        self._put(entry)

    def drop(self, entry: Entry) -> None:
        """Forget an act: it is undone."""
        del self._entries[entry.kind, entry.subject]
        self._write()

    def _put(self, entry: Entry) -> None:
        self._entries[entry.kind, entry.subject] = entry
        self._write()

    def _write(self) -> None:
        acts = [{**dataclasses.asdict(one), "state": one.state.value} for one in self._entries.values()]
        content = json.dumps({"version": VERSION, "acts": acts}, indent=2).encode()
        try:
            durable.replace(self.path, content)
        except OSError as e:
            raise errors.InvalidConfig(str(self.path), [f"the journal cannot be written: {e.strerror}"]) from e


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other setup out while the context lasts, and make the directory.

    Raises:
        Conflict: another setup is at work.
        InvalidConfig: the directory cannot be made or used.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(directory, directory.lstat())
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise errors.InvalidConfig(str(directory), [f"it cannot be used, is this root? {e.strerror}"]) from e
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise errors.Conflict("another ovirt-tcp setup is at work; wait until it has ended") from e
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
        raise errors.InvalidConfig(str(path), [f"the journal cannot be read, is this root? {e.strerror}"]) from e
    _check_owner(path, status)
    try:
        members = json_fields.members(json_fields.parse(content, "journal", MAX_SIZE), "journal")
        json_fields.integer(members, "version", VERSION, VERSION)
        return [_entry(json_fields.members(one, "act")) for one in json_fields.items(members, "acts", MAX_ENTRIES)]
    except (errors.InvalidMessage, ValueError, KeyError) as e:
        reason = "it is needed to undo what was done; bring it back from a backup, or move it away and undo by hand"
        raise errors.InvalidConfig(str(path), [f"the journal is damaged ({e}): {reason}"]) from e


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise errors.InvalidConfig(str(path), ["it belongs to somebody else, or others may write it"])


def _entry(members: Any) -> Entry:
    texts = [json_fields.text(members, name, MAX_TEXT) for name in ("kind", "subject", "state", "at")]
    kind, subject, state, at = texts
    return Entry(kind, subject, EntryState(state), members["before"], members["wanted"], members["after"], at)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
