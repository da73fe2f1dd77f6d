# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The one rule of setup: what is done, what is left alone, and what is undone.

It compares three things: what is there now, what an act wants, and what the journal says that the act left. A change by
somebody else after ours is told, never overwritten; what was right before is none of ours, and stays when ours is undone.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.journal import Entry, Journal, State

Tell = Callable[[str], None]

_WAY_ON = (
    "If that was a mistake, bring back by hand what setup left; or begin anew by ovirt-tcp setup "
    "--remove, which ends the pools, and then setup."
)


class Act(abc.ABC):
    """One change. What is there, wanted and left are JSON values; None is nothing.

    Attributes:
        kind, subject: what is changed, as the journal names it.
        title: the same for people.
        makes: whether it makes something of its own, so that nothing was there before.
    """

    kind: str
    makes = False

    def __init__(self, subject: str, title: str) -> None:
        self.subject, self.title = subject, title

    @abc.abstractmethod
    def look(self, entry: Optional[Entry]) -> Any:
        """Return what is there now."""

    @abc.abstractmethod
    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return what is to be there. Raises Conflict when what is there forbids it."""

    @abc.abstractmethod
    def do(self, wanted: Any) -> Any:
        """Do it, or finish it; return what is there then."""

    @abc.abstractmethod
    def undo(self, entry: Entry, now: Any) -> str:
        """Undo it; return what a person should know, empty for nothing. Raises Conflict when the engine refuses."""

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether what an act left, or wants, is there."""
        return bool(now == left)

    def half_made(self, now: Any, wanted: Any) -> bool:
        """Return whether what is there is the act's own, though it was not finished."""
        return False

    def gone(self, now: Any, entry: Entry) -> bool:
        """Return whether nothing is left of the act."""
        return bool(now == entry.before)

    def show(self, value: Any) -> str:
        """Return a value for people."""
        return "nothing" if value is None else str(value)


class Need(enum.Enum):
    """What there is to do for an act."""

    DO = "to do"
    DONE = "done by an earlier setup"
    THERE = "so already"
    CHANGED = "changed by somebody since"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Step:
    """An act and what there is to do for it. `reason`: why it is refused or left alone."""

    act: Act
    need: Need
    entry: Optional[Entry]
    now: Any
    wanted: Any = None
    reason: str = ""


def step(act: Act, journal: Journal) -> Step:
    """Return what there is to do for an act. Raises Conflict when its removal was begun."""
    entry = journal.entry(act.kind, act.subject)
    now = act.look(entry)
    if entry is not None and entry.state is State.UNDOING:
        raise errors.Conflict("a removal was begun and not finished: finish it by ovirt-tcp setup --remove")
    if entry is not None and entry.state is State.DONE and not _left(act, entry, now):
        reason = f"{_changed(act, entry, now)} {_WAY_ON}"
        return Step(act, Need.CHANGED, entry, now, entry.after, reason)
    try:
        wanted = act.wanted(now, entry)
    except errors.Conflict as e:
        return Step(act, Need.REFUSED, entry, now, reason=e.reason)
    need = Need.DO
    if (entry is None or entry.state is State.DONE) and act.stands(now, wanted):
        need = Need.THERE if entry is None else Need.DONE
    return Step(act, need, entry, now, wanted)


def perform(acts: Iterable[Act], journal: Journal, tell: Tell) -> bool:
    """Do what there is to do, in order; return whether anything was done.

    Raises:
        Conflict: an act is refused; those before it are done.
        Unavailable, NotFound: the engine did not answer; the journal knows what may have been done.
    """
    done = False
    for act in acts:
        one = step(act, journal)
        if one.need is Need.REFUSED:
            raise errors.Conflict(one.reason)
        if one.need is not Need.DO:
            continue
        journal.intend(act.kind, act.subject, _before(one), one.wanted)
        after = _do(act, one.wanted)
        journal.done(act.kind, act.subject, after)
        tell(f"{act.title}: {act.show(after)}")
        done = True
    return done


def undo(acts: Iterable[tuple[Act, Entry]], journal: Journal, tell: Tell) -> list[str]:
    """Undo acts in this order; return why some were left alone.

    Raises:
        Unavailable: the engine did not answer; the journal knows what is left to undo.
    """
    kept: list[str] = []
    for act, entry in acts:
        now = act.look(entry)
        if act.gone(now, entry):
            tell(f"{act.title}: as it was")
        elif _left(act, entry, now) or (entry.after is None and act.half_made(now, entry.wanted)):
            journal.undoing(entry)
            try:
                note = act.undo(entry, now)
            except (errors.Conflict, errors.NotFound) as e:
                # A request may have been sent twice, see `_do`: then it is undone all the same.
                if not act.gone(act.look(entry), entry):
                    journal.put_back(entry)
                    kept.append(f"{act.title} was left alone: {e}")
                    continue
                note = ""
            tell(f"{act.title}: undone" + (f"; {note}" if note else ""))
        else:
            kept.append(_changed(act, entry, now))
            continue
        journal.drop(entry)
    return kept


def _do(act: Act, wanted: Any) -> Any:
    """Do an act. What the engine refuses is tried once more: libcurl sends a request again when a connection that was used
    before ends without an answer, and the engine refuses the second, though it did the first. `do` finishes what it finds.
    """
    try:
        return act.do(wanted)
    except (errors.Conflict, errors.NotFound):
        return act.do(wanted)


def _before(one: Step) -> Any:
    """Return what was there before an act, which may have been done already: then the journal knows it."""
    if one.act.makes:
        return None
    entry = one.entry
    known = entry is not None and (_left(one.act, entry, one.now) or one.act.stands(one.now, one.wanted))
    return entry.before if entry is not None and known else one.now


def _left(act: Act, entry: Entry, now: Any) -> bool:
    """Return whether there is what the act left, or may have left."""
    return any(act.stands(now, one) for one in entry.left)


def _changed(act: Act, entry: Entry, now: Any) -> str:
    return (
        f"{act.title} was left alone: somebody changed it since setup. "
        f"It is {act.show(now)}; setup left {act.show(entry.left[-1])}; before that it was {act.show(entry.before)}."
    )
