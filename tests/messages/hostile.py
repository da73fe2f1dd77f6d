# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Feeds a parser what no honest peer sends."""

from __future__ import annotations

import time
from collections.abc import Callable

from hypothesis import strategies as st

from ovirt_tcp_plugin import errors

LARGE = 1024 * 1024
# On an idle machine the slowest takes 20 ms; the best of three passes over what else the machine does.
WITHIN_S = 0.1


def survives(parse: Callable[..., object], untrusted: object) -> None:
    """Return if the input gives a value or InvalidMessage; anything else that it raises comes through."""
    try:
        parse(untrusted)
    except errors.InvalidMessage as e:
        assert str(e).startswith("malformed ")
        assert len(str(e)) < 500, "a peer's bytes must not fill our log"


def in_time(parse: Callable[..., object], untrusted: object) -> None:
    """Return if the input is dealt with in WITHIN_S."""
    best = min(_timed(parse, untrusted) for _ in range(3))
    assert best < WITHIN_S, f"{best:.3f} s"


def mutations(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with some cut, changed, put in or repeated."""
    position = st.integers(0, len(good))
    return st.builds(
        lambda start, size, middle: good[:start] + middle + good[start + size :],
        position,
        st.integers(0, 16),
        st.binary(max_size=16),
    )


def _timed(parse: Callable[..., object], untrusted: object) -> float:
    started = time.perf_counter()
    survives(parse, untrusted)
    return time.perf_counter() - started
