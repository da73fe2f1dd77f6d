# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Keeps the pauses of Python's garbage collector short, whatever is known of how many VMs.

A full collection looks at every object, and no thread runs meanwhile: 100 ms for 100,000 VMs and
10,000 hosts, at any moment, perhaps with the lock of the state held. What a listing brings stays
until the next one, and none of it refers back to itself: it goes without the collector.
"""

from __future__ import annotations

import gc

# Once in so many listings everything is looked at all the same, outside of any lock: what was in
# use when it was put aside may be garbage by now.
LISTINGS_PER_COLLECTION = 60


class LastingObjects:
    """For one thread's use."""

    def __init__(self) -> None:
        self._listings = 0

    def settle(self) -> None:
        """Put aside all objects that are in use now. The caller holds no lock."""
        self._listings += 1
        if self._listings % LISTINGS_PER_COLLECTION == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
