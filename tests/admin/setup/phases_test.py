# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Setup from a stock engine to a trusted pool and back, and where it goes wrong on the way."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ovirtsdk4
import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.admin.setup.journal import locked
from ovirt_tcp_plugin.admin.setup.options import DEFINITION, PROPERTIES
from ovirt_tcp_plugin.broker.store.end_requests import EndRequests
from ovirt_tcp_plugin.engine.scheduling_policies import AFFINITY_FILTER, NO_BALANCE
from ovirt_tcp_plugin.lab.engine import audit_log, builtin, model
from ovirt_tcp_plugin.lab.engine.errors import refusal
from ovirt_tcp_plugin.lab.engine.faults import BROKEN, CUT, LOST, AnswerFault
from ovirt_tcp_plugin.lab.processes import Processes, free_ports, listens
from ovirt_tcp_plugin.placement.pools import CLUSTER_MAINTENANCE
from tests.admin.setup.machine import BROKER, Machine
from tests.broker.site import ADMINISTRATOR, PASSWORD, Site, until
from tests.lab.engine.peers import ScriptedScheduler

APART = model.Rule(enabled=True, enforcing=True, positive=False)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """An engine that somebody gave by hand what phase 1 gives, and restarted."""
    levels = {level: DEFINITION for level in machine.rows[PROPERTIES]}
    timeout, enabled = {"general": "3000"}, {"general": "true"}
    machine.write(
        ExternalSchedulerEnabled=enabled,
        ExternalSchedulerResponseTimeout=timeout,
        UserDefinedVMProperties=levels,
    )
    machine.restart()
    return machine


class TestPhase1:
    @pytest.mark.parametrize("arguments", [["--dry-run"], []])
    def test_looking_or_saying_no_changes_nothing(
        self, machine: Machine, arguments: list[str]
    ) -> None:
        before = machine.picture()
        done = machine.setup(*arguments, yes=False, answer="n\n")
        assert done.exit_code == (0 if arguments else 1)
        assert "engine-config ExternalSchedulerEnabled          false   true\n" in done.output
        assert machine.picture() == before
        assert machine.state.exists() is not bool(arguments)
        assert not (machine.state / "journal.json").exists()

    def test_without_filterd_it_ends_before_the_restart_and_goes_on_later(
        self, machine: Machine, filterd: ScriptedScheduler
    ) -> None:
        good = machine.rows["ExternalSchedulerServiceURL"]
        machine.write(ExternalSchedulerServiceURL={"general": "http://127.0.0.1:1/"})
        done = machine.setup()
        assert done.exit_code == 1
        assert "ovirt-tcp-filterd does not answer at http://127.0.0.1:1/" in done.output
        assert "Do not restart the engine before" in done.output
        machine.write(ExternalSchedulerServiceURL=good)
        done = machine.setup()
        assert (
            "the engine has not been started since phase 1: systemctl restart ovirt-engine"
            in done.output
        )

    def test_another_external_scheduler_is_not_replaced(
        self, machine: Machine, filterd: ScriptedScheduler
    ) -> None:
        filterd.discovery = filterd.discovery.replace(b"TrustedHosts", b"Other")
        assert "another external scheduler answers" in machine.setup().output
        machine.write(
            ExternalSchedulerServiceURL={"general": "http://scheduler.example.com:18781/"}
        )
        assert (
            "is http://scheduler.example.com:18781/, another external scheduler's"
            in machine.setup().output
        )
        machine.write(ExternalSchedulerServiceURL={"general": "http://localhost:port/"})
        assert "is http://localhost:port/, which is no address" in machine.setup().output

    def test_a_definition_of_somebody_else_stops_it_before_anything_is_done(
        self, machine: Machine
    ) -> None:
        machine.write(UserDefinedVMProperties={"4.7": "trusted_host_flag=.*"})
        before = machine.picture()
        done = machine.setup()
        assert done.exit_code == 1
        assert "level 4.7 defines trusted_host_flag=.*" in done.output
        assert machine.picture() == before

    def test_what_colleagues_defined_stays(self, machine: Machine) -> None:
        machine.write(UserDefinedVMProperties={"4.8": "a=^x$", "4.7": "b=.*;"})
        machine.setup()
        properties = machine.rows[PROPERTIES]
        assert (properties["4.8"], properties["4.7"]) == (
            f"a=^x$;{DEFINITION}",
            f"b=.*;{DEFINITION}",
        )
        machine.setup("--remove")
        assert (machine.rows[PROPERTIES]["4.8"], machine.rows[PROPERTIES]["4.7"]) == (
            "a=^x$",
            "b=.*;",
        )

    def test_a_command_that_fails_half_way_is_told_and_the_next_run_goes_on(
        self, machine: Machine
    ) -> None:
        machine.write(UserDefinedVMProperties={"4.7": ""})
        good = machine.command
        machine.command = machine.directory / "failing"
        fails = 'case "$*" in *--cver=4.8) echo "Connection to the Database failed."; exit 1;; esac'
        machine.command.write_text(f'#!/bin/sh\n{fails}\nexec {good} "$@"\n')
        machine.command.chmod(0o755)
        done = machine.setup()
        assert done.exit_code == 1
        assert "engine-config is unavailable: -m UserDefinedVMProperties=" in done.output
        assert "Connection to the Database failed." in done.output
        assert machine.state_of("property") == ["done", "intended"]
        machine.command = good
        assert machine.setup().exit_code == 0
        assert set(machine.state_of("property")) == {"done"}
        assert [one["before"] for one in machine.journal()[:2]] == ["false", "120000"]

    def test_a_shorter_retry_of_ha_vms_only_when_asked_for_and_what_was_before_comes_back(
        self, machine: Machine
    ) -> None:
        key = "RetryToRunAutoStartVmLongIntervalInSeconds"
        assert "tried again after 1800 s (see --ha-retry)" in machine.setup().output
        assert machine.rows[key] == {"general": "1800"}
        machine.setup("--ha-retry", "120")
        machine.setup("--ha-retry", "60")
        assert machine.rows[key] == {"general": "60"}
        machine.restart()
        assert machine.engine.model.timings.ha_long_retry == 60
        machine.setup("--remove")
        assert machine.rows[key] == {"general": "1800"}

    def test_an_edit_by_somebody_else_is_told_and_left(self, machine: Machine) -> None:
        machine.setup()
        machine.write(ExternalSchedulerResponseTimeout={"general": "5000"})
        for arguments in ([], ["--remove"]):
            done = machine.setup(*arguments)
            assert (
                "somebody changed it since setup. It is 5000; setup left 3000; before that it was "
                "120000." in done.output
            )
            assert done.exit_code == 1
            assert machine.rows["ExternalSchedulerResponseTimeout"] == {"general": "5000"}
        assert machine.rows["ExternalSchedulerEnabled"] == {"general": "false"}
        machine.write(ExternalSchedulerResponseTimeout={"general": "120000"})
        assert machine.setup("--remove").exit_code == 0

    def test_two_at_once_are_refused(self, machine: Machine) -> None:
        with locked(machine.state):
            assert "another ovirt-tcp setup is running" in machine.setup().output
            assert machine.setup("--dry-run").exit_code == 0

    def test_a_hanging_filterd_holds_the_cluster_no_longer_than_setup_says(
        self, machine: Machine, filterd: ScriptedScheduler
    ) -> None:
        machine.both_phases("--cluster", "One")
        assert machine.engine.model.timings.external_response == 3
        vm = next(iter(machine.engine.model.vms.values()))
        with filterd.silence():
            began = time.monotonic()
            machine.engine.scheduling.schedule(vm, "start")
            held_s = time.monotonic() - began
        assert machine.engine.model.journal[-1]["external"] == "kept"
        assert 2.5 < held_s < 3.5


class TestEngineStart:
    @pytest.mark.parametrize("notifier_s", [0.0, 0.05, 3600.0], ids=["absent", "present", "late"])
    def test_a_stock_engine_becomes_a_pool_and_back_whatever_the_notifier_does(
        self, make_machine: Callable[..., Machine], filterd: ScriptedScheduler, notifier_s: float
    ) -> None:
        machine = make_machine(filterd.url, notifier=notifier_s, restart=0.3)
        before = machine.picture()
        # Of the policy that is copied here the engine keeps some properties at the cluster.
        del before["clusters"]
        assert machine.setup().exit_code == 0
        assert "has not been started since phase 1" in machine.setup().output
        machine.restart()
        done = machine.setup()
        assert done.exit_code == 0, done.output
        assert machine.setup("--cluster", "One").exit_code == 0
        assert machine.cluster().policy == machine.policy("ovirt-tcp").id
        assert machine.setup("--remove").exit_code == 0
        machine.restart()
        after = machine.picture()
        del after["clusters"]
        assert after == before
        assert machine.cluster().policy == builtin.NONE_POLICY

    def test_an_event_of_an_earlier_start_that_comes_late_changes_nothing(
        self, machine: Machine
    ) -> None:
        machine.setup()
        machine.engine.model.log(audit_log.ENGINE_START, "Engine server is up and running.")
        assert "has not been started since phase 1" in machine.setup().output

    def test_an_event_that_comes_after_phase_2_changes_nothing(self, machine: Machine) -> None:
        machine.both_phases()
        machine.engine.model.log(audit_log.ENGINE_START, "Engine server is up and running.")
        journal = machine.journal()
        assert machine.setup().exit_code == 0
        assert machine.journal() == journal

    def test_where_nothing_tells_of_the_start_it_says_what_to_do(self, machine: Machine) -> None:
        machine.both_phases()
        machine.mark.unlink()
        done = machine.setup()
        assert done.exit_code == 1
        assert f"there is no file {machine.mark}" in done.output


class TestPhase2:
    def test_the_engine_down_is_told(self, ready: Machine) -> None:
        broken = json.loads((ready.directory / "broker.yaml").read_text())
        broken["engine"]["url"] = "https://127.0.0.1:1/ovirt-engine/api"
        (ready.directory / "broker.yaml").write_text(json.dumps(broken))
        done = ready.setup()
        assert done.exit_code == 1
        assert "the engine's log-in is unavailable" in done.output
        (ready.directory / "broker.yaml").unlink()
        assert "broker.yaml cannot be used: the file does not exist" in ready.setup().output

    def test_a_wrong_password_is_told_and_never_shown(self, ready: Machine) -> None:
        (ready.directory / "password").write_text("mistaken\n")
        done = ready.setup()
        assert "the engine refuses the log-in of admin@internal: " in done.output
        assert "mistaken" not in done.output

    def test_the_password_is_asked_for_once_and_nowhere_kept(self, ready: Machine) -> None:
        (ready.directory / "password").unlink()
        arguments = [
            "--config-dir",
            str(ready.directory),
            "setup",
            "--engine-config",
            str(ready.command),
            "--yes",
        ]
        done = ready.run(
            [*arguments, "--journal", str(ready.state), "--cluster", "One"], f"{PASSWORD}\n"
        )
        assert done.exit_code == 0
        assert done.output.count("Password of admin@internal") == 1
        assert PASSWORD not in done.output
        assert PASSWORD not in (ready.state / "journal.json").read_text()

    def test_a_user_that_may_not_is_told_and_one_that_may_goes_on(self, ready: Machine) -> None:
        tables = ready.engine.model
        tables.roles["some"] = model.Role(
            "some", "some", {"login", "edit_storage_pool_configuration"}
        )
        next(one for one in tables.users.values() if one.name == BROKER).roles.add("some")
        done = ready.setup("--user", BROKER)
        assert done.exit_code == 1
        assert "the engine does not let broker@internal do this (add a role)" in done.output
        assert (ready.state_of("policy"), ready.state_of("role")) == (["done"], ["intended"])
        assert ready.setup().exit_code == 0
        assert ready.state_of("role") == ["done"]

    def test_before_the_restart_and_without_the_unit_it_says_what_to_do(
        self, machine: Machine, filterd: ScriptedScheduler
    ) -> None:
        machine.setup()
        assert "has not been started since phase 1" in machine.setup().output
        discovery, filterd.discovery = filterd.discovery, b""
        machine.restart()
        filterd.discovery = discovery
        assert (
            "the engine did not find the filter unit TrustedHosts at its start"
            in machine.setup().output
        )
        machine.restart()
        filterd.discovery = b""
        machine.restart()
        filterd.discovery = discovery
        assert (
            "the engine disabled the filter unit TrustedHosts at its start"
            in machine.setup().output
        )
        assert machine.state_of("policy") == []

    def test_it_looks_before_it_acts(self, ready: Machine) -> None:
        before = ready.picture()
        done = ready.setup("--dry-run", "--cluster", "One")
        assert done.exit_code == 0
        assert "scheduling policy of cluster One    none     ovirt-tcp (all_vms)" in done.output
        assert ready.picture() == before
        assert ready.state_of("unit") == []

    def test_a_policy_of_that_name_by_somebody_else_is_left_and_another_name_does(
        self, ready: Machine
    ) -> None:
        other = model.SchedulingPolicy(model.new_id(), "ovirt-tcp", "mine")
        ready.engine.model.policies[other.id] = other
        done = ready.setup()
        assert (
            "there is a scheduling policy ovirt-tcp, and setup did not make it: choose another name"
            in done.output
        )
        assert ready.state_of("role") == []
        assert ready.setup("--policy", "trusted").exit_code == 0
        ready.setup("--remove")
        assert ready.policy("ovirt-tcp").filters == []

    def test_a_role_of_that_name_counts_if_it_is_enough(self, ready: Machine) -> None:
        tables = ready.engine.model
        tables.roles["r"] = model.Role("r", "ovirt-tcp", {"login"})
        assert (
            "it lacks manipulate_host, inject_external_events, manipulate_affinity_groups"
            in ready.setup().output
        )
        tables.roles["r"].permits |= {
            "manipulate_host",
            "inject_external_events",
            "manipulate_affinity_groups",
        }
        assert ready.setup().exit_code == 0
        assert next(one for one in tables.users.values() if one.name == BROKER).roles == {"r"}
        ready.setup("--remove")
        assert "r" in tables.roles

    def test_a_user_that_is_missing_is_told_and_gets_its_role_later(self, ready: Machine) -> None:
        user = next(one for one in ready.engine.model.users.values() if one.name == BROKER)
        del ready.engine.model.users[user.id]
        done = ready.setup()
        assert done.exit_code == 0
        assert (
            "- the engine has no user broker@internal: make it (ovirt-aaa-jdbc-tool user add broker"
            in done.output
        )
        ready.engine.model.users[user.id] = user
        ready.setup()
        assert [ready.engine.model.roles[one].name for one in user.roles] == ["ovirt-tcp"]

    def test_clusters_are_named_and_agree_on_what_is_copied(self, ready: Machine) -> None:
        assert "there is no cluster Three at the engine" in ready.setup("--cluster", "Three").output
        ready.cluster("Two").policy = ready.policy("power_saving").id
        both = ["--cluster", "One", "--cluster", "Two"]
        assert "different scheduling policies (none, power_saving)" in ready.setup(*both).output
        assert "no scheduling policy odd to copy" in ready.setup("--copy-policy", "odd").output
        assert (
            ready.setup(*both, "--copy-policy", "power_saving", "--scope", "marked_vms").exit_code
            == 0
        )
        for name in ("One", "Two"):
            assert ready.cluster(name).policy == ready.policy("ovirt-tcp").id
            assert ready.cluster(name).properties["trust_scope"] == "marked_vms"

    def test_the_copy_has_all_of_its_source_and_what_a_pool_needs(self, ready: Machine) -> None:
        source = ready.policy("power_saving")
        poor = model.SchedulingPolicy(
            model.new_id(),
            "poor",
            filters=[builtin.MEMORY_FILTER],
            numbers={builtin.MEMORY_FILTER: -1},
        )
        ready.engine.model.policies[poor.id] = poor
        for name in ("power_saving", "poor"):
            assert ready.setup("--policy", f"from {name}", "--copy-policy", name).exit_code == 0
        unit = next(
            one.id for one in ready.engine.model.units.values() if one.name == "TrustedHosts"
        )
        copy = ready.policy("from power_saving")
        assert copy.filters == [*source.filters, unit]
        assert (copy.weights, copy.balances) == (source.weights, source.balances)
        assert {uid: copy.numbers[uid] for uid in source.weights} == {
            uid: source.numbers[uid] for uid in source.weights
        }
        assert copy.properties == {**source.properties, "trust_scope": "all_vms"}
        rich = ready.policy("from poor")
        assert (rich.filters, rich.balances) == (
            [builtin.MEMORY_FILTER, AFFINITY_FILTER, unit],
            [NO_BALANCE],
        )
        assert rich.numbers[builtin.MEMORY_FILTER] == -1

    def test_run_again_it_does_nothing(self, ready: Machine) -> None:
        ready.setup("--cluster", "One", "--scope", "marked_vms")
        before, journal = ready.picture(), ready.journal()
        calls = dict(ready.engine.rest.calls)
        done = ready.setup("--cluster", "One")
        assert done.exit_code == 0
        assert "(done by an earlier setup)" in done.output
        assert (ready.picture(), ready.journal()) == (before, journal)
        changes = {
            call for call, times in ready.engine.rest.calls.items() if times != calls.get(call, 0)
        }
        assert all(call.startswith("GET ") for call in changes)

    def test_what_somebody_changed_since_is_told_left_and_an_error(self, ready: Machine) -> None:
        ready.setup()
        role = next(one for one in ready.engine.model.roles.values() if one.name == "ovirt-tcp")
        role.permits.add("run_vm")
        done = ready.setup()
        assert done.exit_code == 1
        assert (
            "role ovirt-tcp was left alone: somebody changed it since setup. It is "
            "manipulate_host, login" in done.output
        )
        assert "somebody changed since setup, and it was left alone: role ovirt-tcp" in done.output
        assert "run_vm" in role.permits

    def test_answers_that_are_lost_cost_a_run_at_most(self, machine: Machine) -> None:
        before = machine.picture()
        machine.setup()
        machine.restart()
        ways = {
            "POST": [
                "schedulingpolicies",
                "schedulingpolicies/[^/]+/(balances|filters|weights)",
                "roles",
                "permissions",
            ],
            "PUT": ["schedulingpolicies/[^/]+", "clusters/[^/]+"],
        }
        self._lose(machine, ways, "--cluster", "One")
        assert [one.name for one in machine.engine.model.policies.values()].count("ovirt-tcp") == 1
        assert {one["state"] for one in machine.journal()} == {"done"}
        removed = [
            "permissions/.*",
            "roles/[^/]+",
            "schedulingpolicies/[^/]+",
            "schedulingpolicyunits/[^/]+",
        ]
        self._lose(machine, {"PUT": ["clusters/[^/]+"], "DELETE": removed}, "--remove")
        machine.restart()
        assert machine.picture() == before

    @staticmethod
    def _lose(machine: Machine, ways: dict[str, list[str]], *arguments: str) -> None:
        faults = machine.engine.faults
        faults.answers = [
            AnswerFault(LOST, verb, f"api/{path}") for verb, paths in ways.items() for path in paths
        ]
        # libcurl sends a request again when a connection that was used before ends without an
        # answer. One such refusal in an act is mended by itself; with two, it takes another run.
        for _ in faults.answers:
            done = machine.setup(*arguments)
            if done.exit_code == 0:
                break
            assert "the engine is unavailable" in done.output or "the engine refuses" in done.output
        assert done.exit_code == 0
        assert {one.times for one in faults.answers} == {0}

    def test_a_unit_that_was_sent_twice_costs_no_restart(self, ready: Machine) -> None:
        """The engine keeps the refused second one in memory, and then refuses every edit."""
        path = "api/schedulingpolicies/[^/]+/filters"
        ready.engine.faults.answers = [AnswerFault(LOST, "POST", path)]
        done = ready.setup()
        assert done.exit_code == 0, done.output
        assert ready.state_of("policy") == ["done"]
        self._assert_whole(ready)

    @pytest.mark.parametrize("unfinished", ["filters", "weights", "balances", "doubled", "phantom"])
    def test_a_policy_that_was_begun_is_made_again_and_never_finished(
        self, ready: Machine, unfinished: str
    ) -> None:
        path = "api/schedulingpolicies/[^/]+"
        ready.engine.faults.answers = [AnswerFault(BROKEN, "PUT", path)]
        assert ready.setup().exit_code == 1
        assert ready.state_of("policy") == ["intended"]
        begun = ready.policy("ovirt-tcp")
        if unfinished == "doubled":
            begun.filters.append(begun.filters[0])
        elif unfinished == "phantom":
            begun.weights.append(next(one.id for one in ready.engine.model.units.values()))
        else:
            getattr(begun, unfinished).clear()
        done = ready.setup()
        assert done.exit_code == 0, done.output
        assert begun.id not in ready.engine.model.policies
        self._assert_whole(ready)

    def test_a_policy_that_was_begun_and_is_used_is_left_and_told(self, ready: Machine) -> None:
        path = "api/schedulingpolicies/[^/]+"
        ready.engine.faults.answers = [AnswerFault(BROKEN, "PUT", path)]
        ready.setup()
        ready.cluster("Two").policy = ready.policy("ovirt-tcp").id
        done = ready.setup()
        assert done.exit_code == 1
        assert "ovirt-tcp is half made, and has to be made again" in done.output
        assert "attached to cluster(s): Two" in done.output
        assert "give its clusters another scheduling policy, then run setup again" in done.output

    def test_a_policy_of_the_engines_own_is_never_edited(self, ready: Machine) -> None:
        calls = ready.engine.rest.calls
        for name in ("none", "evenly_distributed"):
            assert "setup did not make it" in ready.setup("--policy", name).output
        assert [call for call in calls if call.startswith("POST ")] == []

    @staticmethod
    def _assert_whole(machine: Machine) -> None:
        """The policy has each unit of its source once, and ours."""
        source = machine.policy("evenly_distributed")
        policy = machine.policy("ovirt-tcp")
        assert sorted(policy.filters) == sorted([*source.filters, machine.unit()])
        assert sorted(policy.weights) == sorted(source.weights)
        assert policy.properties["trust_scope"] == "all_vms"

    @pytest.mark.parametrize(
        "arguments",
        [["--cluster", "One"], ["--cluster", "Two", "--cluster", "One", "--copy-policy", "none"]],
    )
    def test_a_cluster_that_is_being_upgraded_is_left_until_the_upgrade_has_ended(
        self, ready: Machine, arguments: list[str]
    ) -> None:
        ready.cluster().policy = CLUSTER_MAINTENANCE
        done = ready.setup(*arguments)
        assert done.exit_code == 1
        assert "cluster One is being upgraded: its scheduling policy is" in done.output
        assert ready.state_of("policy") == []
        copied = ready.setup("--copy-policy", "cluster_maintenance")
        assert "only highly available VMs start with it" in copied.output
        ready.cluster().policy = builtin.NONE_POLICY
        assert ready.setup(*arguments).exit_code == 0

    def test_affinity_rules_that_contradict_the_wall_are_told(self, ready: Machine) -> None:
        tables, cluster = ready.engine.model, ready.cluster()
        tables.groups["g"] = model.AffinityGroup(
            "g", "apart", cluster.id, model.Rule(), APART, [], list(tables.vms)
        )
        done = ready.setup("--cluster", "One")
        assert (
            "Affinity group apart of cluster One keeps vm1, vm2 apart by an enforcing negative rule"
            in done.output
        )
        assert (
            "ovirt-tcp-broker does not run, and until it does no VM starts in a trusted pool"
            in done.output
        )
        assert done.exit_code == 0

    def test_a_rule_that_keeps_vms_off_hosts_makes_no_pool(self, ready: Machine) -> None:
        """Once the wall has such a VM and host, the engine refuses every edit of it."""
        tables = ready.engine.model
        cluster = ready.cluster()
        group = model.AffinityGroup(
            "g", "old hosts", cluster.id, APART, model.Rule(), list(tables.hosts), list(tables.vms)
        )
        tables.groups["g"] = group
        done = ready.setup("--cluster", "One")
        assert done.exit_code == 1
        assert "Affinity group old hosts of cluster One keeps vm1, vm2 off" in done.output
        assert "Make the rule not enforcing" in done.output
        assert ready.cluster().policy == builtin.NONE_POLICY
        group.hosts_rule = model.Rule()
        assert ready.setup("--cluster", "One").exit_code == 0


class TestRemove:
    def test_where_nothing_was_done_there_is_nothing_to_undo(self, machine: Machine) -> None:
        assert "The journal is empty: there is nothing to undo." in machine.setup("--remove").output

    def test_an_engine_is_exactly_as_before(self, machine: Machine) -> None:
        before = machine.picture()
        machine.both_phases("--cluster", "One")
        assert machine.cluster().policy == machine.policy("ovirt-tcp").id
        looked = machine.picture()
        assert machine.setup("--remove", "--dry-run").exit_code == 0
        assert machine.setup("--remove", yes=False, answer="n\n").exit_code == 1
        assert machine.picture() == looked
        done = machine.setup("--remove")
        assert done.exit_code == 0
        assert "Restart the engine now (systemctl restart ovirt-engine)" in done.output
        machine.restart()
        assert machine.picture() == before
        assert machine.journal() == []

    def test_later_edits_by_others_are_told_and_left(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        ready.policy("ovirt-tcp").filters.remove(builtin.MEMORY_FILTER)
        ready.cluster().properties["HighUtilization"] = "75"
        done = ready.setup("--remove")
        assert done.exit_code == 1
        assert "the engine keeps the cluster's HighUtilization=75" in done.output
        assert (
            "scheduling policy ovirt-tcp was left alone: somebody changed it since setup"
            in done.output
        )
        assert ready.cluster().policy == builtin.NONE_POLICY
        assert ready.cluster().properties["HighUtilization"] == "75"
        assert builtin.MEMORY_FILTER not in ready.policy("ovirt-tcp").filters

    def test_while_a_cluster_is_a_pool_the_engine_keeps_its_filter(self, machine: Machine) -> None:
        machine.both_phases("--cluster", "One")
        machine.cluster("Two").policy = machine.policy("ovirt-tcp").id  # by hand
        done = machine.setup("--remove")
        assert done.exit_code == 1
        assert "attached to cluster(s): Two" in done.output
        assert "Cluster Two is a trusted pool, so its wall, the broker's role and" in done.output
        assert machine.rows["ExternalSchedulerEnabled"] == {"general": "true"}
        assert machine.state_of("policy") == ["done"]
        machine.cluster("Two").policy = builtin.NONE_POLICY
        assert machine.setup("--remove").exit_code == 0
        assert machine.rows["ExternalSchedulerEnabled"] == {"general": "false"}

    def test_a_former_policy_that_is_gone_is_not_guessed(self, ready: Machine) -> None:
        former = model.SchedulingPolicy(model.new_id(), "former", balances=[NO_BALANCE])
        ready.engine.model.policies[former.id] = former
        ready.cluster().policy = former.id
        ready.setup("--cluster", "One")
        del ready.engine.model.policies[former.id]
        done = ready.setup("--remove")
        assert "its former policy is gone: choose another one by hand" in done.output
        assert ready.cluster().policy == ready.policy("ovirt-tcp").id

    def test_a_cluster_that_got_a_second_policy_is_undone_before_that(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        ready.setup("--policy", "second", "--cluster", "One")
        done = ready.setup("--remove")
        assert done.exit_code == 0, done.output
        assert ready.journal() == []
        assert ready.cluster().policy == builtin.NONE_POLICY

    def test_what_somebody_removed_by_hand_is_undone_already(self, ready: Machine) -> None:
        ready.setup()
        user = next(one for one in ready.engine.model.users.values() if one.name == BROKER)
        user.roles.clear()
        del ready.engine.model.policies[ready.policy("ovirt-tcp").id]
        assert ready.setup("--remove").exit_code == 0

    def test_properties_of_another_source_that_the_engine_keeps_are_told(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One", "--copy-policy", "evenly_distributed")
        done = ready.setup("--remove")
        assert done.exit_code == 0
        assert (
            "the engine keeps the cluster's HeSparesCount=0, VCpuToPhysicalCpuRatio=0"
            in done.output
        )


class TestLeftovers:
    """Walls and hosts in quarantine are the broker's, which may be gone or lose its role."""

    def test_the_wall_goes_though_somebody_edited_the_policy(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        ready.wall()
        ready.policy("ovirt-tcp").description = "mine now"
        done = ready.setup("--remove")
        assert "scheduling policy ovirt-tcp was left alone" in done.output
        assert "wall of cluster One: removed" in done.output
        assert ready.engine.model.groups == {}

    def test_a_broker_is_told_of_every_pool_that_ends_whoever_changed_its_policy(
        self, ready: Machine
    ) -> None:
        requests = EndRequests(ready.directory / "state")
        (ready.directory / "state").mkdir()
        ready.setup("--cluster", "One")
        ready.wall()
        ready.wall("Two")
        ready.cluster("Two").policy = ready.policy("power_saving").id
        assert ready.setup("--remove").exit_code == 0
        assert set(requests.cluster_ids()) == {ready.cluster().id, ready.cluster("Two").id}
        assert ready.engine.model.groups == {}

    def test_a_broker_is_not_told_of_a_pool_that_stays(self, ready: Machine) -> None:
        requests = EndRequests(ready.directory / "state")
        (ready.directory / "state").mkdir()
        ready.setup("--cluster", "One")
        other = model.SchedulingPolicy(
            model.new_id(), "o", filters=[ready.unit()], balances=[NO_BALANCE]
        )
        ready.engine.model.policies[other.id] = other
        ready.cluster("Two").policy = other.id
        assert ready.setup("--remove").exit_code == 1
        assert requests.cluster_ids() == [ready.cluster().id]

    def test_walls_go_that_were_made_in_place_of_others(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        for _ in range(3):
            spare = ready.wall()
            spare.name = f"{spare.name}-{spare.id[:8]}"
        ready.wall()
        assert ready.setup("--remove").exit_code == 0
        assert ready.engine.model.groups == {}

    def test_the_wall_goes_though_somebody_gave_the_cluster_another_policy(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One")
        ready.wall()
        ready.cluster().policy = ready.policy("power_saving").id
        assert "wall of cluster One: removed" in ready.setup("--remove").output
        assert ready.engine.model.groups == {}

    def test_while_another_cluster_is_a_pool_its_wall_and_the_brokers_role_stay(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One")
        unit = ready.unit()
        other = model.SchedulingPolicy(
            model.new_id(), "other", filters=[unit], balances=[NO_BALANCE]
        )
        ready.engine.model.policies[other.id] = other
        ready.cluster("Two").policy = other.id
        ready.wall("One")
        kept = ready.wall("Two")
        done = ready.setup("--remove")
        assert done.exit_code == 1
        assert "wall of cluster One: removed" in done.output
        assert "Cluster Two is a trusted pool, so its wall, the broker's role and" in done.output
        assert list(ready.engine.model.groups.values()) == [kept]
        user = next(one for one in ready.engine.model.users.values() if one.name == BROKER)
        assert [ready.engine.model.roles[uid].name for uid in user.roles] == ["ovirt-tcp"]
        assert {"role", "permission"} <= {entry["kind"] for entry in ready.journal()}
        ready.cluster("Two").policy = builtin.NONE_POLICY
        del ready.engine.model.policies[other.id]
        assert ready.setup("--remove").exit_code == 0
        assert ready.engine.model.groups == {}
        assert user.roles == set()
        assert ready.journal() == []

    def test_a_pool_by_an_edit_that_was_refused_ends_with_the_engines_restart(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One")
        kept = ready.wall("One")
        with pytest.raises(errors.Conflict, match="Parameters are invalid"):
            ready.administration().add_filter(builtin.NONE_POLICY, ready.unit(), 0)
        done = ready.setup("--remove")
        assert done.exit_code == 1
        assert "none has TrustedHosts only in the engine's memory" in done.output
        assert "systemctl restart ovirt-engine, then run setup --remove again" in done.output
        assert list(ready.engine.model.groups.values()) == [kept]
        assert ready.state_of("role") == ["done"]
        ready.restart()
        assert ready.setup("--remove").exit_code == 0
        assert ready.engine.model.groups == {}

    def test_a_policy_that_refuses_every_edit_since_one_was_refused_is_removed_all_the_same(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One")
        policy = ready.policy("ovirt-tcp").id
        for unit in (ready.unit(), builtin.MEMORY_FILTER):
            with pytest.raises(errors.Conflict, match="already exists"):
                ready.administration().add_filter(policy, unit, 0)
        assert ready.setup("--remove").exit_code == 0
        assert policy not in ready.engine.model.policies

    def test_a_wall_that_an_earlier_release_left_goes_with_an_empty_journal(
        self, machine: Machine
    ) -> None:
        machine.wall()
        done = machine.setup("--remove", "--dry-run")
        assert "Walls that are removed with their pools: One." in done.output
        assert machine.setup("--remove").exit_code == 0
        assert machine.engine.model.groups == {}
        assert "there is nothing to undo" in machine.setup("--remove").output

    # libcurl sends a request again whose connection ends without an answer.
    @pytest.mark.parametrize(("fault", "times"), [(BROKEN, 1), (CUT, 2)])
    def test_while_a_wall_cannot_be_removed_the_role_stays(
        self, ready: Machine, fault: str, times: int
    ) -> None:
        ready.setup("--cluster", "One")
        ready.wall()
        path = ".*affinitygroups/.*"
        ready.engine.faults.answers = [AnswerFault(fault, "DELETE", path, times)]
        assert ready.setup("--remove").exit_code == 1
        assert ready.state_of("role") == ["done"]
        assert ready.setup("--remove").exit_code == 0
        assert ready.engine.model.groups == {}

    def test_a_wall_that_the_broker_removed_first_is_gone(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        ready.wall()
        ready.engine.faults.answers = [AnswerFault(LOST, "DELETE", ".*affinitygroups/.*", times=1)]
        assert ready.setup("--remove").exit_code == 0

    def test_hosts_in_our_quarantine_return_and_an_administrators_own_stay(
        self, ready: Machine
    ) -> None:
        ready.setup("--cluster", "One")
        ours, other = ready.engine.model.hosts.values()
        ours.status = other.status = "maintenance"
        ours.status_detail = "ovirt-tcp: not trusted (pcr_differs): PCR 17"
        other.status_detail = "new memory"
        shown = ready.setup("--remove", "--dry-run").output
        assert f"Host {ours.name}, which is out of service (ovirt-tcp: not trusted (pcr_d" in shown
        done = ready.setup("--remove")
        assert done.exit_code == 0
        assert f"host {ours.name}: activated" in done.output
        until(lambda: ours.status == "up")
        assert other.status == "maintenance"

    def test_a_host_that_the_engine_does_not_activate_is_told(
        self, ready: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready.setup("--cluster", "One")
        host = next(iter(ready.engine.model.hosts.values()))
        host.status = "maintenance"
        host.status_detail = "ovirt-tcp: not trusted (pcr_differs): PCR 17"

        def refuse(host: model.SimulatedHost) -> None:
            statuses = "one of Maintenance, Non Operational"
            text = f"Operation can be performed only when Host status is {statuses}."
            raise refusal(f"Cannot activate Host. {text}")

        monkeypatch.setattr(ready.engine.hosts, "activate", refuse)
        done = ready.setup("--remove")
        assert done.exit_code == 1
        assert f"Host {host.name} is still out of service, where the broker put it" in done.output
        assert "activate it under Compute, Hosts, Management" in done.output
        monkeypatch.undo()
        assert ready.setup("--remove").exit_code == 0
        until(lambda: host.status == "up")

    def test_a_host_that_the_broker_activated_first_is_back_already(
        self, ready: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready.setup("--cluster", "One")
        host = next(iter(ready.engine.model.hosts.values()))
        host.status = "maintenance"
        host.status_detail = "ovirt-tcp: not trusted (pcr_differs): PCR 17"
        activate = ready.engine.hosts.activate

        def activate_twice(host: model.SimulatedHost) -> None:
            activate(host)
            activate(host)

        monkeypatch.setattr(ready.engine.hosts, "activate", activate_twice)
        done = ready.setup("--remove")
        assert done.exit_code == 0, done.output

    def test_while_its_cluster_is_being_upgraded_nothing_is_undone(self, ready: Machine) -> None:
        ready.setup("--cluster", "One")
        ready.wall()
        ready.cluster().policy = CLUSTER_MAINTENANCE
        before = ready.picture()
        done = ready.setup("--remove")
        assert done.exit_code == 1
        assert "cluster One is being upgraded" in done.output
        assert "then run setup --remove again" in done.output
        assert ready.picture() == before


@pytest.fixture
def real(make_machine: Callable[[str], Machine], tmp_path: Path) -> Iterator[Machine]:
    """A stock engine beside the real filterd."""
    with Processes(tmp_path) as processes:
        (port,) = free_ports(1)
        options = {
            "server": {"port": port},
            "snapshots": {"directory": str(tmp_path / "snapshot.d"), "owner": ""},
        }
        (tmp_path / "filterd.yaml").write_text(json.dumps(options))
        command = [
            sys.executable,
            "-m",
            "ovirt_tcp_plugin.scheduler.main",
            "--config-dir",
            str(tmp_path),
            "run",
        ]
        processes.start("filterd", command, lambda: listens(port))
        yield make_machine(f"http://localhost:{port}/")


def test_a_stock_engine_becomes_a_pool_that_the_broker_keeps_and_is_as_before_in_the_end(
    real: Machine,
) -> None:
    before = real.picture()
    assert real.both_phases("--cluster", "One").exit_code == 0
    site = Site(real.directory, real.pki, 2, engine=real.engine)
    site.start()
    try:
        until(lambda: site.inside() == {"h1", "h2"} and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        until(lambda: site.trusted_in_snapshot() == {"h1", "h2"})
        connection = ovirtsdk4.Connection(
            real.engine.url, ADMINISTRATOR, PASSWORD, ca_file=str(real.pki / "ca.pem")
        )
        with contextlib.closing(connection):
            vm = connection.system_service().vms_service().list()[0]
            until(lambda: _starts(connection, vm.id))
        assert real.engine.model.journal[-1]["external"] == "answer"
        done = real.setup("--remove")
        assert done.exit_code == 0
        assert "wall of cluster One: removed" in done.output
    finally:
        site.stop()
    assert site.wall() is None
    real.restart()
    after = real.picture()
    for table in ("vms", "hosts"):
        before.pop(table)
        after.pop(table)
    assert after == before


def _starts(connection: ovirtsdk4.Connection, vm_id: str) -> bool:
    """Return whether a VM starts now: filterd may not have the snapshot yet."""
    try:
        connection.system_service().vms_service().vm_service(vm_id).start()
    except ovirtsdk4.Error:
        return False
    return True
