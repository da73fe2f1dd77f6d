# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Probes many things at once, each in a thread of its own, in bounded time."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ovirt_tcp_plugin import errors

# What two parties show is read one after the other, and may change in between; and what somebody
# just changed the broker repairs after its next poll. So a difference is looked at again.
LOOKS = 3
PAUSE_S = 3.0

T = TypeVar("T")


class Collector:
    """Values by name, as the probes for them end.

    Args:
        within_s: longest time for all of them together, in seconds.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._deadline = time.monotonic() + within_s
        self._futures: dict[str, concurrent.futures.Future[Any]] = {}

    def start(self, name: str, probe: Callable[..., object], *needs: str) -> None:
        """Start to probe for a value.

        `probe` is called with the values of `needs`, once they are there; their probes were started
        before.
        """
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._futures[name] = future

        def run() -> None:
            try:
                arguments = [self.value(need) for need in needs]
                future.set_result(probe(*arguments))
            except BaseException as e:  # noqa: BLE001 - the edge of this thread: `value` raises it
                future.set_exception(e)

        # As a daemon: nobody waits for a thread that hangs.
        threading.Thread(target=run, name=name, daemon=True).start()

    def value(self, name: str) -> Any:
        """Return a value, when it is there.

        Raises:
            Unavailable: it did not come in time.
            Exception: whatever its probe raised.
        """
        future = self._futures[name]
        left_s = max(self._deadline - time.monotonic(), 0)
        concurrent.futures.wait([future], left_s)
        if not future.done():
            raise errors.Unavailable("this", f"no answer within {self._within_s:.0f} s")
        return future.result()


def settle(look: Callable[[], Sequence[T]]) -> Sequence[T]:
    """Return the differences that `look` finds again and again; none if they pass."""
    differences = look()
    for _ in range(LOOKS - 1):
        if not differences:
            break
        time.sleep(PAUSE_S)
        differences = look()
    return differences
