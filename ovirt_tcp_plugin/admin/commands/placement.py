# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker says and is told: `ovirt-tcp verdicts`, `pools`, `why`, `history`, `guard` and `hook`."""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.commands.printing import age, as_json, print_json, print_table, tell, yes
from ovirt_tcp_plugin.admin.commands.settings import broker

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

# What to do about an error of the broker's, by its code.
_NEXT = {
    "unauthenticated": "`ovirt-tcp-broker token add --role operator` makes one for the file broker.token_file in cli.yaml",
    "NotFound": "`ovirt-tcp verdicts` lists the hosts of trusted pools, `ovirt-tcp pools` the pools",
    "Unavailable": "does the broker run? systemctl status ovirt-tcp-broker; its address is broker.url in cli.yaml",
}


@click.command()
@as_json
@click.pass_obj
def verdicts(config_dir: Path, as_json: bool) -> None:
    """List the hosts of trusted pools with the verdicts that placement goes by."""
    told = _ask(config_dir, "GET", "/v1/hosts")
    if as_json:
        print_json(told["hosts"])
        return
    rows = [
        (
            one["name"],
            one["status"],
            one["level"],
            age(one["age_ms"]),
            age(one["ends_in_ms"]),
            yes(one["inside_wall"]),
            one["reason"],
        )
        for one in told["hosts"]
    ]
    print_table(("HOST", "STATUS", "LEVEL", "AGE", "ENDS IN", "WALL", "WHY"), rows)
    if not told["servers_answer"]:
        click.echo("no attestation server answers: verdicts hold until their end, and no host is taken out", err=True)
    startup = told["startup"]
    if startup["total"] and not startup["done"]:
        progress = f"stage {startup['stage']}, {startup['asked']} of {startup['total']} hosts asked"
        click.echo(f"the startup attestation goes on: {progress}", err=True)


@click.command()
@as_json
@click.pass_obj
def pools(config_dir: Path, as_json: bool) -> None:
    """List the trusted pools with their walls and guards."""
    known = _ask(config_dir, "GET", "/v1/pools")["pools"]
    if as_json:
        print_json(known)
        return
    rows = [
        (one["name"], one["scope"], ", ".join(one["hosts_inside"]), str(one["vms_inside"]), yes(one["guard_tripped"]))
        for one in known
    ]
    print_table(("CLUSTER", "SCOPE", "HOSTS INSIDE", "VMS", "GUARD TRIPPED"), rows)
    if not known:
        click.echo("no cluster's scheduling policy has the filter unit TrustedHosts", err=True)


@click.command()
@click.argument("vm")
@click.argument("host")
@as_json
@click.pass_obj
def why(config_dir: Path, vm: str, host: str, as_json: bool) -> None:
    """Say whether VM may run on HOST now, and what each line of enforcement says to it.

    Both go by name or id. The exit status is 0 if it may, and 3 if it may not.
    """
    told = _ask(config_dir, "GET", "/v1/why", {"vm": vm, "host": host})
    if as_json:
        print_json(dict(told))
    else:
        verb = "may" if told["allowed"] else "may not"
        click.echo(f"{vm} {verb} run on {host} ({told['code']}): {told['reason']}")
        if not told["vm"]["known"]:
            click.echo("the broker knows no such VM, and takes it for one that needs a trusted host")
        click.echo()
        rows = [(one["line"], one["says"], one["code"], one["reason"]) for one in told["lines"]]
        print_table(("LINE", "SAYS", "CODE", "WHY"), rows)
    if not told["allowed"]:
        raise click.exceptions.Exit(3)


@click.command()
@click.option("--host", default="", help="Only of this host, by name or id.")
@click.option("--vm", default="", help="Only of this VM, by name or id.")
@click.option("--since", default="", help="Only since then: 90s, 30m, 2h, 7d, or a moment such as 2026-01-02T03:04:05Z.")
@click.option("--most", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Only the newest ones.")
@as_json
@click.pass_obj
def history(config_dir: Path, host: str, vm: str, since: str, most: int, as_json: bool) -> None:
    """Say what the broker noticed and did, the newest last. It is kept over restarts."""
    query = {"host": host, "vm": vm, "since": _moment(since) if since else "", "most": str(most)}
    known = _ask(config_dir, "GET", "/v1/history", {name: value for name, value in query.items() if value})["history"]
    if as_json:
        print_json(known)
        return
    print_table(("WHEN", "SEVERITY", "WHAT"), [(one["at"], one["severity"], one["text"]) for one in known])


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def guard(context: click.Context, as_json: bool) -> None:
    """Show the guards, or decide on hosts that turned untrusted all at once.

    Such hosts get no VMs, but stay in service until somebody decides: `release` has them leave it, `reject` has them stay
    until they attest well.
    """
    if context.invoked_subcommand is None:
        known = _ask(context.obj, "GET", "/v1/guard")["guards"]
        if as_json:
            print_json(known)
            return
        print_table(
            ("CLUSTER", "TRIPPED", "HELD"), [(one["pool"], yes(one["tripped"]), ", ".join(one["held"])) for one in known]
        )


@guard.command("release")
@click.option("--pool", default="", help="Only of this cluster.")
@as_json
@click.pass_obj
def release(config_dir: Path, pool: str, as_json: bool) -> None:
    """Have the held hosts leave service: their VMs move to trusted hosts."""
    _decide(config_dir, "release", pool, as_json, "released into quarantine")


@guard.command("reject")
@click.option("--pool", default="", help="Only of this cluster.")
@as_json
@click.pass_obj
def reject(config_dir: Path, pool: str, as_json: bool) -> None:
    """Leave the held hosts in service, without new VMs, until they attest well."""
    _decide(config_dir, "reject", pool, as_json, "stay in service, out of placement")


@click.command()
@click.argument("name")
@click.argument("subject", metavar="[HOST|VM]", default="")
@click.pass_obj
def hook(config_dir: Path, name: str, subject: str) -> None:
    """Run the engine hook NAME by hand, for the host or VM that it is about.

    \b
    backend_initialize       attest all Up hosts of trusted pools, stage by stage
    init_vds_on_up HOST      attest this host
    vm_added VM, vm_cloned, vm_from_trusted_cluster, vm_imported, vm_marked, vm_moved
                             warn, once more, if the VM asks in vain for a trusted host, or lost one
    """
    kind = "vm" if name.startswith("vm_") else "host"
    _ask(config_dir, "POST", f"/v1/hooks/{urllib.parse.quote(name, safe='')}", {kind: subject} if subject else {})
    click.echo(f"{name} was run")


def _decide(config_dir: Path, verb: str, pool: str, as_json: bool, what: str) -> None:
    held = _ask(config_dir, "POST", f"/v1/guard/{verb}", {"pool": pool} if pool else {})["hosts"]
    tell(held, f"{', '.join(held)}: {what}" if held else "no host was held", as_json)


def _ask(config_dir: Path, method: str, path: str, query: Optional[Mapping[str, str]] = None) -> Mapping[str, Any]:
    """Return the broker's answer. An error says what to do next."""
    try:
        return broker(config_dir).call(method, path, query=query)
    except (errors.Refused, errors.Unavailable) as e:
        code = e.code if isinstance(e, errors.Refused) else "Unavailable"
        step = _NEXT.get(code)
        raise click.ClickException(f"{e}\n  next: {step}" if step else str(e)) from e


def _moment(text: str) -> str:
    """Return a moment in UTC from one, or from how long ago it was."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not ago:
        return text
    span = datetime.timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
    return (datetime.datetime.now(datetime.timezone.utc) - span).strftime("%Y-%m-%dT%H:%M:%SZ")
