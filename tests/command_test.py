# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The commands of all roles: their lists are right, and show up without loading the role."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from ovirt_tcp_plugin.command import CommandEntry, CommandGroup, LazyGroup

MODULES = (
    "ovirt_tcp_plugin.admin.cli",
    "ovirt_tcp_plugin.attester.main",
    "ovirt_tcp_plugin.verifier.main",
)
# Each of them takes a good part of a second to load.
HEAVY = {"alembic", "cryptography", "ovirtsdk4", "requests", "sqlalchemy", "tornado"}
CALL = """
import importlib
import sys
main = importlib.import_module(sys.argv[1]).main
try:
    main(sys.argv[2:])
finally:
    print(*{name.partition(".")[0] for name in sys.modules})
"""


def group_of(module: str) -> LazyGroup:
    group = importlib.import_module(module).main
    assert isinstance(group, LazyGroup)
    return group


LISTED = [(module, name) for module in MODULES for name in group_of(module).entries]


@pytest.mark.parametrize(("module", "name"), LISTED)
def test_the_list_of_commands_says_what_each_says_of_itself(module: str, name: str) -> None:
    group = group_of(module)
    loaded = group.get_command(click.Context(group), name)
    assert loaded is not None
    assert loaded.name == name
    assert loaded.get_short_help_str(limit=200) == group.entries[name].short_help


@pytest.mark.parametrize("module", MODULES)
def test_the_list_of_commands_shows_all_of_them(module: str) -> None:
    group = group_of(module)
    listed = CliRunner().invoke(group, ["--help"]).output.partition("Commands:\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if not line.startswith("   ")]
    assert names == sorted({*group.entries, *group.commands})


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *((module, ["--help"]) for module in MODULES),
        ("ovirt_tcp_plugin.attester.main", ["config", "show"]),
        ("ovirt_tcp_plugin.verifier.main", ["config", "show"]),
    ],
)
def test_help_and_options_are_shown_without_loading_the_role(
    module: str, arguments: list[str]
) -> None:
    command = [sys.executable, "-c", CALL, module, *arguments]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert "ovirt_tcp_plugin" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_nothing_has_a_colour_where_nobody_wants_one(no_color: str, coloured: bool) -> None:
    group = CommandGroup()

    @group.command("show")
    def show() -> None:
        click.echo(click.style("untrusted", fg="red"))

    # As on a terminal.
    shown = CliRunner().invoke(group, ["show"], color=True, env={"NO_COLOR": no_color})
    assert ("\x1b[" in shown.output) is coloured
    assert "untrusted" in shown.output


def test_a_command_of_a_package_that_is_not_installed_says_so() -> None:
    entry = CommandEntry("none.demo", "demo", "Shows the whole story.")
    group = LazyGroup("ovirt-tcp", entries={"demo": entry})
    refused = CliRunner().invoke(group, ["demo"])
    assert refused.exit_code == 1
    assert "demo is not installed on this machine" in refused.output
    assert "ovirt-tcp-lab has demo" in refused.output
