# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How long to wait before something that failed is tried again. Pure."""

from __future__ import annotations

# Beyond this every longest pause is reached; a larger power would only be a large number.
MAX_DOUBLINGS = 30


def pause_ms(first_ms: int, longest_ms: int, repetitions: int) -> int:
    """Return the pause after a failure: it doubles with each repetition, up to the longest one.

    Args:
        repetitions: failures in a row before this one.
    """
    factor = 1 << min(repetitions, MAX_DOUBLINGS)
    return min(first_ms * factor, longest_ms)
