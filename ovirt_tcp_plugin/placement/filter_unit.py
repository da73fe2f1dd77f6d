# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter unit `TrustedHosts` as the engine stores it: what filterd offers, and what the engine shows of it. Pure.

Why the description is never the same twice: at each of its starts the engine disables every external unit, and its
discovery enables ours again only if it writes the row. It writes the row if the stored text differs from the offered
one, or if it reads the row as disabled; but it may read the row before the disabling is committed, and then an unchanged
text leaves the unit disabled until the next start (`SchedulingManager.loadExternalScheduler`,
`ExternalSchedulerDiscovery.compareToDB`). A text that differs is always written, and written last, since the write waits
for the row's lock.

The moment in the text also tells whether the engine has asked filterd since it started.
"""

from __future__ import annotations

import datetime
import re
import secrets
from typing import Optional

from ovirt_tcp_plugin.broker.decision import Scope

NAME = "TrustedHosts"
SCOPE_PROPERTY = "trust_scope"
# What the engine lets an administrator choose: `name=regular expression` of the whole value.
PROPERTIES = f"{SCOPE_PROPERTY}=^({'|'.join(scope.value for scope in Scope)})$"
DESCRIPTION = "Runs VMs only on hosts whose boot was measured and appraised (ovirt-tcp)"

_MOMENT = "%Y-%m-%d %H:%M:%S"
_OFFERED = re.compile(
    rf"{re.escape(DESCRIPTION)}\. The engine asked for it on (\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d) UTC \([0-9a-f]{{8}}\)"
)


def offered_description(moment: datetime.datetime) -> str:
    """Return the description to offer the engine at this moment (aware, any zone); no two of them are alike.

    The random part is for a clock that was set back.
    """
    asked = moment.astimezone(datetime.timezone.utc).strftime(_MOMENT)
    return f"{DESCRIPTION}. The engine asked for it on {asked} UTC ({secrets.token_hex(4)})"


def asked_at(description: str) -> Optional[datetime.datetime]:
    """Return when the engine asked for the unit that it describes so; None for a text that is not filterd's.

    Whole seconds, UTC, by the clock of the engine's machine.
    """
    match = _OFFERED.fullmatch(description)
    if match is None:
        return None
    try:
        moment = datetime.datetime.strptime(match.group(1), _MOMENT)
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.timezone.utc)
