# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp reference`: the reference values of the attestation server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ovirt_tcp_plugin.admin.commands.printing import (
    as_json,
    headline,
    print_json,
    print_table,
    tell,
)
from ovirt_tcp_plugin.admin.commands.settings import verifier
from ovirt_tcp_plugin.messages import components, coverage, tpm2

# Of a digest, by its length in hex digits.
_BANKS = {2 * size: bank for bank, size in tpm2.DIGEST_SIZES.items()}
_DEFAULT_BANK = "sha256"
_VALUES = "/v1/reference-values"


@click.group()
def reference() -> None:
    """Show and change the reference values: what a good boot is."""


@reference.command("list")
@as_json
@click.pass_obj
def reference_list(config_dir: Path, as_json: bool) -> None:
    """List the reference values by set."""
    answer = verifier(config_dir).call("GET", _VALUES)
    sets = answer["reference_values"]
    if as_json:
        print_json(sets)
        return
    rows = [_row(item["name"], value) for item in sets for value in item["values"]]
    print_table(("SET", "PCR", "COMPONENT", "DIGEST", "HOST", "STATE", "ID"), rows)
    for name in answer["unreadable"]:
        click.echo(f"{name} cannot be read: remove it and import it again", err=True)


@reference.command("import")
@click.argument("name")
@click.option(
    "--from-host",
    "host",
    required=True,
    help="Golden host: its present boot becomes the reference.",
)
@click.option("--stage", is_flag=True, help="Do not use it before `activate`; see `preview`.")
@click.option(
    "--without-kernel",
    is_flag=True,
    help="Take a measured launch that tells of no kernel: every kernel is good then.",
)
@as_json
@click.pass_obj
def reference_import(
    config_dir: Path, name: str, host: str, stage: bool, without_kernel: bool, as_json: bool
) -> None:
    """Take the present boot of a golden host as set NAME, or add what is new in it to that set.

    Every host is judged again. To see first what would change: --stage, `preview`, then `activate`.
    """
    request = {"name": name, "host": host, "staged": stage}
    if without_kernel:  # a server of an older release does not know it
        request["without_kernel"] = True
    reference_set = verifier(config_dir).call("POST", _VALUES, request)
    steps = len(reference_set["slots"])
    values = len(reference_set["values"])
    staged = sum(value["staged"] for value in reference_set["values"])
    sentence = f"{name}: {steps} steps, {values} good values, {staged} of them staged"
    tell(reference_set, sentence, as_json)
    if not as_json:
        _tell_mixtures(name, reference_set.get("mixtures", []))
        slots = [(pcr, component) for pcr, component in reference_set["slots"]]
        for cover in coverage.sentences(slots):
            click.echo(f"{name}: {cover}")


@reference.command("add")
@click.argument("name")
@click.option("--pcr", type=click.IntRange(0, 23), required=True, help="Number of the PCR.")
@click.option(
    "--component",
    default="",
    help="Part of the boot, as `list` names it. Without it: the whole PCR.",
)
@click.option("--digest", required=True, help="Good value, hex.")
@click.option("--host", default="", help="Good for this host only.")
@click.option("--stage", is_flag=True, help="Do not use it before `activate`; see `preview`.")
@click.option("--note", default="", help="Why it is good.")
@as_json
@click.pass_obj
def reference_add(
    config_dir: Path,
    name: str,
    pcr: int,
    component: str,
    digest: str,
    host: str,
    stage: bool,
    note: str,
    as_json: bool,
) -> None:
    """Add one good value to set NAME; an updated kernel, for example, needs nothing else.

    The length of DIGEST gives its bank: 64 digits are sha256, 40 sha1 (the bank of a TPM 1.2), 96
    sha384.
    """
    value = {
        "bank": _BANKS.get(len(digest), _DEFAULT_BANK),
        "pcr": pcr,
        "component": component,
        "digest": digest.lower(),
        "host_name": host.lower(),
        "staged": stage,
        "note": note,
    }
    changed = verifier(config_dir).call("POST", f"{_VALUES}/{name}/add", {"value": value})
    tell(changed, f"added to {name}, staged" if stage else f"added to {name}", as_json)


@reference.command("preview")
@click.option(
    "--activate",
    multiple=True,
    metavar="SET[:ID]",
    help="As if these staged values were used; repeatable.",
)
@click.option(
    "--withdraw",
    multiple=True,
    metavar="SET[:ID]",
    help="As if these values were withdrawn; repeatable.",
)
@as_json
@click.pass_obj
def reference_preview(
    config_dir: Path, activate: tuple[str, ...], withdraw: tuple[str, ...], as_json: bool
) -> None:
    """Show which hosts a change of the reference values would make trusted or untrusted.

    Nothing is changed.
    """
    request = {"activate": _by_set(activate), "withdraw": _by_set(withdraw)}
    answer = verifier(config_dir).call("POST", "/v1/reference-preview", request)
    changes = answer["changes"]
    if as_json:
        print_json(changes)
        return
    rows = [
        (change["host_name"], change["now"], change["then"], headline(change)) for change in changes
    ]
    print_table(("HOST", "NOW", "THEN", "WHY"), rows)
    if not changes:
        click.echo("no host would change its level")
    for name, parts in answer.get("mixtures", {}).items():
        _tell_mixtures(name, parts)


@reference.command("activate")
@click.argument("name")
@click.argument("identifiers", nargs=-1)
@as_json
@click.pass_obj
def reference_activate(
    config_dir: Path, name: str, identifiers: tuple[str, ...], as_json: bool
) -> None:
    """Use staged values of set NAME: those with these IDENTIFIERS, or all."""
    request = {"values": list(identifiers)}
    changed = verifier(config_dir).call("POST", f"{_VALUES}/{name}/activate", request)
    tell(changed, f"{name}: activated; every host is judged again", as_json)


@reference.command("withdraw")
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True)
@as_json
@click.pass_obj
def reference_withdraw(
    config_dir: Path, name: str, identifiers: tuple[str, ...], as_json: bool
) -> None:
    """Withdraw the values with these IDENTIFIERS from set NAME; every host is judged again."""
    request = {"values": list(identifiers)}
    changed = verifier(config_dir).call("POST", f"{_VALUES}/{name}/withdraw", request)
    tell(changed, f"{name}: withdrawn; every host is judged again", as_json)


@reference.command("remove")
@click.argument("name")
@as_json
@click.pass_obj
def reference_remove(config_dir: Path, name: str, as_json: bool) -> None:
    """Withdraw the whole set NAME; every host is judged again."""
    removed = verifier(config_dir).call("DELETE", f"{_VALUES}/{name}")
    tell(removed, f"{name} is withdrawn", as_json)


def _tell_mixtures(name: str, parts: Sequence[Mapping[str, Any]]) -> None:
    """Say which boots are good that no golden host has shown, and how to have it otherwise."""
    if not parts:
        return
    boots = 1
    texts = []
    for part in parts:
        boots *= part["values"]
        what = components.text(part["component"])
        texts.append(f"{what} ({part['values']} values)")
    click.echo(
        f"{name} takes any mixture of {', '.join(texts)}: {boots} boots. To take only boots as a "
        "golden host has them, withdraw the new values and import the host as a set of its own, "
        "under another name",
        err=True,
    )


def _row(set_name: str, value: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        set_name,
        str(value["pcr"]),
        value["component"] or "(whole PCR)",
        value["digest"],
        value["host_name"] or "all",
        "staged" if value["staged"] else "active",
        value["identifier"],
    )


def _by_set(texts: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the identifiers by set of some SET or SET:ID; a set without any means all of it."""
    sets: dict[str, list[str]] = {}
    for text in texts:
        # A set's name may have colons itself; an identifier is 12 hex digits.
        name, _, identifier = text.rpartition(":")
        if name and re.fullmatch("[0-9a-f]{12}", identifier):
            sets.setdefault(name, []).append(identifier)
        else:
            sets.setdefault(text, [])
    return sets
