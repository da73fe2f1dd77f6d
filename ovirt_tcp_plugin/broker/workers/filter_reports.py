# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Has it reported when the engine does not ask the filter, whichever thread sees its units."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.filter_watch import FilterWatch
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.engine.engine_start import started_at
from ovirt_tcp_plugin.placement.inventory import Unit


class FilterReports:
    """Thread-safe.

    Args:
        start_file: what the engine's service writes at each start.
    """

    def __init__(self, state: BrokerState, clock: Clock, start_file: Path) -> None:
        self._state = state
        self._start_file = start_file
        self._lock = threading.Lock()
        self._watch = FilterWatch(clock)

    def engine_started(self, surely: bool) -> None:
        """Have the units looked at at once (`FilterWatch.engine_started`)."""
        with self._lock:
            self._watch.engine_started(surely)

    def is_due(self) -> bool:
        """Return whether to list the units now, without waiting for a listing of everything."""
        with self._lock:
            return self._watch.is_due()

    def observe(self, units: Sequence[Unit]) -> None:
        """Take the engine's units into account."""
        started = started_at(self._start_file)
        has_pools = bool(self._state.pools())
        with self._lock:
            notice = self._watch.observe(units, started, has_pools)
        if notice is not None:
            self._state.tell(notice)
