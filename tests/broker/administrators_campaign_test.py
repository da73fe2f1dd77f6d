# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Whatever administrators do in whatever order, protection never ends unasked.

One host of the pool is untrusted all the time: a wall or a snapshot that lets it in shows that
somebody's act was taken for the end of protection.
"""

from __future__ import annotations

import random
import threading
import time

import pytest

from ovirt_tcp_plugin.messages.result import Level
from tests import soak
from tests.broker.administrator_acts import Acts
from tests.broker.site import EVERYBODY, Site, until

ACTS = soak.part(100, 10)
BAD = "h5"
KEPT = {"h1", "h2"}
SETTLED_WITHIN_S = 30


class Campaign:
    """A broker, restarted at times, and the engine's administrators."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        site.source.levels[f"{BAD}.lab"] = Level.UNTRUSTED
        site.start()
        until(lambda: site.inside() == EVERYBODY - {BAD})
        until(lambda: site.trusted_in_snapshot() == EVERYBODY - {BAD})
        until(lambda: site.statuses()[BAD] == "maintenance")
        self.acts = Acts(site.engine, chance, KEPT)
        self.bad_id = site.host(BAD).id
        # What was wrong at any moment.
        self.faults: list[str] = []
        self._restarting = threading.Event()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def stop(self) -> None:
        self._over.set()
        self._watcher.join()

    def act(self) -> str:
        """Do one act; return its name."""
        at_once = self.acts.all()
        act = self._chance.choice([*at_once, self.restart_broker, self.restart_engine])
        if act in at_once:
            with self._site.engine.model.lock:
                act()
        else:
            act()
        return act.__name__

    def restart_broker(self) -> None:
        self._restarting.set()
        self._site.stop()
        self._site.start()
        self._restarting.clear()

    def restart_engine(self) -> None:
        self._site.engine.restart(0.2)

    def fault(self) -> str:
        """Return what is not as it has to be, empty for nothing."""
        walls = self.acts.walls()
        if len(walls) != 1:
            return f"{len(walls)} walls"
        wall = walls[0]
        rule = wall.hosts_rule
        if not (rule.enabled and rule.enforcing and rule.positive) or wall.host_labels:
            return "the wall does not bind"
        if self.bad_id in wall.hosts:
            return "the bad host is inside"
        up = {host.id for host in self.acts.hosts() if host.status == "up"} - {self.bad_id}
        if set(wall.hosts) != up:
            return f"inside are {len(wall.hosts)} of {len(up)} hosts"
        if not self.acts.vms_needing_trust() <= set(wall.vms):
            return "VMs are outside"
        return ""

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            if self._restarting.is_set():
                continue
            if self.acts.cluster_id not in self._site.state.pools():
                self.faults.append("the cluster was no pool")
            try:
                level = self._site.snapshot().hosts[self.bad_id].level
            except FileNotFoundError:
                self.faults.append("there was no snapshot")
            else:
                if level is Level.TRUSTED:
                    self.faults.append("the snapshot trusted the bad host")


@pytest.fixture
def campaign(site: Site) -> Campaign:
    return Campaign(site, soak.randomness("administrators"))


@pytest.mark.soak
@pytest.mark.timeout(150 if not soak.WHOLE else 3000)
def test_no_order_of_their_acts_ends_protection(campaign: Campaign, site: Site) -> None:
    done: list[str] = []
    try:
        for _ in range(ACTS):
            done.append(campaign.act())
            wait(campaign, done)
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: "h1" not in site.inside() and "h1" not in site.trusted_in_snapshot())
    finally:
        campaign.stop()
    assert campaign.faults == [], done


def wait(campaign: Campaign, done: list[str]) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while campaign.fault():
        assert time.monotonic() < deadline, f"seed {soak.SEED}: {campaign.fault()} after {done}"
        time.sleep(0.05)
