# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a check finds. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import NamedTuple

# So many names stand in a sentence, and so much of each.
MAX_NAMES = 10
MAX_NAME_LENGTH = 100


class FindingState(enum.Enum):
    """How a check ended. Only a check that was made can be ok."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "FAIL"
    NOT_CHECKED = "not checked"


@dataclasses.dataclass(frozen=True)
class DoctorFinding:
    """One thing that a check found.

    Attributes:
        code: stable.
        text: one plain sentence.
        next_step: what to do about it; empty for nothing.
    """

    state: FindingState
    code: str
    text: str
    next_step: str = ""


class CheckedFinding(NamedTuple):
    """A finding with the name of its check."""

    check: str
    finding: DoctorFinding


def fail(code: str, text: str, next_step: str) -> DoctorFinding:
    """Return a finding of something that does not work."""
    return DoctorFinding(FindingState.FAIL, code, text, next_step)


def warning(code: str, text: str, next_step: str) -> DoctorFinding:
    """Return a finding that an administrator has to know of, while everything works."""
    return DoctorFinding(FindingState.WARNING, code, text, next_step)


def not_checked(why: str) -> DoctorFinding:
    """Return a finding that a check could not be made; `why` is a sentence."""
    return DoctorFinding(FindingState.NOT_CHECKED, "not_checked", why)


def named(names: Iterable[str]) -> str:
    """Return names as a list for people."""
    ordered = sorted(name[:MAX_NAME_LENGTH] for name in names)
    listed = ", ".join(ordered[:MAX_NAMES])
    more = len(ordered) - MAX_NAMES
    return f"{listed} and {more} more" if more > 0 else listed
