# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker says and is told: `ovirt-tcp verdicts`, `pools`, `why`, `guard` and `hook`."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin.commands.printing import age, as_json, print_json, print_table, yes
from ovirt_tcp_plugin.commands.settings import broker


@click.command()
@as_json
@click.pass_obj
def verdicts(config_dir: Path, as_json: bool) -> None:
    """List the hosts of trusted pools with the verdicts that placement goes by."""
    known = broker(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        print_json(known)
        return
    rows = [
        (one["name"], one["status"], one["level"], age(one["ends_in_ms"]), yes(one["inside_wall"]), one["reason"])
        for one in known
    ]
    print_table(("HOST", "STATUS", "LEVEL", "ENDS IN", "WALL", "WHY"), rows)


@click.command()
@as_json
@click.pass_obj
def pools(config_dir: Path, as_json: bool) -> None:
    """List the trusted pools with their walls and guards."""
    known = broker(config_dir).call("GET", "/v1/pools")["pools"]
    if as_json:
        print_json(known)
        return
    rows = [
        (one["name"], one["scope"], ", ".join(one["hosts_inside"]), one["vms_inside"], yes(one["guard_tripped"]))
        for one in known
    ]
    print_table(("CLUSTER", "SCOPE", "HOSTS INSIDE", "VMS", "GUARD TRIPPED"), rows)


@click.command()
@click.argument("vm")
@click.argument("host")
@as_json
@click.pass_obj
def why(config_dir: Path, vm: str, host: str, as_json: bool) -> None:
    """Say whether VM may run on HOST now, and why."""
    decision = broker(config_dir).call("GET", "/v1/why", query={"vm": vm, "host": host})
    if as_json:
        print_json(dict(decision))
        return
    verb = "may" if decision["allowed"] else "may not"
    click.echo(f"{vm} {verb} run on {host} ({decision['code']}): {decision['reason']}")


@click.command()
@click.argument("verb", type=click.Choice(["release", "reject"]))
@click.pass_obj
def guard(config_dir: Path, verb: str) -> None:
    """Decide on hosts that turned untrusted all at once: release them into quarantine, or reject that.

    Rejected hosts stay in service, out of placement, until they attest well.
    """
    held = broker(config_dir).call("POST", f"/v1/guard/{verb}")["hosts"]
    click.echo(", ".join(held) if held else "no host was held")


@click.command()
@click.argument("name")
@click.argument("host", default="")
@click.pass_obj
def hook(config_dir: Path, name: str, host: str) -> None:
    """Run the engine hook NAME by hand, for HOST where it is about one."""
    broker(config_dir).call("POST", f"/v1/hooks/{name}", query={"host": host})
    click.echo(f"{name} was run")
