# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How the simulated engine refuses."""

from __future__ import annotations


class Fault(Exception):
    """What REST answers when it refuses: HTTP status, reason and detail."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason} {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


class Bare(Exception):
    """A refusal that is a text and no document: HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def invalid(detail: str) -> Fault:
    """Return the refusal of parameters that are no good: 400."""
    return Fault(400, "Operation Failed", f"[{detail}]")


def refusal(detail: str) -> Fault:
    """Return the refusal of a command's validation, or of an edit: 409."""
    return Fault(409, "Operation Failed", f"[{detail}]")


def mandatory(parameter: str) -> Fault:
    """Return the refusal of a document that lacks something, such as `event.custom_id`: 400."""
    return Fault(
        400,
        "Input validation failed.",
        f"Parameter '{parameter}' is mandatory but was not provided.",
    )
