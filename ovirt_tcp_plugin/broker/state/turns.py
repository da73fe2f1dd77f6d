# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Long work on the broker's state, which lets other threads have the lock in between.

What is done for each pool or host by itself needs no more than to be right for that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Optional, TypeVar

from ovirt_tcp_plugin.broker.state.lock import Lock

# The lock is held for about so long, and then left alone: who takes it again at once keeps the
# others out, since they need the interpreter's own lock, too.
TURN_S = 0.01
PAUSE_S = 0.001

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_turns(
    lock: Lock, items: Iterable[Item], action: Callable[[Item], Optional[Result]]
) -> list[Result]:
    """Return what an action returns for the items, but for None.

    The caller must not hold the lock.

    Args:
        action: called with the lock held. An item may be gone by then.
    """
    results: list[Result] = []
    waiting = iter(items)
    while not _take_turn(lock, waiting, action, results):
        time.sleep(PAUSE_S)
    return results


def _take_turn(
    lock: Lock,
    waiting: Iterable[Item],
    action: Callable[[Item], Optional[Result]],
    results: list[Result],
) -> bool:
    """Work for a while; return whether nothing is left."""
    with lock:
        until_s = time.monotonic() + TURN_S
        for item in waiting:
            result = action(item)
            if result is not None:
                results.append(result)
            if time.monotonic() >= until_s:
                return False
    return True
