# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp verdict`: the signed verdict that a host's gate goes by."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Optional

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.commands.printing import as_json, coloured, print_json
from ovirt_tcp_plugin.commands.settings import verifier
from ovirt_tcp_plugin.messages import ear as verdict


@click.group("verdict")
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
    told, here = signed.result, clock.Clock()
    left_ms = told.boottime_ms + told.lifetime_ms - here.now_ms() if told.boot_id == here.boot_id else None
    if as_json:
        print_json({**dataclasses.asdict(told), "level": told.level.value, "key_id": signed.key_id, "left_ms": left_ms})
        return
    click.echo(f"{told.host_name} was {coloured(told.level.value)} in boot {told.boot_id} (signed by key {signed.key_id})")
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
    voided = verifier(config_dir).call("POST", "/v1/results/void", request)["hosts"]
    click.echo(f"void: {', '.join(voided)}" if voided else "no trusted result was that old")
