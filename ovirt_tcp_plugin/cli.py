# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp`: the administrator's command. It asks verifier and broker; it decides nothing."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import clock, command, config, errors
from ovirt_tcp_plugin.messages import advice, verdict
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


@main.group(invoke_without_command=True)
@as_json
@click.pass_context
def hosts(context: click.Context, as_json: bool) -> None:
    """List the enrolled hosts with the attestation server's last result."""
    if context.invoked_subcommand is None:
        _list_hosts(context.obj, as_json)


@hosts.command("replace-tpm")
@click.argument("host")
@click.pass_obj
def replace_tpm(config_dir: Path, host: str) -> None:
    """Forget the TPM of HOST, whose board was replaced; it enrols with a new token, and is unknown until then."""
    _verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    click.echo(f"{host} may enrol with another TPM now; it needs a token: ovirt-tcp-verifier token enrol {host}")


@hosts.command("remove")
@click.argument("host")
@click.pass_obj
def remove_host(config_dir: Path, host: str) -> None:
    """Forget HOST, which left for good."""
    _verifier(config_dir).call("DELETE", f"/v1/hosts/{host.lower()}")
    click.echo(f"{host} is no longer enrolled")


def _list_hosts(config_dir: Path, as_json: bool) -> None:
    known = _verifier(config_dir).call("GET", "/v1/hosts")["hosts"]
    if as_json:
        _print_json(known)
        return
    _print_table(
        ("HOST", "LEVEL", "AGE", "TPM", "TPM BY", "WHY"),
        [
            (
                one["host_name"],
                one["level"],
                _age(one["age_ms"]),
                one["tpm_family"],
                one["endorsed_by"],
                _headline(one),
            )
            for one in known
        ],
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
        told = [{**finding, "next": advice.next_step(finding["code"])} for finding in one["findings"]]
        _print_json({**one, "findings": told})
        return
    evidence = f"evidence is {_age(one['age_ms'])} old, of boot {one['boot_id']}" if one["boot_id"] else "no evidence"
    click.echo(f"{host} is {_coloured(one['level'])} ({evidence})")
    if one["tpm_family"] == "1.2":
        click.echo("  its TPM 1.2 signed with SHA-1, and does not tell whether the kernel was started by kexec")
    for finding in one["findings"]:
        click.echo(f"\ncheck {finding['check']}, {finding['code']}: {finding['text']}")
        if finding["expected"] or finding["seen"]:
            click.echo(f"  expected {finding['expected'] or 'nothing'}\n  seen     {finding['seen'] or 'nothing'}")
        if advice.next_step(finding["code"]):
            click.echo(f"  next     {advice.next_step(finding['code'])}")


@main.group()
def reference() -> None:
    """Look at and choose the reference values: what a good boot is."""


@reference.command("list")
@as_json
@click.pass_obj
def reference_list(config_dir: Path, as_json: bool) -> None:
    """List the reference values by set."""
    known = _verifier(config_dir).call("GET", "/v1/reference-values")
    if as_json:
        _print_json(known["reference_values"])
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
    _print_table(("SET", "PCR", "COMPONENT", "DIGEST", "HOST", "STATE", "ID"), rows)
    for name in known["unreadable"]:
        click.echo(f"{name} cannot be read: remove it and import it again", err=True)


@reference.command("import")
@click.argument("name")
@click.option("--from-host", "host", required=True, help="Golden host: its present boot becomes the reference.")
@click.option("--stage", is_flag=True, help="Only for `preview`, until `activate`.")
@click.pass_obj
def reference_import(config_dir: Path, name: str, host: str, stage: bool) -> None:
    """Take the present boot of a golden host as set NAME, or add what is new in it to that set.

    Every host is judged anew. With --stage, look first at what would change: `preview`, then `activate`.
    """
    request = {"name": name, "host": host, "staged": stage}
    good = _verifier(config_dir).call("POST", "/v1/reference-values", request)
    staged = sum(value["staged"] for value in good["values"])
    click.echo(f"{name}: {len(good['slots'])} steps, {len(good['values'])} good values, {staged} of them staged")


@reference.command("add")
@click.argument("name")
@click.option("--pcr", type=click.IntRange(0, 23), required=True)
@click.option("--component", default="", help="Part of the boot, as `list` names it. Without it: the whole PCR.")
@click.option("--digest", required=True, help="Good value, hex.")
@click.option("--host", default="", help="Good for this host only.")
@click.option("--stage", is_flag=True, help="Only for `preview`, until `activate`.")
@click.option("--note", default="", help="Why it is good.")
@click.pass_obj
def reference_add(
    config_dir: Path, name: str, pcr: int, component: str, digest: str, host: str, stage: bool, note: str
) -> None:
    """Add one good value to set NAME: an updated kernel, say, needs nothing else."""
    value = {
        "bank": "sha256",
        "pcr": pcr,
        "component": component,
        "digest": digest.lower(),
        "host_name": host.lower(),
        "staged": stage,
        "note": note,
    }
    _verifier(config_dir).call("POST", f"/v1/reference-values/{name}/add", {"value": value})
    click.echo(f"added to {name}" + (", staged" if stage else ""))


@reference.command("preview")
@click.option("--activate", multiple=True, metavar="SET[:ID]", help="As if these staged values counted; repeatable.")
@click.option("--withdraw", multiple=True, metavar="SET[:ID]", help="As if these values were gone; repeatable.")
@as_json
@click.pass_obj
def reference_preview(config_dir: Path, activate: tuple[str, ...], withdraw: tuple[str, ...], as_json: bool) -> None:
    """Show which hosts a change of the reference values would make trusted or untrusted. Nothing is changed."""
    request = {"activate": _by_set(activate), "withdraw": _by_set(withdraw)}
    changes = _verifier(config_dir).call("POST", "/v1/reference-preview", request)["changes"]
    if as_json:
        _print_json(changes)
        return
    _print_table(
        ("HOST", "NOW", "THEN", "WHY"), [(one["host_name"], one["now"], one["then"], _headline(one)) for one in changes]
    )
    if not changes:
        click.echo("no host would change its level")


@reference.command("activate")
@click.argument("name")
@click.argument("identifiers", nargs=-1)
@click.pass_obj
def reference_activate(config_dir: Path, name: str, identifiers: tuple[str, ...]) -> None:
    """Have staged values of set NAME count: those with these IDENTIFIERS, or all."""
    _verifier(config_dir).call("POST", f"/v1/reference-values/{name}/activate", {"values": list(identifiers)})
    click.echo(f"{name}: activated; every host is judged anew")


@reference.command("withdraw")
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True)
@click.pass_obj
def reference_withdraw(config_dir: Path, name: str, identifiers: tuple[str, ...]) -> None:
    """Withdraw the values with these IDENTIFIERS from set NAME; every host is judged anew."""
    _verifier(config_dir).call("POST", f"/v1/reference-values/{name}/withdraw", {"values": list(identifiers)})
    click.echo(f"{name}: withdrawn; every host is judged anew")


@reference.command("remove")
@click.argument("name")
@click.pass_obj
def reference_remove(config_dir: Path, name: str) -> None:
    """Withdraw the whole set NAME; every host is judged anew."""
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


@main.group("verdict")
def verdict_group() -> None:
    """Look at the signed verdict that a host's gate goes by, or void what was said before."""


@verdict_group.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    default=Path("/etc/ovirt-tcp/verdict-keys"),
    show_default=True,
    help="Directory with the public keys, as `ovirt-tcp-verifier verdict-key export` writes them.",
)
@as_json
def verdict_verify(file: Path, keys: Path, as_json: bool) -> None:
    """Check the signature of the verdict in FILE, and say what it says and how long it holds on this machine."""
    try:
        with file.open("rb") as opened:
            content = opened.read(verdict.MAX_SIZE + 1)
        public = [serialization.load_pem_public_key(path.read_bytes()) for path in sorted(keys.glob("*.pem"))]
    except (OSError, ValueError) as e:
        raise errors.InvalidConfig(str(file), [f"it or a key in {keys} cannot be read: {e}"]) from e
    signed = verdict.verify(content, [key for key in public if isinstance(key, ec.EllipticCurvePublicKey)])
    told, here = signed.verdict, clock.Clock()
    left_ms = told.boottime_ms + told.lifetime_ms - here.now_ms() if told.boot_id == here.boot_id else None
    if as_json:
        _print_json({**dataclasses.asdict(told), "level": told.level.value, "key_id": signed.key_id, "left_ms": left_ms})
        return
    click.echo(f"{told.host_name} was {_coloured(told.level.value)} in boot {told.boot_id} (signed by key {signed.key_id})")
    if left_ms is None:
        click.echo("it is of another boot than this machine's, and counts for nothing here")
    else:
        click.echo(f"it holds for {left_ms // 1000} s more" if left_ms >= 0 else f"it ended {-left_ms // 1000} s ago")


@verdict_group.command("void")
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
    help="Moment in UTC, such as 2026-01-02T03:04:05Z; without it, now.",
)
@click.pass_obj
def verdict_void(config_dir: Path, before: Optional[datetime.datetime]) -> None:
    """Void every trusted result older than a moment; all hosts are attested anew at once.

    A signed verdict that a host holds already is replaced as soon as the host reports; on a host that does not, it counts
    until its life ends.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    age = datetime.timedelta() if before is None else now - before.replace(tzinfo=datetime.timezone.utc)
    if age < datetime.timedelta():
        raise click.UsageError("the moment has not come yet")
    request = {"older_than_ms": age // datetime.timedelta(milliseconds=1)}
    voided = _verifier(config_dir).call("POST", "/v1/results/void", request)["hosts"]
    click.echo(f"void: {', '.join(voided)}" if voided else "no trusted result was that old")


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
