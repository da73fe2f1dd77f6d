# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a column holds is checked whenever it is read.

SQLite keeps what it is given whatever the column's type, and a bad disk or an edit by hand leaves
anything there. A value of another type would go unnoticed until something compared it or counted
with it: in the middle of a chore that all hosts share.
"""

from __future__ import annotations

# Of every number that we store; SQLite makes a fraction of what grows beyond.
MAX_NUMBER = 2**62


class BadValue(ValueError):
    """A column holds what was never written there."""


def number(stored: object) -> int:
    """Return what a column of numbers holds, from 0 to MAX_NUMBER. Raises BadValue."""
    if type(stored) is not int or not 0 <= stored <= MAX_NUMBER:
        raise BadValue("no number that was stored")
    return stored


def text(stored: object) -> str:
    """Return what a column of texts holds. Raises BadValue."""
    if not isinstance(stored, str):
        raise BadValue("no text")
    return stored


def octets(stored: object) -> bytes:
    """Return what a column of bytes holds. Raises BadValue."""
    if not isinstance(stored, bytes):
        raise BadValue("no bytes")
    return stored
