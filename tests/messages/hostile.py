# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Feeds a parser what no honest peer sends.

The property of every parser stands here and nowhere else: any bytes give a value or the one
declared error, within WITHIN_S and WITHIN_BYTES of memory.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

from hypothesis import strategies as st

from ovirt_tcp_plugin import errors

LARGE = 1024 * 1024
# For LARGE bytes, in processor time. The best of some tries counts: a neighbour slows even that
# down.
WITHIN_S = 0.1
TRIES = 10
# An empty loop of this length takes so long on a quiet machine.
LOOP = 200_000
LOOP_S = 0.005
WITHIN_BYTES = 64 * 1024 * 1024


def survives(
    parse: Callable[..., object],
    untrusted: object,
    declared: type[errors.Error] = errors.InvalidMessage,
) -> None:
    """Return if the input gives a value or the declared error; anything else that it raises comes
    through."""
    try:
        parse(untrusted)
    except declared as e:
        assert len(str(e)) < 500, "a peer's bytes must not fill our log"


def in_bounds(
    parse: Callable[..., object],
    untrusted: object,
    declared: type[errors.Error] = errors.InvalidMessage,
) -> None:
    """Return if the input is survived within WITHIN_S and WITHIN_BYTES.

    The time is that of a quiet machine: where a loop of known length takes longer, so may a parser.
    """
    assert any(
        _seconds(parse, untrusted, declared) < WITHIN_S * _slowness() for _ in range(TRIES)
    ), f"longer than {WITHIN_S} s"
    peak = _peak(parse, untrusted, declared)
    assert peak < WITHIN_BYTES, f"{peak / 2**20:.0f} MiB"


def mutations(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with some cut, changed, put in or repeated."""
    position = st.integers(0, len(good))
    return st.builds(
        lambda start, size, middle: good[:start] + middle + good[start + size :],
        position,
        st.integers(0, 16),
        st.binary(max_size=16),
    )


def _slowness() -> float:
    """Return how much slower than a quiet machine this one is now; never less than 1, or more than
    3."""
    started = time.thread_time()
    for _ in range(LOOP):
        pass
    return min(max((time.thread_time() - started) / LOOP_S, 1.0), 3.0)


def _seconds(
    parse: Callable[..., object], untrusted: object, declared: type[errors.Error]
) -> float:
    # What measures coverage would be measured, too.
    tracing = sys.gettrace()
    sys.settrace(None)
    try:
        started = time.thread_time()
        survives(parse, untrusted, declared)
        return time.thread_time() - started
    finally:
        sys.settrace(tracing)


def _peak(parse: Callable[..., object], untrusted: object, declared: type[errors.Error]) -> int:
    tracemalloc.start()
    try:
        survives(parse, untrusted, declared)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
