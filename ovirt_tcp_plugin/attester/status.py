# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp-agent status`: what the attestation server thought of this host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.attester.agent_state import AgentState
from ovirt_tcp_plugin.attester.settings import load_settings
from ovirt_tcp_plugin.messages import json_fields


@click.command()
@click.pass_obj
def status(config_dir: Path) -> None:
    """Say what the attestation server thought of this host when the agent last reported."""
    kept = AgentState(load_settings(config_dir).state.directory).load_status()
    if kept is None:
        raise errors.NotFound("report", "yet: the agent has not run")
    if "level" in kept:
        age_s = int(time.time()) - json_fields.integer(kept, "time", 0, 2**53)
        click.echo(f"{kept['level']}, said {kept.get('server', '')} {age_s} s ago")
        for item in json_fields.items(kept, "findings", 256):
            _show_finding(json_fields.members(item, "finding"))
    if kept.get("error"):
        click.echo(f"the last try failed: {kept['error']}")


def _show_finding(finding: Mapping[str, object]) -> None:
    click.echo(f"  check {finding.get('check')} {finding.get('code')}: {finding.get('text')}")
    for part in ("expected", "seen"):
        if finding.get(part):
            click.echo(f"    {part}: {finding[part]}")
