# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The agent's commands that ask the TPM once: `enrol`, `ek`, `measure`."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from pathlib import Path
from typing import Optional

import click

from ovirt_tcp_plugin import command, durable, errors
from ovirt_tcp_plugin.attester import enrolment, host_tpm, measure
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.settings import load_settings
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.messages import eventlog, evidence, public_keys, tpm2

SLOW_CHIP = "making two keys in the TPM; a slow chip takes up to a minute for each"


@click.command()
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    required=True,
    help="File with the single-use token; remove it afterwards.",
)
@click.pass_obj
def enrol(config_dir: Path, token_file: Path) -> None:
    """Bind this host's TPM to its name at the attestation server, once.

    The server checks that a TPM vendor certified this TPM and that the attestation key lives in it,
    and issues the certificate by which the agent is known from then on. A repeated enrolment (with
    a new token) replaces it. Run it as root or as the user that the agent runs as: the files it
    leaves belong to the owner of the agent's directory, and are for that user only.
    """
    command.log_to_stderr(logging.INFO)
    settings = load_settings(config_dir)
    token = enrolment.read_token(token_file)
    durable.make_directory(settings.state.directory)
    state = AgentState(settings.state.directory)
    client = VerifierClient(settings.verifier.urls, settings.verifier.ca_file, None)
    name = settings.host.known_as
    click.echo(SLOW_CHIP, err=True)
    with host_tpm.connect(settings.tpm) as tpm:
        tpm.enrol(state, client, name, token)
    click.echo(f"{name} is enrolled at {client.current}; start the agent now")


@click.command()
@click.pass_obj
def ek(config_dir: Path) -> None:
    """Print what `ovirt-tcp-verifier ek add` wants.

    It is the host name and the SHA-256 of this TPM's endorsement key.
    """
    settings = load_settings(config_dir)
    with host_tpm.connect(settings.tpm) as tpm:
        shown = tpm.endorsement()
    certified = "certified by its vendor" if shown.certificate else "without a certificate"
    click.echo(f"{settings.host.known_as} {public_keys.digest(shown.key)}")
    click.echo(f"{shown.kind}, {certified}", err=True)


@click.command("measure")
@click.option(
    "--pcr", "pcrs", type=click.IntRange(0, 23), multiple=True, default=(17, 18), show_default=True
)
@click.option(
    "--bank",
    type=click.Choice(sorted(tpm2.HASH_IDS)),
    help="sha256 by default, sha1 with a TPM 1.2.",
)
@click.option(
    "--evidence", "as_evidence", is_flag=True, help="Print the whole evidence as JSON instead."
)
@click.pass_obj
def measure_command(
    config_dir: Path, pcrs: tuple[int, ...], bank: Optional[str], as_evidence: bool
) -> None:
    """Show what this host would report now, without reporting it.

    Needs an enrolled host, since its key signs. With a software TPM, stop the agent first: such a
    TPM serves one connection at a time.
    """
    command.log_to_stderr(logging.WARNING)
    settings = load_settings(config_dir)
    state = AgentState(settings.state.directory)
    with host_tpm.connect(settings.tpm) as tpm:
        ak = tpm.load_quoting_key(state)
        selection = {bank or tpm.bank: tuple(sorted(set(pcrs)))}
        measured = _measure(tpm, ak, selection, settings.boot.sources)
    if as_evidence:
        click.echo(json.dumps(evidence.encode(measured), indent=2))
    else:
        _describe(measured)


def _measure(
    tpm: measure.PcrReader,
    ak: measure.QuotingKey,
    selection: tpm2.Selection,
    sources: measure.Sources,
) -> evidence.Evidence:
    """Return evidence for a challenge that nobody sent, and unload the key."""
    nonce = secrets.token_bytes(evidence.NONCE_SIZE)
    challenge = evidence.Challenge(nonce, selection, 1000, takes_absences=True)
    try:
        return measure.measure(tpm, ak, challenge, sources)
    finally:
        with contextlib.suppress(errors.Error):
            ak.unload()


def _describe(measured: evidence.Evidence) -> None:
    click.echo(f"boot {measured.boot_id}, up {measured.boottime_ms // 1000} s")
    for bank, values in measured.pcrs.items():
        for index, value in values.items():
            click.echo(f"{bank} PCR {index}: {value.hex()}")
    if not any(measured.pcrs.values()):
        click.echo("the TPM has no such bank active")
    for kind in evidence.LOGS:
        padded = kind in evidence.PADDED_LOGS
        size = measured.oversized_logs.get(kind)
        if size is None:
            description = _describe_log(measured.logs.get(kind), padded)
        else:
            description = f"{size} bytes, at most {evidence.MAX_LOG_SIZE} can be sent"
        click.echo(f"{kind} log: {description}")
        if kind in measured.absences:
            click.echo(f"  {measured.absences[kind].note}")


def _describe_log(content: Optional[bytes], padded: bool) -> str:
    if content is None:
        return "none"
    try:
        events = eventlog.parse(content, padded)
    except errors.InvalidMessage as e:
        return f"{len(content)} bytes, {e}"
    launch = ", tells of a measured launch" if eventlog.launched(events) else ""
    return f"{len(content)} bytes, {len(events)} events{launch}"
