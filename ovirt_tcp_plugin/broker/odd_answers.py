# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Answers in place of those that a server left out, or gave in a way that counts as none. Pure."""

from __future__ import annotations

from ovirt_tcp_plugin.broker.answer import Answer
from ovirt_tcp_plugin.messages.result import Level


def omitted(sent_ms: int) -> Answer:
    """Return the answer for a host that the server left out."""
    reason = "the attestation server left this host out"
    return Answer(Level.UNKNOWN, sent_ms, code="omitted", reason=reason)


def named_twice(sent_ms: int) -> Answer:
    """Return the answer for a host that the server named twice: which one counts is not known."""
    reason = "the attestation server named this host twice in one answer"
    return Answer(Level.UNKNOWN, sent_ms, code="named_twice", reason=reason)
