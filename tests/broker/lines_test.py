# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What each line of enforcement is worth: a host turns untrusted while it runs VMs, with some lines
absent.

Real SDK, broker, filterd and gate against the simulated engine. Each case makes one row of the
table in docs/security-model.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import xmlrpc.client
from pathlib import Path

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import builtin, model
from ovirt_tcp_plugin.lab.processes import Processes
from ovirt_tcp_plugin.messages.result import Level
from tests.broker import filterd
from tests.broker import site as sites
from tests.broker.site import Site, until
from tests.hooks import gated_host

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "security-model.md"
LINES = ("filter", "wall", "gate", "quarantine")
CASES = [
    LINES,
    *(tuple(one for one in LINES if one != absent) for absent in LINES),
    *((one,) for one in LINES),
    (),
]
GOOD, BAD = "h1", "h2"
# All would rather be on the bad host.
VMS = [
    {"name": "start", "pinned_to": [BAD]},
    {"name": "resume", "pinned_to": [BAD]},
    {"name": "migration", "host": GOOD},
    {"name": "there", "host": BAD},
]
NEW = "first start"
# At half of it the hosts are asked again.
SHORT_LIFE_MS = 2000
# By then a VM that may start has started, one that may migrate has migrated, and the enforcer has
# moved one.
SETTLES_S = 1.5


class Lines:
    """A pool of a good host and one that turned bad, with these lines of enforcement."""

    def __init__(
        self, present: tuple[str, ...], directory: Path, pki: Path, processes: Processes
    ) -> None:
        self.present, self.scheduler = present, filterd.start(processes, directory)
        site = self.site = Site(directory, pki, 2, VMS, self.scheduler)
        self.engine = site.engine
        site.source.life_ms = SHORT_LIFE_MS
        # VMs that ran on the bad host at any moment since it is bad.
        self.seen: set[str] = set()
        tables = self.engine.model
        wall = "wall" in present
        tables.timings = dataclasses.replace(tables.timings, enforcer=0.3 if wall else 3600.0)
        self.engine.rounds.restart()
        if not wall:  # an administrator's policy that forgot it
            for policy in tables.policies.values():
                policy.filters = [one for one in policy.filters if one != builtin.AFFINITY_FILTER]
        if "gate" in present:
            for name, level in ((GOOD, Level.TRUSTED), (BAD, Level.UNTRUSTED)):
                (directory / name).mkdir()
                host = gated_host.Host(directory / name)
                host.sign(level=level)
                site.host(name).hook_directory = str(host.hooks)
        if "quarantine" not in present:
            self.engine.faults.refused_maintenance[BAD] = (
                "Cannot switch Host to Maintenance mode: it has SPM tasks."
            )

    def settle(self, processes: Processes) -> None:
        """Wait until the broker found both hosts good."""
        site, tables = self.site, self.engine.model
        until(lambda: (group := site.wall()) is not None and set(group.vms) == set(tables.vms))
        until(lambda: site.inside() == site.trusted_in_snapshot() == {GOOD, BAD})
        if "filter" not in self.present:
            processes.stop("filterd")
        self.vm("resume").status = "suspended"

    def vm(self, name: str) -> model.SimulatedVm:
        return next(one for one in self.engine.model.vms.values() if one.name == name)

    def turn_bad(self) -> None:
        """The attestation server finds the host untrusted, and the broker does what it can."""
        self.site.source.levels[f"{BAD}.lab"], self.site.source.life_ms = Level.UNTRUSTED, 600_000
        until(lambda: self.site.inside() == {GOOD} and self.site.told("is untrusted"))
        until(lambda: self.site.trusted_in_snapshot() == {GOOD})
        if "filter" in self.present:
            proxy, bad = xmlrpc.client.ServerProxy(self.scheduler), self.site.host(BAD).id
            until(
                lambda: (
                    not proxy.runFilters(["TrustedHosts"], [bad], self.vm("start").id, {})["result"]
                )
            )
        if "quarantine" in self.present:
            until(lambda: self.site.host(BAD).status == "maintenance")

    def try_all(self, connection: ovirtsdk4.Connection) -> None:
        made = model.SimulatedVm(
            model.new_id(), NEW, self.site.cluster, pinned_to=(self.site.host(BAD).id,)
        )
        self.engine.model.vms[made.id] = made
        for name in (NEW, "start", "resume", "migration"):
            service = connection.system_service().vms_service().vm_service(self.vm(name).id)
            with contextlib.suppress(ovirtsdk4.Error):
                service.migrate() if name == "migration" else service.start()
        end = time.monotonic() + SETTLES_S
        while time.monotonic() < end:
            self.seen |= self.there()
            time.sleep(0.01)

    def there(self) -> set[str]:
        """Return the VMs that run on the bad host now."""
        bad, vms = self.site.host(BAD).id, list(self.engine.model.vms.values())
        return {
            one.name
            for one in vms
            if one.host == bad and one.status == model.UP and not one.migrating_to
        }


def row(present: tuple[str, ...], arrived: set[str], stays: bool) -> str:
    absent = [one for one in LINES if one not in present]
    if not absent:
        name = "all four"
    elif len(absent) == 1:
        name = f"no {absent[0]}"
    else:
        name = f"{present[0]} alone" if present else "none"
    held = [
        NEW not in arrived,
        not arrived & {"start", "resume"},
        "migration" not in arrived,
        not stays,
    ]
    return " | ".join([f"| {name}", *("held" if one else "**not held**" for one in held)]) + " |"


@pytest.mark.parametrize("present", CASES, ids=["+".join(one) or "none" for one in CASES])
def test_the_readme_tells_what_still_holds(
    present: tuple[str, ...], tmp_path: Path, site_pki: Path
) -> None:
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(tmp_path))
        lines = Lines(present, tmp_path, site_pki, processes)
        site = lines.site
        stack.callback(site.engine.stop)
        connection = ovirtsdk4.Connection(
            url=site.engine.url,
            username=sites.ADMINISTRATOR,
            password=sites.PASSWORD,
            ca_file=str(site_pki / "ca.pem"),
        )
        stack.callback(connection.close, logout=False)
        with contextlib.ExitStack() as running:
            site.start()
            running.callback(site.stop)
            lines.settle(processes)
            lines.turn_bad()
        lines.try_all(connection)  # what stands now holds without the broker, too
        made = row(present, lines.seen, "there" in lines.there())
    assert made in TABLE.read_text().splitlines()


def test_the_table_has_no_other_rows() -> None:
    told = re.findall(r"^\| .* (?:held|\*\*not held\*\*) \|$", TABLE.read_text(), re.MULTILINE)
    assert len(told) == len(CASES)
