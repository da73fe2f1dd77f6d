# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 1: the engine's options and the VM custom property, by `engine-config`. They count from the engine's next start."""

from __future__ import annotations

from typing import Any, Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.changes import Change
from ovirt_tcp_plugin.admin.setup.journal import Entry
from ovirt_tcp_plugin.engine.engine_config import EngineConfig
from ovirt_tcp_plugin.placement.inventory import MARK_PROPERTY

SCHEDULER_ENABLED = "ExternalSchedulerEnabled"
SCHEDULER_TIMEOUT = "ExternalSchedulerResponseTimeout"
SCHEDULER_URL = "ExternalSchedulerServiceURL"
# How long a VM waits for its next try once it was not restarted NumOfTriesToRunFailedAutoStartVmInShortIntervals times.
HA_RETRY = "RetryToRunAutoStartVmLongIntervalInSeconds"
PROPERTIES = "UserDefinedVMProperties"
# A regular expression in an engine's definition cannot have a semicolon.
DEFINITION = f"{MARK_PROPERTY}=^(true|false)$"


class SetOption(Change):
    """One option of the engine with one value for all cluster levels."""

    kind = "option"

    def __init__(self, config: EngineConfig, key: str, value: str = "") -> None:
        super().__init__(key, f"engine-config {key}")
        self._config, self._value = config, value

    def look(self, entry: Optional[Entry]) -> Any:
        """Return its value."""
        return self._config.value(self.subject)

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the value that it gets."""
        return self._value

    def do(self, wanted: Any) -> Any:
        """Set it."""
        self._config.set(self.subject, wanted)
        return wanted

    def undo(self, entry: Entry, now: Any) -> str:
        """Set it to what it was."""
        self._config.set(self.subject, entry.before)
        return ""


class DefineProperty(Change):
    """The VM custom property of one cluster level: one definition among those of others."""

    kind = "property"

    def __init__(self, config: EngineConfig, level: str) -> None:
        super().__init__(level, f"engine-config {PROPERTIES} {level}")
        self._config = config

    def look(self, entry: Optional[Entry]) -> Any:
        """Return all definitions of the level."""
        return self._config.value(PROPERTIES, self.subject)

    def wanted(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return them with ours. Raises Conflict when they have another one of that name."""
        others = [one for one in _marks(now) if one != DEFINITION]
        if others:
            what = f"{PROPERTIES} of level {self.subject} defines {others[0]}, and setup needs {DEFINITION}"
            raise errors.Conflict(f"{what}: look which VMs use it, then change it by engine-config")
        return now if DEFINITION in _definitions(now) else ";".join([*_definitions(now), DEFINITION])

    def stands(self, now: Any, left: Any) -> bool:
        """Return whether ours is there, whatever others have added or taken since."""
        return _marks(now) == [DEFINITION]

    def gone(self, now: Any, entry: Entry) -> bool:
        """Return whether no definition of our name is there."""
        return not _marks(now)

    def do(self, wanted: Any) -> Any:
        """Add ours."""
        self._config.merge(PROPERTIES, DEFINITION, self.subject)
        return self.look(None)

    def undo(self, entry: Entry, now: Any) -> str:
        """Take ours out. What others have changed since stays."""
        left = ";".join(one for one in _definitions(now) if one != DEFINITION)
        self._config.set(PROPERTIES, entry.before if now in entry.left else left, self.subject)
        return ""

    def show(self, value: Any) -> str:
        """Return the definitions."""
        return str(value) or "(none)"


def _definitions(value: Any) -> list[str]:
    return [one for one in str(value).split(";") if one]


def _marks(value: Any) -> list[str]:
    """Return the definitions of our name: the engine does not mind several, and takes the last."""
    return [one for one in _definitions(value) if one.partition("=")[0] == MARK_PROPERTY]
