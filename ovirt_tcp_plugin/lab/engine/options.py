# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's configuration, read at each of its starts.

Changes by `engine-config` count from the next start.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

# Level of all simulated clusters.
LEVEL = "4.8"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the simulator obeys.

    Attributes:
        external_scheduler: ExternalSchedulerServiceURL, empty if ExternalSchedulerEnabled is false.
        external_response: ExternalSchedulerResponseTimeout, in seconds.
        ha_long_retry: RetryToRunAutoStartVmLongIntervalInSeconds.
        vm_properties: UserDefinedVMProperties of the clusters' level: name -> regular expression of
            the whole value.
    """

    external_scheduler: str
    external_response: float
    ha_long_retry: float
    vm_properties: Mapping[str, str]


def read(path: Path) -> Options:
    """Return the options in the file that the lab's `engine-config` works on."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    url = ""
    if rows["ExternalSchedulerEnabled"]["general"].lower() == "true":
        url = rows["ExternalSchedulerServiceURL"]["general"]
    response_ms = int(rows["ExternalSchedulerResponseTimeout"]["general"])
    ha_long_retry = float(rows["RetryToRunAutoStartVmLongIntervalInSeconds"]["general"])
    vm_properties = _definitions(rows["UserDefinedVMProperties"][LEVEL])
    return Options(url, response_ms / 1000, ha_long_retry, vm_properties)


def _definitions(text: str) -> dict[str, str]:
    """Return what `name=regex;name2=regex2` defines."""
    definitions: dict[str, str] = {}
    for definition in text.split(";"):
        name, _, regex = definition.partition("=")
        if name or regex:
            definitions[name] = regex
    return definitions
