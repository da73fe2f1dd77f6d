# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which external policy units the engine knows: asked once, when it starts (`ExternalSchedulerDiscovery`).

Until the answer is there, the units are in force as the previous run left them; the database calls them disabled already.
Nothing asks again before the next start.
"""

from __future__ import annotations

import re
import threading
from typing import Optional

from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.lab.engine.model import Model, Unit, new_id

_KINDS = (("filters", "filter"), ("scores", "weight"), ("balance", "load_balancing"))
# `key=regex;key2=regex2`; a unit with anything else is left out.
_PROPERTIES = re.compile(r"(\w+=[^;]+(;\w+=[^;]+)*)?;?", re.ASCII)


class Discovery:
    """One discovery for each start. `external` is None when ExternalSchedulerEnabled is false."""

    def __init__(self, tables: Model) -> None:
        self._model = tables
        self.external: Optional[ExternalScheduler] = None
        self._thread: Optional[threading.Thread] = None

    def begin(self) -> None:
        """Load the units as the database has them, mark the external ones disabled there, and ask in the background."""
        self.wait()
        with self._model.lock:
            for unit in self._external_units():
                unit.enabled, unit.saved = unit.saved, False
        if self.external is not None:
            self._thread = threading.Thread(target=self._discover, args=(self.external,), name="discovery")
            self._thread.start()

    def wait(self, within_s: Optional[float] = None) -> None:
        """Wait until the external scheduler has answered, or not in time."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _discover(self, external: ExternalScheduler) -> None:
        try:
            found = external.discover()
        except NoAnswer as e:
            text = f"Failed to connect to external scheduler proxy: {e}"
            self._model.log(audit_log.SCHEDULER_UNREACHABLE, text, "error")
            found = {}
        with self._model.lock:
            for kind, unit_type in _KINDS:
                for name, (description, properties, *_) in found.get(kind, {}).items():
                    if _PROPERTIES.fullmatch(properties):
                        self._save(unit_type, name, description, properties)
            for unit in self._external_units():
                unit.enabled = unit.saved

    def _save(self, kind: str, name: str, description: str, properties: str) -> None:
        known = (unit for unit in self._external_units() if (unit.name, unit.type) == (name, kind))
        unit = next(known, None) or Unit(new_id(), name, kind, internal=False)
        unit.saved, unit.description = True, description
        unit.properties = dict(one.split("=", 1) for one in properties.split(";") if one)
        self._model.units[unit.id] = unit

    def _external_units(self) -> list[Unit]:
        return [unit for unit in self._model.units.values() if not unit.internal]
