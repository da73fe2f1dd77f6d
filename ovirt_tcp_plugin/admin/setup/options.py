# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Phase 1: the engine's options and the VM custom property, by `engine-config`.

They count from the engine's next start.
"""

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
# How long a VM waits for its next try once it was not restarted
# NumOfTriesToRunFailedAutoStartVmInShortIntervals times.
HA_RETRY = "RetryToRunAutoStartVmLongIntervalInSeconds"
PROPERTIES = "UserDefinedVMProperties"
# A regular expression in an engine's definition cannot have a semicolon.
DEFINITION = f"{MARK_PROPERTY}=^(true|false)$"


class SetOption(Change):
    """One option of the engine with one value for all cluster levels."""

    kind = "option"

    def __init__(self, config: EngineConfig, key: str, value: str = "") -> None:
        super().__init__(key, f"engine-config {key}")
        self._config = config
        self._value = value

    def look(self, entry: Optional[Entry]) -> Any:
        """Return its value."""
        return self._config.value(self.subject)

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return the value that it gets."""
        return self._value

    def make(self, desired: Any) -> Any:
        """Set it."""
        self._config.set(self.subject, desired)
        return desired

    def undo(self, entry: Entry, now: Any) -> str:
        """Set it to what it was."""
        self._config.set(self.subject, entry.before)
        return ""


class DefineProperty(Change):
    """The VM custom property of one cluster level: one definition among those of others.

    What is there is the text of all definitions, separated by semicolons.
    """

    kind = "property"

    def __init__(self, config: EngineConfig, level: str) -> None:
        super().__init__(level, f"engine-config {PROPERTIES} {level}")
        self._config = config

    def look(self, entry: Optional[Entry]) -> Any:
        """Return all definitions of the level."""
        return self._config.value(PROPERTIES, self.subject)

    def desired(self, now: Any, entry: Optional[Entry]) -> Any:
        """Return them with ours. Raises Conflict when they define our name in another way."""
        others = [definition for definition in _marks(now) if definition != DEFINITION]
        if others:
            level = f"{PROPERTIES} of level {self.subject}"
            what = f"{level} defines {others[0]}, and setup needs {DEFINITION}"
            step = "see which VMs use it, then change it by engine-config"
            raise errors.Conflict(f"{what}: {step}")
        definitions = _definitions(now)
        if DEFINITION in definitions:
            return now
        return ";".join([*definitions, DEFINITION])

    def is_in_place(self, now: Any, value: Any) -> bool:
        """Return whether ours is there, whatever others have added or taken since."""
        return _marks(now) == [DEFINITION]

    def is_undone(self, now: Any, entry: Entry) -> bool:
        """Return whether no definition of our name is there."""
        return not _marks(now)

    def make(self, desired: Any) -> Any:
        """Add ours."""
        self._config.merge(PROPERTIES, DEFINITION, self.subject)
        return self.look(None)

    def undo(self, entry: Entry, now: Any) -> str:
        """Take ours out. What others have changed since stays."""
        if now in entry.left:
            restored = entry.before
        else:
            others = [value for value in _definitions(now) if value != DEFINITION]
            restored = ";".join(others)
        self._config.set(PROPERTIES, restored, self.subject)
        return ""

    def show(self, value: Any) -> str:
        """Return the definitions."""
        return str(value) or "(none)"


def _definitions(value: Any) -> list[str]:
    return [definition for definition in str(value).split(";") if definition]


def _marks(value: Any) -> list[str]:
    """Return the definitions of our name: the engine accepts several, and takes the last."""
    definitions = _definitions(value)
    return [text for text in definitions if text.partition("=")[0] == MARK_PROPERTY]
