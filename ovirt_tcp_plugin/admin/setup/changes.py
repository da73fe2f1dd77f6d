# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The one rule of setup: what is changed, what is left alone, and what is undone.

It compares three values: what is there now, what a change desires, and what the journal says that
the change left. What somebody else changed after us is reported, never overwritten. What was right
before is not ours, and stays when ours is undone.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.journal import Entry, EntryState, Journal

Report = Callable[[str], None]

_WAY_ON = (
    "If that was a mistake, bring back by hand what setup left; or start again by ovirt-tcp setup "
    "--remove, which ends the pools, and then setup."
)


class Change(abc.ABC):
    """One change at the engine. All its values are JSON values; None is nothing.

    Attributes:
        kind, subject: what is changed, as the journal names it.
        title: the same for people.
        makes: whether it makes something of its own, so that nothing was there before.
    """

    kind: str
    makes = False

    def __init__(self, subject: str, title: str) -> None:
        self.subject = subject
        self.title = title

    @abc.abstractmethod
    def look(self, entry: Optional[Entry]) -> Any:
        """Return what is there now."""

    @abc.abstractmethod
    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return what is to be there. Raises Conflict when what is there forbids it."""

    @abc.abstractmethod
    def make(self, desired: Any) -> Any:
        """Make the change, or finish it; return what is there then."""

    @abc.abstractmethod
    def undo(self, entry: Entry, now: Any) -> str:
        """Undo the change; return what a person should know, empty for nothing.

        Raises:
            Conflict: the engine refuses.
        """

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether a value that the change left, or desires, is there."""
        return bool(now == value)

    def is_partly_made(self, now: Any, desired: Any) -> bool:
        """Return whether what is there is the change's own, though it was not finished."""
        return False

    def is_undone(self, now: Any, entry: Entry) -> bool:
        """Return whether nothing is left of the change."""
        return bool(now == entry.before)

    def show(self, value: Any) -> str:
        """Return a value for people."""
        return "nothing" if value is None else str(value)


class Need(enum.Enum):
    """Whether a change is to be made; the values are for people."""

    DO = "to do"
    DONE = "done by an earlier setup"
    THERE = "so already"
    CHANGED = "changed by somebody since"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class PlannedChange:
    """A change, and whether it is to be made. `reason`: why it is refused or left alone."""

    change: Change
    need: Need
    entry: Optional[Entry]
    now: Any
    desired: Any = None
    reason: str = ""


def plan(change: Change, journal: Journal) -> PlannedChange:
    """Return whether a change is to be made. Raises Conflict when its removal was begun."""
    entry = journal.entry(change.kind, change.subject)
    now = change.look(entry)
    if entry is not None and entry.state is EntryState.UNDOING:
        what = "a removal was begun and not finished"
        raise errors.Conflict(f"{what}: finish it by ovirt-tcp setup --remove")
    finished = entry is not None and entry.state is EntryState.DONE
    if entry is not None and finished and not _is_as_left(change, entry, now):
        reason = f"{_changed_since(change, entry, now)} {_WAY_ON}"
        return PlannedChange(change, Need.CHANGED, entry, now, entry.after, reason)
    try:
        desired = change.desired(now, entry)
    except errors.Conflict as e:
        return PlannedChange(change, Need.REFUSED, entry, now, reason=e.reason)
    need = Need.DO
    if change.is_in_place(now, desired):
        need = _need_in_place(entry)
    return PlannedChange(change, need, entry, now, desired)


def _need_in_place(entry: Optional[Entry]) -> Need:
    """Return what there is to do where a change is in place already."""
    if entry is None:
        return Need.THERE
    return Need.DONE if entry.state is EntryState.DONE else Need.DO


def perform(changes: Iterable[Change], journal: Journal, report: Report) -> bool:
    """Make the changes that are to be made, in order; return whether there were any.

    Raises:
        Conflict: a change is refused; those before it are made.
        Unavailable, NotFound: the engine did not answer; the journal knows what may have been made.
    """
    performed = False
    for change in changes:
        planned = plan(change, journal)
        if planned.need is Need.REFUSED:
            raise errors.Conflict(planned.reason)
        if planned.need is not Need.DO:
            continue
        journal.intend(change.kind, change.subject, _before(planned), planned.desired)
        after = _make(change, planned.desired)
        journal.done(change.kind, change.subject, after)
        report(f"{change.title}: {change.show(after)}")
        performed = True
    return performed


def undo(changes: Iterable[tuple[Change, Entry]], journal: Journal, report: Report) -> list[str]:
    """Undo changes in this order; return why some were left alone.

    Raises:
        Unavailable: the engine did not answer; the journal knows what is left to undo.
    """
    kept: list[str] = []
    for change, entry in changes:
        now = change.look(entry)
        if change.is_undone(now, entry):
            report(f"{change.title}: as it was")
            journal.drop(entry)
        elif not _is_ours(change, entry, now):
            kept.append(_changed_since(change, entry, now))
        else:
            refusal = _undo(change, entry, now, journal, report)
            if refusal:
                kept.append(refusal)
    return kept


def _undo(change: Change, entry: Entry, now: Any, journal: Journal, report: Report) -> str:
    """Undo one change; return why the engine refuses that, empty if it is undone."""
    journal.undoing(entry)
    try:
        note = change.undo(entry, now)
    except (errors.Conflict, errors.NotFound) as e:
        # A request may have been sent twice, see `_make`: then it is undone all the same.
        if not change.is_undone(change.look(entry), entry):
            journal.put_back(entry)
            return f"{change.title} was left alone: {e}"
        note = ""
    report(f"{change.title}: undone; {note}" if note else f"{change.title}: undone")
    journal.drop(entry)
    return ""


def _make(change: Change, desired: Any) -> Any:
    """Make a change; what the engine refuses is tried once more.

    libcurl sends a request again when a connection that was used before ends without an answer, and
    the engine refuses the second, though it did the first. `make` finishes what it finds.
    """
    try:
        return change.make(desired)
    except (errors.Conflict, errors.NotFound):
        return change.make(desired)


def _before(planned: PlannedChange) -> Any:
    """Return what was there before a change.

    If the change may have been made already, the journal knows.
    """
    change = planned.change
    entry = planned.entry
    if change.makes:
        return None
    if entry is None:
        return planned.now
    left = _is_as_left(change, entry, planned.now)
    if left or change.is_in_place(planned.now, planned.desired):
        return entry.before
    return planned.now


def _is_ours(change: Change, entry: Entry, now: Any) -> bool:
    """Return whether what is there is what the change left, finished or not."""
    if _is_as_left(change, entry, now):
        return True
    return entry.after is None and change.is_partly_made(now, entry.desired)


def _is_as_left(change: Change, entry: Entry, now: Any) -> bool:
    """Return whether there is what the change left, or may have left."""
    return any(change.is_in_place(now, value) for value in entry.left)


def _changed_since(change: Change, entry: Entry, now: Any) -> str:
    return (
        f"{change.title} was left alone: somebody changed it since setup. It is {change.show(now)};"
        f" setup left {change.show(entry.left[-1])};"
        f" before that it was {change.show(entry.before)}."
    )
