# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine's configuration, read once at each of its starts: changes by `engine-config` count
from the next one."""

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
    general = {key: versions["general"] for key, versions in rows.items() if "general" in versions}
    enabled = general["ExternalSchedulerEnabled"].lower() == "true"
    defined = (
        one.partition("=") for one in rows["UserDefinedVMProperties"][LEVEL].split(";") if one
    )
    return Options(
        general["ExternalSchedulerServiceURL"] if enabled else "",
        int(general["ExternalSchedulerResponseTimeout"]) / 1000,
        float(general["RetryToRunAutoStartVmLongIntervalInSeconds"]),
        {name: regex for name, _, regex in defined},
    )
