# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Looks at many things at once: each in a thread of its own, none for longer than the whole may take."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ovirt_tcp_plugin import errors

# What two parties show is read one after the other, and may change in between; and what somebody just changed the broker
# repairs after its next poll: a difference is looked at again.
LOOKS = 3
PAUSE_S = 3.0

T = TypeVar("T")


class Collector:
    """Values by name, as they come in.

    Args:
        within_s: longest time for all of them together.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._deadline = time.monotonic() + within_s
        self._coming: dict[str, concurrent.futures.Future[Any]] = {}

    def start(self, name: str, look: Callable[..., object], *needs: str) -> None:
        """Begin to look for a value. `look` is called with the values of `needs`, once they are there."""
        coming: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._coming[name] = coming

        def run() -> None:
            try:
                coming.set_result(look(*map(self.value, needs)))
            except BaseException as e:  # noqa: BLE001 - the edge of this thread: whoever asks for the value gets it
                coming.set_exception(e)

        # As a daemon: nobody waits for a thread that hangs.
        threading.Thread(target=run, name=name, daemon=True).start()

    def value(self, name: str) -> Any:
        """Return a value, when it is there.

        Raises:
            Unavailable: it did not come in time.
            Exception: whatever the look for it raised.
        """
        coming = self._coming[name]
        concurrent.futures.wait([coming], max(self._deadline - time.monotonic(), 0))
        if not coming.done():
            raise errors.Unavailable("this", f"no answer within {self._within_s:.0f} s")
        return coming.result()


def settle(look: Callable[[], Sequence[T]]) -> Sequence[T]:
    """Return the differences that `look` finds again and again; none if they pass."""
    for again in range(LOOKS):
        found = look()
        if not found or again == LOOKS - 1:
            break
        time.sleep(PAUSE_S)
    return found
