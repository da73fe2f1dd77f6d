# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp demo`."""

from __future__ import annotations

import click

from ovirt_tcp_plugin.admin.commands.printing import as_json


@click.command()
@click.option(
    "--hosts",
    type=click.IntRange(6, 200),
    default=6,
    show_default=True,
    help="Number of hosts.",
)
@click.option("--keep", is_flag=True, help="Keep running after the story, and print what to try.")
@as_json
def demo(hosts: int, keep: bool, as_json: bool) -> None:
    """Play the whole story on this machine: from measured boots on software TPMs to placements.

    It needs swtpm, tpm2-tools and tboot (`make demo` installs them), but not root. It removes
    everything that it made.
    """
    # The lab takes long to load, and no help text needs it.
    from ovirt_tcp_plugin.lab.demo import play

    if not play(hosts, keep, as_json):
        raise click.exceptions.Exit(1)
