# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Walls at an engine that refuses, fails at or hangs with edits: each is put right all the same."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import builtin, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.lab.engine.rest.affinity import AffinityGroupPaths
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import WALL_DESCRIPTION, wall_name
from tests.broker.site import EVERYBODY, Site, until

GROUPS = "api/clusters/[^/]+/affinitygroups"


@pytest.fixture
def running(site: Site) -> Site:
    site.start()
    until(lambda: site.inside() == EVERYBODY and len(wall_of(site).vms) == 2)
    return site


def wall_of(site: Site) -> model.AffinityGroup:
    wall = site.wall()
    assert wall is not None
    return wall


def put_label(site: Site, host: str) -> None:
    """Let a host into the wall by a label."""
    label = model.AffinityLabel(model.new_id(), "fast", hosts=[site.host(host).id])
    site.engine.model.labels[label.id] = label
    wall_of(site).host_labels.append(label.id)


def contradict(site: Site, host: str) -> model.AffinityGroup:
    """Keep the first VM off a host, by an enforcing negative rule of an administrator's."""
    enforcing = model.Rule(enabled=True, enforcing=True, positive=False)
    group = model.AffinityGroup(model.new_id(), "licences", site.cluster, enforcing, model.Rule())
    group.hosts = [site.host(host).id]
    group.vms = [next(iter(site.engine.model.vms))]
    site.engine.model.groups[group.id] = group
    return group


def weaken(site: Site) -> None:
    wall_of(site).hosts_rule = model.Rule(enabled=True, enforcing=False, positive=True)


def listings(site: Site) -> int:
    return site.engine.rest.calls["GET vms"]


def judge(site: Site, hosts: set[str], level: Level) -> None:
    """Have the attestation server say this of several hosts in one answer."""
    site.source.levels.update({f"{name}.lab": level for name in hosts})
    answers = site.source.ask([f"{name}.lab" for name in hosts])
    site.state.questions.record({site.host(name).id: answers[f"{name}.lab"] for name in hosts})


def second_pool(site: Site) -> tuple[str, str]:
    """Make another pool, of two hosts; return the ids of its cluster and of a host."""
    first = site.engine.model.clusters[site.cluster]
    second = model.SimulatedCluster(model.new_id(), "Second", policy=first.policy)
    site.engine.model.clusters[second.id] = second
    for name in ("h4", "h5"):
        site.host(name).cluster = second.id
    return second.id, site.host("h5").id


def inside(site: Site, cluster_id: str) -> set[str]:
    groups = [
        group for group in site.engine.model.groups.values() if group.name == wall_name(cluster_id)
    ]
    return {site.engine.model.hosts[uid].name for group in groups for uid in group.hosts}


class TestLabel:
    def test_goes_by_one_edit_and_is_told_once_without_a_storm_of_listings(
        self, running: Site
    ) -> None:
        turn_untrusted_in_service(running, "h1")
        edits, seen = puts(running), listings(running)
        put_label(running, "h1")
        until(lambda: not wall_of(running).host_labels, 5)
        until(lambda: running.told("hosts were let in by a label. It is put right."))
        assert puts(running) - edits == 1
        assert running.inside() == EVERYBODY - {"h1"}
        assert len(wall_of(running).vms) == 2
        events = running.told("label")
        assert len(events) == 1
        assert listings(running) - seen < 10

    def test_goes_where_the_engine_refuses_the_group_as_it_is(self, running: Site) -> None:
        contradict(running, "h2")
        turn_untrusted_in_service(running, "h1")
        put_label(running, "h1")
        until(lambda: not wall_of(running).host_labels, 5)
        until(lambda: running.inside() == EVERYBODY - {"h1"})
        until(lambda: running.told("It is put right."))
        assert "licences" in running.told("It is put right.")[0].description

    def test_that_the_engine_keeps_has_the_wall_made_anew(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The old wall stands until the new one protects all that it did."""

        def keep(
            engine: Engine, cluster_id: str, group_id: str, emptied: bool = False, name: str = ""
        ) -> None:
            raise errors.Conflict("the engine accepted the repair of the wall and did not do it")

        old = wall_of(running)
        unprotected: list[str] = []
        remove_wall = Engine.remove_wall

        def watched(engine: Engine, cluster_id: str, group_id: str) -> None:
            walls = [
                group for group in running.engine.model.groups.values() if group.id != group_id
            ]
            unprotected.extend(vm for vm in old.vms if not any(vm in group.vms for group in walls))
            remove_wall(engine, cluster_id, group_id)

        monkeypatch.setattr(Engine, "repair_wall", keep)
        monkeypatch.setattr(Engine, "remove_wall", watched)
        put_label(running, "h1")
        until(lambda: old.id not in running.engine.model.groups)
        (new,) = running.engine.model.groups.values()
        assert new.description == WALL_DESCRIPTION
        assert new.name.startswith(wall_name(running.cluster))
        assert (len(new.hosts), len(new.vms), unprotected) == (5, 2, [])
        until(lambda: len(running.told("hosts were let in by a label. It is put right.")) == 1)


def turn_untrusted_in_service(site: Site, host: str) -> None:
    """Have a host found untrusted that no maintenance takes away."""
    site.engine.faults.refused_maintenance = {
        host: "[Cannot switch Host to Maintenance mode. Pinned VMs.]"
    }
    site.source.levels[f"{host}.lab"] = Level.UNTRUSTED
    site.service.attest_host(site.host(host).id)
    until(lambda: host not in site.inside() and site.told("maintenance was refused"))


def puts(site: Site) -> int:
    calls = site.engine.rest.calls.items()
    return sum(
        number for call, number in calls if call.startswith("PUT") and "affinitygroups" in call
    )


class TestRepair:
    def test_that_is_refused_is_done_by_emptying_the_wall(self, running: Site) -> None:
        """The engine validates a whole group against the rules of others, not single members."""
        contradict(running, "h2")
        seen = listings(running)
        weaken(running)
        until(lambda: wall_of(running).hosts_rule.enforcing, 5)
        until(lambda: running.inside() == EVERYBODY)
        assert len(wall_of(running).vms) == 2
        until(lambda: running.told("It is put right."))
        (event,) = running.told("Somebody edited the wall")
        assert "it was made to stop nobody" in event.description
        assert "Affinity Groups: licences" in event.description
        assert listings(running) - seen < 15

    def test_that_is_refused_in_every_way_is_told_once_with_a_next_step_and_slows_down(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[float] = []

        def refuse(engine: Engine, cluster_id: str, *_: object, **__: object) -> str:
            tried.append(time.monotonic())
            raise errors.Conflict("the engine refuses (repair the wall): Affinity Groups: a,b")

        monkeypatch.setattr(Engine, "repair_wall", refuse)
        monkeypatch.setattr(Engine, "create_wall", refuse)
        monkeypatch.setattr("ovirt_tcp_plugin.broker.state.retries.QUICK_TRIES", 1)
        weaken(running)
        until(lambda: running.told("It is not put right"))
        until(lambda: len(tried) >= 16, 20)
        (event,) = running.told("Somebody edited the wall")
        assert "Affinity Groups: a,b" in event.description
        assert "by hand" in event.description
        assert tried[12] - tried[8] > 1.5
        monkeypatch.undo()
        until(lambda: running.told("The wall of pool Trusted is as it has to be again."), 20)
        assert not running.told("It is put right.")

    def test_one_that_is_refused_keeps_no_host_in_service(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(engine: Engine, cluster_id: str, *_: object, **__: object) -> str:
            raise errors.Conflict("the engine refuses (repair the wall)")

        monkeypatch.setattr(Engine, "repair_wall", refuse)
        monkeypatch.setattr(Engine, "create_wall", refuse)
        weaken(running)
        running.source.levels["h1.lab"] = Level.UNTRUSTED
        running.service.attest_host(running.host("h1").id)
        until(lambda: running.statuses()["h1"] == "maintenance")

    def test_a_taken_name_keeps_no_wall_away(self, site: Site) -> None:
        """The engine has no two groups of one name, in whatever cluster."""
        elsewhere = model.SimulatedCluster(model.new_id(), "Elsewhere")
        site.engine.model.clusters[elsewhere.id] = elsewhere
        name = wall_name(site.cluster)
        taker = model.AffinityGroup(model.new_id(), name, elsewhere.id, model.Rule(), model.Rule())
        site.engine.model.groups[taker.id] = taker
        site.start()
        until(
            lambda: any(
                len(group.hosts) == 5 and len(group.vms) == 2
                for group in site.engine.model.groups.values()
            )
        )
        walls = [group for group in site.engine.model.groups.values() if group.id != taker.id]
        assert [group.name.startswith(f"{name}-") for group in walls] == [True]
        site.service.attest_in_stages()
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        until(lambda: site.statuses()["h1"] == "maintenance")
        assert len(walls[0].hosts) == 4
        assert len(site.engine.model.groups) == 2


class TestGone:
    def test_a_wall_that_somebody_removed_is_made_again_and_told_once(self, running: Site) -> None:
        """Also where the broker notices by an edit that the engine answers with 400."""
        del running.engine.model.groups[wall_of(running).id]
        running.source.levels["h1.lab"] = Level.UNTRUSTED
        running.service.attest_host(running.host("h1").id)
        until(lambda: running.statuses()["h1"] == "maintenance")
        until(lambda: running.inside() == EVERYBODY - {"h1"})
        until(lambda: running.told("it was removed. It is put right."))
        assert len(running.told("Somebody edited the wall")) == 1
        assert not running.told("is not as it has to be")


class TestOneCall:
    def test_many_leave_and_enter_by_one_call_each(self, running: Site) -> None:
        before = puts(running)
        running.source.down = True
        running.state.void("engine_restarted", "the engine restarted")
        until(lambda: running.inside() == set())
        assert (puts(running) - before, singles(running)) == (1, 0)
        running.source.down = False
        running.service.attest_in_stages()
        until(lambda: running.inside() == EVERYBODY)
        assert singles(running) <= 2
        assert len(wall_of(running).vms) == 2

    def test_a_refusal_of_the_whole_has_them_enter_singly(self, running: Site) -> None:
        contradict(running, "h2")
        running.source.down = True
        running.state.void("engine_restarted", "the engine restarted")
        until(lambda: running.inside() == set())
        running.source.down = False
        running.service.attest_in_stages()
        until(lambda: running.inside() == EVERYBODY)

    def test_nobody_enters_who_lost_trust_since_the_plan(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running.source.down = True
        running.state.void("engine_restarted", "the engine restarted")
        until(lambda: running.inside() == set())
        set_hosts, lists = Engine.set_hosts, []
        lost = running.host("h1").id
        holds = running.state.holds
        monkeypatch.setattr(
            running.state, "holds", lambda host_id: host_id != lost and holds(host_id)
        )

        def watched(
            engine: Engine, cluster_id: str, group_id: str, host_ids: frozenset[str]
        ) -> None:
            lists.append(host_ids)
            set_hosts(engine, cluster_id, group_id, host_ids)

        monkeypatch.setattr(Engine, "set_hosts", watched)
        running.source.down = False
        running.service.attest_in_stages()
        until(lambda: len(running.inside()) == 4)
        assert not any(lost in host_ids for host_ids in lists)

    def test_a_vm_that_somebody_put_behind_it_meanwhile_stays(self, running: Site) -> None:
        engine, wall = Engine(engine_access(running.options.engine)), wall_of(running)
        newcomer = model.SimulatedVm(model.new_id(), "newcomer", running.cluster)
        running.engine.model.vms[newcomer.id] = newcomer
        wall.vms.append(newcomer.id)
        (first, second, _) = wall.vms
        assert engine.change_vms(running.cluster, wall.id, [], [first]) == {second, newcomer.id}
        assert set(wall.vms) == {second, newcomer.id}


def singles(site: Site) -> int:
    calls = site.engine.rest.calls.items()
    return sum(
        number
        for call, number in calls
        if "affinitygroups/{}/" in call and not call.startswith("GET")
    )


def test_a_call_that_hung_carries_out_nothing_more_of_its_old_plan(
    running: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile its pool has other plans: whoever had to leave then is trusted again."""
    remove_host, removed = Engine.remove_host, []
    add_host, added = Engine.add_host, []
    hang = threading.Event()

    def hanging(engine: Engine, cluster_id: str, group_id: str, host_id: str) -> None:
        removed.append(host_id)
        hang.wait(10)
        remove_host(engine, cluster_id, group_id, host_id)

    def watched(engine: Engine, cluster_id: str, group_id: str, host_id: str) -> None:
        added.append(host_id)
        add_host(engine, cluster_id, group_id, host_id)

    monkeypatch.setattr(Engine, "remove_host", hanging)
    monkeypatch.setattr(Engine, "add_host", watched)
    judge(running, {"h1", "h2"}, Level.UNTRUSTED)
    until(lambda: removed)
    judge(running, {"h1", "h2"}, Level.TRUSTED)
    until(lambda: len(running.trusted_in_snapshot()) == 5)
    enforced = running.service.enforcement._begun_ms
    until(lambda: running.service.enforcement._begun_ms > enforced)
    hang.set()
    until(lambda: added and running.inside() == EVERYBODY)
    assert len(removed) == 1


class TestOneAlone:
    """One wall or one host that goes wrong hurts no other."""

    @pytest.mark.parametrize("kind", [faults.BROKEN, faults.SILENT])
    def test_a_wall_that_fails_or_hangs_delays_no_other_pool(self, site: Site, kind: str) -> None:
        second, _ = second_pool(site)
        site.start()
        until(lambda: site.inside() == {"h1", "h2", "h3"} and inside(site, second) == {"h4", "h5"})
        path = f"api/clusters/{site.cluster}/affinitygroups/.*"
        site.engine.faults.answers = [AnswerFault(kind, "(PUT|DELETE|POST)", path, 1000)]
        for name in ("h1", "h5"):
            site.source.levels[f"{name}.lab"] = Level.UNTRUSTED
            site.service.attest_host(site.host(name).id)
        until(lambda: inside(site, second) == {"h4"}, 4)
        until(lambda: site.statuses()["h5"] == "maintenance", 6)
        assert site.statuses()["h1"] == "up"
        if kind == faults.BROKEN:
            until(lambda: site.told("The wall of pool Trusted is not as it has to be"))
        site.engine.faults.answers = []
        until(lambda: site.statuses()["h1"] == "maintenance", 20)

    def test_a_failing_wall_is_told_once_and_not_listed_for_each_second(self, site: Site) -> None:
        second, _ = second_pool(site)
        site.start()
        until(lambda: site.inside() == {"h1", "h2", "h3"} and inside(site, second) == {"h4", "h5"})
        site.engine.faults.answers = [AnswerFault(faults.BROKEN, "DELETE", f"{GROUPS}/.*", 1000)]
        site.source.levels["h5.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h5").id)
        until(lambda: site.told("The wall of pool Second is not as it has to be"))
        (event,) = site.told("The wall of pool Second")
        assert "hosts that are not trusted are inside" in event.description

    def test_a_host_whose_maintenance_fails_delays_no_other(self, running: Site) -> None:
        bad = f"api/hosts/{running.host('h2').id}/deactivate"
        running.engine.faults.answers = [AnswerFault(faults.BROKEN, "POST", bad, 1000)]
        for name in ("h2", "h3"):
            running.source.levels[f"{name}.lab"] = Level.UNTRUSTED
            running.service.attest_host(running.host(name).id)
        until(lambda: running.told("guard release"))
        running.state.quarantine.decide(release=True)
        until(lambda: running.statuses()["h3"] == "maintenance", 5)
        running.source.levels["h3.lab"] = Level.TRUSTED
        running.service.attest_host(running.host("h3").id)
        until(lambda: running.statuses()["h3"] == "up", 5)
        until(lambda: running.told("Host h2 is untrusted, but maintenance was refused"))
        asked = running.engine.rest.calls["POST hosts/{}/deactivate"]
        assert asked < 6
        assert len(running.told("Host h2 is untrusted, but")) == 1

    def test_an_ended_wall_that_stays_keeps_no_other_from_going(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second, _ = second_pool(site)
        site.start()
        until(lambda: site.inside() == {"h1", "h2", "h3"} and inside(site, second) == {"h4", "h5"})
        bad = f"api/clusters/{site.cluster}/affinitygroups/.*"
        site.engine.faults.answers = [AnswerFault(faults.BROKEN, "DELETE", bad, 1000)]
        for cluster in site.engine.model.clusters.values():
            cluster.policy = next(iter(site.engine.model.policies))
        until(lambda: len(site.told("It is still a trusted pool")) == 2)
        for cluster_id in (site.cluster, second):
            site.state.pool_ends.end(cluster_id, "token 1")
        until(lambda: not inside(site, second), 5)
        until(lambda: site.told("could not be removed"))
        assert site.wall() is not None
        site.engine.faults.answers = []
        until(lambda: site.wall() is None)

    def test_an_ended_wall_that_is_gone_already_is_done(self, running: Site) -> None:
        engine, group = Engine(engine_access(running.options.engine)), wall_of(running)
        engine.remove_wall(running.cluster, group.id)
        engine.remove_wall(running.cluster, group.id)
        assert not engine.has_group(running.cluster, group.id)
        assert not engine.has_group(model.new_id(), group.id)


def test_the_second_of_two_walls_of_a_pool_is_removed(running: Site) -> None:
    """As after a crash while one replaced the other."""
    wall = wall_of(running)
    name = f"{wall_name(running.cluster)}-1234"
    twin = model.AffinityGroup(
        model.new_id(), name, running.cluster, wall.hosts_rule, wall.vms_rule
    )
    twin.description = WALL_DESCRIPTION
    twin.hosts = [running.host("h1").id]
    running.engine.model.groups[twin.id] = twin
    until(lambda: twin.id not in running.engine.model.groups)
    assert running.inside() == EVERYBODY
    assert len(wall.vms) == 2


def test_a_wall_that_the_engine_makes_without_its_rules_is_not_taken_for_one(
    running: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = AffinityGroupPaths._edit

    def weakened(paths: AffinityGroupPaths, group: model.AffinityGroup, given: Any) -> None:
        edit(paths, group, given)
        group.hosts_rule = model.Rule(enabled=True, enforcing=False, positive=True)

    monkeypatch.setattr(AffinityGroupPaths, "_edit", weakened)
    running.engine.model.groups.clear()
    until(lambda: running.told("It is not put right"))
    assert not running.told("It is put right")
    monkeypatch.undo()
    until(lambda: running.inside() == EVERYBODY)


def end_pool(site: Site, name: str) -> None:
    """End a pool as soon as the broker has seen that its policy is another one."""
    until(lambda: site.told(f"Cluster {name} has the scheduling policy none"))
    site.state.pool_ends.end(name, "token 1")


def test_an_untrusted_host_does_not_stay_inside_by_a_label(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    label = model.AffinityLabel(model.new_id(), "fast", hosts=[site.host("h1").id])
    site.engine.model.labels[label.id] = label
    wall = site.wall()
    assert wall is not None
    wall.host_labels.append(label.id)
    until(lambda: wall.host_labels == [])


def test_a_wall_whose_removal_failed_stays_when_its_cluster_is_a_pool_again(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    wall, cluster = site.wall(), site.engine.model.clusters[site.cluster]
    assert wall is not None
    removals = AnswerFault(faults.HTML, "DELETE", "api/clusters/.*", 10_000)
    site.engine.faults.answers = [removals]
    policy, cluster.policy = cluster.policy, builtin.NONE_POLICY
    end_pool(site, "Trusted")
    until(lambda: removals.times < 10_000)
    cluster.policy = policy
    until(lambda: site.cluster in site.state.pools())
    site.engine.faults.answers = []
    asked = site.engine.rest.calls["GET clusters"]
    until(lambda: site.engine.rest.calls["GET clusters"] > asked + 4)
    assert site.wall() is wall


def test_a_wall_that_cannot_be_removed_keeps_no_untrusted_host_in_service(site: Site) -> None:
    second = dataclasses.replace(
        site.engine.model.clusters[site.cluster], id=model.new_id(), name="Second"
    )
    site.engine.model.clusters[second.id] = second
    site.start()
    until(lambda: site.inside() == EVERYBODY and len(site.engine.model.groups) == 2)
    removals = AnswerFault(
        faults.BROKEN, "DELETE", "api/clusters/[^/]*/affinitygroups/[^/]*", 10_000
    )
    site.engine.faults.answers = [removals]
    second.policy = builtin.NONE_POLICY
    end_pool(site, "Second")
    until(lambda: removals.times < 10_000)
    site.source.levels["h1.lab"] = Level.UNTRUSTED
    site.service.attest_host(site.host("h1").id)
    until(lambda: site.statuses()["h1"] == "maintenance")


def test_a_wall_that_cannot_be_made_keeps_no_other_waiting(site: Site) -> None:
    second = dataclasses.replace(
        site.engine.model.clusters[site.cluster], id=model.new_id(), name="Second"
    )
    site.engine.model.clusters[second.id] = second
    broken = f"api/clusters/{site.cluster}/.*"
    site.engine.faults.answers = [AnswerFault(faults.BROKEN, "POST", broken, 10_000)]
    site.start()
    until(lambda: any(one.cluster == second.id for one in site.engine.model.groups.values()))


def test_nobody_enters_by_a_plan_from_before_trust_was_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine was slow, or the broker stood still: the verdict that let the host in is
    over."""
    add_host, entered = Engine.add_host, []

    def slowly(engine: Engine, cluster_id: str, group_id: str, host_id: str) -> None:
        if not entered:
            site.state.void("engine_restarted", "the engine restarted")
            site.state.changes.begin_plans()
            site.source.down = True
        entered.append(host_id)
        add_host(engine, cluster_id, group_id, host_id)

    for n in (4, 5):
        site.source.levels[f"h{n}.lab"] = Level.TIMEOUT
    site.options = dataclasses.replace(site.options, startup=settings.StartupOptions(5, 5))
    site.start()
    until(lambda: site.inside() == {"h1", "h2", "h3"})
    monkeypatch.setattr(Engine, "add_host", slowly)
    site.source.levels.clear()
    site.service.attest_in_stages()
    until(lambda: entered and site.told("No attestation server answers"))
    assert len(entered) == 1
