# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the attestation server says of the enrolled hosts: `ovirt-tcp hosts` and `explain`."""

from __future__ import annotations

from pathlib import Path

import click

from ovirt_tcp_plugin.commands.printing import age, as_json, coloured, headline, print_json, print_table, tell
from ovirt_tcp_plugin.commands.settings import verifier
from ovirt_tcp_plugin.messages import findings as advice


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def hosts(context: click.Context, as_json: bool) -> None:
    """List the enrolled hosts with the attestation server's last result."""
    if context.invoked_subcommand is None:
        _list_hosts(context.obj, as_json)


@hosts.command("replace-tpm")
@click.argument("host")
@as_json
@click.pass_obj
def replace_tpm(config_dir: Path, host: str, as_json: bool) -> None:
    """Forget the TPM of HOST, whose board was replaced; it enrols with a new token, and is unknown until then."""
    removed = verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    sentence = f"{host} may enrol with another TPM now; it needs a token: ovirt-tcp-verifier token enrol {host}"
    tell(removed, sentence, as_json)


@hosts.command("remove")
@click.argument("host")
@as_json
@click.pass_obj
def remove_host(config_dir: Path, host: str, as_json: bool) -> None:
    """Forget HOST, which left for good."""
    removed = verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    tell(removed, f"{host} is no longer enrolled", as_json)


def _list_hosts(config_dir: Path, as_json: bool) -> None:
    known = verifier(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        print_json(known)
        return
    print_table(
        ("HOST", "LEVEL", "AGE", "TPM", "TPM BY", "WHY"),
        [
            (
                one["host_name"],
                one["level"],
                age(one["age_ms"]),
                one["tpm_family"],
                one["endorsed_by"],
                headline(one),
            )
            for one in known
        ],
    )


@click.command()
@click.argument("host")
@as_json
@click.pass_obj
def explain(config_dir: Path, host: str, as_json: bool) -> None:
    """Say why HOST has its result: every failed check, with the expected and the seen value."""
    request = {"hosts": [host], "max_age_ms": 2**53, "wait_ms": 3000}
    (one,) = verifier(config_dir).call("POST", "/v1/results", request)["hosts"]
    if as_json:
        told = [{**finding, "next": advice.next_step(finding["code"])} for finding in one["findings"]]
        print_json({**one, "findings": told})
        return
    evidence = f"evidence is {age(one['age_ms'])} old, of boot {one['boot_id']}" if one["boot_id"] else "no evidence"
    click.echo(f"{host} is {coloured(one['level'])} ({evidence})")
    if one["tpm_family"] == "1.2":
        click.echo("  its TPM 1.2 signed with SHA-1, and does not tell whether the kernel was started by kexec")
    for finding in one["findings"]:
        click.echo(f"\ncheck {finding['check']}, {finding['code']}: {finding['text']}")
        if finding["expected"] or finding["seen"]:
            click.echo(f"  expected {finding['expected'] or 'nothing'}\n  seen     {finding['seen'] or 'nothing'}")
        if advice.next_step(finding["code"]):
            click.echo(f"  next     {advice.next_step(finding['code'])}")
