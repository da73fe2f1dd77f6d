# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""`ovirt-tcp doctor`: checks the whole installation, on the engine machine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ovirt_tcp_plugin.admin.commands import options
from ovirt_tcp_plugin.admin.commands.printing import as_json, print_json
from ovirt_tcp_plugin.admin.doctor.findings import CheckedFinding, FindingState

COLOURS = {
    FindingState.OK: "green",
    FindingState.WARNING: "yellow",
    FindingState.FAIL: "red",
    FindingState.NOT_CHECKED: "yellow",
}
# Peers have a part in the texts: a terminal gets no more than this of one, and only what is
# printable.
MAX_TEXT_LENGTH = 1000


@click.command()
@click.option(
    "--within",
    "within_s",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    help="Longest time for all checks, in seconds.",
)
@options.engine_config
@as_json
@click.pass_obj
def doctor(config_dir: Path, within_s: int, engine_config: Path, as_json: bool) -> None:
    """Check this installation, and say what to do. Nothing is changed.

    Run it as root on the engine machine: it reads the configuration of broker, filterd and
    ovirt-tcp, with their secrets. The exit status is 0 when everything is in order or has only
    warnings, and 1 when something fails or could not be checked.
    """
    # Only here: no help text needs the oVirt SDK, which takes long to load.
    from ovirt_tcp_plugin.admin.doctor import installation

    # What filterd would log of a snapshot is among the findings.
    logging.getLogger().addHandler(logging.NullHandler())
    findings = installation.examine(config_dir, engine_config, within_s)
    if as_json:
        print_json([_plain(checked) for checked in findings])
    else:
        _print(findings)
    bad = (FindingState.FAIL, FindingState.NOT_CHECKED)
    if any(checked.finding.state in bad for checked in findings):
        raise click.exceptions.Exit(1)


def _print(findings: Sequence[CheckedFinding]) -> None:
    state_width = max(len(checked.finding.state.value) for checked in findings)
    label_width = max(len(_label(checked)) for checked in findings)
    for checked in findings:
        finding = checked.finding
        state = finding.state.value.ljust(state_width)
        if sys.stdout.isatty():
            state = click.style(state, fg=COLOURS[finding.state])
        label = _label(checked).ljust(label_width)
        click.echo(f"{state}  {label}  {_printable(finding.text)}")
        if finding.next_step:
            margin = " " * state_width
            click.echo(f"{margin}  {'next'.rjust(label_width)}  {_printable(finding.next_step)}")


def _label(checked: CheckedFinding) -> str:
    """Return the code of a finding; of a check that could not be made, the check's name."""
    if checked.finding.state is FindingState.NOT_CHECKED:
        return checked.check
    return checked.finding.code


def _printable(text: str) -> str:
    shown = text[:MAX_TEXT_LENGTH]
    return "".join(character if character.isprintable() else "?" for character in shown)


def _plain(checked: CheckedFinding) -> dict[str, str]:
    finding = checked.finding
    return {
        "check": checked.check,
        "state": finding.state.value,
        "code": finding.code,
        "text": finding.text,
        "next": finding.next_step,
    }
