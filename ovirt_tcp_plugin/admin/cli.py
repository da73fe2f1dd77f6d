# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command. It asks verifier and broker; it decides nothing."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin import command
from ovirt_tcp_plugin.command import CommandEntry

COMMANDS = {
    "demo": CommandEntry(
        "admin.commands.demo",
        "demo",
        "Play the whole story on this machine: from measured boots on software TPMs to placements.",
    ),
    "doctor": CommandEntry(
        "admin.commands.doctor", "doctor", "Check this installation, and say what to do."
    ),
    "explain": CommandEntry(
        "admin.commands.hosts",
        "explain",
        "Say why HOST has its result: every failed check, with the expected and the seen value.",
    ),
    "guard": CommandEntry(
        "admin.commands.placement",
        "guard",
        "Show the guards, or decide on hosts that turned untrusted all at once.",
    ),
    "history": CommandEntry(
        "admin.commands.placement",
        "history",
        "Show what the broker noticed and did, the newest last.",
    ),
    "hook": CommandEntry(
        "admin.commands.placement",
        "hook",
        "Run the engine hook NAME by hand, for the host or VM that it is about.",
    ),
    "hosts": CommandEntry(
        "admin.commands.hosts",
        "hosts",
        "List the enrolled hosts with the attestation server's last result.",
    ),
    "pool": CommandEntry(
        "admin.commands.placement",
        "pool",
        "End a trusted pool: its wall is removed, and its hosts return to service.",
    ),
    "pools": CommandEntry(
        "admin.commands.placement", "pools", "List the trusted pools with their walls and guards."
    ),
    "reference": CommandEntry(
        "admin.commands.reference",
        "reference",
        "Show and change the reference values: what a good boot is.",
    ),
    "setup": CommandEntry(
        "admin.commands.setup",
        "setup",
        "Prepare the engine for trusted pools.",
    ),
    "verdict": CommandEntry(
        "admin.commands.verdict",
        "verdict_group",
        "Check the signed verdict that a host's gate uses, or make earlier results void.",
    ),
    "verdicts": CommandEntry(
        "admin.commands.placement",
        "verdicts",
        "List the hosts of trusted pools with the verdicts that placement uses.",
    ),
    "why": CommandEntry(
        "admin.commands.placement",
        "why",
        "Say whether VM may run on HOST now, and what each line of enforcement says.",
    ),
}


@click.group(cls=command.LazyGroup, entries=COMMANDS)
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
