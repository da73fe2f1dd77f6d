# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the attestation server says of the enrolled hosts: `ovirt-tcp hosts` and `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.commands.printing import (
    age,
    as_json,
    coloured,
    headline,
    print_json,
    print_table,
    printable,
    tell,
)
from ovirt_tcp_plugin.admin.commands.settings import broker, verifier
from ovirt_tcp_plugin.messages import findings

# `explain` shows the last result however old it is, and waits so long for a newer one.
_ANY_AGE_MS = 2**53
_WAIT_MS = 3000
_STRANGER = "not_enrolled"
# Exit status of `explain` for a host that the attestation server does not know.
NOT_ENROLLED = 4


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
    """Forget the TPM of HOST, after its board was replaced.

    HOST then enrols again with a new token, and is unknown until it has.
    """
    removed = verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    step = f"make a token for it: ovirt-tcp-verifier token enrol {host}"
    tell(removed, f"the TPM of {host} is forgotten. To enrol its new one, {step}", as_json)


@hosts.command("remove")
@click.argument("host")
@as_json
@click.pass_obj
def remove_host(config_dir: Path, host: str, as_json: bool) -> None:
    """Forget HOST, which is not used any more."""
    removed = verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    tell(removed, f"{host} is no longer enrolled", as_json)


@click.command()
@click.argument("host")
@as_json
@click.pass_obj
def explain(config_dir: Path, host: str, as_json: bool) -> None:
    """Say why HOST has its result: every failed check, with the expected and the seen value.

    And how it booted, step by step, as far as its TPM proved it.

    HOST is its name at the attestation server, or its name or id at the engine if the broker can be
    asked. The exit status is 4 for a host that is not enrolled.
    """
    result = _result(config_dir, host)
    if _is_stranger(result):
        name = _verifier_name(config_dir, host)
        result = _result(config_dir, name) if name else result
    boot = _boot(config_dir, result)
    if as_json:
        findings_with_steps = [_with_next_step(item) for item in result["findings"]]
        print_json({**result, "findings": findings_with_steps, "boot": boot})
    else:
        _print_result(result)
        _print_boot(boot)
        _print_endorsement(config_dir, result["host_name"])
    if _is_stranger(result):
        click.echo("`ovirt-tcp hosts` lists the enrolled hosts", err=True)
        raise click.exceptions.Exit(NOT_ENROLLED)


def _print_endorsement(config_dir: Path, host_name: str) -> None:
    """Say if nobody vouches for the host's TPM any more."""
    try:
        withdrawn = verifier(config_dir).call("GET", "/v1/upkeep")["withdrawn"]
    except errors.Error:  # a server of an earlier release
        return
    for host in withdrawn:
        if host["host_name"] == host_name:
            click.echo(f"  {host['text']} ({host['code']})")


def _boot(config_dir: Path, result: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    """Return what a host's evidence proved of its boot, None if there is none."""
    if not result["boot_id"]:
        return None
    name = result["host_name"].lower()
    try:
        return verifier(config_dir).call("GET", f"/v1/hosts/{name}/boot")
    except errors.Error:  # a server of an earlier release, or the host was removed meanwhile
        return None


def _print_boot(boot: Optional[Mapping[str, Any]]) -> None:
    if boot is None:
        return
    click.echo(f"\nits boot, as its TPM proved it in bank {boot['bank']}:")
    for pcr, value in boot["values"].items():
        steps = [step for step in boot["steps"] if str(step["pcr"]) == pcr]
        click.echo(f"  PCR {pcr} {value}{'' if steps else ', without proven steps'}")
        for step in steps:
            click.echo(f"    {step['digest']} {printable(step['text'])}")
    for note in boot["notes"]:
        click.echo(f"  {printable(note)}")


def _result(config_dir: Path, host: str) -> Mapping[str, Any]:
    """Return the attestation server's result of a host."""
    request = {"hosts": [host], "max_age_ms": _ANY_AGE_MS, "wait_ms": _WAIT_MS}
    (result,) = verifier(config_dir).call("POST", "/v1/results", request)["hosts"]
    return cast("Mapping[str, Any]", result)


def _is_stranger(result: Mapping[str, Any]) -> bool:
    return any(finding["code"] == _STRANGER for finding in result["findings"])


def _verifier_name(config_dir: Path, host: str) -> str:
    """Return a host's name at the attestation server by its name or id at the engine.

    Empty if the broker knows none, or cannot be asked: it may be on another machine.
    """
    try:
        known = broker(config_dir).call("GET", "/v1/hosts")["hosts"]
    except errors.Error:
        return ""
    for row in known:
        if host in (row["id"], row["name"]):
            return str(row.get("verifier_name", ""))
    return ""


def _print_result(result: Mapping[str, Any]) -> None:
    host = result["host_name"]
    click.echo(f"{host} is {coloured(result['level'])} ({_evidence(result)})")
    if result["tpm_family"] == "1.2":
        limits = "signed with SHA-1, and does not tell whether the kernel was started by kexec"
        click.echo(f"  its TPM 1.2 {limits}")
    for finding in result["findings"]:
        _print_finding(finding)


def _list_hosts(config_dir: Path, as_json: bool) -> None:
    results = verifier(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        print_json(results)
        return
    rows = [_row(result) for result in results]
    print_table(("HOST", "LEVEL", "AGE", "TPM", "TPM BY", "WHY"), rows)


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        result["host_name"],
        result["level"],
        age(result["age_ms"]),
        result["tpm_family"],
        _endorsed_by(result),
        headline(result),
    )


def _endorsed_by(result: Mapping[str, Any]) -> str:
    """Return why the host's TPM is believed, and whether that is gone."""
    # A server of an earlier release does not say it.
    gone = " (gone)" if result.get("endorsement_fault") else ""
    return f"{result['endorsed_by']}{gone}"


def _evidence(result: Mapping[str, Any]) -> str:
    if not result["boot_id"]:
        return "no evidence"
    return f"evidence is {age(result['age_ms'])} old, of boot {result['boot_id']}"


def _print_finding(finding: Mapping[str, Any]) -> None:
    click.echo(f"\ncheck {finding['check']}, {finding['code']}: {finding['text']}")
    if finding["expected"] or finding["seen"]:
        click.echo(f"  expected {finding['expected'] or 'nothing'}")
        click.echo(f"  seen     {finding['seen'] or 'nothing'}")
    step = findings.next_step(finding["code"])
    if step:
        click.echo(f"  next     {step}")


def _with_next_step(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {**finding, "next": findings.next_step(finding["code"])}
