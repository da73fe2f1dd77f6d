# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The engine adapter: the real SDK against the simulated engine, and against engines that
misbehave."""

from __future__ import annotations

import datetime
import http.server
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.engine import client
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.engine.pages import Pages
from ovirt_tcp_plugin.lab.engine import faults, model
from ovirt_tcp_plugin.lab.engine.builtin import NONE_POLICY
from ovirt_tcp_plugin.lab.engine.config import Config
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.lab.engine.model import AffinityLabel, Rule, SimulatedCluster
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from ovirt_tcp_plugin.placement.inventory import Notice, wall_name
from ovirt_tcp_plugin.verifier.authority import Authority
from tests.broker.state.world import OPTIONS
from tests.fake_clock import FakeClock
from tests.site_pki import PASSWORD


@pytest.fixture
def simulator(site_pki: Path) -> Iterator[EngineSimulator]:
    hosts = [{"name": f"h{n}", "address": f"H{n}.lab", "cluster": "Default"} for n in (1, 2, 3)]
    vms = [{"name": f"vm{n}", "cluster": "Default"} for n in (1, 2)]
    users = {"broker@internal": PASSWORD}
    running = EngineSimulator(
        Config(
            str(site_pki / "engine.pem"), str(site_pki / "engine.key"), users, hosts=hosts, vms=vms
        )
    )
    running.start()
    yield running
    running.stop()


def adapter(site_pki: Path, url: str, **changes: object) -> Engine:
    given = {
        "password_file": site_pki / "password",
        "ca_file": site_pki / "ca.pem",
        "timeout_s": 5.0,
        **changes,
    }
    options = settings.EngineOptions(url, "broker@internal", **given)  # type: ignore[arg-type]
    return Engine(engine_access(options))


@pytest.fixture
def engine(site_pki: Path, simulator: EngineSimulator) -> Engine:
    return adapter(site_pki, simulator.url)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen after the first page of VMs, of which each has one, was read."""
    monkeypatch.setattr(client, "VMS_IN_A_LIST", 1)
    read_page = Pages._page

    def act_before_the_second(pages: Pages, number: int, size: int) -> Any:
        if number == 2:
            act()
        return read_page(pages, number, size)

    monkeypatch.setattr(Pages, "_page", act_before_the_second)


def ids(simulator: EngineSimulator) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the cluster's id, host ids by name and VM ids by name."""
    tables = simulator.model
    (cluster,) = tables.clusters
    return (
        cluster,
        {h.name: h.id for h in tables.hosts.values()},
        {v.name: v.id for v in tables.vms.values()},
    )


class TestReading:
    def test_a_listing_has_everything(self, engine: Engine, simulator: EngineSimulator) -> None:
        cluster, hosts, vms = ids(simulator)
        simulator.model.clusters[cluster].properties = {"trust_scope": "marked_vms"}
        listing = engine.listing()
        assert [(one.id, one.policy_id, dict(one.properties)) for one in listing.clusters] == [
            (cluster, NONE_POLICY, {"trust_scope": "marked_vms"})
        ]
        assert {host.id: (host.address, host.up) for host in listing.hosts} == {
            hosts[name]: (f"H{name[1:]}.lab", True) for name in hosts
        }
        assert {vm.id for vm in listing.vms} == set(vms.values())
        policy = listing.policy(listing.clusters[0])
        assert policy is not None
        assert policy.filter_ids == set(simulator.model.policies[NONE_POLICY].filters)

    @pytest.mark.parametrize(
        ("now", "next_run", "marked"),
        [
            ({}, None, False),
            ({"trusted_host_flag": "true"}, None, True),
            ({"trusted_host_flag": "false"}, None, False),
            ({}, {"trusted_host_flag": "true"}, True),
            ({"trusted_host_flag": "true"}, {}, True),
            ({"trusted_host_flag": "true"}, {"trusted_host_flag": "false"}, True),
        ],
    )
    def test_a_mark_counts_now_and_for_the_next_run(
        self,
        engine: Engine,
        simulator: EngineSimulator,
        now: dict[str, str],
        next_run: dict[str, str] | None,
        marked: bool,
    ) -> None:
        vm = simulator.model.vms[ids(simulator)[2]["vm1"]]
        vm.custom_properties, vm.next_run = now, next_run
        assert next(one.marked for one in engine.listing().vms if one.id == vm.id) is marked

    def test_who_can_take_the_engines_vm_is_asked_only_where_there_is_one(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        _, hosts, vms = ids(simulator)
        simulator.model.hosts[hosts["h2"]].hosted_engine = True
        assert engine.listing().engine_hosts == frozenset()
        simulator.model.vms[vms["vm1"]].origin = "managed_hosted_engine"
        assert engine.listing().engine_hosts == {hosts["h2"]}

    def test_events_come_oldest_first_and_only_newer_ones(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        before = engine.last_event_id()
        _, hosts, _ = ids(simulator)
        for code in (15, 16):
            simulator.model.log(code, "something", host=hosts["h1"])
        assert [(one.code, one.host_id) for one in engine.events(before)] == [
            (15, hosts["h1"]),
            (16, hosts["h1"]),
        ]

    def test_a_full_listing_is_few_calls_however_many_pools_there_are(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        _, hosts, vms = ids(simulator)
        for n in range(20):
            cluster = model.SimulatedCluster(model.new_id(), f"pool{n}")
            simulator.model.clusters[cluster.id] = cluster
        (first, *_) = simulator.model.clusters
        engine.create_wall(first, hosts.values(), vms.values())
        simulator.rest.calls.clear()
        assert engine.listing().walls[first].vm_ids == set(vms.values())
        assert sum(simulator.rest.calls.values()) == 5

    def test_many_vms_are_read_list_by_list(
        self, engine: Engine, simulator: EngineSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "VMS_IN_A_LIST", 1)
        assert {vm.name for vm in engine.listing().vms} == {"vm1", "vm2"}
        assert simulator.rest.calls["GET vms"] == 3

    def test_a_vm_that_shifts_between_pages_is_missed_once_and_not_gone(
        self, engine: Engine, simulator: EngineSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = BrokerState(OPTIONS, FakeClock(), random.random)
        state.observe_listing(engine.listing(), state.begin_listing())
        removed, shifted = sorted(simulator.model.vms)
        start = state.begin_listing()
        meanwhile(monkeypatch, lambda: simulator.model.vms.pop(removed))
        listing = engine.listing()
        assert {vm.id for vm in listing.vms} == {removed}
        state.observe_listing(listing, start)
        assert {vm.id for vm in state.listing().vms} == {removed, shifted}
        request = state.vm_reads.begin()
        assert request is not None
        assert engine.vm(request.vm_id).id == shifted

    def test_a_vm_that_is_renamed_between_pages_is_not_missed(
        self, engine: Engine, simulator: EngineSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, later = sorted(simulator.model.vms)
        meanwhile(monkeypatch, lambda: setattr(simulator.model.vms[later], "name", "a"))
        assert {vm.id for vm in engine.listing().vms} == set(simulator.model.vms)

    def test_a_vm_whose_next_start_cannot_be_read_counts_as_marked(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        _, _, vms = ids(simulator)
        for name in vms:
            simulator.model.vms[vms[name]].next_run = {}
        bad = AnswerFault(faults.BROKEN, "GET", f"api/vms/{vms['vm1']}", 100)
        simulator.faults.answers = [bad]
        listing = engine.listing()
        assert {vm.name: vm.marked for vm in listing.vms} == {"vm1": True, "vm2": False}
        assert listing.unreadable_vms == {vms["vm1"]}
        with pytest.raises(errors.Unavailable):
            engine.vm(vms["vm1"])
        simulator.faults.answers = []
        assert not engine.vm(vms["vm1"]).marked

    def test_an_engine_that_fails_at_its_newest_event_answers(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        simulator.faults.answers = [AnswerFault(faults.BROKEN, "GET", "api/events", 100)]
        assert engine.answers()
        simulator.faults.answers = [AnswerFault(faults.GARBAGE, "GET", "api/events", 100)]
        assert engine.answers()
        simulator.faults.answers = [AnswerFault(faults.HTML, "GET", ".*", 100)]
        assert not engine.answers()

    def test_without_next_runs_a_listing_asks_for_no_single_vm(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        for vm in simulator.model.vms.values():
            vm.next_run = {"trusted_host_flag": "true"}
        listing = engine.listing(next_runs=False)
        assert {(vm.marked, vm.next_run) for vm in listing.vms} == {(False, True)}
        assert simulator.rest.calls["GET vms/{}"] == 0
        assert engine.vm(next(iter(simulator.model.vms))).marked

    def test_between_full_listings_only_hosts_that_are_not_up_are_read(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        simulator.hosts.deactivate(
            simulator.model.hosts[ids(simulator)[1]["h2"]], "new memory modules"
        )
        assert [host.name for host in engine.hosts_not_up()] == ["h2"]


class TestWall:
    def test_is_made_filled_read_and_removed(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, hosts, vms = ids(simulator)
        group = engine.create_wall(cluster)
        engine.add_host(cluster, group, hosts["h1"])
        engine.add_vm(cluster, group, vms["vm1"])
        wall = engine.listing().walls[cluster]
        assert (wall.name, wall.enforcing) == (wall_name(cluster), True)
        assert (wall.host_ids, wall.vm_ids) == ({hosts["h1"]}, {vms["vm1"]})
        engine.remove_host(cluster, group, hosts["h1"])
        engine.remove_vm(cluster, group, vms["vm1"])
        wall = engine.listing().walls[cluster]
        assert (wall.host_ids, wall.vm_ids) == (frozenset(), frozenset())
        engine.remove_wall(cluster, group)
        assert engine.listing().walls == {}

    def test_what_is_so_already_is_fine(self, engine: Engine, simulator: EngineSimulator) -> None:
        cluster, hosts, vms = ids(simulator)
        group = engine.create_wall(cluster)
        for _ in range(2):
            engine.add_host(cluster, group, hosts["h1"])
            engine.add_vm(cluster, group, vms["vm1"])
        for _ in range(2):
            engine.remove_host(cluster, group, hosts["h1"])
            engine.remove_vm(cluster, group, vms["vm1"])
        for _ in range(2):
            engine.remove_wall(cluster, group)

    def test_what_cannot_be_done_is_said(self, engine: Engine, simulator: EngineSimulator) -> None:
        cluster, _, _ = ids(simulator)
        group = engine.create_wall(cluster)
        with pytest.raises((errors.NotFound, errors.Conflict)):
            engine.add_host(cluster, group, "00000000-0000-0000-0000-000000000000")
        with pytest.raises(errors.Conflict):
            engine.create_wall(cluster)

    def test_weakened_rules_are_seen_and_repaired(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, hosts, _ = ids(simulator)
        group = engine.create_wall(cluster)
        engine.add_host(cluster, group, hosts["h1"])
        simulator.model.groups[group].hosts_rule = Rule(
            enabled=True, enforcing=False, positive=True
        )
        assert not engine.listing().walls[cluster].enforcing
        engine.repair_wall(cluster, group)
        wall = engine.listing().walls[cluster]
        assert (wall.enforcing, wall.host_ids) == (True, {hosts["h1"]})

    def test_whoever_is_inside_by_a_label_is_put_out_with_it(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, hosts, _ = ids(simulator)
        group = engine.create_wall(cluster)
        label = AffinityLabel("22222222-2222-2222-2222-222222222222", "fast", hosts=[hosts["h3"]])
        simulator.model.labels[label.id] = label
        simulator.model.groups[group].host_labels.append(label.id)
        assert engine.listing().walls[cluster].host_label_ids == {label.id}
        for _ in range(2):
            engine.repair_wall(cluster, group, name=wall_name(cluster))
        assert engine.listing().walls[cluster].host_label_ids == frozenset()

    def test_labels_go_by_an_empty_list_and_everything_else_stays(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        """The engine refuses a DELETE of a host label for ever."""
        cluster, hosts, vms = ids(simulator)
        group = engine.create_wall(cluster, [hosts["h1"]], [vms["vm1"]])
        label = AffinityLabel("22222222-2222-2222-2222-222222222222", "fast", hosts=[hosts["h3"]])
        simulator.model.labels[label.id] = label
        simulator.model.groups[group].host_labels.append(label.id)
        simulator.model.groups[group].vm_labels.append(label.id)
        engine.repair_wall(cluster, group, name=wall_name(cluster))
        row = simulator.model.groups[group]
        assert (row.host_labels, row.vm_labels) == ([], [label.id])
        assert (row.hosts, row.vms) == ([hosts["h1"]], [vms["vm1"]])

    def test_a_repair_that_is_accepted_and_not_done_is_a_conflict(
        self, engine: Engine, simulator: EngineSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster, hosts, _ = ids(simulator)
        group = engine.create_wall(cluster, [hosts["h1"]])
        label = AffinityLabel("22222222-2222-2222-2222-222222222222", "fast", hosts=[hosts["h3"]])
        simulator.model.labels[label.id] = label
        simulator.model.groups[group].host_labels.append(label.id)
        monkeypatch.setattr(Engine, "_update", lambda *_: None)
        with pytest.raises(errors.Conflict, match="did not do it"):
            engine.repair_wall(cluster, group, name=wall_name(cluster))

    def test_lists_of_members_are_set_in_one_call_and_leave_the_others_alone(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, hosts, vms = ids(simulator)
        group = engine.create_wall(cluster, [hosts["h1"]], [vms["vm1"]])
        engine.set_hosts(cluster, group, [hosts["h2"], hosts["h3"]])
        assert engine.change_vms(cluster, group, [vms["vm2"]], [vms["vm1"]]) == {vms["vm2"]}
        wall = engine.listing().walls[cluster]
        assert (wall.host_ids, wall.vm_ids) == ({hosts["h2"], hosts["h3"]}, {vms["vm2"]})
        engine.set_hosts(cluster, group, [])
        wall = engine.listing().walls[cluster]
        assert (wall.host_ids, wall.vm_ids, wall.enforcing) == (frozenset(), {vms["vm2"]}, True)

    def test_of_two_the_good_one_counts_and_the_other_is_surplus(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, hosts, _ = ids(simulator)
        weak = engine.create_wall(cluster, [hosts["h1"]])
        good = engine.create_wall(cluster, [hosts["h1"]], spare=True)
        simulator.model.groups[weak].hosts_rule = Rule(enabled=True, enforcing=False, positive=True)
        listing = engine.listing()
        assert (listing.walls[cluster].id, listing.surplus_walls[cluster]) == (good, {weak})
        assert listing.wall_ids(cluster) == [good, weak]
        assert [wall.id for wall in engine.walls(cluster)] == [good, weak]

    def test_each_pool_can_have_its_own(self, engine: Engine, simulator: EngineSimulator) -> None:
        """The engine refuses a second affinity group of one name, in whatever cluster."""
        second = SimulatedCluster("11111111-1111-1111-1111-111111111111", "Second")
        simulator.model.clusters[second.id] = second
        walls = {cluster: engine.create_wall(cluster) for cluster in simulator.model.clusters}
        assert {cluster: wall.id for cluster, wall in engine.listing().walls.items()} == walls

    def test_one_that_was_renamed_is_known_again_and_gets_its_name_back(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        cluster, _, _ = ids(simulator)
        group = engine.create_wall(cluster)
        simulator.model.groups[group].name = "of an administrator"
        wall = engine.listing().walls[cluster]
        assert (wall.id, wall.enforcing) == (group, False)
        engine.repair_wall(cluster, group)
        assert engine.listing().walls[cluster].enforcing
        assert simulator.model.groups[group].name == wall_name(cluster)


class TestHosts:
    def test_the_reason_of_maintenance_is_shown(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        _, hosts, _ = ids(simulator)
        engine.deactivate(hosts["h1"], "not trusted (pcr_differs)")
        (host,) = [one for one in engine.hosts() if one.id == hosts["h1"]]
        assert (host.up, host.status_detail) == (False, "not trusted (pcr_differs)")

    def test_a_refusal_has_the_engines_reason(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        _, hosts, _ = ids(simulator)
        with pytest.raises(errors.Conflict, match="Host in Up status"):
            engine.activate(hosts["h1"])

    def test_a_host_that_is_gone_is_not_found(self, engine: Engine) -> None:
        with pytest.raises(errors.NotFound):
            engine.deactivate("00000000-0000-0000-0000-000000000000", "reason")


class TestEvents:
    def test_are_written_once(self, engine: Engine, simulator: EngineSimulator) -> None:
        _, hosts, _ = ids(simulator)
        for _ in range(2):
            engine.add_event(
                Notice("key", "error", "Host h1 is untrusted.", host_id=hosts["h1"]), 77
            )
        written = [row for row in simulator.model.events if row.origin == "ovirt-tcp"]
        assert [(row.custom_id, row.severity, row.host) for row in written] == [
            (77, "error", hosts["h1"])
        ]


class TestTrouble:
    def test_a_restart_of_the_engine_is_unavailable_and_then_over(
        self, engine: Engine, simulator: EngineSimulator
    ) -> None:
        engine.hosts()
        simulator.restart(0.3)
        with pytest.raises(errors.Unavailable):
            engine.hosts()
        deadline = time.monotonic() + 10
        while simulator.away_until:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(engine.hosts()) == 3

    def test_an_ended_session_begins_anew(self, engine: Engine, simulator: EngineSimulator) -> None:
        engine.hosts()
        simulator.sessions.end_all()
        assert len(engine.hosts()) == 3

    def test_a_wrong_password_is_unavailable(
        self, site_pki: Path, simulator: EngineSimulator, tmp_path: Path
    ) -> None:
        wrong = tmp_path / "password"
        wrong.write_text("wrong", encoding="utf-8")
        with pytest.raises(errors.Unavailable, match="password"):
            adapter(site_pki, simulator.url, password_file=wrong).hosts()

    def test_nobody_there_is_unavailable(self, site_pki: Path) -> None:
        with pytest.raises(errors.Unavailable):
            adapter(site_pki, "https://127.0.0.1:1/ovirt-engine/api").hosts()

    def test_a_certificate_of_another_authority_is_unavailable(
        self, site_pki: Path, simulator: EngineSimulator, tmp_path: Path
    ) -> None:
        Authority.create(tmp_path, datetime.datetime.now(datetime.timezone.utc))
        with pytest.raises(errors.Unavailable):
            adapter(site_pki, simulator.url, ca_file=tmp_path / "ca.pem").hosts()


@pytest.fixture
def misbehave(site_pki: Path) -> Iterator[Callable[[Callable[[str], bytes | None]], str]]:
    """Start an engine that answers a path with these bytes, or never for None; return its API's
    URL."""
    servers: list[http.server.ThreadingHTTPServer] = []
    over = threading.Event()

    def start(content: Callable[[str], bytes | None]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                sent = content(self.path)
                if sent is None:
                    over.wait(10)
                    return
                self.send_response_only(200)
                kind = "application/json" if "/sso/" in self.path else "application/xml"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site_pki / "engine.pem", site_pki / "engine.key")
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(
            target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        servers.append(httpd)
        return f"https://127.0.0.1:{httpd.server_address[1]}/ovirt-engine/api"

    yield start
    over.set()
    for httpd in servers:
        httpd.shutdown()
        httpd.server_close()


LOGIN = b'{"access_token": "token"}'


class TestMisbehaviour:
    @pytest.mark.parametrize("silent", ["/sso/", "/api/"])
    def test_silence_has_a_limit(
        self, site_pki: Path, misbehave: Callable[[Callable[[str], bytes | None]], str], silent: str
    ) -> None:
        url = misbehave(lambda path: None if silent in path else LOGIN)
        began = time.monotonic()
        with pytest.raises(errors.Unavailable):
            adapter(site_pki, url, timeout_s=1.0).hosts()
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize(
        "content", [b"", b"<hosts>", b"<html/>", b"garbage", b"<vms><vm id='1'/></vms>", b"\xff"]
    )
    def test_garbage_is_unavailable(
        self,
        site_pki: Path,
        misbehave: Callable[[Callable[[str], bytes | None]], str],
        content: bytes,
    ) -> None:
        url = misbehave(lambda path: LOGIN if "/sso/" in path else content)
        with pytest.raises(errors.Unavailable):
            adapter(site_pki, url).hosts()

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"<html>", b'{"access_token": 3}'])
    def test_a_log_in_that_is_none_is_unavailable(
        self,
        site_pki: Path,
        misbehave: Callable[[Callable[[str], bytes | None]], str],
        content: bytes,
    ) -> None:
        url = misbehave(lambda path: content)
        with pytest.raises(errors.Unavailable):
            adapter(site_pki, url).hosts()

    def test_a_port_that_accepts_and_says_nothing_has_a_limit(self, site_pki: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"https://127.0.0.1:{server.getsockname()[1]}/ovirt-engine/api"
            with pytest.raises(errors.Unavailable):
                adapter(site_pki, url, timeout_s=1.0).hosts()
