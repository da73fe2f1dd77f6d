# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Bounds of the options that are numbers."""

from __future__ import annotations

# Of every one. In seconds it is four months: what is beyond is a slip of the pen, and infinity and
# NaN would fail only when somebody counts with them.
MAX_NUMBER = 10_000_000
MAX_PORT = 65535


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Return if an option lies within its bounds. Raises ValueError; of NaN, too."""
    if not least <= value <= most:
        raise ValueError(f"{name} is not between {least:,} and {most:,}")
