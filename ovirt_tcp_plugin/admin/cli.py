# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command. It asks verifier and broker; it decides nothing."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin import command
from ovirt_tcp_plugin.admin.commands import demo, doctor, hosts, placement, reference, setup, verdict


@click.group(cls=command.CommandGroup)
@command.config_dir_option("cli")
@click.version_option(package_name="ovirt_tcp_plugin")
@click.pass_context
def main(context: click.Context, config_dir: Path) -> None:
    """Trusted Compute Pools for oVirt: VMs run only on hosts whose boot was measured and appraised.

    \b
    Try it without hardware:     ovirt-tcp demo
    Which hosts are trusted?     ovirt-tcp hosts
    Why is this one not?         ovirt-tcp explain HOST
    Why does the VM not start?   ovirt-tcp why VM HOST
    What happened to this host?  ovirt-tcp history --host HOST
    Is all set up and well?      ovirt-tcp doctor
    """
    context.obj = config_dir


for one in (
    demo.demo,
    setup.setup,
    hosts.hosts,
    hosts.explain,
    reference.reference,
    placement.verdicts,
    verdict.verdict_group,
    placement.pools,
    placement.why,
    placement.history,
    placement.guard,
    placement.hook,
    doctor.doctor,
):
    main.add_command(one)

if __name__ == "__main__":
    main()
