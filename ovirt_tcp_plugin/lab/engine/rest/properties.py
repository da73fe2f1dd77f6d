# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Custom properties of policies, clusters and VMs: names and values that are defined
(`CustomPropertiesUtils`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ovirt_tcp_plugin.lab.engine.errors import invalid


def validate(what: str, known: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Raise Fault (400) for properties that are not defined, or whose values do not match.

    Args:
        what: what cannot be done then, such as "edit VM".
        known: regular expression of the whole value by name.
    """
    missing = [name for name in given if name not in known]
    wrong = [
        name
        for name, value in given.items()
        if name in known and not re.fullmatch(known[name], value)
    ]
    texts = []
    start = f"Cannot {what} if some of the specified custom properties"
    if missing:
        texts.append(f"{start} are not configured by the system. The keys are: {','.join(missing)}")
    if wrong:
        texts.append(f"{start} have illegal values. The keys are: {','.join(wrong)}")
    if texts:
        raise invalid(", ".join(texts))
