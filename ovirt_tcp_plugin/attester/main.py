# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-agent`: the table of the agent's commands."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin import command
from ovirt_tcp_plugin.attester.settings import AgentSettings
from ovirt_tcp_plugin.command import CommandEntry

COMMANDS = {
    "ek": CommandEntry("attester.commands", "ek", "Print what `ovirt-tcp-verifier ek add` wants."),
    "enrol": CommandEntry(
        "attester.commands",
        "enrol",
        "Bind this host's TPM to its name at the attestation server, once.",
    ),
    "measure": CommandEntry(
        "attester.commands",
        "measure_command",
        "Show what this host would report now, without reporting it.",
    ),
    "run": CommandEntry(
        "attester.run",
        "run",
        "Report to the attestation server whenever it asks, and at once on SIGHUP, until SIGTERM.",
    ),
    "status": CommandEntry(
        "attester.status",
        "status",
        "Say what the attestation server thought of this host when the agent last reported.",
    ),
}


@click.group(cls=command.LazyGroup, entries=COMMANDS)
@command.config_dir_option("agent")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The agent of a host: reports how the host was booted, signed by its TPM, to the attestation
    server.

    First `enrol` with the token that `ovirt-tcp-verifier token enrol HOST` printed, then `run` (as
    a service). It only connects outwards, needs no root, and judges nothing: what the server said
    of this host is under `status`.
    """
    context.obj = config_dir


command.add_config_commands(main, "agent", AgentSettings)


if __name__ == "__main__":
    main()
