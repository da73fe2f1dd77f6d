# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Custom properties of policies, clusters and VMs: names and values that are defined.

Source: `CustomPropertiesUtils`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ovirt_tcp_plugin.lab.engine.errors import invalid


def validate(what: str, known: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Raise Fault (400) for properties that are not defined, or whose values do not match.

    Args:
        what: what cannot be done then, such as "edit VM".
        known: regular expression of the whole value by name.
    """
    unknown: list[str] = []
    illegal: list[str] = []
    for name, value in values.items():
        if name not in known:
            unknown.append(name)
        elif not re.fullmatch(known[name], value):
            illegal.append(name)
    texts: list[str] = []
    start = f"Cannot {what} if some of the specified custom properties"
    if unknown:
        texts.append(f"{start} are not configured by the system. The keys are: {','.join(unknown)}")
    if illegal:
        texts.append(f"{start} have illegal values. The keys are: {','.join(illegal)}")
    if texts:
        raise invalid(", ".join(texts))
