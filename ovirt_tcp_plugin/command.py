# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the command lines of all roles share.

How errors end, where the configuration is, and how to look at it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import click

from ovirt_tcp_plugin import config, errors

# Longer than any first sentence: nothing is cut off.
_SHORT_HELP_LENGTH = 200
_TRACEBACK_MARK = "  | "
# A machine has what its role needs.
_OTHER_PACKAGES = "Packages: ovirt-tcp-engine has setup and doctor, ovirt-tcp-lab has demo"


class CommandGroup(click.Group):
    """Turns this package's errors into one line and exit code 1.

    Nothing has a colour where the environment has NO_COLOR (https://no-color.org).
    """

    def invoke(self, ctx: click.Context) -> object:
        if os.environ.get("NO_COLOR"):
            ctx.color = False  # of all commands below, too; click.echo removes colours then
        try:
            return super().invoke(ctx)
        except errors.Error as e:
            raise click.ClickException(str(e)) from e


class CommandEntry(NamedTuple):
    """Where a command is, and what the list of commands says of it.

    Attributes:
        module: below `ovirt_tcp_plugin`.
        attribute: name of the click command in that module.
        short_help: the first sentence of the command's own help.
    """

    module: str
    attribute: str
    short_help: str


class LazyGroup(CommandGroup):
    """Loads the module of a command only when that command is called.

    All modules of a role together load a database, an HTTP server and cryptography, which takes
    longer than most answers.
    """

    def __init__(
        self, *arguments: Any, entries: Mapping[str, CommandEntry], **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.entries, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """Return a command, None if there is none of this name."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            module = importlib.import_module(f"ovirt_tcp_plugin.{entry.module}")
        except ModuleNotFoundError as e:
            reason = f"{cmd_name} is not installed on this machine: {e}. {_OTHER_PACKAGES}"
            raise click.ClickException(reason) from e
        loaded: click.Command = getattr(module, entry.attribute)
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without loading any."""
        rows = [(name, self._short_help(name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short_help(self, name: str) -> str:
        entry = self.entries.get(name)
        if entry is None:
            return self.commands[name].get_short_help_str(_SHORT_HELP_LENGTH)
        return entry.short_help


def config_dir_option(role: str) -> Callable[[Any], Any]:
    """Return the option for the directory of a role's configuration."""
    return click.option(
        "--config-dir",
        type=click.Path(path_type=Path),
        default=config.DEFAULT_DIRECTORY,
        show_default=True,
        help=f"Directory with {role}.yaml and {role}.conf.d.",
    )


def add_config_commands(main: click.Group, role: str, declared: type) -> None:
    """Give `main` the commands `config check` and `config show`.

    Args:
        main: its context object is the directory of the configuration.
        declared: the dataclass of the role's configuration (`config`).
    """

    @main.group("config")
    def config_group() -> None:
        """Look at the configuration."""

    @config_group.command("check")
    @click.pass_obj
    def check(config_dir: Path) -> None:
        """Check whether the configuration can be used, and list all its faults."""
        config.load(declared, role, config_dir)
        click.echo("the configuration is good")

    @config_group.command("show")
    @click.pass_obj
    def show(config_dir: Path) -> None:
        """Print every option in force, as JSON."""
        click.echo(json.dumps(config.show(config.load(declared, role, config_dir)), indent=2))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the log to stderr; for a service, the journal of systemd picks it up there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class OneLine(logging.Formatter):
    """Keeps each record on lines of its own: no text of a peer begins what looks like one of ours.

    The only place where log lines are made, so whoever logs need not think of it. A traceback has
    several lines, each with a mark before it: the text of an exception is often a peer's.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        lines = [_on_one_line(self.formatMessage(record))]
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            lines += [_TRACEBACK_MARK + _on_one_line(line) for line in traceback.split("\n")]
        return "\n".join(lines)


def _on_one_line(text: str) -> str:
    # Nearly every line is printable; this is done for each report.
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
