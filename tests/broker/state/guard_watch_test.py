# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Mass failures: wrong reference values, a lost state file, many small pools.

Who leaves service, and what is reported of it.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable
from typing import Optional

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.guard import GuardRule
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Cluster, Host, Listing, Policy, Unit
from tests.broker.state.world import LIFE, OPTIONS, World
from tests.fake_clock import FakeClock

SERIES = dataclasses.replace(OPTIONS, guard=settings.GuardOptions())
SERIES_MS = int(SERIES.guard.series_s * 1000)


def observations(world: World) -> list[str]:
    return [text for text in world.told() if "is in observation" in text]


def refused(world: World) -> set[str]:
    """Return the hosts that the snapshot does not let a VM onto."""
    (snapshot,) = world.state.snapshots()
    return {
        host_id for host_id, verdict in snapshot.hosts.items() if verdict.level is not Level.TRUSTED
    }


class TestObservation:
    def new_pool(self) -> World:
        """Twenty hosts, and reference values that know one of them."""
        world = World(hosts=20, vms=20)
        world.attest(good=["h0"], bad=[f"h{n}" for n in range(1, 20)])
        return world

    def test_of_a_new_pool_keeps_hosts_that_no_reference_value_knows(self) -> None:
        world = self.new_pool()
        assert world.leaving() == set()
        assert refused(world) == {f"h{n}" for n in range(1, 20)}
        assert world.inside() == {"h0"}
        (text,) = observations(world)
        assert "ovirt-tcp guard release --pool Trusted, or reject" in text

    @pytest.mark.parametrize("unknown", [3, 5, 9])
    @pytest.mark.parametrize("seed", range(5))
    def test_of_a_new_pool_with_two_kinds_of_hardware_keeps_all_hosts(
        self, unknown: int, seed: int
    ) -> None:
        """Reference values know one kind. Hosts answer one by one, in any order."""
        world = World(hosts=10, vms=10)
        world.state.questions.begin_stages()
        order = world.state.questions.stage(10)
        random.Random(seed).shuffle(order)
        bad = set(world.ids()[:unknown])
        for host_id in order:
            world.clock.pass_ms(1_000)
            if host_id in bad:
                world.attest(bad=[host_id])
            else:
                world.attest(good=[host_id])
            assert world.leaving() == set()
        assert refused(world) == bad
        texts = world.told()
        assert sum("this pool is in observation" in text for text in texts) == 1
        assert sum("Many hosts" in text for text in texts) == (unknown <= 5)

    def test_lasts_over_a_restart_of_the_broker_and_is_no_news_then(self) -> None:
        world = self.new_pool()
        world.told()
        world.restart()
        world.clock.pass_ms(LIFE)
        world.attest(good=["h0"], bad=[f"h{n}" for n in range(1, 20)])
        assert world.leaving() == set()
        assert observations(world) == []

    def test_ends_when_an_administrator_releases_the_pool(self) -> None:
        world = self.new_pool()
        released = world.state.quarantine.decide(release=True, pool="Trusted")
        assert len(released) == 19
        assert world.leaving() == {f"h{n}" for n in range(1, 20)}
        assert world.state.pool_states()[0].observation is False

    def test_goes_on_when_he_leaves_the_hosts_in_service(self) -> None:
        world = self.new_pool()
        world.state.quarantine.decide(release=False)
        assert world.leaving() == set()
        assert world.state.pool_states()[0].observation is True

    def test_ends_when_half_of_the_hosts_attested_well(self) -> None:
        world = World(hosts=20)
        world.attest(good=[f"h{n}" for n in range(9)], bad=["h19"])
        assert world.leaving() == set()
        world.attest(good=["h9"])
        assert world.leaving() == {"h19"}

    def test_has_the_guard_hold_what_is_too_much_at_its_end(self) -> None:
        world = World(hosts=20)
        bad = [f"h{n}" for n in range(10, 20)]
        world.attest(bad=bad)
        world.attest(good=[f"h{n}" for n in range(10)])
        assert world.leaving() == set()
        assert world.state.pool_states()[0].guard_tripped is True
        assert any("Many hosts of cluster Trusted" in text for text in world.told())

    def test_is_not_noticed_where_all_but_one_answer_well(self) -> None:
        world = World(hosts=10)
        world.attest(bad=["h0"], good=[f"h{n}" for n in range(1, 10)])
        assert observations(world) == []
        assert world.leaving() == {"h0"}

    def test_begins_again_where_the_state_file_is_lost(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.state = BrokerState(world.options, world.clock, random.random)
        world.look()
        for host_id in world.ids():
            world.clock.pass_ms(10_000)
            world.attest(bad=[host_id])
            assert world.leaving() == set()
        assert refused(world) == set(world.ids())
        assert len(observations(world)) == 1

    def test_begins_with_a_state_file_of_an_older_release(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        saved = world.state.encode()
        for member in ("established_pools", "guard_of_site"):
            del saved[member]
        world.state = BrokerState(world.options, world.clock, random.random)
        world.state.restore(saved)
        world.look()
        world.attest(bad=["h0"])
        assert world.leaving() == set()
        world.clock.pass_ms(1000)
        world.attest(good=["h1"])
        assert world.leaving() == {"h0"}

    def test_begins_again_where_a_pool_ended(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.attest(bad=["h0"])
        assert world.leaving() == {"h0"}
        world.state.quarantine.pool_gone("pool")
        assert world.leaving() == set()
        world.attest(bad=["h0"])
        assert world.leaving() == set()
        assert len(observations(world)) == 1

    def test_counts_nobody_who_attested_well_in_a_pool_that_ended(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.state.quarantine.pool_gone("pool")
        world.attest(good=["h0"])
        world.attest(bad=["h1"])
        assert world.leaving() == set()

    def test_is_the_rule_though_an_older_release_meant_to_take_hosts_out(self) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.attest(bad=["h0"])
        saved = world.state.encode()
        del saved["established_pools"]
        world.state = BrokerState(world.options, world.clock, random.random)
        world.state.restore(saved)
        world.look()
        world.attest(bad=["h0"], good=["h1"])
        assert world.leaving() == {"h0"}
        world.state.quarantine.pool_gone("pool")
        assert world.leaving() == set()


class Site:
    """Many pools, and what a broker knows of them."""

    def __init__(self, pools: int, hosts: int, options: settings.Settings = OPTIONS) -> None:
        self.options = options
        self.clock = FakeClock()
        policy = Policy("policy", "trusted", filter_ids=frozenset({"unit"}))
        clusters: list[Cluster] = []
        self.hosts: list[Host] = []
        for pool in range(pools):
            clusters.append(Cluster(f"c{pool}", f"Pool {pool}", "policy"))
            for n in range(hosts):
                name = f"c{pool}h{n}"
                self.hosts.append(Host(name, name, f"{name}.lab", f"c{pool}", "up"))
        units = (Unit("unit", "TrustedHosts"),)
        self.listing = Listing(tuple(clusters), (policy,), units, tuple(self.hosts), ())
        self.begin()
        self.out: set[str] = set()

    def ids(self) -> list[str]:
        return [host.id for host in self.hosts]

    def attest(self, level: Level, host_ids: Iterable[str]) -> None:
        now_ms = self.clock.ms
        answers = {host_id: Answer(level, now_ms, 0, LIFE, True) for host_id in host_ids}
        self.state.questions.record(answers)

    def restart(self, same_boot: bool) -> None:
        """Restart the broker: only what it saved is left."""
        saved = json.loads(json.dumps(self.state.encode()))
        if not same_boot:
            self.clock.boot_id = f"{saved['boot_id']}0"
        self.begin()
        self.state.restore(saved)
        self.state.observe_hosts(self.hosts)

    def begin(self) -> None:
        """A broker that knows nothing looks at the engine."""
        self.state = BrokerState(self.options, self.clock, random.random)
        self.state.observe_listing(self.listing, self.state.begin_listing())
        self.state.observe_hosts(self.hosts)

    def enforce(self) -> None:
        """Carry out what quarantine plans."""
        for host_id, _ in self.state.quarantine.to_deactivate():
            self.state.quarantine.deactivated(host_id)
            self.out.add(host_id)


def test_a_held_host_that_moves_is_judged_by_the_guard_of_its_new_pool() -> None:
    site = Site(pools=2, hosts=10)
    site.attest(Level.TRUSTED, site.ids())
    moving = [f"c0h{n}" for n in range(3)]
    site.attest(Level.UNTRUSTED, moving)
    site.enforce()
    assert site.out == set()
    site.hosts = [
        dataclasses.replace(host, cluster_id="c1") if host.id in moving else host
        for host in site.hosts
    ]
    site.state.observe_hosts(site.hosts)
    site.clock.pass_ms(1000)
    site.attest(Level.UNTRUSTED, moving)
    site.enforce()
    assert site.out == set()


class TestSeries:
    """A host that turned untrusted while it stayed Up."""

    @pytest.fixture
    def site(self) -> Site:
        site = Site(pools=2, hosts=5, options=SERIES)
        site.attest(Level.TRUSTED, site.ids())
        site.attest(Level.UNTRUSTED, ["c0h0"])
        site.enforce()
        assert site.out == set()
        return site

    def test_leaves_when_no_other_followed(self, site: Site) -> None:
        site.clock.pass_ms(SERIES_MS - 1)
        site.enforce()
        assert site.out == set()
        site.clock.pass_ms(1)
        site.attest(Level.TRUSTED, ["c0h1"])
        site.enforce()
        assert site.out == {"c0h0"}

    def test_stays_when_others_followed(self, site: Site) -> None:
        site.clock.pass_ms(SERIES_MS // 2)
        site.attest(Level.UNTRUSTED, ["c1h0", "c1h1"])
        site.clock.pass_ms(SERIES_MS)
        site.attest(Level.TRUSTED, ["c0h1", "c1h2"])
        site.enforce()
        assert site.out == set()

    def test_leaves_at_once_when_it_starts_again(self, site: Site) -> None:
        site.state.host_restarted("c0h0")
        site.attest(Level.UNTRUSTED, ["c0h0"])
        site.enforce()
        assert site.out == {"c0h0"}

    def test_leaves_at_once_when_an_administrator_releases_it(self, site: Site) -> None:
        assert site.state.quarantine.decide(release=True) == ["c0h0"]
        site.enforce()
        assert site.out == {"c0h0"}

    def test_stays_when_an_administrator_rejects_it(self, site: Site) -> None:
        assert site.state.quarantine.decide(release=False) == ["c0h0"]
        site.clock.pass_ms(SERIES_MS)
        site.attest(Level.TRUSTED, ["c0h1"])
        site.enforce()
        assert site.out == set()

    def test_stays_when_it_attests_well_again(self, site: Site) -> None:
        site.attest(Level.TRUSTED, ["c0h0"])
        site.clock.pass_ms(SERIES_MS)
        site.attest(Level.TRUSTED, ["c0h1"])
        site.enforce()
        assert site.out == set()

    def test_is_explained(self, site: Site) -> None:
        assert site.state.case("", "c0h0").intent == "waiting"
        notes = [notice.text for notice in site.state.outbox.take()]
        assert any("did not restart since it attested well" in text for text in notes)


class TestTamperedHost:
    """What a tampered boot looks like leaves at once, however many minutes a series takes."""

    @pytest.fixture
    def site(self) -> Site:
        site = Site(pools=2, hosts=5, options=SERIES)
        site.attest(Level.TRUSTED, site.ids())
        return site

    def test_that_left_up(self, site: Site) -> None:
        away = dataclasses.replace(site.hosts[0], status="non_responsive")
        site.state.observe_hosts([away, *site.hosts[1:]])
        site.state.observe_hosts(site.hosts)
        site.attest(Level.UNTRUSTED, ["c0h0"])
        site.enforce()
        assert site.out == {"c0h0"}

    def test_that_restarted_between_two_looks(self, site: Site) -> None:
        site.state.host_restarted("c0h0")
        site.attest(Level.UNTRUSTED, ["c0h0"])
        site.enforce()
        assert site.out == {"c0h0"}

    def test_that_is_in_another_boot_though_the_engine_missed_it(self, site: Site) -> None:
        now_ms = site.clock.ms
        before = Answer(Level.TRUSTED, now_ms, 0, LIFE, True, boot_id="one boot")
        after = Answer(Level.UNTRUSTED, now_ms, 0, LIFE, True, boot_id="another boot")
        site.state.questions.record({"c0h0": before})
        site.state.questions.record({"c0h0": after})
        site.enforce()
        assert site.out == {"c0h0"}

    def test_that_never_attested_well(self, site: Site) -> None:
        site.hosts.append(Host("new", "new", "new.lab", "c0", "up"))
        site.state.observe_hosts(site.hosts)
        site.attest(Level.UNTRUSTED, ["new"])
        site.enforce()
        assert site.out == {"new"}

    def test_after_the_broker_restarted(self, site: Site) -> None:
        site.restart(same_boot=True)
        site.state.host_restarted("c0h0")
        site.attest(Level.UNTRUSTED, ["c0h0"])
        site.enforce()
        assert site.out == {"c0h0"}


class TestSite:
    @pytest.mark.parametrize("pace_ms", [0, 5_000, 20_000])
    @pytest.mark.parametrize("seed", [None, 1, 2])
    def test_wrong_values_take_no_host_out_of_ten_small_pools(
        self, pace_ms: int, seed: Optional[int]
    ) -> None:
        """Each host is attested again at its own time, as in real life."""
        site = Site(pools=10, hosts=3, options=SERIES)
        site.attest(Level.TRUSTED, site.ids())
        order = site.ids()
        if seed is not None:
            random.Random(seed).shuffle(order)
        for host_id in order:
            site.clock.pass_ms(pace_ms)
            site.attest(Level.UNTRUSTED, [host_id])
            site.enforce()
        for _ in range(100):
            site.clock.pass_ms(10_000)
            site.enforce()
        assert site.out == set()
        texts = [notice.text for notice in site.state.outbox.take() if notice.event]
        of_site = [text for text in texts if "Many hosts of several clusters" in text]
        assert len(of_site) == 1
        assert "guard release" in of_site[0]

    def test_random_mass_failures_take_out_no_more_than_the_limits(self) -> None:
        """Hosts fail at their own times, the broker restarts, and nobody decides anything."""
        for seed in range(60):
            dice = random.Random(seed)
            pools = dice.randint(1, 8)
            hosts = dice.randint(1, 12)
            site = Site(pools, hosts)
            if dice.random() < 0.7:
                site.attest(Level.TRUSTED, site.ids())
            bad = dice.sample(site.ids(), dice.randint(0, len(site.ids())))
            for _ in range(60):
                site.clock.pass_ms(dice.randint(0, 10_000))
                host_id = dice.choice(site.ids())
                level = Level.UNTRUSTED if host_id in bad else Level.TRUSTED
                site.attest(level, [host_id])
                if dice.random() < 0.1:
                    site.restart(same_boot=dice.random() < 0.5)
                site.enforce()
            rule = GuardRule()
            for pool in range(pools):
                gone = {host_id for host_id in site.out if host_id.startswith(f"c{pool}h")}
                assert len(gone) <= rule.pool_limit(hosts), seed
            assert len(site.out) <= rule.site_limit(hosts), seed
            assert site.out <= set(bad), seed


@pytest.mark.parametrize("leave", ["removed", "moved"])
def test_the_guard_does_not_wait_for_hosts_that_are_no_more_of_its_pool(leave: str) -> None:
    world = World(hosts=10)
    world.attest(good=world.ids())
    world.attest(bad=["h0", "h1", "h2"])
    assert world.leaving() == set()
    for number in range(3):
        if leave == "moved":
            world.change_host(number, cluster_id="elsewhere")
    world.hosts = world.hosts if leave == "moved" else world.hosts[3:]
    world.look()
    world.clock.pass_ms(1000)
    world.attest(bad=["h9"])
    assert world.leaving() == {"h9"}
