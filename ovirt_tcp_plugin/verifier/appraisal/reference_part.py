# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What one set of reference values says of one PCR, and how far a boot is from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ovirt_tcp_plugin.messages import components
from ovirt_tcp_plugin.messages.components import Step
from ovirt_tcp_plugin.messages.result import Finding

# Expected values that a finding names; nobody would read more.
NAMED = 3


class ReferencePart:
    """What one set says of one PCR.

    Attributes:
        set_name: name of the set.
        slots: components of the PCR's steps, in order; none if only the whole value is known.
        vocabulary: whose words these are.
    """

    def __init__(self, set_name: str, vocabulary: int) -> None:
        self.set_name = set_name
        self.vocabulary = vocabulary
        self.slots: list[str] = []
        # Good digests by component, "" for the whole PCR; each with the hosts that it is good for,
        # "" for all.
        self._good: dict[str, dict[str, set[str]]] = {}
        # Texts of good digests, by component and digest.
        self._texts: dict[tuple[str, str], str] = {}

    def add(self, component: str, digest: str, host_name: str, text: str = "") -> None:
        """Add a good digest of a component, or of the whole PCR: ""."""
        if text:
            self._texts[component, digest] = text
        digests = self._good.setdefault(component, {})
        digests.setdefault(digest, set()).add(host_name)

    def allows(self, component: str, digest: str, host_name: str) -> bool:
        """Return whether a digest is a good one for this host."""
        hosts = self._good.get(component, {}).get(digest)
        return hosts is not None and ("" in hosts or host_name in hosts)

    def knows(self, digest: str, host_name: str) -> bool:
        """Return whether a digest is a good one of any component."""
        for component in self._good:
            if component and self.allows(component, digest, host_name):
                return True
        return False

    def texts(self, component: str, host_name: str) -> list[str]:
        """Return the texts of the good digests of a component."""
        return [
            text
            for (owner, digest), text in self._texts.items()
            if owner == component and self.allows(component, digest, host_name)
        ]

    def in_its_words(self, steps: Sequence[Step]) -> list[Step]:
        """Return the steps of a PCR with the words of the slots at their places.

        For steps that another release named: the boot is the same, whatever we call its parts. A
        start value is no event, and stays one.
        """
        renamed = list(steps)
        for position, (slot, step) in enumerate(zip(self.slots, steps)):
            if (slot == components.START) == (step.component == components.START):
                renamed[position] = step._replace(component=slot)
        return renamed

    def expected(self, component: str, host_name: str) -> str:
        """Return the good digests of a component as text."""
        digests = [
            digest
            for digest in self._good.get(component, {})
            if self.allows(component, digest, host_name)
        ]
        text = " or ".join(digests[:NAMED])
        if len(digests) > NAMED:
            text += f" or {len(digests) - NAMED} more"
        return text


@dataclasses.dataclass(frozen=True)
class Difference:
    """How a boot differs from a set in one PCR.

    Attributes:
        distance: how far it is from the set; the nearest set is the one to compare with.
        finding: the first thing that differs.
        position: its place among the PCR's steps.
    """

    distance: int
    finding: Finding
    position: int = 0
