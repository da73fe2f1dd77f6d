# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at the engine: switches for tests.

They are set in the process or over the lab's control port. All are off at the start, each may be
switched at any time. Names are those of hosts and VMs, not their ids.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Mapping
from typing import Any, Optional

# What a request may meet instead of its answer.
HTML = "html"  # the proxy's 503 page: nothing was done
BROKEN = "broken"  # 500 with a fault: nothing was done
GARBAGE = "garbage"  # half a document: nothing was done
CUT = "cut"  # the connection ends: nothing was done
LOST = "lost"  # the connection ends after everything was done
SILENT = "silent"  # no answer, and nothing was done
_KINDS = frozenset({HTML, BROKEN, GARBAGE, CUT, LOST, SILENT})


@dataclasses.dataclass
class AnswerFault:
    """Requests that go wrong.

    Attributes:
        kind: one of the constants above.
        verb, path: of which requests; `path` is a regular expression for the whole path below
            /ovirt-engine/.
        times: how many of them still do; 0 when it is over.
    """

    kind: str
    verb: str = "[A-Z]+"
    path: str = ".*"
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"no such fault: {self.kind}")

    def fits(self, verb: str, path: str) -> bool:
        """Return whether a request is one of these."""
        return bool(re.fullmatch(self.verb, verb) and re.fullmatch(self.path, path))


@dataclasses.dataclass
class Faults:
    """The switches.

    Attributes:
        answers: requests that go wrong.
        lost_events: codes that never reach the audit log.
        late_events: code -> seconds between an event's id being drawn and its row being visible, as
            with a writer whose transaction takes long: greater ids show up before it.
        refused_maintenance: host -> the text of the refusal (SPM tasks, running steps, ...).
        hanging_maintenance: hosts that stay in preparing_for_maintenance.
        units_reload: when a start reads its policy units again after a discovery that wrote
            nothing: "before" its transaction ends, which calls them enabled, or "after" it, which
            calls them disabled; empty for chance.
        failing_starts: hosts on which no VM starts, as when a VDSM hook refuses.
        failing_migrations: hosts to which no VM migrates.
        slow_answers: seconds by a regular expression for whole paths below /ovirt-engine/: what was
            read from the tables arrives so much later.
    """

    answers: list[AnswerFault] = dataclasses.field(default_factory=list)
    lost_events: set[int] = dataclasses.field(default_factory=set)
    late_events: dict[int, float] = dataclasses.field(default_factory=dict)
    refused_maintenance: dict[str, str] = dataclasses.field(default_factory=dict)
    hanging_maintenance: set[str] = dataclasses.field(default_factory=set)
    units_reload: str = ""
    failing_starts: set[str] = dataclasses.field(default_factory=set)
    failing_migrations: set[str] = dataclasses.field(default_factory=set)
    slow_answers: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def switch(self, changes: Mapping[str, Any]) -> None:
        """Set switches by name, as they arrive in JSON.

        Raises:
            KeyError, TypeError, ValueError: there is no such switch, or no such value of it.
        """
        names = {field.name for field in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in names:
                raise KeyError(name)
            setattr(self, name, _read(name, value))

    def delay_s(self, path: str) -> float:
        """Return how many seconds later than usual a request is answered."""
        delays = dict(self.slow_answers)
        matching = [seconds for slow, seconds in delays.items() if re.fullmatch(slow, path)]
        return max(matching, default=0.0)

    def of_answer(self, verb: str, path: str) -> Optional[str]:
        """Return what a request meets, None for a good answer. Counts it."""
        with self._lock:
            for fault in self.answers:
                if fault.times > 0 and fault.fits(verb, path):
                    fault.times -= 1
                    return fault.kind
            return None


def _read(name: str, value: Any) -> Any:
    """Return the value of a switch from JSON, which knows no sets and no numbers as keys."""
    if name == "answers":
        return [AnswerFault(**members) for members in value]
    if name == "late_events":
        return {int(code): float(seconds) for code, seconds in value.items()}
    if name in ("refused_maintenance", "slow_answers"):
        return dict(value)
    if name == "units_reload":
        return str(value)
    return set(value)
