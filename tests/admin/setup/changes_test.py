# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The rule of setup, change by change: what is there, what is desired, and what the journal
says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup import changes
from ovirt_tcp_plugin.admin.setup.changes import Change, Need
from ovirt_tcp_plugin.admin.setup.journal import Entry, EntryState, Journal


class Word(Change):
    """A word that is somewhere."""

    kind = "word"

    def __init__(self, there: Any, wish: Any = "ours") -> None:
        super().__init__("w", "the word")
        self.there = there
        self.wish = wish
        self.done = 0
        self.refusal = ""

    def look(self, entry: Optional[Entry]) -> Any:
        return self.there

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        if self.refusal:
            raise errors.Conflict(self.refusal)
        return self.wish

    def make(self, desired: Any) -> Any:
        self.there = desired
        self.done += 1
        return desired

    def undo(self, entry: Entry, now: Any) -> str:
        if self.refusal:
            raise errors.Conflict(self.refusal)
        self.there = entry.before
        return "a note"


class Thing(Word):
    """Something that setup makes; it may be half made."""

    makes = True

    def is_partly_made(self, now: Any, desired: Any) -> bool:
        return bool(now == "half")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def quiet(_: str) -> None:
    pass


def intended(journal: Journal, before: Any = "theirs", wanted: Any = "ours") -> None:
    journal.intend("word", "w", before, wanted)


def done(journal: Journal) -> None:
    intended(journal)
    journal.done("word", "w", "ours")


def undoing(journal: Journal) -> None:
    done(journal)
    journal.undoing(journal.entries[0])


@pytest.mark.parametrize(
    ("history", "there", "need"),
    [
        (None, "theirs", Need.DO),
        (None, "ours", Need.THERE),
        (intended, "theirs", Need.DO),
        (intended, "ours", Need.DO),  # it was done, and the journal does not know yet
        (intended, "another's", Need.DO),
        (done, "ours", Need.DONE),
        (done, "another's", Need.CHANGED),
        (done, "theirs", Need.CHANGED),
    ],
)
def test_what_there_is_to_do_follows_from_what_is_there_and_what_was_done(
    journal: Journal, history: Any, there: str, need: Need
) -> None:
    if history is not None:
        history(journal)
    word = Word(there)
    planned = changes.plan(word, journal)
    assert planned.need is need
    assert bool(planned.reason) is (need is Need.CHANGED)
    changes.perform([word], journal, quiet)
    assert word.done == (1 if need is Need.DO else 0)
    assert word.there == ("ours" if need is Need.DO else there)


def test_what_was_right_before_is_not_in_the_journal_and_stays(journal: Journal) -> None:
    word = Word("ours")
    assert not changes.perform([word], journal, quiet)
    assert journal.entries == ()


@pytest.mark.parametrize(
    ("there", "before"), [("theirs", "theirs"), ("ours", "theirs"), ("another's", "another's")]
)
def test_after_a_kill_the_journal_still_knows_what_was_there_before(
    journal: Journal, there: str, before: str
) -> None:
    intended(journal)
    changes.perform([Word(there)], journal, quiet)
    assert journal.entries[0].before == before


def test_another_wish_than_the_last_time_is_done_and_what_was_before_both_is_kept(
    journal: Journal,
) -> None:
    word = Word("theirs")
    changes.perform([word], journal, quiet)
    word.wish = "ours too"
    assert changes.plan(word, journal).need is Need.DO
    journal.intend("word", "w", "theirs", "ours too")  # and killed before the change
    changes.perform([word], journal, quiet)
    assert (word.there, journal.entries[0].before, journal.entries[0].after) == (
        "ours too",
        "theirs",
        "ours too",
    )


def test_a_change_by_somebody_is_told_with_all_three_values_and_the_way_on(
    journal: Journal,
) -> None:
    done(journal)
    reason = changes.plan(Word("another's"), journal).reason
    assert reason == (
        "the word was left alone: somebody changed it since setup. "
        "It is another's; setup left ours; before that it was theirs. "
        "If that was a mistake, bring back by hand what setup left; or start again by "
        "ovirt-tcp setup --remove, which ends the pools, and then setup."
    )


def test_a_refused_change_ends_it_and_those_before_it_are_done(journal: Journal) -> None:
    first, second = Word("theirs"), Word("theirs")
    second.subject, second.refusal = "second", "there is one already"
    assert changes.plan(second, journal).need is Need.REFUSED
    with pytest.raises(errors.Conflict, match="there is one already"):
        changes.perform([first, second], journal, quiet)
    assert (first.there, second.there) == ("ours", "theirs")
    assert len(journal.entries) == 1


def test_a_removal_that_was_begun_has_to_be_finished_first(journal: Journal) -> None:
    undoing(journal)
    with pytest.raises(errors.Conflict, match="a removal was begun and not finished"):
        changes.plan(Word("ours"), journal)


@pytest.mark.parametrize("history", [intended, done, undoing])
@pytest.mark.parametrize("there", ["ours", "theirs", "another's"])
def test_only_what_is_as_we_left_it_is_undone(journal: Journal, history: Any, there: str) -> None:
    history(journal)
    word = Word(there)
    kept = changes.undo([(word, journal.entries[0])], journal, quiet)
    assert word.there == ("another's" if there == "another's" else "theirs")
    assert bool(kept) is (there == "another's")
    assert bool(journal.entries) is (there == "another's")


def test_what_the_engine_refuses_to_undo_is_told_and_stays_in_the_journal(journal: Journal) -> None:
    done(journal)
    word = Word("ours")
    word.refusal = "in use"
    assert changes.undo([(word, journal.entries[0])], journal, quiet) == [
        "the word was left alone: conflict: in use"
    ]
    assert journal.entries[0].state is EntryState.DONE
    word.refusal = ""
    told: list[str] = []
    assert changes.undo([(word, journal.entries[0])], journal, told.append) == []
    assert told == ["the word: undone; a note"]


def test_what_was_half_made_is_undone_and_what_somebody_else_made_is_not(journal: Journal) -> None:
    intended(journal, before=None)
    thing = Thing("else")
    assert len(changes.undo([(thing, journal.entries[0])], journal, quiet)) == 1
    thing.there = "half"
    assert changes.undo([(thing, journal.entries[0])], journal, quiet) == []
    assert thing.there is None


def test_where_something_is_made_nothing_was_before(journal: Journal) -> None:
    intended(journal, before=None)
    changes.perform([Thing("half")], journal, quiet)
    assert journal.entries[0].before is None
