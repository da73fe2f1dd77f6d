# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The startup attestation: all hosts of all pools, first a small stage, then larger ones. Pure."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the startup attestation is.

    Attributes:
        stage: number of the last stage that was asked, 0 before the first.
        asked, total: hosts.
        done: there are no more stages.
    """

    stage: int = 0
    asked: int = 0
    total: int = 0
    done: bool = False


class Startup:
    """The stages, and which hosts have not answered yet. Not thread-safe.

    A host is *staged* until its stage is asked, and *awaited* until it answers or cannot.
    """

    def __init__(self) -> None:
        self._stages: collections.deque[str] = collections.deque()
        self._staged: set[str] = set()
        self._awaited: set[str] = set()
        self._progress = Progress()

    def begin(self, host_ids: Iterable[str], is_trusted: Callable[[str], bool]) -> int:
        """Mean to ask these hosts, in this order; return their number.

        Args:
            is_trusted: whether a host is trusted already, by its id; no wall waits for it then.
        """
        self._stages = collections.deque(host_ids)
        self._staged = set(self._stages)
        self._awaited = {host_id for host_id in self._staged if not is_trusted(host_id)}
        self._progress = Progress(total=len(self._staged))
        return len(self._staged)

    def next_stage(self, size: int, is_asked: Callable[[str], bool]) -> list[str]:
        """Return up to `size` hosts to ask now; none when there are no more.

        Args:
            is_asked: whether the attestation server is asked about a host at all, by its id.
        """
        stage: list[str] = []
        while self._stages and len(stage) < size:
            host_id = self._stages.popleft()
            self._staged.discard(host_id)
            if is_asked(host_id):
                stage.append(host_id)
            else:
                self._awaited.discard(host_id)
        before = self._progress
        if stage:
            asked = before.asked + len(stage)
            self._progress = dataclasses.replace(before, stage=before.stage + 1, asked=asked)
        else:
            self._progress = dataclasses.replace(before, done=True)
        return stage

    def answered(self, host_id: str) -> bool:
        """A host answered, or cannot; return whether it was awaited."""
        was_awaited = host_id in self._awaited
        self._awaited.discard(host_id)
        return was_awaited

    def keep(self, host_ids: Iterable[str]) -> None:
        """Await no other hosts than these: the others are gone."""
        self._awaited.intersection_update(host_ids)

    def is_staged(self, host_id: str) -> bool:
        """Return whether a host's stage is still to come."""
        return host_id in self._staged

    def is_awaited(self, host_id: str) -> bool:
        """Return whether a host has not answered yet."""
        return host_id in self._awaited

    def progress(self) -> Progress:
        """Return how far it is."""
        return self._progress
