# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Where the story plays: the hosts and their roles in it, who acts, who sees, and how one waits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovirt_tcp_plugin.lab.narrator import Narrator
from ovirt_tcp_plugin.lab.site import LabSite
from ovirt_tcp_plugin.lab.story.administrator import Administrator
from ovirt_tcp_plugin.lab.story.site_view import SiteView

GOLDEN = "host-1"
REBOOTING = "host-2"
TAMPERED_TBOOT = "host-4"
FORGED_LOG = "host-5"
NO_LAUNCH = "host-6"
# The code of its verdict, and what is wrong with it.
BAD = {
    TAMPERED_TBOOT: ("mle_differs", "one flipped byte in tboot"),
    FORGED_LOG: ("log_differs", "another kernel under a log forged to look good"),
    NO_LAUNCH: ("no_launch", "no TXT launch, under a good log"),
}
SMALLEST = 6

TIMINGS = {
    "host_initialization": 1.0,
    "event_after_up": 1.0,
    "not_responding_after": 0.5,
    "vm_start": 0.3,
    "migration": 0.3,
    "enforcer": 1.0,
    "ha_retry": 1.0,
    "external_response": 3.0,
}
# VMs that are started and stopped only to see what the engine would choose.
PROBES = ("probe-0", "probe-1", "probe-2")
REFUSED_PROBE = "probe-out"


def vms() -> list[Mapping[str, Any]]:
    """Return the VMs with which the engine starts: on each bad host one runs."""
    running = [{"name": f"vm-{name}", "host": name} for name in BAD]
    down = [{"name": name} for name in ("web", "web-2", *PROBES, REFUSED_PROBE)]
    return [*running, *down, {"name": "ha", "high_availability": True}]


class Scene:
    """A site with its players.

    Attributes:
        tell: says and checks.
        good: names of the hosts that boot what they should.
    """

    def __init__(self, site: LabSite, narrator: Narrator) -> None:
        self.site = site
        self.tell = narrator
        self.view = SiteView(site)
        self.administrator = Administrator(site)
        self.good = [name for name in site.names if name not in BAD]
        # Many hosts on one machine take their time; a wait that is too short would fail a good
        # installation.
        self._patience_s = 30.0 + len(site.names)
        self._probes = itertools.cycle(PROBES)

    def is_on_good_host(self, vm: str) -> bool:
        """Return whether a VM runs, and on a host that boots what it should."""
        return self.view.place_of(vm) in self.good

    # Waiting

    def wait(self, sentence: str, holds: Callable[[], bool]) -> None:
        """Wait until it holds, then tell it. Raises StepFailed."""
        self.tell.wait(sentence, holds, self._patience_s, self.view.summary)

    def wait_silently(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until it holds. Raises StepFailed; that says what took too long."""
        self.tell.wait_silently(what, holds, self._patience_s, self.view.summary)

    def wait_trusted(self, names: Sequence[str]) -> None:
        """Wait until all these hosts are trusted. Raises StepFailed."""
        title = ", ".join(names)
        if len(names) > 3:
            title = f"{names[0]} to {names[-1]} ({len(names)})"
        self.wait(f"trusted: {title}", lambda: self.view.are_trusted(names))

    def wait_status(self, name: str, status: str, sentence: str) -> None:
        """Wait until a host has that status. Raises StepFailed."""
        self.wait(sentence, lambda: self.view.status(name) == status)

    def wait_on_good_host(self, vm: str, sentence: str) -> None:
        """Wait until a VM runs on a host that boots what it should. Raises StepFailed."""
        self.wait(sentence, lambda: self.is_on_good_host(vm))

    def settle(self, seconds: float) -> None:
        """Give everything that should not happen the time to happen."""
        time.sleep(seconds)

    # Acts that take their time

    def start(self, vm: str) -> None:
        """Start a VM; a refusal that ends soon (a wall that is being built) is waited for."""
        self.wait_silently(f"starting {vm}", lambda: self.administrator.start(vm))

    def move(self, vm: str, host: str) -> None:
        """Have a VM run on a host. Raises StepFailed."""
        if self.view.place_of(vm) is None:
            self.start(vm)
        if self.view.place_of(vm) != host:
            self.wait_silently(
                f"moving {vm} to {host}", lambda: self.administrator.migrate(vm, host)
            )
        self.wait_silently(f"{vm} runs on {host}", lambda: self.view.place_of(vm) == host)

    def reboot(self, name: str, boot: Callable[[], None]) -> None:
        """Take the power from a host and give it back, as the engine sees it."""
        self.site.control("power", {"host": name, "powered": False})
        boot()
        self.site.control("power", {"host": name, "powered": True})

    def probe(self) -> None:
        """Start or stop a VM: whatever the engine chooses shows in its journal."""
        vm = next(self._probes)
        if self.view.place_of(vm) is None:
            self.administrator.start(vm)
        else:
            self.administrator.stop(vm)

    def probing(self, holds: Callable[[], bool]) -> Callable[[], bool]:
        """Return a condition that probes whenever it is asked."""

        def probe_and_look() -> bool:
            self.probe()
            return holds()

        return probe_and_look
