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
    """Print the result of a change: the server's answer for programs, a sentence for people."""
    if as_json:
        print_json(answer)
    else:
        click.echo(sentence)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns.

    A level is coloured, on a terminal only. What peers named does not reach a terminal as control
    characters.
    """
    table = [_cells(row) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        aligned = [coloured(cell.ljust(width)) for cell, width in zip(row, widths)]
        click.echo("  ".join(aligned).rstrip())


def coloured(cell: str) -> str:
    """Return a cell, coloured if it is a level and this is a terminal."""
    colour = LEVEL_COLOURS.get(cell.strip())
    if colour is None or not sys.stdout.isatty():
        return cell
    return click.style(cell, fg=colour)


def age(age_ms: object) -> str:
    """Return milliseconds as whole seconds, and a dash for no number."""
    return f"{age_ms // 1000} s" if isinstance(age_ms, int) else "-"


def yes(value: object) -> str:
    """Return yes or no."""
    return "yes" if value else "no"


def headline(result: Mapping[str, Any]) -> str:
    """Return the first finding of a result, in words."""
    return str(result["findings"][0]["text"]) if result["findings"] else ""


def _cells(row: Sequence[str]) -> list[str]:
    return [printable(str(cell)) for cell in row]


def printable(cell: str) -> str:
    """Return a text of a peer without what a terminal would obey."""
    return "".join(map(_escaped, cell))


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
