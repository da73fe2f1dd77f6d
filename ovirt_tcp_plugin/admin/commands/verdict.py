# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp verdict`: the signed verdict that a host's gate uses."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import click

from ovirt_tcp_plugin import clock, errors
from ovirt_tcp_plugin.admin.commands.printing import as_json, coloured, print_json
from ovirt_tcp_plugin.admin.commands.settings import verifier

if TYPE_CHECKING:
    from ovirt_tcp_plugin.messages.ear import SignedResult, VerifiedResult

_MILLISECOND = datetime.timedelta(milliseconds=1)


@click.group("verdict")
def verdict_group() -> None:
    """Check the signed verdict that a host's gate uses, or make earlier results void."""


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
    """Check the signature of the verdict in FILE, and show the verdict.

    Also how long it holds on this machine.
    """
    verified = _verify(file, keys)
    result = verified.result
    left_ms = _left_ms(result)
    if as_json:
        content = dataclasses.asdict(result)
        content["level"] = result.level.value
        content["key_id"] = verified.key_id
        content["left_ms"] = left_ms
        print_json(content)
        return
    level = coloured(result.level.value)
    signed = f"signed by key {verified.key_id}"
    click.echo(f"{result.host_name} was {level} in boot {result.boot_id} ({signed})")
    if left_ms is None:
        click.echo("it is of another boot than this machine's, and does not hold here")
    elif left_ms >= 0:
        click.echo(f"it holds for {left_ms // 1000} s more")
    else:
        click.echo(f"it ended {-left_ms // 1000} s ago")


@verdict_group.command("void")
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
    help="Moment in UTC, such as 2026-01-02T03:04:05Z; without it, now.",
)
@click.pass_obj
def verdict_void(config_dir: Path, before: Optional[datetime.datetime]) -> None:
    """Make every trusted result older than a moment void; all hosts are attested again at once.

    A signed verdict that a host already has is replaced as soon as the host reports. On a host that
    does not report, it holds until its lifetime ends.
    """
    age = datetime.timedelta()
    if before is not None:
        now = datetime.datetime.now(datetime.timezone.utc)
        age = now - before.replace(tzinfo=datetime.timezone.utc)
    if age < datetime.timedelta():
        raise click.UsageError("--before is in the future: give a moment in the past, in UTC")
    request = {"older_than_ms": age // _MILLISECOND}
    host_names = verifier(config_dir).call("POST", "/v1/results/void", request)["hosts"]
    if host_names:
        click.echo(f"void: {', '.join(host_names)}")
    else:
        click.echo("no trusted result was that old")


def _verify(file: Path, keys: Path) -> VerifiedResult:
    """Return what a file holds, with a good signature by one of the keys in a directory.

    Raises:
        InvalidConfig: the file or a key cannot be read.
        InvalidMessage: it is not a verdict.
        Refused: none of these keys signed it.
    """
    # Only here: no help text needs cryptography, which takes long to load.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from ovirt_tcp_plugin.messages import ear

    try:
        with file.open("rb") as opened:
            content = opened.read(ear.MAX_SIZE + 1)
        pems = [path.read_bytes() for path in sorted(keys.glob("*.pem"))]
        public_keys = [serialization.load_pem_public_key(pem) for pem in pems]
    except (OSError, ValueError) as e:
        fault = f"it or a key in {keys} cannot be read: {e}"
        raise errors.InvalidConfig(str(file), [fault]) from e
    usable = [key for key in public_keys if isinstance(key, ec.EllipticCurvePublicKey)]
    return ear.verify(content, usable)


def _left_ms(result: SignedResult) -> Optional[int]:
    """Return how long a verdict holds here, in milliseconds; None if it is of another boot."""
    here = clock.Clock()
    if result.boot_id != here.boot_id:
        return None
    return result.boottime_ms + result.lifetime_ms - here.now_ms()
