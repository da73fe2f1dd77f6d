# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp reference`: the reference values of the attestation server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ovirt_tcp_plugin.admin.commands.printing import as_json, headline, print_json, print_table, tell
from ovirt_tcp_plugin.admin.commands.settings import verifier
from ovirt_tcp_plugin.messages import tpm2

# Of a digest, by its length in hex digits.
_BANKS = {2 * size: bank for bank, size in tpm2.DIGEST_SIZES.items()}


@click.group()
def reference() -> None:
    """Look at and choose the reference values: what a good boot is."""


@reference.command("list")
@as_json
@click.pass_obj
def reference_list(config_dir: Path, as_json: bool) -> None:
    """List the reference values by set."""
    known = verifier(config_dir).call("GET", "/v1/reference-values")
    if as_json:
        print_json(known["reference_values"])
        return
    rows = [
        (
            one["name"],
            str(value["pcr"]),
            value["component"] or "(whole PCR)",
            value["digest"],
            value["host_name"] or "all",
            "staged" if value["staged"] else "active",
            value["identifier"],
        )
        for one in known["reference_values"]
        for value in one["values"]
    ]
    print_table(("SET", "PCR", "COMPONENT", "DIGEST", "HOST", "STATE", "ID"), rows)
    for name in known["unreadable"]:
        click.echo(f"{name} cannot be read: remove it and import it again", err=True)


@reference.command("import")
@click.argument("name")
@click.option("--from-host", "host", required=True, help="Golden host: its present boot becomes the reference.")
@click.option("--stage", is_flag=True, help="Only for `preview`, until `activate`.")
@as_json
@click.pass_obj
def reference_import(config_dir: Path, name: str, host: str, stage: bool, as_json: bool) -> None:
    """Take the present boot of a golden host as set NAME, or add what is new in it to that set.

    Every host is judged anew. With --stage, look first at what would change: `preview`, then `activate`.
    """
    request = {"name": name, "host": host, "staged": stage}
    good = verifier(config_dir).call("POST", "/v1/reference-values", request)
    staged = sum(value["staged"] for value in good["values"])
    tell(good, f"{name}: {len(good['slots'])} steps, {len(good['values'])} good values, {staged} of them staged", as_json)


@reference.command("add")
@click.argument("name")
@click.option("--pcr", type=click.IntRange(0, 23), required=True)
@click.option("--component", default="", help="Part of the boot, as `list` names it. Without it: the whole PCR.")
@click.option("--digest", required=True, help="Good value, hex.")
@click.option("--host", default="", help="Good for this host only.")
@click.option("--stage", is_flag=True, help="Only for `preview`, until `activate`.")
@click.option("--note", default="", help="Why it is good.")
@as_json
@click.pass_obj
def reference_add(
    config_dir: Path, name: str, pcr: int, component: str, digest: str, host: str, stage: bool, note: str, as_json: bool
) -> None:
    """Add one good value to set NAME: an updated kernel, say, needs nothing else.

    The length of DIGEST tells its bank: 64 digits are sha256, 40 sha1 (the bank of a TPM 1.2), 96 sha384.
    """
    value = {
        "bank": _BANKS.get(len(digest), "sha256"),
        "pcr": pcr,
        "component": component,
        "digest": digest.lower(),
        "host_name": host.lower(),
        "staged": stage,
        "note": note,
    }
    changed = verifier(config_dir).call("POST", f"/v1/reference-values/{name}/add", {"value": value})
    tell(changed, f"added to {name}" + (", staged" if stage else ""), as_json)


@reference.command("preview")
@click.option("--activate", multiple=True, metavar="SET[:ID]", help="As if these staged values counted; repeatable.")
@click.option("--withdraw", multiple=True, metavar="SET[:ID]", help="As if these values were gone; repeatable.")
@as_json
@click.pass_obj
def reference_preview(config_dir: Path, activate: tuple[str, ...], withdraw: tuple[str, ...], as_json: bool) -> None:
    """Show which hosts a change of the reference values would make trusted or untrusted. Nothing is changed."""
    request = {"activate": _by_set(activate), "withdraw": _by_set(withdraw)}
    changes = verifier(config_dir).call("POST", "/v1/reference-preview", request)["changes"]
    if as_json:
        print_json(changes)
        return
    print_table(
        ("HOST", "NOW", "THEN", "WHY"), [(one["host_name"], one["now"], one["then"], headline(one)) for one in changes]
    )
    if not changes:
        click.echo("no host would change its level")


@reference.command("activate")
@click.argument("name")
@click.argument("identifiers", nargs=-1)
@as_json
@click.pass_obj
def reference_activate(config_dir: Path, name: str, identifiers: tuple[str, ...], as_json: bool) -> None:
    """Have staged values of set NAME count: those with these IDENTIFIERS, or all."""
    request = {"values": list(identifiers)}
    changed = verifier(config_dir).call("POST", f"/v1/reference-values/{name}/activate", request)
    tell(changed, f"{name}: activated; every host is judged anew", as_json)


@reference.command("withdraw")
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True)
@as_json
@click.pass_obj
def reference_withdraw(config_dir: Path, name: str, identifiers: tuple[str, ...], as_json: bool) -> None:
    """Withdraw the values with these IDENTIFIERS from set NAME; every host is judged anew."""
    request = {"values": list(identifiers)}
    changed = verifier(config_dir).call("POST", f"/v1/reference-values/{name}/withdraw", request)
    tell(changed, f"{name}: withdrawn; every host is judged anew", as_json)


@reference.command("remove")
@click.argument("name")
@as_json
@click.pass_obj
def reference_remove(config_dir: Path, name: str, as_json: bool) -> None:
    """Withdraw the whole set NAME; every host is judged anew."""
    removed = verifier(config_dir).call("DELETE", f"/v1/reference-values/{name}")
    tell(removed, f"{name} is withdrawn", as_json)


def _by_set(chosen: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the identifiers by set of some SET or SET:ID; a set without any means all of it."""
    sets: dict[str, list[str]] = {}
    for one in chosen:
        # A set's name may have colons itself; an identifier is 12 hex digits.
        name, _, identifier = one.rpartition(":")
        if name and re.fullmatch("[0-9a-f]{12}", identifier):
            sets.setdefault(name, []).append(identifier)
        else:
            sets.setdefault(one, [])
    return sets
