# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the appraisal needs of a kind of measurement log.

A new kind says which PCRs it tells of, how its bytes are read, and how its entries are compared
with reference values; `appraise` does not change for it. A log that grows while the host runs may
be ahead of its quote: its `ParsedLog` proves the entries up to the quoted value, from the state
that it remembers, and leaves out the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple, Optional, Protocol

from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.result import Finding
from ovirt_tcp_plugin.verifier.appraisal.reference_part import Difference, ReferencePart


class ReplayedLog(NamedTuple):
    """What a log tells of the PCRs that were quoted.

    Attributes:
        steps: what extended the PCRs to which the log replays, in order.
        unproven: for each of the other PCRs, what is wrong.
    """

    steps: tuple[Step, ...]
    unproven: Mapping[int, Finding]


class ParsedLog(Protocol):
    """The entries of one log: the host's own story until it replays to what the TPM signed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over because no judged PCR needs it: a sentence each."""

    def recorded(self, bank: str) -> Set[int]:
        """Return the PCRs that the log records something of in this bank."""

    def replay(self, bank: str, quoted: Mapping[int, bytes]) -> ReplayedLog:
        """Return which of these PCR values the log replays to, and by which steps."""


class MeasurementLog(Protocol):
    """A kind of log."""

    @property
    def kind(self) -> str:
        """What the kind is called in evidence."""

    def tells_of(self, pcr: int) -> bool:
        """Return whether a PCR is proven by logs of this kind."""

    def parse(self, untrusted: Optional[bytes], pcrs: Collection[int]) -> ParsedLog:
        """Return the entries that matter for these PCRs; none if the host sent no such log.

        Raises:
            InvalidMessage: malformed, or beyond its bounds.
        """

    def compare(
        self, part: ReferencePart, steps: Sequence[Step], pcr: int, host_name: str
    ) -> Optional[Difference]:
        """Return how the proven steps of a PCR differ from a set, None if they match."""
