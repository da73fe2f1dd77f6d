# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Watches whether the engine asks the filter, after each of its starts and listings. Pure.

The engine asks filterd only for units that its memory has as enabled. It disables external units at
each start, enables them by a discovery that it makes once, and says nothing when that fails
(`SchedulingManager.loadExternalScheduler`). Its list of policy units shows that memory
(`GetAllPolicyUnitsQuery`), and our unit's description shows which discovery it is of
(`placement.filter_unit`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Optional

from ovirt_tcp_plugin.broker.state.clock import Clock
from ovirt_tcp_plugin.placement.filter_unit import FAULTS, NAME, FilterState, filter_state
from ovirt_tcp_plugin.placement.inventory import Notice, Unit

LOOK_AGAIN_MS = 1_000
# Discovery is over before the engine answers anybody, if filterd answers it.
GRACE_MS = 5_000
REPORT_AGAIN_MS = 86_400_000

_CURE = (
    "start ovirt-tcp-filterd if it does not run, then restart the engine "
    "(systemctl restart ovirt-engine), which looks for it only at its start"
)
_HARM = "The wall still holds, but the first start of a VM is not checked"


class FilterWatch:
    """Looks at the unit when it is due, and reports what is wrong once a day. Not thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # None while all is well: listings of everything show the units, too.
        self._next_look_ms: Optional[int] = 0
        self._grace_until_ms = 0
        self._description = ""
        self._stale: Optional[str] = None
        # What was reported last, and when.
        self._reported = FilterState.ASKED
        self._reported_ms = 0

    def engine_started(self, surely: bool) -> None:
        """Look at once: discovery has to have been made again.

        Args:
            surely: False for an engine that was only out of reach. Then a description of before
                proves nothing.
        """
        now_ms = self._clock.now_ms()
        self._next_look_ms = now_ms
        self._grace_until_ms = now_ms + GRACE_MS
        if surely:
            self._stale = self._description or None
            self._reported_ms = now_ms - REPORT_AGAIN_MS

    def is_due(self) -> bool:
        """Return whether to list the units now, without waiting for a listing of everything."""
        return self._next_look_ms is not None and self._clock.now_ms() >= self._next_look_ms

    def observe(
        self,
        units: Iterable[Unit],
        started: Optional[datetime.datetime],
        has_pools: bool = True,
    ) -> Optional[Notice]:
        """Take the engine's units into account; return what an administrator has to know.

        Args:
            started: when the engine started last (aware), None where its service does not tell.
            has_pools: without a pool nobody has to know, and listings are enough.
        """
        ours = [unit for unit in units if unit.name == NAME]
        self._description = ours[0].description if ours else ""
        state = filter_state(ours, started, self._stale)
        now_ms = self._clock.now_ms()
        is_looked_for = has_pools and state is not FilterState.ASKED
        self._next_look_ms = now_ms + LOOK_AGAIN_MS if is_looked_for else None
        if not has_pools:
            return None
        if state is FilterState.ASKED:
            recovered = self._reported is not FilterState.ASKED
            self._reported = state
            return _recovery() if recovered else None
        if now_ms < self._grace_until_ms:
            return None
        if state is self._reported and now_ms - self._reported_ms < REPORT_AGAIN_MS:
            return None
        self._reported = state
        self._reported_ms = now_ms
        return Notice(state.value, "error", f"{FAULTS[state]}. {_HARM}: {_CURE}.")


def _recovery() -> Notice:
    text = f"The engine asks the filter unit {NAME} again: first starts of VMs are checked."
    return Notice(FilterState.ASKED.value, "normal", text)
