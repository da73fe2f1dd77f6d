# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The simulated engine has the manners of the real one, seen through the real SDK."""

from __future__ import annotations

from collections.abc import Callable

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab.engine import affinity, audit_log, builtin, external_scheduler
from ovirt_tcp_plugin.lab.engine.server import EngineSimulator
from tests.lab.engine.peers import ScriptedScheduler, Session, add_group, envelope, reply_of, until

Connect = Callable[..., ovirtsdk4.Connection]
Make = Callable[..., EngineSimulator]


@pytest.fixture
def engine(make_engine: Make) -> EngineSimulator:
    return make_engine()


@pytest.fixture
def session(engine: EngineSimulator, connect: Connect) -> Session:
    return Session(connect(engine))


class TestRest:
    def test_a_wrong_password_is_refused(self, engine: EngineSimulator, connect: Connect) -> None:
        with pytest.raises(ovirtsdk4.AuthError):
            connect(engine, "wrong").test(raise_exception=True)

    def test_what_does_not_exist_is_not_found(self, session: Session) -> None:
        with pytest.raises(ovirtsdk4.NotFoundError):
            session.system.hosts_service().host_service("nobody").get()

    def test_a_locked_policy_cannot_be_edited(self, session: Session) -> None:
        policies = session.system.scheduling_policies_service()
        filters = policies.policy_service(builtin.NONE_POLICY).filters_service()
        unit = types.SchedulingPolicyUnit(id=builtin.MEMORY_FILTER)
        with pytest.raises(ovirtsdk4.Error, match="locked"):
            filters.add(types.Filter(scheduling_policy_unit=unit))

    def test_an_event_is_taken_once_by_origin_and_custom_id(self, session: Session) -> None:
        events = session.system.events_service()
        event = types.Event(
            origin="ovirt-tcp", custom_id=7, severity=types.LogSeverity.ERROR, description="untrusted",
            host=types.Host(id=session.host("h1").id),
        )  # fmt: skip
        assert events.add(event).code == 9803
        with pytest.raises(ovirtsdk4.Error, match="custom id already exists"):
            events.add(event)
        assert events.list(max=1)[0].host.id == session.host("h1").id

    def test_events_come_newest_first_and_from_is_exclusive(self, session: Session) -> None:
        session.vm_service("vm1").start()
        events = session.system.events_service()
        ids = [int(event.id) for event in events.list()]
        assert ids == sorted(ids, reverse=True)
        assert [int(event.id) for event in events.list(from_=ids[1])] == ids[:1]

    def test_membership_of_a_group_is_edited_one_by_one(self, session: Session) -> None:
        uid = add_group(session.connection, [session.host("h1")], [session.vm("vm1")])
        (cluster,) = session.system.clusters_service().list()
        groups = session.system.clusters_service().cluster_service(cluster.id).affinity_groups_service()
        hosts = groups.group_service(uid).hosts_service()
        with pytest.raises(ovirtsdk4.Error, match="Duplicate host"):
            hosts.add(types.Host(id=session.host("h1").id))
        hosts.add(types.Host(id=session.host("h2").id))
        hosts.host_service(session.host("h1").id).remove()
        with pytest.raises(ovirtsdk4.Error, match="does not exist"):
            hosts.host_service(session.host("h1").id).remove()
        assert [host.name for host in hosts.list()] == ["h2"]
        (followed,) = groups.list(follow="hosts,vms")
        assert ([host.name for host in followed.hosts], [vm.name for vm in followed.vms]) == (["h2"], ["vm1"])
        assert followed.hosts_rule.enforcing
        assert not followed.vms_rule.enabled

    def test_a_property_set_on_a_running_vm_waits_for_its_next_run(self, session: Session) -> None:
        session.vm_service("vm1").start()
        until(lambda: session.vm("vm1").status == types.VmStatus.UP)
        mark = [types.CustomProperty(name="trusted_host_flag", value="true")]
        session.vm_service("vm1").update(types.Vm(custom_properties=mark))
        assert session.vm("vm1").next_run_configuration_exists
        assert not session.vm_service("vm1").get().custom_properties
        assert session.vm_service("vm1").get(next_run=True).custom_properties[0].value == "true"

    def test_a_restarting_engine_answers_html_and_forgets_tokens(self, engine: EngineSimulator, session: Session) -> None:
        assert session.system.hosts_service().list()
        engine.restart(0.5)
        with pytest.raises(ovirtsdk4.Error):
            session.system.hosts_service().list()
        until(lambda: not engine.away_until)
        assert session.codes().count(audit_log.ENGINE_START) == 2


class TestHosts:
    def test_maintenance_moves_vms_away_first(self, session: Session) -> None:
        session.vm_service("vm1").start()
        until(lambda: session.vm("vm1").status == types.VmStatus.UP)
        left = session.place("vm1")
        session.host_service(left).deactivate(reason="PCR 17 differs")
        assert session.host(left).status == types.HostStatus.PREPARING_FOR_MAINTENANCE
        assert session.host(left).status_detail == "PCR 17 differs"
        until(lambda: session.host(left).status == types.HostStatus.MAINTENANCE)
        assert session.place("vm1") != left

    def test_the_last_host_with_vms_cannot_leave(self, session: Session) -> None:
        session.vm_service("vm1").start()
        last = session.place("vm1")
        for name in {"h1", "h2", "h3"} - {last}:
            session.host_service(name).deactivate()
        until(lambda: session.codes().count(audit_log.HOST_IN_MAINTENANCE) == 2)
        with pytest.raises(ovirtsdk4.Error, match="No other Up Host"):
            session.host_service(last).deactivate()

    def test_a_host_is_up_before_its_event(self, engine: EngineSimulator, session: Session) -> None:
        session.host_service("h1").deactivate()
        until(lambda: session.host("h1").status == types.HostStatus.MAINTENANCE)
        session.host_service("h1").activate()
        until(lambda: session.host("h1").status == types.HostStatus.UP)
        assert audit_log.HOST_DETECTED not in session.codes()
        until(lambda: audit_log.HOST_DETECTED in session.codes())

    def test_a_host_without_power_loses_its_vms_and_only_available_ones_restart(
        self, make_engine: Make, connect: Connect
    ) -> None:
        vms = [{"name": n, "cluster": "Default", "host": "h1", "high_availability": n == "ha"} for n in ("ha", "plain")]
        engine = make_engine(vms=vms)
        session = Session(connect(engine))
        engine.hosts.power(next(h for h in engine.model.hosts.values() if h.name == "h1"), False)
        until(lambda: session.host("h1").status == types.HostStatus.NON_RESPONSIVE)
        until(lambda: session.vm("ha").status == types.VmStatus.UP)
        assert session.place("ha") != "h1"
        assert session.vm("plain").status == types.VmStatus.DOWN
        engine.hosts.power(next(h for h in engine.model.hosts.values() if h.name == "h1"), True)
        until(lambda: session.host("h1").status == types.HostStatus.UP)


class TestAffinity:
    def test_an_empty_group_lets_nobody_start(self, session: Session) -> None:
        add_group(session.connection, [], [session.vm("vm1")])
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            session.vm_service("vm1").start()
        assert audit_log.VM_START_FAILED in session.codes()
        session.vm_service("vm2").start()

    def test_members_start_and_migrate_only_on_listed_hosts(self, session: Session) -> None:
        add_group(session.connection, [session.host("h2")], [session.vm("vm1")])
        session.vm_service("vm1").start()
        until(lambda: session.vm("vm1").status == types.VmStatus.UP)
        assert session.place("vm1") == "h2"
        with pytest.raises(ovirtsdk4.Error, match="no host that satisfies"):
            session.vm_service("vm1").migrate(host=types.Host(id=session.host("h1").id))

    def test_the_enforcer_moves_a_vm_off_a_host_that_is_not_listed(self, session: Session) -> None:
        session.vm_service("vm1").start()
        until(lambda: session.vm("vm1").status == types.VmStatus.UP)
        other = next(name for name in ("h1", "h2", "h3") if name != session.place("vm1"))
        add_group(session.connection, [session.host(other)], [session.vm("vm1")])
        until(lambda: session.place("vm1") == other)

    def test_the_enforcer_leaves_an_empty_group_alone(self, engine: EngineSimulator, session: Session) -> None:
        session.vm_service("vm1").start()
        until(lambda: session.vm("vm1").status == types.VmStatus.UP)
        add_group(session.connection, [], [session.vm("vm1")])
        assert affinity.violators(engine.model, next(iter(engine.model.clusters.values()))) == []


class TestExternalScheduler:
    """`ExternalSchedulerBrokerImpl`: which answer keeps all hosts, which keeps none, which breaks the command."""

    @pytest.fixture
    def session(self, proxy: ScriptedScheduler, make_engine: Make, connect: Connect) -> Session:
        self.engine = make_engine(external_scheduler=proxy.url)
        session = Session(connect(self.engine))
        units = session.system.scheduling_policy_units_service().list()
        unit = next(one for one in units if one.name == "TrustedHosts")
        assert unit.enabled
        assert not unit.internal
        policies = session.system.scheduling_policies_service()
        policy = policies.add(types.SchedulingPolicy(name="trusted", properties=[_property("trust_scope", "all_vms")]))
        filters = policies.policy_service(policy.id).filters_service()
        for uid in (unit.id, builtin.AFFINITY_FILTER):
            filters.add(types.Filter(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid)))
        (cluster,) = session.system.clusters_service().list()
        session.system.clusters_service().cluster_service(cluster.id).update(
            types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy.id))
        )
        return session

    def last(self) -> dict[str, object]:
        return self.engine.model.journal[-1]

    @pytest.mark.parametrize(
        "reply",
        [
            b"",
            b"rubbish",
            reply_of("<nil/>"),
            reply_of("<i8>5</i8>"),
            b"<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value>"
            b"<int>1</int></value></member><member><name>faultString</name><value>x</value></member></struct></value>"
            b"</fault></methodResponse>",
        ],
        ids=["closes", "rubbish", "nil", "i8", "fault"],
    )
    def test_no_answer_keeps_all_hosts(self, proxy: ScriptedScheduler, session: Session, reply: bytes) -> None:
        proxy.reply = reply
        session.vm_service("vm1").start()
        assert (self.last()["external"], len(self.last()["left"])) == ("kept", 3)  # type: ignore[arg-type]
        assert audit_log.SCHEDULER_UNREACHABLE in session.codes()

    @pytest.mark.parametrize(
        "reply",
        [
            envelope([]),
            reply_of("<struct><member><name>result_code</name><value><int>0</int></value></member></struct>"),
            reply_of("text"),
            envelope(["00000000-0000-0000-0000-00000000000f"]),
        ],
        ids=["empty list", "no result", "a text", "a stranger"],
    )
    def test_an_answer_without_our_hosts_keeps_none(self, proxy: ScriptedScheduler, session: Session, reply: bytes) -> None:
        proxy.reply = reply
        with pytest.raises(ovirtsdk4.Error, match=r"Operation Failed.*\[\]"):
            session.vm_service("vm1").start()

    def test_an_answer_without_result_code_breaks_the_command(self, proxy: ScriptedScheduler, session: Session) -> None:
        proxy.reply = reply_of("<struct/>")
        with pytest.raises(ovirtsdk4.Error, match="Internal Engine Error"):
            session.vm_service("vm1").start()

    def test_errors_are_logged_only_with_a_result_code(self, proxy: ScriptedScheduler, session: Session) -> None:
        proxy.reply = envelope([], 1, "PCR 17 differs")
        with pytest.raises(ovirtsdk4.Error):
            session.vm_service("vm1").start()
        (event,) = session.system.events_service().list(search=f"type={audit_log.SCHEDULER_ERROR}")
        assert "PCR 17 differs" in event.description

    def test_the_answer_is_cut_to_the_hosts_asked(self, proxy: ScriptedScheduler, session: Session) -> None:
        proxy.reply = envelope([session.host("h2").id])
        session.vm_service("vm1").start()
        session.vm_service("vm2").start()
        until(lambda: session.vm("vm2").status == types.VmStatus.UP)
        assert session.place("vm2") == "h2"
        assert proxy.connections == 1

    def test_the_request_is_what_the_java_client_writes(self, proxy: ScriptedScheduler, session: Session) -> None:
        proxy.reply = envelope([])
        with pytest.raises(ovirtsdk4.Error):
            session.vm_service("vm1").start()
        body = proxy.asked[-1].decode()
        assert body.startswith('<?xml version="1.0" encoding="UTF-8"?><methodCall xmlns:ex="http://ws.apache.org/')
        assert "<param><value><array><data><value>TrustedHosts</value></data></array></value></param>" in body
        assert f"<param><value>{session.vm('vm1').id}</value></param>" in body
        assert "<member><name>trust_scope</name><value>all_vms</value></member>" in body
        assert "\n" not in body
        assert "<string>" not in body

    def test_a_proxy_that_is_down_at_the_start_switches_its_units_off(
        self, make_engine: Make, connect: Connect, proxy: ScriptedScheduler
    ) -> None:
        proxy.discovery = b""
        session = Session(connect(make_engine(external_scheduler=proxy.url)))
        units = session.system.scheduling_policy_units_service().list()
        assert [one.name for one in units if not one.internal and one.enabled] == []


def _property(name: str, value: str) -> types.Property:
    return types.Property(name=name, value=value)


def test_an_empty_map_and_a_null_travel_as_java_writes_them() -> None:
    body = external_scheduler.request("runFilters", [[], [], None, {}]).decode()
    assert body.endswith(
        "<params><param><value><array><data></data></array></value></param><param><value><array><data></data></array>"
        "</value></param><param><value><ex:nil/></value></param><param><value><struct/></value></param></params>"
        "</methodCall>"
    )
