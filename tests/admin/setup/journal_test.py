# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The journal: whole or not at all, believed only if it is root's own, and one setup at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.journal import EntryState, Journal, locked


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    return directory


def test_looking_at_no_journal_makes_none(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").entries == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "acts": []}',
        b'{"version": 1}',
        b'{"version": 1, "acts": [{}]}',
        b'{"version": 1, "acts": ["act"]}',
        json.dumps(
            {"version": 1, "acts": [{"kind": "k", "subject": "s", "state": "odd", "at": ""}]}
        ).encode(),
        json.dumps(
            {"version": 1, "acts": [{"kind": "k", "subject": "s", "state": "done", "at": ""}]}
        ).encode(),
        b" " * (5 * 1024 * 1024),
    ],
)
def test_a_damaged_journal_stops_everything_and_is_not_touched(state: Path, content: bytes) -> None:
    (state / "journal.json").write_bytes(content)
    with pytest.raises(
        errors.InvalidConfig, match="the journal is damaged .* bring it back from a backup"
    ):
        Journal(state)
    assert (state / "journal.json").read_bytes() == content


def test_a_journal_that_others_may_write_is_not_believed(state: Path) -> None:
    journal = Journal(state)
    journal.intend("option", "a", "1", "2")
    journal.path.chmod(0o620)
    with pytest.raises(errors.InvalidConfig, match="others may write it"):
        Journal(state)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_journal_of_somebody_else_is_not_believed(state: Path) -> None:
    journal = Journal(state)
    journal.intend("option", "a", "1", "2")
    os.chown(journal.path, 65534, 65534)
    with pytest.raises(errors.InvalidConfig, match="belongs to somebody else"):
        Journal(state)


def test_a_link_in_its_place_is_not_followed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"version": 1, "acts": []}')
    (state / "journal.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.InvalidConfig, match="cannot be read"):
        Journal(state)


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidConfig, match="cannot be written: No such file"):
        Journal(tmp_path / "none").intend("option", "a", "1", "2")


def test_a_change_is_intended_done_undone_and_forgotten_each_time_on_disk(state: Path) -> None:
    journal = Journal(state)
    journal.intend("option", "a", "1", "2")
    journal.intend("role", "b", None, {"id": ""})
    assert [one.state for one in Journal(state).entries] == [
        EntryState.INTENDED,
        EntryState.INTENDED,
    ]
    assert Journal(state).entries[0].left == ("2",)
    journal.done("option", "a", "2")
    (entry, other) = Journal(state).entries
    assert (entry.state, entry.before, entry.after, entry.left) == (
        EntryState.DONE,
        "1",
        "2",
        ("2",),
    )
    journal.undoing(entry)
    assert Journal(state).entries[0].state is EntryState.UNDOING
    journal.drop(entry)
    assert Journal(state).entries == (other,)
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_change_made_again_with_another_wish_remembers_what_the_first_left(state: Path) -> None:
    journal = Journal(state)
    journal.intend("option", "a", "1800", "120")
    journal.done("option", "a", "120")
    journal.intend("option", "a", "1800", "60")
    assert Journal(state).entries[0].left == ("60", "120")


def test_a_half_written_file_beside_it_does_not_matter(state: Path) -> None:
    journal = Journal(state)
    journal.intend("option", "a", "1", "2")
    (state / "journal.json.new").write_text('{"version": 1, "ac')
    assert len(Journal(state).entries) == 1
    Journal(state).done("option", "a", "2")
    assert Journal(state).entries[0].state is EntryState.DONE


def test_two_setups_at_once_are_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from ovirt_tcp_plugin.admin.setup.journal import locked
with locked(Path({str(tmp_path / "state")!r})):
    print("in", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(errors.Conflict, match="another ovirt-tcp setup is running"),
            locked(tmp_path / "state"),
        ):
            pass
        other.kill()
    with locked(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_says_as_whom_to_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.InvalidConfig, match="run setup as root"), locked(tmp_path / "file"):
        pass


def test_a_directory_that_others_may_write_is_not_used(state: Path) -> None:
    state.chmod(0o777)
    with pytest.raises(errors.InvalidConfig, match="others may write it"), locked(state):
        pass


def test_a_journal_of_an_earlier_release_is_read_and_written_the_same(state: Path) -> None:
    earlier = Path(__file__).with_name("data") / "journal.json"
    path = state / "journal.json"
    path.write_bytes(earlier.read_bytes())
    path.chmod(0o600)
    journal = Journal(state)
    kinds = [entry.kind for entry in journal.entries]
    assert kinds == [
        "option",
        "option",
        "property",
        "unit",
        "policy",
        "role",
        "permission",
        "cluster",
    ]
    assert {entry.state for entry in journal.entries} == {EntryState.DONE}
    journal.put_back(journal.entries[0])
    assert json.loads(path.read_bytes()) == json.loads(earlier.read_bytes())
