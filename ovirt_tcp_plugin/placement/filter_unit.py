# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The filter unit `TrustedHosts` as the engine stores it. Pure.

That is what filterd offers, and what the engine shows of it. Why the description is never the same
twice: at each of its starts the engine disables every external unit, and its discovery enables ours
again only if it writes the row. It writes the row if the stored text differs from the offered one,
or if it reads the row as disabled; but it may read the row before the disabling is committed, and
then an unchanged text leaves the unit disabled until the next start
(`SchedulingManager.loadExternalScheduler`, `ExternalSchedulerDiscovery.compareToDB`). A text that
differs is always written, and written last, since the write waits for the row's lock.

The moment in the text also tells whether the engine has asked filterd since it started.
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Optional

from ovirt_tcp_plugin.placement.decision import Scope

# filterd starts while the engine waits, and needs nothing of it: making its classes takes as long
# as reading two hundred snapshots.
if TYPE_CHECKING:
    from ovirt_tcp_plugin.placement.inventory import Unit

NAME = "TrustedHosts"
SCOPE_PROPERTY = "trust_scope"
# What the engine lets an administrator choose: `name=regular expression` of the whole value.
PROPERTIES = f"{SCOPE_PROPERTY}=^({'|'.join(scope.value for scope in Scope)})$"
DESCRIPTION = "Runs VMs only on hosts whose boot was measured and appraised (ovirt-tcp)"

_MOMENT = "%Y-%m-%d %H:%M:%S"
_OFFERED = re.compile(
    rf"{re.escape(DESCRIPTION)}\. The engine asked for it on"
    r" (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC \([0-9a-f]{8}\)"
)


def offered_description(moment: datetime.datetime, token: str) -> str:
    """Return the description to offer the engine; no two of them may be alike.

    Args:
        moment: now (aware, any zone).
        token: eight random hexadecimal digits, for a clock that was set back.
    """
    asked = moment.astimezone(datetime.timezone.utc).strftime(_MOMENT)
    return f"{DESCRIPTION}. The engine asked for it on {asked} UTC ({token})"


def asked_at(description: str) -> Optional[datetime.datetime]:
    """Return when the engine asked for the unit that it describes so.

    Whole seconds, UTC, by the clock of the engine's machine; None for a text that is not filterd's.
    """
    match = _OFFERED.fullmatch(description)
    if match is None:
        return None
    try:
        moment = datetime.datetime.strptime(match.group(1), _MOMENT)
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.timezone.utc)


class FilterState(enum.Enum):
    """What the engine's list says of our unit; the values are stable codes."""

    ASKED = "unit_asked"
    UNKNOWN = "unit_unknown"
    DISABLED = "unit_disabled"
    UNASKED = "unit_unasked"


FAULTS = {
    FilterState.UNKNOWN: f"The engine does not know the filter unit {NAME}",
    FilterState.DISABLED: f"The filter unit {NAME} is disabled, so the engine does not ask it",
    FilterState.UNASKED: (
        f"The engine has not found ovirt-tcp-filterd since it started: the filter unit {NAME} is"
        " left over from before"
    ),
}


def filter_state(
    units: Iterable[Unit], started: Optional[datetime.datetime] = None, stale: Optional[str] = None
) -> FilterState:
    """Return what the engine's list of policy units says.

    Args:
        started: when the engine started last (aware), by its machine's clock; None where that is
            not known.
        stale: a description that the unit had before the engine started.
    """
    known = [unit for unit in units if unit.name == NAME]
    enabled = [unit for unit in known if unit.enabled]
    if not known:
        return FilterState.UNKNOWN
    if not enabled:
        return FilterState.DISABLED
    if any(_is_fresh(unit.description, started, stale) for unit in enabled):
        return FilterState.ASKED
    return FilterState.UNASKED


def _is_fresh(description: str, started: Optional[datetime.datetime], stale: Optional[str]) -> bool:
    asked = asked_at(description)
    if asked is None or description == stale:
        # A text that filterd of an older release offered, or somebody else, says nothing of when.
        return asked is None
    # The description knows whole seconds only.
    return started is None or asked >= started.replace(microsecond=0)
