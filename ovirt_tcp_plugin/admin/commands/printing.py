# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How all commands print: aligned tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

LEVEL_COLOURS = {"trusted": "green", "untrusted": "red", "timeout": "yellow", "unknown": "yellow"}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def print_json(value: object) -> None:
    """Print for programs."""
    click.echo(json.dumps(value, indent=2))


def tell(answer: object, sentence: str, as_json: bool) -> None:
    """Print what a change came to: the server's answer for programs, a sentence for people."""
    if as_json:
        print_json(answer)
    else:
        click.echo(sentence)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; a level is coloured on a terminal only, and what others named drives no terminal."""
    table = [[_printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        click.echo("  ".join(coloured(cell) for cell in cells).rstrip())


def coloured(cell: str) -> str:
    """Return a cell, coloured if it is a level and this is a terminal."""
    colour = LEVEL_COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour and sys.stdout.isatty() else cell


def _printable(cell: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cell)


def age(age_ms: object) -> str:
    """Return milliseconds as whole seconds, and a dash for no number."""
    return f"{age_ms // 1000} s" if isinstance(age_ms, int) else "-"


def yes(value: object) -> str:
    """Return yes or no."""
    return "yes" if value else "no"


def headline(result: Mapping[str, Any]) -> str:
    """Return the first finding of a result, in words."""
    return str(result["findings"][0]["text"]) if result["findings"] else ""
