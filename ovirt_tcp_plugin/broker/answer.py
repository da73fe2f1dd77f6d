# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What an attestation server says of a host, whatever kind of server it is. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

from ovirt_tcp_plugin.messages.result import Level


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server says of one host.

    Attributes:
        level: trust level.
        sent_ms: CLOCK_BOOTTIME of this machine when the question was sent.
        age_ms: age of the verdict by the server's own clock; None if the server does not say.
        lifetime_ms: how long the server lets it live; None if it does not say.
        fresh: the evidence was asked for after sent_ms, as far as the server's own figures show.
        code, reason: why the host is not trusted.
        boot_id: the host's boot in which the evidence was made, empty if unknown.
    """

    level: Level
    sent_ms: int
    age_ms: Optional[int] = None
    lifetime_ms: Optional[int] = None
    fresh: bool = False
    code: str = ""
    reason: str = ""
    boot_id: str = ""


class Source(Protocol):
    """An attestation server, or several that say the same."""

    def ask(self, names: Sequence[str]) -> Mapping[str, Answer]:
        """Return an answer for every name. Raises Unavailable when no server answered."""
        ...
