# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's options, by name: `GetSystemOptionQuery`. There is no list of them."""

from __future__ import annotations

from collections.abc import Mapping

from ovirt_tcp_plugin.lab.engine.documents import root
from ovirt_tcp_plugin.lab.engine.errors import Fault
from ovirt_tcp_plugin.lab.engine.options import LEVEL
from ovirt_tcp_plugin.lab.engine.rest.routes import Query, Routes
from ovirt_tcp_plugin.lab.engine.xml_text import Element

# Cluster levels of an engine 4.5.
LEVELS = ("4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8")


class OptionPaths:
    """`options`. Of those that matter here the engine shows UserDefinedVMProperties only.

    ExternalSchedulerEnabled is internal, which is a 404.

    Args:
        vm_properties: that option as of the engine's start, at the level of all clusters.
    """

    def __init__(self, vm_properties: Mapping[str, str]) -> None:
        self._properties = vm_properties
        self.routes: Routes = {"GET options/{}": self._get}

    def _get(self, query: Query, _: Element, name: str) -> Element:
        levels = [level for level in LEVELS if query.get("version", level) == level]
        if name != "UserDefinedVMProperties" or not levels:
            raise Fault(404, "Operation Failed", f"[Entity not found: {name}]")
        values = dict.fromkeys(levels, "")
        if LEVEL in values:
            pairs = [f"{key}={pattern}" for key, pattern in self._properties.items()]
            values[LEVEL] = ";".join(pairs)
        return root.option(name, values)
