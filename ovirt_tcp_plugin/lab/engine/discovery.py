# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which external policy units the engine knows: it asks once, when it starts.

A start reads the units as the database has them, disables the external ones there in the one
transaction of its beans, and asks in a thread (`SchedulingManager.loadExternalScheduler`). The
thread usually reads the rows before that transaction ends: they are still enabled. Where text and
properties are as in the answer, it writes nothing, and the end of the transaction leaves the row
disabled; whether the scheduler's memory, which is read again then, has the unit on or off is a
race. A row that differs is written after the transaction's end, so it is enabled in both. Nothing
asks again before the next start.

Source: `ExternalSchedulerDiscovery`.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.lab.engine.model import Model, PolicyUnit, new_id

_KINDS = (("filters", "filter"), ("scores", "weight"), ("balance", "load_balancing"))
# `key=regex;key2=regex2`; a unit with anything else is left out.
_PROPERTIES = re.compile(r"(\w+=[^;]+(;\w+=[^;]+)*)?;?", re.ASCII)


class Discovery:
    """One discovery for each start.

    Attributes:
        external: None when ExternalSchedulerEnabled is false.
    """

    def __init__(self, tables: Model, dice: random.Random) -> None:
        self._model = tables
        self._dice = dice
        self.external: Optional[ExternalScheduler] = None
        self._thread: Optional[threading.Thread] = None
        # The units that the start's transaction disables, until it ends.
        self._disabling: list[PolicyUnit] = []
        self._has_read = threading.Event()
        self._committed = threading.Event()

    def begin(self) -> None:
        """Begin a start: read the units as the database has them, and ask in the background.

        The start's transaction disables the external ones when it ends.
        """
        self.wait()
        with self._model.lock:
            self._reload()
            self._disabling = self._external_units()
        self._has_read.clear()
        self._committed.clear()
        if self.external is not None:
            self._thread = threading.Thread(
                target=self._discover, args=(self.external,), name="discovery"
            )
            self._thread.start()

    def end_start(self, within_s: float) -> None:
        """End the transaction of the start.

        Discovery has read the rows by then, unless its answer takes longer.

        Args:
            within_s: how long that may be at most, in real seconds.
        """
        if self.external is not None:
            if self._model.faults.units_reload:
                # A test has decided the race: it is not lost by a slow answer.
                within_s = max(within_s, self.external.within_s)
            self._has_read.wait(within_s)
        with self._model.lock:
            for unit in self._disabling:
                unit.saved = False
            self._disabling = []
            self._committed.set()

    def wait(self, within_s: Optional[float] = None) -> None:
        """Wait until the external scheduler has answered, or not in time."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _discover(self, external: ExternalScheduler) -> None:
        units = _units_of(self._ask(external))
        with self._model.lock:
            present = self._external_units()
            changed = [unit for unit in units if _differs(unit, present)]
            missing = [unit for unit in present if _same(unit, units) is None]
            # A new row waits for no lock, a present one for the start's.
            waits = bool(missing) or any(_same(unit, present) for unit in changed)
            if not waits:
                self._write(changed, missing)
                if not self._committed.is_set() and self._reloads_early():
                    self._reload()
                    self._has_read.set()
                    return
        self._has_read.set()
        self._committed.wait()
        with self._model.lock:
            if waits:
                self._write(changed, missing)
            self._reload()

    def _ask(self, external: ExternalScheduler) -> Mapping[str, Mapping[str, Any]]:
        """Return its units by kind and name; none, and an event, if it does not answer."""
        try:
            return external.discover()
        except NoAnswer:
            self._model.log(audit_log.SCHEDULER_UNREACHABLE, audit_log.NO_SCHEDULER, "error")
            return {}

    def _write(self, changed: list[PolicyUnit], missing: list[PolicyUnit]) -> None:
        for unit in changed:
            row = _same(unit, self._external_units()) or unit
            row.saved = True
            row.description = unit.description
            row.properties = unit.properties
            self._model.units[row.id] = row
        for unit in missing:
            unit.saved = False

    def _reload(self) -> None:
        for unit in self._external_units():
            unit.enabled = unit.saved

    def _reloads_early(self) -> bool:
        decided = self._model.faults.units_reload
        return decided == "before" if decided else self._dice.random() < 0.5

    def _external_units(self) -> list[PolicyUnit]:
        return [unit for unit in self._model.units.values() if not unit.internal]


def _same(unit: PolicyUnit, units: list[PolicyUnit]) -> Optional[PolicyUnit]:
    for other in units:
        if other.name == unit.name and other.type == unit.type:
            return other
    return None


def _differs(unit: PolicyUnit, rows: list[PolicyUnit]) -> bool:
    row = _same(unit, rows)
    if row is None or not row.saved:
        return True
    return row.description != unit.description or row.properties != unit.properties


def _units_of(description: Mapping[str, Mapping[str, Any]]) -> list[PolicyUnit]:
    """Return the units that an answer names, each with a fresh id."""
    units: list[PolicyUnit] = []
    for kind, unit_type in _KINDS:
        for name, (text, properties, *_) in description.get(kind, {}).items():
            if _PROPERTIES.fullmatch(properties):
                unit = PolicyUnit(new_id(), name, unit_type, internal=False, description=text)
                pairs = [pair for pair in properties.split(";") if pair]
                unit.properties = dict(pair.split("=", 1) for pair in pairs)
                units.append(unit)
    return units
