# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-agent status`: what the attestation server thought of this host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester import measure
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.settings import load_settings
from ovirt_tcp_plugin.messages import json_fields
from ovirt_tcp_plugin.messages.findings import next_step
from ovirt_tcp_plugin.messages.result import Level


@click.command()
@click.pass_obj
def status(config_dir: Path) -> None:
    """Say what the attestation server thought of this host when the agent last reported.

    And whether that still counts.
    """
    settings = load_settings(config_dir)
    kept = AgentState(settings.state.directory).load_status()
    if kept is None:
        raise errors.NotFound("report", "yet: the agent has not run")
    sources = settings.boot.sources
    if "level" in kept:
        _show_result(kept, sources)
    if kept.get("error"):
        click.echo(f"the last try failed: {kept['error']}")
    handed_over = [kind for kind, path in sources.logs.items() if path.exists()]
    for absence in measure.read_absences(sources, handed_over).values():
        click.echo(absence.note)


def _show_result(kept: Mapping[str, object], sources: measure.Sources) -> None:
    age_s = int(time.time()) - json_fields.integer(kept, "time", 0, 2**53)
    level = str(kept["level"])
    ended = _why_ended(kept, sources) if level == Level.TRUSTED.value else ""
    if ended:
        level = f"{Level.UNKNOWN.value}, because {ended}; it was {level}"
    click.echo(f"{level}, said {kept.get('server', '')} {age_s} s ago")
    for item in json_fields.items(kept, "findings", 256):
        _show_finding(json_fields.members(item, "finding"))


def _why_ended(kept: Mapping[str, object], sources: measure.Sources) -> str:
    """Return why a trusted result does not count any more; nothing while it does."""
    try:
        boot_id = measure.read_boot_id(sources.boot_id)
    except errors.Unavailable as e:
        return str(e)
    if kept.get("boot_id") != boot_id:
        return "the host has booted since"
    lifetime_ms = json_fields.integer(kept, "lifetime_ms", 0, 2**53) if "lifetime_ms" in kept else 0
    if not lifetime_ms:
        return ""  # of an agent or a server of an earlier release
    born_ms = json_fields.integer(kept, "boottime_ms", 0, 2**53)
    if sources.clock() > born_ms + lifetime_ms:
        return "the verdict ended"
    return ""


def _show_finding(finding: Mapping[str, object]) -> None:
    click.echo(f"  check {finding.get('check')} {finding.get('code')}: {finding.get('text')}")
    for part in ("expected", "seen"):
        if finding.get(part):
            click.echo(f"    {part}: {finding[part]}")
    step = next_step(str(finding.get("code")))
    if step:
        click.echo(f"    next: {step}")
