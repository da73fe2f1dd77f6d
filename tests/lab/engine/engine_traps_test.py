# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The traps of a real engine that a client can meet, each as a test of the simulated one.

By number: 1 trusted_service takes hosts out. 2 The external scheduler's silence lets everybody
pass, half an answer nobody or breaks the command. 3 Discovery happens once a start. 4 Connecting
may take 100 ms. 5 A policy without balance stops balancing. 6 External filters do not run
everywhere. 7 A call carries the policy's properties only, under the cluster's lock. 8 No verb for
NonOperational; maintenance is reached later, refused, or hangs. 9 external_status switches fencing
off. 10 A host is Up before its event. 11 Events come out of order, the newest first, or not at all.
12 Ids, rates and alerts of external events. 13 What the SDK makes of time-outs, restarts and
sessions. 14 Custom properties are refused, Run Once overrides. 16 Which hook runs when. 17 A
refresh judges nothing. 19 Pages of other origins. 15 is about the runner of VDSM hooks, 18 about
the import of OVA files, which no REST client can start: neither is here. Time is moved by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import audit_log, builtin, faults
from ovirt_tcp_plugin.lab.engine.external_scheduler import ExternalScheduler, NoAnswer
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.lab.engine.model import SimulatedHost, SimulatedVm
from ovirt_tcp_plugin.lab.engine.sessions import Unauthorized
from tests.lab.engine.conftest import Connect
from tests.lab.engine.peers import (
    HOSTS,
    TIMINGS,
    Lab,
    ScriptedScheduler,
    Session,
    add_group,
    envelope,
    reply_of,
    until,
    vm,
)


class TestTrustedService:
    def test_trap_1_the_flag_is_refused_without_an_attestation_server(self, lab: Lab) -> None:
        (cluster,) = lab.system.clusters_service().list()
        service = lab.system.clusters_service().cluster_service(cluster.id)
        with pytest.raises(
            ovirtsdk4.Error, match="Attestation server should be configured"
        ) as refused:
            service.update(types.Cluster(trusted_service=True))
        assert refused.value.code == 400

    def test_trap_1_the_flag_takes_hosts_out_at_their_activation_and_at_the_engines_start(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(attestation_server="attest.lab", vms=[])
        (cluster,) = lab.system.clusters_service().list()
        lab.system.clusters_service().cluster_service(cluster.id).update(
            types.Cluster(trusted_service=True)
        )
        lab.pass_time(200)
        assert lab.status("h1") == "up"
        lab.session.host_service("h1").deactivate()
        lab.pass_time(1)
        lab.session.host_service("h1").activate()
        lab.pass_time(10)
        assert lab.status("h1") == "up"
        lab.pass_time(6)
        assert (lab.status("h1"), lab.session.host("h1").status_detail) == (
            "non_operational",
            "untrusted",
        )
        assert audit_log.HOST_UNTRUSTED in lab.session.codes()
        lab.engine.restart(1)
        lab.pass_time(2)
        assert {lab.session.host(name).status_detail for name in ("h2", "h3")} == {"uninitialized"}
        lab.pass_time(330)
        assert {lab.session.host(name).status_detail for name in ("h1", "h2", "h3")} == {
            "untrusted"
        }


class TestExternalScheduler:
    def test_trap_2_one_that_is_down_or_slow_keeps_all_hosts(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        for reply in (b"", reply_of("<nil/>"), b"rubbish"):
            proxy.reply = reply
            filtered.session.vm_service("vm2").start()
            assert (filtered.journal()["external"], filtered.journal()["left"]) == (
                "kept",
                ["h1", "h2", "h3"],
            )
            filtered.session.vm_service("vm2").stop()
        assert filtered.session.codes().count(audit_log.SCHEDULER_UNREACHABLE) == 1

    def test_trap_2_an_answer_that_never_comes_keeps_all_hosts(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        with proxy.silence():
            filtered.session.vm_service("vm2").start()
        assert filtered.journal()["external"] == "kept"

    def test_trap_2_an_answer_without_result_keeps_none(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        proxy.reply = reply_of(
            "<struct><member><name>result_code</name><value><int>0</int></value></member></struct>"
        )
        with pytest.raises(ovirtsdk4.Error, match=r"\[\]"):
            filtered.session.vm_service("vm2").start()

    @pytest.mark.parametrize(
        "reply", [reply_of("<struct/>"), envelope(["no uuid"])], ids=["no result_code", "no uuid"]
    )
    def test_trap_2_an_answer_that_java_cannot_take_breaks_the_command(
        self, filtered: Lab, proxy: ScriptedScheduler, reply: bytes
    ) -> None:
        proxy.reply = reply
        with pytest.raises(ovirtsdk4.Error, match="Internal Engine Error") as broken:
            filtered.session.vm_service("vm2").start()
        assert broken.value.code == 500

    def test_trap_3_a_missed_discovery_switches_filters_off_until_the_next_start(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        discovery, proxy.discovery = proxy.discovery, b""
        filtered.engine.restart(1)
        filtered.pass_time(2)
        filtered.engine.discovery.wait()
        assert not filtered.session.unit("TrustedHosts").enabled
        proxy.discovery = discovery
        filtered.pass_time(3600)
        assert not filtered.session.unit("TrustedHosts").enabled
        filtered.session.vm_service("vm2").start()
        assert filtered.journal()["external"] == "not called"
        filtered.engine.restart(1)
        filtered.pass_time(2)
        filtered.engine.discovery.wait()
        assert filtered.session.unit("TrustedHosts").enabled

    def test_trap_3_until_discovery_has_answered_the_units_are_as_they_were(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        # Longer than the engine's start takes.
        filtered.engine.model.timings = dataclasses.replace(
            filtered.engine.model.timings, external_response=1.5
        )
        with proxy.silence():
            filtered.engine.restart(1)
            filtered.pass_time(2)
            assert filtered.session.unit("TrustedHosts").enabled
            filtered.engine.discovery.wait()
        assert not filtered.session.unit("TrustedHosts").enabled

    def test_trap_4_a_full_backlog_is_no_answer(self) -> None:
        with socket.socket() as server, contextlib.ExitStack() as queue:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(4):
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(server.getsockname())
            scheduler = ExternalScheduler(
                f"http://127.0.0.1:{server.getsockname()[1]}/", response_within_s=20
            )
            with pytest.raises(NoAnswer, match="timed out"):
                scheduler.run_filters(["TrustedHosts"], [], "", {})

    def test_trap_6_external_filters_do_not_run_in_target_lists_and_not_for_running_vms(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        proxy.reply = envelope([])
        asked = len(proxy.asked)
        targets = filtered.system.hosts_service().list(migration_target_of=filtered.vm("vm1").id)
        assert [host.name for host in targets] == ["h2", "h3"]
        filtered.pass_time(600)
        assert (len(proxy.asked), filtered.session.place("vm1")) == (asked, "h1")
        with pytest.raises(ovirtsdk4.Error, match=r"\[\]"):
            filtered.session.vm_service("vm1").migrate()

    def test_trap_6_a_hosted_engine_is_moved_without_a_filter(
        self, make_lab: Callable[..., Lab], proxy: ScriptedScheduler
    ) -> None:
        hosts = [{**host, "hosted_engine": host["name"] != "h2"} for host in HOSTS]
        lab = make_lab(
            hosts=hosts,
            vms=[vm("HostedEngine", "h1", origin="hosted_engine")],
            external_scheduler=proxy.url,
        )
        lab.filter_by()
        proxy.reply, asked = envelope([]), len(proxy.asked)
        lab.session.host_service("h1").deactivate()
        assert (lab.session.place("HostedEngine"), len(proxy.asked)) == ("h3", asked)
        assert lab.session.vm("HostedEngine").origin == "hosted_engine"

    def test_trap_7_a_call_has_the_policys_properties_and_nothing_of_the_vm(
        self, make_lab: Callable[..., Lab], proxy: ScriptedScheduler
    ) -> None:
        lab = make_lab(
            external_scheduler=proxy.url,
            vms=[vm("vm2", custom_properties={"trusted_host_flag": "true"})],
        )
        lab.session.use_policy(
            "Default", [lab.session.unit("TrustedHosts").id], trust_scope="marked_vms"
        )
        proxy.reply = envelope([lab.host("h2").id])
        lab.session.vm_service("vm2").start()
        body = proxy.asked[-1].decode()
        assert "<name>trust_scope</name><value>marked_vms</value>" in body
        assert not [
            text
            for text in ("trusted_host_flag", "vm2", "Default", *lab.engine.model.clusters)
            if text in body
        ]

    def test_trap_7_a_slow_answer_holds_its_own_cluster_and_no_other(
        self, make_lab: Callable[..., Lab], proxy: ScriptedScheduler, connect: Connect
    ) -> None:
        hosts = [*HOSTS, {"name": "other", "address": "other.lab", "cluster": "Other"}]
        vms = [vm("vm1"), vm("vm2"), {"name": "elsewhere", "cluster": "Other"}]
        timings = {**TIMINGS, "external_response": 20}
        lab = make_lab(
            clusters=["Default", "Other"],
            hosts=hosts,
            vms=vms,
            external_scheduler=proxy.url,
            timings=timings,
        )
        lab.filter_by()
        proxy.reply = envelope([lab.host("h2").id])
        with proxy.silence() as asked:
            threads = [
                threading.Thread(target=Session(connect(lab.engine)).vm_service(name).start)
                for name in ("vm1", "vm2")
            ]
            for thread in threads:
                thread.start()
            until(asked.is_set)
            lab.session.vm_service("elsewhere").start()
            assert [entry["chosen"] for entry in lab.engine.model.journal] == ["other"]
        for thread in threads:
            thread.join()
        assert [entry["chosen"] for entry in lab.engine.model.journal] == ["other", "h2", "h2"]


class TestBalancing:
    @pytest.fixture
    def crowded(self, make_lab: Callable[..., Lab]) -> Lab:
        """Two clusters; in the second one host has three VMs and the other none."""
        places = (("a", "First"), ("b1", "Second"), ("b2", "Second"))
        hosts = [
            {"name": name, "address": f"{name}.lab", "cluster": cluster} for name, cluster in places
        ]
        vms = [{"name": f"vm{n}", "cluster": "Second", "host": "b1"} for n in range(3)]
        lab = make_lab(clusters=["First", "Second"], hosts=hosts, vms=vms)
        even = {"HighVmCount": "2", "MigrationThreshold": "2"}
        lab.session.use_policy("Second", [], builtin.GUEST_BALANCE, **even)
        return lab

    def test_trap_5_a_policy_without_balance_ends_the_round_for_the_clusters_after_it(
        self, crowded: Lab
    ) -> None:
        crowded.session.use_policy("First", [])
        crowded.pass_time(300)
        assert {crowded.session.place(f"vm{n}") for n in range(3)} == {"b1"}

    def test_with_a_balance_in_every_policy_vms_are_spread(self, crowded: Lab) -> None:
        crowded.session.use_policy("First", [], builtin.NO_BALANCE)
        crowded.pass_time(300)
        assert sorted(crowded.session.place(f"vm{n}") for n in range(3)) == ["b1", "b1", "b2"]


class TestMaintenance:
    def test_trap_8_no_verb_makes_a_host_non_operational(self, lab: Lab) -> None:
        lab.session.host_service("h2").update(types.Host(status=types.HostStatus.NON_OPERATIONAL))
        assert lab.status("h2") == "up"

    def test_trap_8_maintenance_is_reached_later(self, lab: Lab) -> None:
        lab.session.host_service("h1").deactivate(reason="PCR 17 differs")
        assert (lab.status("h1"), lab.session.host("h1").status_detail) == (
            "preparing_for_maintenance",
            "PCR 17 differs",
        )
        lab.pass_time(19)
        assert lab.status("h1") == "preparing_for_maintenance"
        lab.pass_time(3)
        assert lab.status("h1") == "maintenance"

    def test_trap_8_pinned_vms_forbid_it(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm("fixed", "h1", affinity="pinned", pinned_to=["h1"])])
        with pytest.raises(ovirtsdk4.Error, match="The non-migratable VMs are: fixed"):
            lab.session.host_service("h1").deactivate()
        assert lab.status("h1") == "up"
        assert lab.session.vm("fixed").placement_policy.hosts[0].id == lab.host("h1").id

    def test_trap_8_running_tasks_forbid_it(self, lab: Lab) -> None:
        lab.engine.faults.refused_maintenance["h1"] = (
            "Cannot switch Host to Maintenance mode. Host has running tasks."
        )
        with pytest.raises(ovirtsdk4.Error, match="Host has running tasks") as refused:
            lab.session.host_service("h1").deactivate()
        assert refused.value.code == 409
        assert audit_log.REFUSED in lab.session.codes()

    def test_trap_8_one_in_maintenance_cannot_enter_it(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        with pytest.raises(ovirtsdk4.Error, match="already in Maintenance"):
            lab.session.host_service("h2").deactivate()

    def test_trap_8_it_may_hang(self, lab: Lab) -> None:
        lab.engine.faults.hanging_maintenance = {"h2"}
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1000)
        assert lab.status("h2") == "preparing_for_maintenance"

    def test_trap_8_it_is_refused_and_begins_all_the_same_when_a_vm_can_go_nowhere(
        self, lab: Lab
    ) -> None:
        uid = add_group(lab.session.connection, [lab.session.host("h1")], [lab.session.vm("vm1")])
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            lab.session.host_service("h1").deactivate(reason="PCR 17 differs")
        assert lab.status("h1") == "preparing_for_maintenance"
        assert audit_log.HOST_STUCK in lab.session.codes()
        lab.engine.model.groups[uid].hosts.append(lab.host("h3").id)
        lab.pass_time(299)
        assert lab.session.place("vm1") == "h1"
        lab.pass_time(25)
        assert (lab.session.place("vm1"), lab.status("h1")) == ("h3", "maintenance")

    def test_trap_8_evacuation_is_tried_once_and_again_after_five_minutes(
        self, filtered: Lab, proxy: ScriptedScheduler
    ) -> None:
        proxy.reply = envelope([])
        filtered.session.host_service("h1").deactivate()
        tries = [entry["time"] for entry in filtered.engine.model.journal]
        filtered.pass_time(1000)
        tries = [float(entry["time"]) - float(tries[0]) for entry in filtered.engine.model.journal]
        assert [round(seconds, -1) for seconds in tries] == [0, 300, 600, 900]

    def test_trap_8_it_never_ends_by_itself(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(3600)
        assert lab.status("h2") == "maintenance"


class TestHosts:
    def test_trap_9_an_external_status_switches_fencing_off(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("ha", "h1", high_availability=True)])
        error = types.ExternalStatus.ERROR
        lab.session.host_service("h1").update(types.Host(external_status=error))
        assert lab.session.host("h1").external_status == types.ExternalStatus.OK
        lab.write(1, host=types.Host(id=lab.host("h1").id, external_status=error))
        assert lab.session.host("h1").external_status == error
        lab.engine.hosts.power(lab.host("h1"), False)
        lab.pass_time(600)
        assert (lab.status("h1"), lab.vm("ha").status) == ("non_responsive", "unknown")
        assert audit_log.HOST_NOT_FENCED in lab.session.codes()

    def test_a_host_that_is_fenced_sets_its_vms_free(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(vms=[vm("ha", "h1", high_availability=True)])
        lab.engine.hosts.power(lab.host("h1"), False)
        lab.pass_time(600)
        assert (lab.vm("ha").status, lab.session.place("ha")) == ("up", "h2")

    def test_trap_10_a_host_is_up_before_its_event(self, lab: Lab) -> None:
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        lab.session.host_service("h2").activate()
        lab.pass_time(11)
        assert lab.status("h2") == "up"
        lab.session.vm_service("vm2").start()
        assert lab.journal()["candidates"] == ["h1", "h2", "h3"]
        assert audit_log.HOST_DETECTED not in lab.session.codes()
        lab.pass_time(5)
        assert audit_log.HOST_DETECTED in lab.session.codes()

    def test_trap_17_a_refresh_judges_no_features_and_capabilities_show_nowhere(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        hosts = [{**host, "features": ["TPM"]} for host in HOSTS]
        lab = make_lab(hosts=hosts, vms=[])
        (cluster,) = lab.system.clusters_service().list()
        features = (
            lab.system.clusters_service().cluster_service(cluster.id).enabled_features_service()
        )
        with pytest.raises(ovirtsdk4.Error, match="not supported"):
            features.add(types.ClusterFeature(id="unknown"))
        features.add(types.ClusterFeature(id="TPM"))
        lab.host("h2").features.clear()
        lab.session.host_service("h2").refresh()
        lab.pass_time(60)
        assert lab.status("h2") == "up"
        lab.session.host_service("h2").deactivate()
        lab.pass_time(1)
        lab.session.host_service("h2").activate()
        lab.pass_time(11)
        assert lab.status("h2") == "non_operational"
        assert lab.session.host("h2").status_detail == "host_features_incompatibile_with_cluster"
        assert lab.session.host("h1").devices == []  # a link


class TestEvents:
    def test_trap_11_ids_may_show_up_out_of_order(self, lab: Lab) -> None:
        lab.engine.faults.late_events = {audit_log.VM_STARTED: 30}
        lab.session.vm_service("vm2").start()
        first = lab.write(1)
        assert audit_log.VM_STARTED not in lab.session.codes()
        lab.pass_time(31)
        late = next(event for event in lab.events.list() if event.code == audit_log.VM_STARTED)
        assert int(late.id) < first
        assert audit_log.VM_STARTED not in [event.code for event in lab.events.list(from_=first)]

    def test_trap_11_from_and_max_give_the_newest(self, lab: Lab) -> None:
        before = int(lab.events.list(max=1)[0].id)
        written = [lab.write(number) for number in range(1, 8)]
        assert [int(event.id) for event in lab.events.list(from_=before, max=3)] == written[:-4:-1]

    def test_trap_11_only_an_ascending_search_pages_upwards(self, lab: Lab) -> None:
        written = [lab.write(number) for number in range(1, 8)]
        pages = [
            [
                int(event.id)
                for event in lab.events.list(
                    search=f"origin=ovirt-tcp sortby time asc page {page}", max=3
                )
            ]
            for page in (1, 2, 3, 4)
        ]
        assert [uid for page in pages for uid in page] == written
        assert lab.events.list(search="page 2") == []

    def test_trap_11_floods_drop_events(self, lab: Lab) -> None:
        host = lab.host("h1").id
        for _ in range(2):
            lab.engine.model.log(audit_log.HOST_UNTRUSTED, "text", host=host)
            lab.engine.model.log(audit_log.HOST_UNTRUSTED, "text", host=lab.host("h2").id)
        assert lab.session.codes().count(audit_log.HOST_UNTRUSTED) == 2
        lab.pass_time(61)
        lab.engine.model.log(audit_log.HOST_UNTRUSTED, "text", host=host)
        assert lab.session.codes().count(audit_log.HOST_UNTRUSTED) == 3

    def test_trap_11_events_get_lost(self, lab: Lab) -> None:
        lab.engine.faults.lost_events = {audit_log.VM_STARTED}
        lab.session.vm_service("vm2").start()
        assert audit_log.VM_STARTED not in lab.session.codes()

    def test_trap_12_origin_and_custom_id_are_unique_even_when_deleted(self, lab: Lab) -> None:
        uid = lab.write(7)
        lab.events.event_service(str(uid)).remove()
        assert str(uid) not in [event.id for event in lab.events.list()]
        with pytest.raises(ovirtsdk4.Error, match="custom id already exists") as refused:
            lab.write(7)
        assert refused.value.code == 400

    def test_trap_12_a_custom_id_is_free_again_when_its_row_has_aged(self, lab: Lab) -> None:
        lab.write(7)
        lab.engine.advance(31 * 86400, 86400)
        lab.write(7)

    def test_trap_12_only_a_flood_rate_of_zero_limits(self, lab: Lab) -> None:
        for number in range(1, 4):
            lab.write(number, flood_rate=30)
        lab.write(4, flood_rate=0)
        with pytest.raises(ovirtsdk4.Error, match=r"detail is \"\[\]\""):
            lab.write(5, flood_rate=0)
        lab.pass_time(31)
        lab.write(5, flood_rate=0)

    def test_trap_12_a_host_has_one_alert(self, lab: Lab) -> None:
        first, second = (types.Host(id=lab.host(name).id) for name in ("h1", "h2"))
        uid = lab.write(1, types.LogSeverity.ALERT, host=first)
        lab.write(2, types.LogSeverity.ALERT, host=second)
        with pytest.raises(ovirtsdk4.Error, match=r"detail is \"\[\]\""):
            lab.write(3, types.LogSeverity.ALERT, host=first)
        lab.events.event_service(str(uid)).remove()
        lab.write(3, types.LogSeverity.ALERT, host=first)


class TestSdk:
    def test_trap_13_a_restarting_engine_is_a_plain_error_without_a_code(self, lab: Lab) -> None:
        lab.engine.restart(60)
        with pytest.raises(ovirtsdk4.Error, match="content type") as seen:
            lab.system.hosts_service().list()
        assert type(seen.value) is ovirtsdk4.Error
        assert seen.value.code is None
        lab.pass_time(61)
        assert lab.system.hosts_service().list()

    @pytest.mark.parametrize("kind", [faults.CUT, faults.LOST, faults.SILENT])
    def test_trap_13_no_answer_is_a_plain_error_without_a_code(
        self, lab: Lab, connect: Connect, kind: str
    ) -> None:
        system = connect(lab.engine, timeout=1).system_service()
        system.hosts_service().list()
        lab.engine.faults.answers = [
            AnswerFault(kind, "GET", "api/hosts", times=1 if kind == faults.SILENT else 2)
        ]
        with pytest.raises(ovirtsdk4.Error) as seen:
            system.hosts_service().list()
        assert type(seen.value) is ovirtsdk4.Error
        assert seen.value.code is None
        assert len(system.hosts_service().list()) == 3

    def test_trap_13_a_lost_answer_leaves_its_work_done(self, lab: Lab) -> None:
        lab.engine.faults.answers = [
            AnswerFault(faults.LOST, "POST", "api/hosts/.*/deactivate", times=2)
        ]
        with pytest.raises(ovirtsdk4.Error):
            lab.session.host_service("h2").deactivate()
        assert lab.status("h2") == "preparing_for_maintenance"

    def test_trap_13_libcurl_repeats_a_request_whose_kept_connection_ended(self, lab: Lab) -> None:
        lab.system.hosts_service().list()
        lab.engine.faults.answers = [AnswerFault(faults.LOST, "POST", "api/events")]
        with pytest.raises(ovirtsdk4.Error, match="custom id already exists"):
            lab.write(1)
        assert [event.custom_id for event in lab.events.list(search="origin=ovirt-tcp")] == [1]

    def test_trap_13_a_session_that_ended_is_begun_again_with_the_password_only(
        self, lab: Lab, connect: Connect
    ) -> None:
        token = lab.session.connection.authenticate()
        borrowed = connect(lab.engine, username=None, password=None, token=token).system_service()
        assert len(borrowed.hosts_service().list()) == 3
        lab.engine.advance(1801, 100)
        assert len(lab.system.hosts_service().list()) == 3
        with pytest.raises(ovirtsdk4.Error):
            borrowed.hosts_service().list()

    def test_trap_13_close_revokes_a_token_that_was_passed_in(
        self, lab: Lab, connect: Connect
    ) -> None:
        token = lab.session.connection.authenticate()
        assert lab.engine.sessions.user(token)
        connect(lab.engine, username=None, password=None, token=token).close()
        with pytest.raises(Unauthorized):
            lab.engine.sessions.user(token)


class TestVms:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({"unknown": "x"}, "are not configured by the system. The keys are: unknown]"),
            (
                {"trusted_host_flag": "maybe"},
                "have illegal values. The keys are: trusted_host_flag]",
            ),
        ],
    )
    def test_trap_14_properties_that_are_undefined_or_illegal_are_refused(
        self, lab: Lab, given: dict[str, str], text: str
    ) -> None:
        start = "Cannot {} if some of the specified custom properties "
        document = types.Vm(
            name="new", cluster=types.Cluster(name="Default"), custom_properties=_properties(given)
        )
        (cluster,) = lab.system.clusters_service().list()
        document.cluster = types.Cluster(id=cluster.id)
        for what, act in (
            (
                "edit VM",
                lambda: lab.session.vm_service("vm2").update(
                    types.Vm(custom_properties=_properties(given))
                ),
            ),
            ("add VM", lambda: lab.system.vms_service().add(document)),
        ):
            with pytest.raises(ovirtsdk4.Error) as refused:
                act()
            assert refused.value.code == 400
            assert f"{start.format(what)}{text}" in str(refused.value)
        assert lab.session.vm("vm2").custom_properties is None

    def test_trap_14_run_once_overrides_and_does_not_show(
        self, make_lab: Callable[..., Lab]
    ) -> None:
        lab = make_lab(vms=[vm("vm2", custom_properties={"trusted_host_flag": "true"})])
        once = types.Vm(custom_properties=_properties({"trusted_host_flag": "false"}))
        lab.session.vm_service("vm2").start(vm=once)
        assert lab.vm("vm2").run_once == {"trusted_host_flag": "false"}
        assert lab.session.vm("vm2").custom_properties[0].value == "true"
        lab.session.vm_service("vm2").stop()
        assert lab.vm("vm2").run_once is None

    def test_trap_16_a_migration_does_not_run_the_hook_of_a_start(self, lab: Lab) -> None:
        ran: list[tuple[str, str]] = []

        def record(point: str, host: SimulatedHost, vm: SimulatedVm) -> str:
            ran.append((point, host.name))
            return ""

        lab.engine.vms.vdsm = record
        lab.session.vm_service("vm1").migrate(host=types.Host(id=lab.host("h2").id))
        lab.pass_time(21)
        assert ran == [("before_vm_migrate_destination", "h2")]
        lab.session.vm_service("vm1").suspend()
        lab.pass_time(5)
        lab.session.vm_service("vm1").start()
        lab.pass_time(6)
        assert [point for point, _ in ran[1:]] == ["before_vm_start", "before_vm_dehibernate"]


class TestBrowsers:
    def test_trap_19_pages_of_other_origins_get_no_leave(self, lab: Lab, site_pki: Path) -> None:
        token = lab.session.connection.authenticate()
        tls = ssl.create_default_context(cafile=str(site_pki / "ca.pem"))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", lab.engine.web.port, timeout=10, context=tls
        )
        headers = {"Origin": "https://elsewhere.lab", "Authorization": f"Bearer {token}"}
        connection.request("GET", "/ovirt-engine/api/hosts", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert [
            name for name, _ in answer.getheaders() if name.lower().startswith("access-control")
        ] == []
        connection.close()


def _properties(given: dict[str, str]) -> list[types.CustomProperty]:
    return [types.CustomProperty(name=name, value=value) for name, value in given.items()]


def test_every_trap_that_a_client_can_meet_has_a_test() -> None:
    named = {
        int(number)
        for number in re.findall(
            r"def test_trap_(\d+)_", Path(__file__).read_text(encoding="utf-8")
        )
    }
    assert named == set(range(1, 20)) - {15, 18}
