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
# For LARGE bytes, in processor time: twice what the slowest parser takes on a quiet machine. The
# best of some tries counts, since a neighbour slows even that down.
WITHIN_S = 0.1
TRIES = 10
WITHIN_BYTES = 64 * 1024 * 1024


def survives(
    parse: Callable[..., object],
    untrusted: object,
    declared: type[errors.Error] = errors.InvalidMessage,
) -> None:
    """Return if the input gives a value or the declared error.

    Anything else that it raises comes through.
    """
    try:
        parse(untrusted)
    except declared as e:
        assert len(str(e)) < 500, "a peer's bytes must not fill our log"


def in_bounds(
    parse: Callable[..., object],
    untrusted: object,
    declared: type[errors.Error] = errors.InvalidMessage,
) -> None:
    """Return if the input is survived within WITHIN_S and WITHIN_BYTES."""
    in_time = any(_seconds(parse, untrusted, declared) < WITHIN_S for _ in range(TRIES))
    assert in_time, f"longer than {WITHIN_S} s"
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
