# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-verifier`: the table of the server's commands."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin import command
from ovirt_tcp_plugin.command import CommandEntry
from ovirt_tcp_plugin.verifier.settings import VerifierSettings

COMMANDS = {
    "authority": CommandEntry(
        "verifier.authority_commands",
        "authority_group",
        "Look at the server's certificate authority, renew it, or replace one whose key is lost.",
    ),
    "backup": CommandEntry(
        "verifier.backup_commands",
        "backup_command",
        "Write authority and database into FILE, while the server runs.",
    ),
    "ek": CommandEntry(
        "verifier.commands",
        "ek_group",
        "Vouch for TPMs yourself: for those without a vendor's certificate, or instead of "
        "believing vendors.",
    ),
    "host": CommandEntry("verifier.commands", "host_group", "Look at or remove enrolled hosts."),
    "init": CommandEntry(
        "verifier.init",
        "init",
        "Make the server's authority and certificate, and print what others need to know.",
    ),
    "record": CommandEntry(
        "verifier.commands",
        "record_group",
        "Find and mend rows of the server's database that cannot be read.",
    ),
    "restore": CommandEntry(
        "verifier.backup_commands",
        "restore_command",
        "Put authority and database back as they are in FILE; stop all servers first.",
    ),
    "run": CommandEntry(
        "verifier.run", "run", "Serve until SIGTERM; SIGHUP reads the certificates again."
    ),
    "token": CommandEntry("verifier.commands", "token_group", "Make the tokens of callers."),
    "verdict-key": CommandEntry(
        "verifier.commands",
        "verdict_key_group",
        "Change the key that signs the verdicts for the hosts' gates, without a good verdict "
        "refused.",
    ),
    "withdrawals": CommandEntry(
        "verifier.backup_commands",
        "withdrawals_command",
        "Print what was taken back, for `restore --withdrawals`: keep it newer than the backups.",
    ),
}


@click.group(cls=command.LazyGroup, entries=COMMANDS)
@command.config_dir_option("verifier")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """The attestation server: appraises what hosts report of their boot and answers for them.

    First `init`, then `token add` for the broker and the administrator, `token enrol` for each
    host, and `run`.
    """
    context.obj = config_dir


command.add_config_commands(main, "verifier", VerifierSettings)


if __name__ == "__main__":
    main()
