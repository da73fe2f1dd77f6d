# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The custom property among the definitions of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup import changes
from ovirt_tcp_plugin.admin.setup.journal import Journal
from ovirt_tcp_plugin.admin.setup.options import DEFINITION, PROPERTIES, DefineProperty
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.lab import engine_config

LEVEL = "4.8"


class Level:
    """The definitions of one level."""

    def __init__(self, directory: Path, definitions: str) -> None:
        self.config = EngineConfig(engine_config.install(directory)[0])
        self.write(definitions)
        self.journal = Journal(directory)
        self.change = DefineProperty(self.config, LEVEL)

    def write(self, definitions: str) -> None:
        self.config.set(PROPERTIES, definitions, LEVEL)

    def set_up(self) -> str:
        changes.perform([self.change], self.journal, lambda _: None)
        return self.config.value(PROPERTIES, LEVEL)

    def undo(self) -> list[str]:
        return changes.undo([(self.change, self.journal.entries[0])], self.journal, lambda _: None)


@pytest.mark.parametrize(
    "other",
    ["trusted_host_flag=.*", "a=^x$;trusted_host_flag=true", f"{DEFINITION};trusted_host_flag="],
)
def test_another_definition_of_its_name_is_refused_and_left(tmp_path: Path, other: str) -> None:
    level = Level(tmp_path, other)
    with pytest.raises(
        errors.Conflict,
        match=r"level 4.8 defines trusted_host_flag=.*and setup needs trusted_host_flag=",
    ):
        level.set_up()
    assert level.config.value(PROPERTIES, LEVEL) == other
    assert level.journal.entries == ()


@pytest.mark.parametrize("others", ["", "a=^x$;b=.*;", "not_trusted_host_flag=^(true|false)$"])
def test_it_joins_those_of_others_and_leaves_them_word_for_word(
    tmp_path: Path, others: str
) -> None:
    level = Level(tmp_path, others)
    assert level.set_up() == ";".join([one for one in others.split(";") if one] + [DEFINITION])
    assert level.undo() == []
    assert level.config.value(PROPERTIES, LEVEL) == others


def test_where_it_is_defined_already_it_stays_for_ever(tmp_path: Path) -> None:
    level = Level(tmp_path, f"{DEFINITION};a=^x$")
    assert level.set_up() == f"{DEFINITION};a=^x$"
    assert level.journal.entries == ()


def test_what_others_define_later_is_no_change_of_ours_and_stays_when_ours_goes(
    tmp_path: Path,
) -> None:
    level = Level(tmp_path, "a=^x$")
    level.set_up()
    level.write(f"{DEFINITION};later=.*")
    assert changes.plan(level.change, level.journal).need is changes.Need.DONE
    assert level.undo() == []
    assert level.config.value(PROPERTIES, LEVEL) == "later=.*"


def test_when_somebody_took_it_out_there_is_nothing_to_undo(tmp_path: Path) -> None:
    level = Level(tmp_path, "")
    level.set_up()
    level.write("later=.*")
    assert level.undo() == []
    assert level.config.value(PROPERTIES, LEVEL) == "later=.*"
    assert level.journal.entries == ()


def test_when_somebody_changed_it_that_is_told_and_left(tmp_path: Path) -> None:
    level = Level(tmp_path, "")
    level.set_up()
    level.write("trusted_host_flag=.*")
    assert changes.plan(level.change, level.journal).need is changes.Need.CHANGED
    (kept,) = level.undo()
    assert (
        "It is trusted_host_flag=.*; setup left trusted_host_flag=^(true|false)$; before that it "
        "was (none)" in kept
    )
    assert level.config.value(PROPERTIES, LEVEL) == "trusted_host_flag=.*"
