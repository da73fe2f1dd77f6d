# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A pool lasts until a person ends it: through an upgrade of its cluster, another policy, restarts
and a lost state file."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import ovirtsdk4
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from ovirtsdk4 import types

from ovirt_tcp_plugin import errors, tokens
from ovirt_tcp_plugin.admin.cli import main
from ovirt_tcp_plugin.broker.api import server as web
from ovirt_tcp_plugin.broker.settings import ApiOptions
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.store.tokens import Tokens
from ovirt_tcp_plugin.lab.engine import builtin, faults
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope
from ovirt_tcp_plugin.placement.inventory import Policy, Unit
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.broker.site import ADMINISTRATOR, EVERYBODY, Site, until
from tests.broker.state.world import POOL, World
from tests.site_pki import PASSWORD

OLD_STATE = Path(__file__).parent / "store" / "data" / "state.json"


class Upgrade:
    """What oVirt's role `cluster_upgrade` does, by the real SDK.

    For as long as it takes, the cluster has the policy cluster_maintenance
    (roles/cluster_upgrade/tasks/cluster_policy.yml); then its former one again.
    """

    def __init__(self, site: Site, connection: ovirtsdk4.Connection) -> None:
        self._system = connection.system_service()
        self._cluster = self._system.clusters_service().cluster_service(site.cluster)
        self._former = self._cluster.get().scheduling_policy.id
        self._site = site

    def begin(self) -> None:
        self._use(CLUSTER_MAINTENANCE)

    def end(self) -> None:
        self._use(self._former)

    def reboot(self, host: str, level: Level) -> None:
        """Put a host into maintenance and reboot it into another boot; it is Up in the end."""
        service = self._system.hosts_service().host_service(self._site.host(host).id)
        service.deactivate()
        until(lambda: self._site.statuses()[host] == "maintenance")
        until(lambda: host not in self._site.inside())
        self._site.source.levels[f"{host}.lab"] = level
        service.activate()

    def migrate(self, vm: str, host: str) -> None:
        """Migrate a VM to this host. Raises ovirtsdk4.Error."""
        service = self._system.vms_service()
        (listed,) = service.list(search=f"name={vm}")
        target = types.Host(id=self._site.host(host).id)
        service.vm_service(listed.id).migrate(host=target)

    def _use(self, policy: str) -> None:
        self._cluster.update(types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy)))


@pytest.fixture
def upgrade(site: Site) -> Iterator[Upgrade]:
    ca_file = str(site.pki / "ca.pem")
    connection = ovirtsdk4.Connection(site.engine.url, ADMINISTRATOR, PASSWORD, ca_file=ca_file)
    with contextlib.closing(connection):
        yield Upgrade(site, connection)


def lose_state(site: Site) -> None:
    (site.options.state.directory / "state.json").unlink()


class TestUpgrade:
    def test_a_host_that_reboots_into_a_tampered_boot_gets_no_vm_and_leaves_service(
        self, site: Site, upgrade: Upgrade
    ) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        wall = site.wall()
        upgrade.begin()
        until(lambda: site.told("is being upgraded"))
        refused = AnswerFault(faults.BROKEN, "POST", "api/hosts/.*/deactivate", 10_000)
        upgrade.reboot("h3", Level.UNTRUSTED)
        site.engine.faults.answers = [refused]
        until(lambda: site.told("Host h3 is untrusted"))
        assert site.statuses()["h3"] == "up"
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            upgrade.migrate("vm1", "h3")
        site.engine.faults.answers = []
        until(lambda: site.statuses()["h3"] == "maintenance")
        assert site.host("h3").status_detail.startswith("ovirt-tcp: not trusted")
        assert site.inside() == EVERYBODY - {"h3"}
        assert site.wall() is wall

    def test_a_host_that_reboots_into_a_good_boot_enters_again_and_ours_return(
        self, site: Site, upgrade: Upgrade
    ) -> None:
        site.source.levels["h5.lab"] = Level.UNTRUSTED
        site.start()
        until(lambda: site.statuses()["h5"] == "maintenance")
        upgrade.begin()
        until(lambda: site.told("is being upgraded"))
        upgrade.reboot("h4", Level.TRUSTED)
        site.source.levels["h5.lab"] = Level.TRUSTED
        until(lambda: site.inside() == EVERYBODY)

    def test_it_is_told_once_at_both_ends_and_who_needs_trust_stays(
        self, site: Site, upgrade: Upgrade
    ) -> None:
        cluster = site.engine.model.clusters[site.cluster]
        cluster.properties = {"trust_scope": "marked_vms"}
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        upgrade.begin()
        until(lambda: site.told("is being upgraded"))
        # The engine drops what the units of the policy do not know.
        assert "trust_scope" not in cluster.properties
        site.stop()
        site.start()
        until(lambda: site.service.observation.all_known.is_set())
        assert site.snapshot().scope is Scope.MARKED_VMS
        cluster.properties = {"trust_scope": "marked_vms"}
        upgrade.end()
        until(lambda: site.told("The upgrade of cluster Trusted has ended"))
        assert len(site.told("is being upgraded")) == 1

    def test_without_any_state_all_vms_need_trust_until_it_has_ended(
        self, site: Site, upgrade: Upgrade
    ) -> None:
        cluster = site.engine.model.clusters[site.cluster]
        cluster.properties = {"trust_scope": "marked_vms"}
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        wall = site.wall()
        site.stop()
        upgrade.begin()
        lose_state(site)
        site.source.levels["h2.lab"] = Level.UNTRUSTED
        site.start()
        until(lambda: site.told("counts as a trusted pool because of its wall"))
        until(lambda: wall is not None and len(wall.vms) == 2)
        until(lambda: site.statuses()["h2"] == "maintenance")
        assert site.inside() == EVERYBODY - {"h2"}
        assert site.snapshot().scope is Scope.ALL_VMS
        upgrade.end()
        cluster.properties = {"trust_scope": "marked_vms"}
        until(lambda: site.snapshot().scope is Scope.MARKED_VMS)
        assert site.wall() is wall

    def test_a_state_file_of_an_earlier_release_knows_no_pool_and_the_wall_makes_it_one(
        self,
    ) -> None:
        world = World()
        world.policy = Policy(CLUSTER_MAINTENANCE, "cluster_maintenance")
        world.cluster = dataclasses.replace(world.cluster, policy_id=CLUSTER_MAINTENANCE)
        world.state = BrokerState(world.options, world.clock, random.random)
        world.state.restore(json.loads(OLD_STATE.read_text())["knowledge"])
        assert world.state.pools() == {}
        world.look()
        assert set(world.state.pools()) == {POOL}


class TestAnotherPolicy:
    def test_a_policy_by_hand_changes_nothing_but_is_an_error(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        wall = site.wall()
        site.engine.model.clusters[site.cluster].policy = builtin.NONE_POLICY
        until(lambda: site.told("It is still a trusted pool"))
        site.source.levels["h3.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h3").id)
        until(lambda: site.statuses()["h3"] == "maintenance")
        assert site.inside() == EVERYBODY - {"h3"}
        assert site.wall() is wall
        assert site.trusted_in_snapshot() == EVERYBODY - {"h3"}


def quarantined(site: Site) -> None:
    """Have a pool with a host in quarantine, whose policy somebody changed by hand."""
    site.source.levels["h3.lab"] = Level.UNTRUSTED
    site.start()
    until(lambda: site.statuses()["h3"] == "maintenance" and site.inside() == EVERYBODY - {"h3"})
    site.engine.model.clusters[site.cluster].policy = builtin.NONE_POLICY
    until(lambda: site.told("It is still a trusted pool"))


class TestEnd:
    def test_wall_host_and_snapshot_are_given_back(self, site: Site) -> None:
        quarantined(site)
        site.state.pool_ends.end("Trusted", "token 1")
        until(lambda: site.wall() is None and site.statuses()["h3"] == "up")
        until(lambda: site.told("token 1 ended it"))
        assert not (site.options.snapshot.directory / f"{site.cluster}.json").exists()
        (event,) = site.told("no trusted pool any more")
        assert "Hosts back in service: h3." in event.description
        assert site.state.pools() == {}

    def test_a_kill_between_its_record_and_the_giving_back_loses_neither(
        self, site: Site, tmp_path: Path
    ) -> None:
        quarantined(site)
        site.engine.faults.answers = [
            AnswerFault(faults.BROKEN, "DELETE", "api/clusters/.*/affinitygroups/.*", 10_000),
            AnswerFault(faults.BROKEN, "POST", "api/hosts/.*/activate", 10_000),
        ]
        site.state.pool_ends.end("Trusted", "token 1")
        site.service.save_all()
        # What a broker that is killed here leaves.
        state_file = site.options.state.directory / "state.json"
        shutil.copy(state_file, tmp_path / "killed.json")
        site.stop()
        shutil.copy(tmp_path / "killed.json", state_file)
        assert site.wall() is not None
        assert site.statuses()["h3"] == "maintenance"
        site.engine.faults.answers = []
        site.start()
        until(lambda: site.wall() is None and site.statuses()["h3"] == "up")
        until(lambda: site.told("token 1 ended it"))

    def test_a_wall_that_cannot_be_removed_is_told_and_removed_later(self, site: Site) -> None:
        quarantined(site)
        removals = AnswerFault(faults.BROKEN, "DELETE", "api/clusters/.*/affinitygroups/.*", 10_000)
        site.engine.faults.answers = [removals]
        site.state.pool_ends.end("Trusted", "token 1")
        until(lambda: site.told("could not be removed"))
        assert not site.told("token 1 ended it")
        site.engine.faults.answers = []
        until(lambda: site.wall() is None)
        until(lambda: site.told("token 1 ended it"))

    def test_a_request_of_setup_is_the_act_of_a_person(self, site: Site) -> None:
        quarantined(site)
        requests = EndRequests(site.options.state.directory)
        requests.add([site.cluster])
        until(lambda: site.wall() is None and site.statuses()["h3"] == "up")
        until(lambda: site.told("`ovirt-tcp setup --remove` ended it"))
        assert requests.cluster_ids() == []

    def test_a_cluster_that_is_gone_takes_its_pool_along_without_fuss(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        tables = site.engine.model
        snapshot = site.options.snapshot.directory / f"{site.cluster}.json"
        with tables.lock:
            tables.groups.clear()
            tables.vms.clear()
            tables.hosts.clear()
            second = dataclasses.replace(tables.clusters.pop(site.cluster), id="another")
            second.policy = builtin.NONE_POLICY
            tables.clusters[second.id] = second
        until(lambda: site.state.pools() == {})
        until(lambda: not snapshot.exists())
        assert site.told("no trusted pool any more") == []


@contextlib.contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve the interface of a site's broker; yield its URL. Its token is `secret`."""
    known = Tokens(site.database)
    known.add("secret", "operator", "", tokens.NEVER)
    context = web.Context(site.state, site.service, site.history, known, site.clock)
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready = threading.Event()

    async def serve() -> None:
        _, port = web.serve(context, ApiOptions(port=0))
        ports.append(port)
        ready.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_an_administrator_ends_a_pool_by_the_command_line(site: Site, tmp_path: Path) -> None:
    quarantined(site)
    (tmp_path / "token").write_text("secret")
    with served(site) as url:
        broker = {"url": url, "token_file": str(tmp_path / "token")}
        (tmp_path / "cli.yaml").write_text(json.dumps({"broker": broker}))
        command = ["--config-dir", str(tmp_path), "pool", "end", "Trusted", "--yes"]
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    state_file = site.options.state.directory / "state.json"
    assert site.cluster not in json.loads(state_file.read_text())["knowledge"]["pools"]
    until(lambda: site.wall() is None and site.statuses()["h3"] == "up")
    until(lambda: site.told("no trusted pool any more: token "))


ACTS = ("maintenance", "back", "another", "restart", "lost state", "setup again", "no units")


POLICIES = {
    "maintenance": Policy(CLUSTER_MAINTENANCE, "cluster_maintenance"),
    "back": Policy("policy", "trusted", filter_ids=frozenset({"unit"})),
    "another": Policy("plain", "power_saving"),
    "setup again": Policy("fresh", "ovirt-tcp", filter_ids=frozenset({"unit"})),
}
UNITS = (Unit("unit", "TrustedHosts"),)


def do(world: World, act: str) -> None:
    """Do something that ends no pool, and let the broker look."""
    world.units = () if act == "no units" else UNITS
    if act in POLICIES:
        world.policy = POLICIES[act]
        world.cluster = dataclasses.replace(world.cluster, policy_id=world.policy.id)
    elif act == "restart":
        world.restart()
    elif act == "lost state":
        world.state = BrokerState(world.options, world.clock, random.random)
    for _ in range(3):
        world.look()


def is_ended(world: World) -> bool:
    """Have a person try to end the pool; return whether it ended now."""
    try:
        _, was_pool = world.state.pool_ends.end("Trusted", "token 1")
    except errors.Conflict:
        return False
    return was_pool


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ACTS), max_size=12))
def test_no_order_of_other_acts_ends_a_pool(acts: list[str]) -> None:
    world = World()
    world.attest(good=world.ids())
    world.build()
    for act in acts:
        do(world, act)
        assert set(world.state.pools()) == {POOL}
        assert world.state.pool_ends.walls() == []
        assert world.gone == ()
        world.attest(good=["h0", "h1", "h2"], bad=["h3"])
        assert world.inside() == {"h0", "h1", "h2"}
        assert world.wall is not None
        assert world.wall.vm_ids == {"v0", "v1"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from((*ACTS, "end", "end")), max_size=12))
def test_a_wall_goes_only_after_a_person_ended_its_pool(acts: list[str]) -> None:
    world = World()
    ended = False
    for act in acts:
        if act == "end":
            ended = is_ended(world) or ended
        do(world, act)
        if POOL in world.state.pools():
            ended = False  # it began again
            world.build()
        else:
            assert ended
        walls = world.state.pool_ends.walls()
        assert ended or walls == []
        for cluster_id, group_id in walls:
            world.wall = None
            world.state.walls.removed(cluster_id, group_id)
            world.state.pool_ends.wall_removed(cluster_id)


def test_an_end_is_in_the_state_file(tmp_path: Path) -> None:
    world = World()
    world.policy = POLICIES["another"]
    world.cluster = dataclasses.replace(world.cluster, policy_id="plain")
    world.look()
    world.state.pool_ends.end("Trusted", "token 1")
    StateFile(tmp_path).save(world.state)
    restarted = BrokerState(world.options, world.clock, random.random)
    StateFile(tmp_path).load(restarted)
    assert restarted.pool_ends.cluster_ids() == {POOL}
    assert restarted.pools() == {}
