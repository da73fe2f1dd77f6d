# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command. It asks verifier and broker; it decides nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ovirt_tcp_plugin import command, config, errors
from ovirt_tcp_plugin.remote import Remote

LEVEL_COLOURS = {"trusted": "green", "untrusted": "red", "timeout": "yellow", "unknown": "yellow"}


@dataclasses.dataclass(frozen=True)
class Verifier:
    """The attestation server."""

    # Where it answers, such as https://attest.example.com:8443.
    url: str = ""
    # Its authority's certificate, PEM.
    ca_file: Path = Path("/etc/ovirt-tcp/verifier-ca.pem")
    # File with a token of role viewer or policy.
    token_file: Path = Path("/etc/ovirt-tcp/cli.token")


@dataclasses.dataclass(frozen=True)
class Broker:
    """The broker on the engine machine."""

    # Where its interface answers.
    url: str = "http://127.0.0.1:18782"
    # File with its token.
    token_file: Path = Path("/etc/ovirt-tcp/broker-api.token")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All sections."""

    verifier: Verifier = Verifier()
    broker: Broker = Broker()


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group(cls=command.Group)
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
    """
    context.obj = config_dir


@main.command()
@click.option("--hosts", type=click.IntRange(6, 200), default=6, show_default=True, help="Number of hosts.")
@click.option("--keep", is_flag=True, help="Stay up after the story, and print what to try.")
@as_json
def demo(hosts: int, keep: bool, as_json: bool) -> None:
    """Play the whole story on this machine: from measured boots on software TPMs to placements.

    It needs swtpm, tpm2-tools and tboot (`make demo` installs them), no root, and leaves nothing behind.
    """
    from ovirt_tcp_plugin.lab.demo import play  # the lab is not needed for anything else here

    if not play(hosts, keep, as_json):
        raise click.exceptions.Exit(1)


@main.command()
@as_json
@click.pass_obj
def hosts(config_dir: Path, as_json: bool) -> None:
    """List the enrolled hosts with the attestation server's last result."""
    known = _verifier(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        _print_json(known)
        return
    _print_table(
        ("HOST", "LEVEL", "AGE", "TPM BY", "WHY"),
        [(one["host_name"], one["level"], _age(one["age_ms"]), one["endorsed_by"], _headline(one)) for one in known],
    )


@main.command()
@click.argument("host")
@as_json
@click.pass_obj
def explain(config_dir: Path, host: str, as_json: bool) -> None:
    """Say why HOST has its result: every failed check, with the expected and the seen value."""
    request = {"hosts": [host], "max_age_ms": 2**53, "wait_ms": 3000}
    (one,) = _verifier(config_dir).call("POST", "/v1/results", request)["hosts"]
    if as_json:
        _print_json(one)
        return
    evidence = f"evidence is {_age(one['age_ms'])} old, of boot {one['boot_id']}" if one["boot_id"] else "no evidence"
    click.echo(f"{host} is {_coloured(one['level'])} ({evidence})")
    for finding in one["findings"]:
        click.echo(f"\ncheck {finding['check']}, {finding['code']}: {finding['text']}")
        if finding["expected"] or finding["seen"]:
            click.echo(f"  expected {finding['expected'] or 'nothing'}\n  seen     {finding['seen'] or 'nothing'}")


@main.group()
def reference() -> None:
    """Look at and choose the reference values: what a good boot is."""


@reference.command("list")
@as_json
@click.pass_obj
def reference_list(config_dir: Path, as_json: bool) -> None:
    """List the sets of reference values."""
    known = _verifier(config_dir).call("GET", "/v1/reference-values")["reference_values"]
    if as_json:
        _print_json(known)
        return
    rows = [(one["name"], pcr, one["bank"], value) for one in known for pcr, value in one["pcrs"].items()]
    _print_table(("NAME", "PCR", "BANK", "VALUE"), rows)


@reference.command("import")
@click.argument("name")
@click.option("--from-host", "host", required=True, help="Golden host: its present boot becomes the reference.")
@click.pass_obj
def reference_import(config_dir: Path, name: str, host: str) -> None:
    """Take the present boot of a golden host as reference values NAME; every host is judged anew."""
    good = _verifier(config_dir).call("POST", "/v1/reference-values", {"name": name, "host": host})
    click.echo(f"{name}: PCR {', '.join(good['pcrs'])} of bank {good['bank']}, {len(good['events'])} events")


@reference.command("remove")
@click.argument("name")
@click.pass_obj
def reference_remove(config_dir: Path, name: str) -> None:
    """Withdraw the reference values NAME; every host is judged anew."""
    _verifier(config_dir).call("DELETE", f"/v1/reference-values/{name}")
    click.echo(f"{name} is withdrawn")


@main.command()
@as_json
@click.pass_obj
def verdicts(config_dir: Path, as_json: bool) -> None:
    """List the hosts of trusted pools with the verdicts that placement goes by."""
    known = _broker(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        _print_json(known)
        return
    rows = [
        (one["name"], one["status"], one["level"], _age(one["ends_in_ms"]), _yes(one["inside_wall"]), one["reason"])
        for one in known
    ]
    _print_table(("HOST", "STATUS", "LEVEL", "ENDS IN", "WALL", "WHY"), rows)


@main.command()
@as_json
@click.pass_obj
def pools(config_dir: Path, as_json: bool) -> None:
    """List the trusted pools with their walls and guards."""
    known = _broker(config_dir).call("GET", "/v1/pools")["pools"]
    if as_json:
        _print_json(known)
        return
    rows = [
        (one["name"], one["scope"], ", ".join(one["hosts_inside"]), one["vms_inside"], _yes(one["guard_tripped"]))
        for one in known
    ]
    _print_table(("CLUSTER", "SCOPE", "HOSTS INSIDE", "VMS", "GUARD TRIPPED"), rows)


@main.command()
@click.argument("vm")
@click.argument("host")
@as_json
@click.pass_obj
def why(config_dir: Path, vm: str, host: str, as_json: bool) -> None:
    """Say whether VM may run on HOST now, and why."""
    decision = _broker(config_dir).call("GET", "/v1/why", query={"vm": vm, "host": host})
    if as_json:
        _print_json(dict(decision))
        return
    verb = "may" if decision["allowed"] else "may not"
    click.echo(f"{vm} {verb} run on {host} ({decision['code']}): {decision['reason']}")


@main.command()
@click.argument("verb", type=click.Choice(["release", "reject"]))
@click.pass_obj
def guard(config_dir: Path, verb: str) -> None:
    """Decide on hosts that turned untrusted all at once: release them into quarantine, or reject that.

    Rejected hosts stay in service, out of placement, until they attest well.
    """
    held = _broker(config_dir).call("POST", f"/v1/guard/{verb}")["hosts"]
    click.echo(", ".join(held) if held else "no host was held")


@main.command()
@click.argument("name")
@click.argument("host", default="")
@click.pass_obj
def hook(config_dir: Path, name: str, host: str) -> None:
    """Run the engine hook NAME by hand, for HOST where it is about one."""
    _broker(config_dir).call("POST", f"/v1/hooks/{name}", query={"host": host})
    click.echo(f"{name} was run")


def _verifier(config_dir: Path) -> Remote:
    verifier = config.load(Settings, "cli", config_dir).verifier
    if not verifier.url:
        raise errors.InvalidConfig(str(config_dir / "cli.yaml"), ["verifier.url is missing"])
    return Remote("verifier", verifier.url, verifier.token_file, verifier.ca_file)


def _broker(config_dir: Path) -> Remote:
    broker = config.load(Settings, "cli", config_dir).broker
    return Remote("broker", broker.url, broker.token_file)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; a level is coloured on a terminal only."""
    table = [header, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(header))]
    for row in table:
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths)]
        click.echo("  ".join(_coloured(cell) for cell in cells).rstrip())


def _coloured(cell: str) -> str:
    colour = LEVEL_COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour and sys.stdout.isatty() else cell


def _age(age_ms: object) -> str:
    return f"{age_ms // 1000} s" if isinstance(age_ms, int) else "-"


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _headline(one: Mapping[str, Any]) -> str:
    return str(one["findings"][0]["text"]) if one["findings"] else ""


if __name__ == "__main__":
    main()
