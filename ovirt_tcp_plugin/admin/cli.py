# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command. It asks verifier and broker; it decides nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple, Optional

import click

from ovirt_tcp_plugin import command


class CommandEntry(NamedTuple):
    """Where a command is, and what the list of commands says of it.

    Attributes:
        module: below `admin.commands`.
        attribute: name of the click command in that module.
        short_help: the first sentence of the command's own help.
    """

    module: str
    attribute: str
    short_help: str


COMMANDS = {
    "demo": CommandEntry(
        "demo",
        "demo",
        "Play the whole story on this machine: from measured boots on software TPMs to placements.",
    ),
    "doctor": CommandEntry("doctor", "doctor", "Check this installation, and say what to do."),
    "explain": CommandEntry(
        "hosts",
        "explain",
        "Say why HOST has its result: every failed check, with the expected and the seen value.",
    ),
    "guard": CommandEntry(
        "placement",
        "guard",
        "Show the guards, or decide on hosts that turned untrusted all at once.",
    ),
    "history": CommandEntry(
        "placement", "history", "Show what the broker noticed and did, the newest last."
    ),
    "hook": CommandEntry(
        "placement",
        "hook",
        "Run the engine hook NAME by hand, for the host or VM that it is about.",
    ),
    "hosts": CommandEntry(
        "hosts", "hosts", "List the enrolled hosts with the attestation server's last result."
    ),
    "pool": CommandEntry(
        "placement",
        "pool",
        "End a trusted pool: its wall is removed, and its hosts return to service.",
    ),
    "pools": CommandEntry(
        "placement", "pools", "List the trusted pools with their walls and guards."
    ),
    "reference": CommandEntry(
        "reference",
        "reference",
        "Show and change the reference values: what a good boot is.",
    ),
    "setup": CommandEntry(
        "setup",
        "setup",
        "Prepare the engine for trusted pools.",
    ),
    "verdict": CommandEntry(
        "verdict",
        "verdict_group",
        "Check the signed verdict that a host's gate uses, or make earlier results void.",
    ),
    "verdicts": CommandEntry(
        "placement",
        "verdicts",
        "List the hosts of trusted pools with the verdicts that placement uses.",
    ),
    "why": CommandEntry(
        "placement",
        "why",
        "Say whether VM may run on HOST now, and what each line of enforcement says.",
    ),
}


class LazyGroup(command.CommandGroup):
    """Loads the module of a command only when that command is called.

    All modules together load the oVirt SDK, an HTTP server and cryptography, which takes longer
    than most answers.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """Return a command, None if there is none of this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"ovirt_tcp_plugin.admin.commands.{entry.module}")
        loaded: click.Command = getattr(module, entry.attribute)
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without loading any."""
        rows = [(name, COMMANDS[name].short_help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup)
@command.config_dir_option("cli")
@click.version_option(package_name="ovirt_tcp_plugin")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """Trusted Compute Pools for oVirt: VMs run only on hosts whose boot was measured and appraised.

    \b
    Try it without hardware:         ovirt-tcp demo
    Which hosts are trusted?         ovirt-tcp hosts
    Why is a host not trusted?       ovirt-tcp explain HOST
    Why does a VM not start?         ovirt-tcp why VM HOST
    What happened to a host?         ovirt-tcp history --host HOST
    Is everything set up correctly?  ovirt-tcp doctor
    """
    context.obj = config_dir


if __name__ == "__main__":
    main()
