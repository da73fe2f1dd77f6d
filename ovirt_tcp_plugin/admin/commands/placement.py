# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker shows and does.

The commands `verdicts`, `pools`, `pool`, `why`, `history`, `guard` and `hook`.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.commands.printing import (
    age,
    as_json,
    print_json,
    print_table,
    tell,
    yes,
)
from ovirt_tcp_plugin.admin.commands.settings import broker

# Exit status of `why` for a VM that may not run on the host.
NOT_ALLOWED = 3
# And for a VM that the broker does not know: it may be a typing error, and is never a yes.
NOT_KNOWN = 4

_UNITS = {
    "s": datetime.timedelta(seconds=1),
    "m": datetime.timedelta(minutes=1),
    "h": datetime.timedelta(hours=1),
    "d": datetime.timedelta(days=1),
}

_MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

# What to do about an error of the broker's, by its code.
_NEXT_STEPS = {
    "unauthenticated": (
        "make a token by `ovirt-tcp-broker token add --role operator`, and write it into the file"
        " that broker.token_file in cli.yaml names"
    ),
    "NotFound": (
        "`ovirt-tcp verdicts` lists the hosts of trusted pools, `ovirt-tcp pools` the pools"
    ),
    "no_hook": "`ovirt-tcp hook --help` lists the hooks, `ovirt-tcp verdicts` the hosts",
    "Unavailable": (
        "does the broker run? systemctl status ovirt-tcp-broker; its address is broker.url in"
        " cli.yaml"
    ),
}


def _moment(_: click.Context, __: click.Parameter, value: Optional[str]) -> Optional[str]:
    """Return a moment in UTC as the broker takes it; it may be given as how long ago it was."""
    if value is None:
        return None
    try:
        moment = _parse_moment(value)
    except (ValueError, OverflowError) as e:
        fault = f"{value} is no moment such as 30m, 2h, 7d or 2026-01-02T03:04:05Z"
        raise click.BadParameter(fault) from e
    return moment.strftime(_MOMENT_FORMAT)


def _parse_moment(value: str) -> datetime.datetime:
    """Return the moment in a text. Raises ValueError; OverflowError: it is before the year 1."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if ago is None:
        return datetime.datetime.strptime(value, _MOMENT_FORMAT)
    number = int(ago.group(1))
    now = datetime.datetime.now(datetime.timezone.utc)
    return now - number * _UNITS[ago.group(2)]


@click.command()
@as_json
@click.pass_obj
def verdicts(config_dir: Path, as_json: bool) -> None:
    """List the hosts of trusted pools with the verdicts that placement uses."""
    answer = _ask(config_dir, "GET", "/v1/hosts")
    if as_json:
        print_json(answer["hosts"])
        return
    rows = [_verdict_row(host) for host in answer["hosts"]]
    print_table(("HOST", "STATUS", "LEVEL", "AGE", "ENDS IN", "WALL", "WHY"), rows)
    if not answer["servers_answer"]:
        effect = "verdicts hold until their end, and no host is taken out of service"
        click.echo(f"no attestation server answers: {effect}", err=True)
    startup = answer["startup"]
    if startup["total"] and not startup["done"]:
        progress = f"stage {startup['stage']}, {startup['asked']} of {startup['total']} hosts asked"
        click.echo(f"the startup attestation is not finished: {progress}", err=True)


@click.command()
@as_json
@click.pass_obj
def pools(config_dir: Path, as_json: bool) -> None:
    """List the trusted pools with their walls and guards."""
    listed = _ask(config_dir, "GET", "/v1/pools")["pools"]
    if as_json:
        print_json(listed)
        return
    rows = [_pool_row(pool) for pool in listed]
    header = ("CLUSTER", "SCOPE", "POLICY", "HOSTS INSIDE", "VMS", "GUARD TRIPPED")
    print_table(header, rows)
    if not listed:
        click.echo("no cluster's scheduling policy has the filter unit TrustedHosts", err=True)


@click.group()
def pool() -> None:
    """End a trusted pool: its wall is removed, and its hosts return to service."""


@pool.command("end")
@click.argument("cluster")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json
@click.pass_obj
def end_pool(config_dir: Path, cluster: str, yes: bool, as_json: bool) -> None:
    """End the trusted pool CLUSTER, by name or id.

    Give the cluster a scheduling policy without TrustedHosts first; with it, the pool would begin
    again. Then the broker removes the wall and activates the hosts that it took out of service,
    whether they are trusted or not. An event tells when that is done.
    """
    if not yes:
        question = f"VMs of {cluster} will run on any host, trusted or not. End this pool?"
        click.confirm(question, abort=True, err=True)
    answer = _ask(config_dir, "POST", "/v1/pools/end", {"pool": cluster})
    sentence = f"{answer['pool']} is no trusted pool"
    if answer["was_pool"]:
        sentence = f"{sentence} any more; an event tells when everything is given back"
    tell(dict(answer), sentence, as_json)


@click.command()
@click.argument("vm")
@click.argument("host")
@as_json
@click.pass_obj
def why(config_dir: Path, vm: str, host: str, as_json: bool) -> None:
    """Say whether VM may run on HOST now, and what each line of enforcement says.

    VM and HOST are names or ids. The exit status is 0 if the VM may run there, 3 if it may not, and
    4 if the broker knows no such VM.
    """
    explanation = _ask(config_dir, "GET", "/v1/why", {"vm": vm, "host": host})
    if as_json:
        print_json(dict(explanation))
    else:
        _print_explanation(vm, host, explanation)
    if not explanation["vm"]["known"]:
        raise click.exceptions.Exit(NOT_KNOWN)
    if not explanation["allowed"]:
        raise click.exceptions.Exit(NOT_ALLOWED)


@click.command()
@click.option("--host", default="", help="Only of this host, by name or id.")
@click.option("--vm", default="", help="Only of this VM, by name or id.")
@click.option(
    "--since",
    callback=_moment,
    help="Only since then: 90s, 30m, 2h, 7d, or a moment such as 2026-01-02T03:04:05Z.",
)
@click.option(
    "--most",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="At most so many, the newest ones.",
)
@as_json
@click.pass_obj
def history(
    config_dir: Path, host: str, vm: str, since: Optional[str], most: int, as_json: bool
) -> None:
    """Show what the broker noticed and did, the newest last. It is kept over restarts."""
    query = {"most": str(most)}
    if host:
        query["host"] = host
    if vm:
        query["vm"] = vm
    if since:
        query["since"] = since
    notices = _ask(config_dir, "GET", "/v1/history", query)["history"]
    if as_json:
        print_json(notices)
        return
    rows = [(notice["at"], notice["severity"], notice["text"]) for notice in notices]
    print_table(("WHEN", "SEVERITY", "WHAT"), rows)


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def guard(context: click.Context, as_json: bool) -> None:
    """Show the guards, or decide on hosts that turned untrusted all at once.

    Such hosts get no new VMs, but stay in service until somebody decides: `release` takes them out
    of service, `reject` keeps them in service until they attest well.

    A pool in observation keeps all its hosts in the same way: a new pool, until half of its hosts
    attested well. `release` ends that, too.
    """
    if context.invoked_subcommand is not None:
        return
    guards = _ask(context.obj, "GET", "/v1/guard")["guards"]
    if as_json:
        print_json(guards)
        return
    rows = [_guard_row(item) for item in guards]
    print_table(("CLUSTER", "TRIPPED", "OBSERVATION", "HELD"), rows)


@guard.command("release")
@click.option("--pool", default="", help="Only of this cluster.")
@as_json
@click.pass_obj
def release(config_dir: Path, pool: str, as_json: bool) -> None:
    """Take the held hosts out of service, and end the observation of the pool.

    The hosts' VMs move to trusted hosts.
    """
    _decide(config_dir, "release", pool, as_json, "released into quarantine")


@guard.command("reject")
@click.option("--pool", default="", help="Only of this cluster.")
@as_json
@click.pass_obj
def reject(config_dir: Path, pool: str, as_json: bool) -> None:
    """Keep the held hosts in service, without new VMs, until they attest well."""
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
                             warn, once more, if the VM needs a trusted host and does
                             not get one, or lost one
    """
    kind = "vm" if name.startswith("vm_") else "host"
    query = {kind: subject} if subject else {}
    _ask(config_dir, "POST", f"/v1/hooks/{urllib.parse.quote(name, safe='')}", query)
    click.echo(f"{name} was run")


def _verdict_row(host: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        host["name"],
        host["status"],
        host["level"],
        age(host["age_ms"]),
        age(host["ends_in_ms"]),
        yes(host["inside_wall"]),
        host["reason"],
    )


def _pool_row(pool: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        pool["name"],
        pool["scope"],
        _policy_of(pool),
        ", ".join(pool["hosts_inside"]),
        str(pool["vms_inside"]),
        yes(pool["guard_tripped"]),
    )


def _policy_of(pool: Mapping[str, Any]) -> str:
    """Return the name of a pool's scheduling policy, and what it is if it is not ours."""
    policy_state = pool["policy_state"]
    policy = str(pool["policy"])
    return policy if policy_state == "trusted" else f"{policy} ({policy_state})".lstrip()


def _guard_row(guard: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        guard["pool"],
        yes(guard["tripped"]),
        yes(guard["observation"]),
        ", ".join(guard["held"]),
    )


def _print_explanation(vm: str, host: str, explanation: Mapping[str, Any]) -> None:
    verb = "may" if explanation["allowed"] else "may not"
    click.echo(f"{vm} {verb} run on {host} ({explanation['code']}): {explanation['reason']}")
    if not explanation["vm"]["known"]:
        click.echo(f"the broker knows no VM {vm}, and treats it as one that needs a trusted host")
    click.echo()
    rows: list[tuple[str, ...]] = []
    for line in explanation["lines"]:
        rows.append((line["line"], line["says"], line["code"], line["reason"]))
    print_table(("LINE", "SAYS", "CODE", "WHY"), rows)


def _decide(config_dir: Path, verb: str, pool: str, as_json: bool, outcome: str) -> None:
    query = {"pool": pool} if pool else {}
    host_names = _ask(config_dir, "POST", f"/v1/guard/{verb}", query)["hosts"]
    sentence = f"{', '.join(host_names)}: {outcome}" if host_names else "no host was held"
    tell(host_names, sentence, as_json)


def _ask(
    config_dir: Path, method: str, path: str, query: Optional[Mapping[str, str]] = None
) -> Mapping[str, Any]:
    """Return the broker's answer. Raises ClickException, which says what to do next."""
    try:
        return broker(config_dir).call(method, path, query=query)
    except errors.Refused as e:
        code = "no_hook" if path.startswith("/v1/hooks/") and e.code == "NotFound" else e.code
        raise _with_next_step(e, code) from e
    except errors.Unavailable as e:
        raise _with_next_step(e, "Unavailable") from e


def _with_next_step(error: errors.Error, code: str) -> click.ClickException:
    step = _NEXT_STEPS.get(code)
    return click.ClickException(f"{error}\n  next: {step}" if step else str(error))
