# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a hostile reading of the broker found, one test each."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.questions import Questions
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers import contact
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import audit_log, builtin, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Listing
from tests.broker.site import EVERYBODY, Site, until
from tests.broker.state.broker_state_test import LIFE, World


def replace(world: World, number: int, **changes: str) -> None:
    """Change a host at the engine, and let the broker look."""
    world.hosts[number] = dataclasses.replace(world.hosts[number], **changes)  # type: ignore[arg-type]
    world.look()


def end_pool(site: Site, name: str) -> None:
    """End a pool as soon as the broker has seen that its policy is another one."""
    until(lambda: site.told(f"Cluster {name} has the scheduling policy none"))
    site.knowledge.pool_ends.end(name, "token 1")


class TestPlaces:
    """A verdict is of one host in one place under one name."""

    @pytest.mark.parametrize("change", [{"cluster_id": "elsewhere"}, {"address": "other.lab"}])
    def test_one_that_moved_or_has_another_address_attests_before_it_counts(
        self, change: dict[str, str]
    ) -> None:
        world = World()
        world.attest(good=world.ids())
        world.inside()
        before = dataclasses.asdict(world.hosts[1])
        replace(world, 1, **change)
        replace(world, 1, **{name: before[name] for name in change})
        assert world.inside() == {"h0", "h2", "h3"}
        assert "h1" in world.knowledge.questions.due(10)

    def test_an_answer_to_a_question_from_before_that_does_not_count(self) -> None:
        world = World()
        answer = Answer(Level.TRUSTED, world.clock.ms, 0, LIFE, True)
        world.clock.pass_ms(100)
        replace(world, 1, address="other.lab")
        world.knowledge.questions.record({"h1": answer, "h2": answer})
        assert world.inside() == {"h2"}

    def test_hosts_that_come_to_share_a_name_leave_the_wall(self) -> None:
        world = World()
        world.attest(good=world.ids())
        assert world.inside() == set(world.ids())
        replace(world, 1, address=world.hosts[0].address)
        assert world.inside() == {"h2", "h3"}

    def test_an_answer_about_a_name_that_the_host_has_no_more_is_nobodys(self, site: Site) -> None:
        """The address changes after the broker chose whom to ask for, and before it asks."""
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        ask = site.source.ask
        site.source.levels["h9.lab"] = Level.TIMEOUT

        def changed_meanwhile(names: Sequence[str]) -> Mapping[str, Answer]:
            if "h1.lab" in names:
                site.host("h1").address = "h9.lab"
                until(lambda: site.knowledge.questions.name(site.host("h1").id) == "h9.lab")
            return ask(names)

        site.source.ask = changed_meanwhile  # type: ignore[method-assign]
        site.service.attest_host(site.host("h1").id)
        until(lambda: site.asked_for("h9.lab"))
        until(lambda: site.inside() == EVERYBODY - {"h1"})


class TestWall:
    def test_an_untrusted_host_does_not_stay_inside_by_a_label(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        label = model.AffinityLabel(model.new_id(), "fast", hosts=[site.host("h1").id])
        site.engine.model.labels[label.id] = label
        wall = site.wall()
        assert wall is not None
        wall.host_labels.append(label.id)
        until(lambda: wall.host_labels == [])

    def test_one_whose_removal_failed_stays_when_its_cluster_is_a_pool_again(
        self, site: Site
    ) -> None:
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
        until(lambda: site.cluster in site.knowledge.pools())
        site.engine.faults.answers = []
        asked = site.engine.rest.calls["GET clusters"]
        until(lambda: site.engine.rest.calls["GET clusters"] > asked + 4)
        assert site.wall() is wall

    def test_one_that_cannot_be_removed_keeps_no_untrusted_host_in_service(
        self, site: Site
    ) -> None:
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

    def test_one_at_which_the_engine_fails_keeps_no_other_waiting(self, site: Site) -> None:
        second = dataclasses.replace(
            site.engine.model.clusters[site.cluster], id=model.new_id(), name="Second"
        )
        site.engine.model.clusters[second.id] = second
        broken = f"api/clusters/{site.cluster}/.*"
        site.engine.faults.answers = [AnswerFault(faults.BROKEN, "POST", broken, 10_000)]
        site.start()
        until(lambda: any(one.cluster == second.id for one in site.engine.model.groups.values()))

    def test_nobody_enters_by_a_plan_from_before_trust_was_lost(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The engine was slow, or the broker stood still: the verdict that let the host in is
        over."""
        add_host, entered = Engine.add_host, []

        def slowly(engine: Engine, cluster_id: str, group_id: str, host_id: str) -> None:
            if not entered:
                site.knowledge.void("engine_restarted", "the engine restarted")
                site.knowledge.changes.begin_plans()
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


def test_a_fault_of_our_own_in_taking_an_answer_leaves_nobody_unasked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Questions.record
    failed: list[Mapping[str, Answer]] = []

    def fail_once(questions: Questions, answers: Mapping[str, Answer]) -> None:
        if not failed:
            failed.append(answers)
            raise KeyError("a fault of our own")
        record(questions, answers)

    monkeypatch.setattr(Questions, "record", fail_once)
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    assert failed


class TestClock:
    def test_an_answer_that_a_pause_was_in_between_is_as_old_as_it_is(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stages go on for long: nobody else looks at the clock meanwhile."""
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        ask, seen = site.source.ask, []
        wall_ms = site.clock.wall_ms

        def paused(names: Sequence[str]) -> Mapping[str, Answer]:
            seen.append(site.knowledge.holds(site.host("h1").id))
            answers, now_ms = ask(names), site.clock.now_ms()
            until(lambda: site.clock.now_ms() > now_ms + 5)
            if len(seen) == 1:
                monkeypatch.setattr(site.clock, "wall_ms", lambda: wall_ms() + 120_000)
            return answers

        site.source.ask = paused  # type: ignore[method-assign]
        site.service.attest_in_stages()
        until(lambda: len(seen) >= 2)
        assert seen[:2] == [True, False]


class TestDisk:
    def test_one_without_room_for_the_state_stops_no_quarantine(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)

        def full(memory: StateFile, knowledge: BrokerState) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as disk:
            disk.setattr(StateFile, "save", full)
            site.source.levels["h1.lab"] = Level.UNTRUSTED
            site.service.attest_host(site.host("h1").id)
            until(lambda: site.statuses()["h1"] == "maintenance")

    def test_a_snapshot_directory_that_is_gone_is_made_again(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        shutil.rmtree(site.options.snapshot.directory)
        site.service.attest_in_stages()
        until(
            lambda: (
                site.options.snapshot.directory.exists() and site.trusted_in_snapshot() == EVERYBODY
            )
        )

    def test_a_pool_whose_snapshot_cannot_be_written_keeps_no_other_back(self, site: Site) -> None:
        second = dataclasses.replace(
            site.engine.model.clusters[site.cluster], id=model.new_id(), name="Second"
        )
        bad = min(site.cluster, second.id)
        (site.options.snapshot.directory / f"{bad}.new").mkdir(parents=True)
        clusters = dict(sorted({**site.engine.model.clusters, second.id: second}.items()))
        site.engine.model.clusters.clear()
        site.engine.model.clusters.update(clusters)
        site.start()
        until(
            lambda: (
                site.options.snapshot.directory / f"{max(site.cluster, second.id, *clusters)}.json"
            ).exists()
        )

    def test_a_state_that_breaks_off_in_its_middle_is_taken_over_not_even_in_part(self) -> None:
        world = World()
        world.attest(good=world.ids(), bad=["h1"])
        saved = json.loads(json.dumps(world.knowledge.encode()))
        saved["verdicts"]["h0"]["born_ms"] = "soon"
        fresh = BrokerState(world.options, world.clock, random.random)
        before = fresh.encode()
        with pytest.raises(ValueError, match="soon"):
            fresh.restore(saved)
        assert fresh.encode() == before

    def test_of_two_threads_that_save_the_later_state_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One is held up after it looked, the other looks and writes meanwhile."""
        world, looked, held = World(), threading.Event(), threading.Event()
        memory = StateFile(tmp_path)
        world.attest(good=world.ids())
        encode = BrokerState.encode

        def hold_up(knowledge: BrokerState) -> dict[str, Any]:
            seen = encode(knowledge)
            if not looked.is_set():
                looked.set()
                held.wait(0.3)
            return seen

        monkeypatch.setattr(BrokerState, "encode", hold_up)
        early = threading.Thread(target=memory.save, args=(world.knowledge,))
        early.start()
        looked.wait(5)
        world.attest(bad=["h1"])
        memory.save(world.knowledge)
        held.set()
        early.join()
        saved = json.loads((tmp_path / "state.json").read_bytes())
        assert saved["knowledge"]["verdicts"]["h1"]["level"] == "untrusted"

    def test_what_lost_trust_between_two_writes_is_saved_while_the_engine_is_away(
        self, site: Site
    ) -> None:
        """Only the engine's answers used to bring the next save about: killed by then, the broker
        trusted the host again."""
        site.options = dataclasses.replace(site.options, verdicts=settings.VerdictOptions())
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.engine.faults.answers = [AnswerFault(faults.HTML, times=10_000)]
        written_ms = site.snapshot().written_ms
        until(lambda: site.clock.now_ms() - written_ms > 1100)
        site.service.attest_host(site.host("h2").id)
        until(lambda: site.snapshot().written_ms > written_ms)
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: "h1" not in site.trusted_in_snapshot())
        until(
            lambda: b'"untrusted"' in (site.options.state.directory / "state.json").read_bytes(), 2
        )
        site.engine.faults.answers = []

    def test_what_loses_trust_before_all_vms_are_listed_is_saved(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That may take long where there are many, and no snapshot is written before."""
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.stop()
        state, listing, saved = (
            site.options.state.directory / "state.json",
            Engine.listing,
            threading.Event(),
        )

        def slowly(engine: Engine) -> Listing:
            saved.wait(8)
            return listing(engine)

        monkeypatch.setattr(Engine, "listing", slowly)
        before = state.stat().st_ino
        site.start()
        until(lambda: state.stat().st_ino != before)
        site.source.levels["h1.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h1").id)
        until(lambda: b'"untrusted"' in state.read_bytes(), 4)
        saved.set()


def quarantined(world: World, host_id: str) -> None:
    """Let a host be found untrusted, and be in maintenance for that."""
    world.attest(bad=[host_id])
    reasons = dict(world.knowledge.quarantine.to_deactivate())
    world.knowledge.quarantine.deactivated(host_id)
    world.status(host_id, "maintenance", reasons[host_id])


def test_an_empty_list_of_hosts_forgets_nobody_and_trusts_nobody() -> None:
    world = World()
    world.attest(good=["h0", "h2", "h3"], bad=["h1"])
    world.inside()
    hosts, world.hosts = world.hosts, []
    world.look()
    assert world.inside() == set()
    world.hosts = hosts
    world.look()
    decision = world.knowledge.case("vm-0", "host-1").decision
    assert decision is not None
    assert decision.code == "pcr_differs"
    assert world.inside() == set()


class TestQuarantine:
    def test_one_that_attests_badly_again_does_not_return_for_having_been_well_before(self) -> None:
        world = World()
        world.attest(good=world.ids())
        quarantined(world, "h1")
        world.attest(good=["h1"])
        world.knowledge.quarantine.activated("h1")
        world.status("h1", "up")
        world.clock.pass_ms(1000)
        quarantined(world, "h1")
        world.attest(good=["h1"])
        assert world.knowledge.quarantine.to_activate() == [], "the second time it has to wait"
        world.clock.pass_ms(20_000)
        world.attest(bad=["h1"])
        world.clock.pass_ms(20_000)
        assert world.knowledge.quarantine.to_activate() == []
        world.attest(good=["h1"])
        world.clock.pass_ms(31_000)
        assert world.knowledge.quarantine.to_activate() == ["h1"]

    def test_an_activation_that_is_refused_is_tried_again_later_not_at_once(self) -> None:
        world = World()
        world.attest(good=world.ids())
        quarantined(world, "h1")
        world.attest(good=["h1"])
        assert world.knowledge.quarantine.to_activate() == ["h1"]
        world.knowledge.quarantine.activated("h1", "its status is wrong")
        assert world.knowledge.quarantine.to_activate() == []
        world.clock.pass_ms(31_000)
        assert world.knowledge.quarantine.to_activate() == ["h1"]

    @pytest.mark.parametrize("leave", ["removed", "moved"])
    def test_the_guard_does_not_wait_for_hosts_that_are_no_more_of_its_pool(
        self, leave: str
    ) -> None:
        world = World(hosts=10)
        world.attest(good=world.ids())
        world.attest(bad=["h0", "h1", "h2"])
        assert world.leaving() == set()
        for number in range(3):
            if leave == "moved":
                replace(world, number, cluster_id="elsewhere")
        world.hosts = world.hosts if leave == "moved" else world.hosts[3:]
        world.look()
        world.clock.pass_ms(1000)
        world.attest(bad=["h9"])
        assert world.leaving() == {"h9"}


class TestEvents:
    def running(self, site: Site) -> Site:
        site.start()
        until(lambda: site.inside() == EVERYBODY)
        return site

    def test_they_are_read_on_when_the_engine_comes_from_a_backup_and_counts_anew(
        self, site: Site
    ) -> None:
        self.running(site)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.stop()
        state = site.options.state.directory / "state.json"
        state.write_text(json.dumps({**json.loads(state.read_bytes()), "last_event": 10_000}))
        asked = len(site.source.asked)
        site.start()
        until(lambda: sum(map(len, site.source.asked[asked:])) >= len(EVERYBODY))
        until(lambda: site.inside() == EVERYBODY)
        site.source.levels["h1.lab"] = Level.TIMEOUT
        site.engine.model.log(
            audit_log.HOST_TO_MAINTENANCE,
            "and Up again, which no list showed",
            host=site.host("h1").id,
        )
        until(lambda: site.inside() == EVERYBODY - {"h1"})

    def test_an_id_that_comes_again_after_a_backup_a_little_older_is_a_new_event(
        self, site: Site
    ) -> None:
        log = self.running(site).engine.model.audit_log
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        for _ in range(5):
            site.engine.model.log(audit_log.VM_ADDED, "something")
        until(lambda: site.service._state_file.last_event == log._last_id)
        site.source.levels["h1.lab"] = Level.TIMEOUT
        with site.engine.model.lock:
            del log.rows[-5:]
            log._last_id -= 5
            left = audit_log.HOST_TO_MAINTENANCE
            site.engine.model.log(left, "no list showed it", host=site.host("h1").id)
        until(lambda: site.inside() == EVERYBODY - {"h1"})

    def test_events_that_were_passed_over_hide_none_after_a_backup(self, site: Site) -> None:
        watch = self.running(site).service.watch
        watch._cursor._readable_from = 10_000
        site.service._state_file.last_event = 10_000
        log = site.engine.model.audit_log
        until(lambda: site.service._state_file.last_event == log._last_id)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.source.levels["h1.lab"] = Level.TIMEOUT
        left = audit_log.HOST_TO_MAINTENANCE
        site.engine.model.log(left, "no list showed it", host=site.host("h1").id)
        until(lambda: site.inside() == EVERYBODY - {"h1"})

    def test_ids_that_were_left_out_are_no_missed_events(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sequences have gaps, and whoever dismisses all events leaves none to overlap with."""
        voided: list[str] = []
        monkeypatch.setattr(
            BrokerState, "void", lambda knowledge, code, reason, **_: voided.append(reason)
        )
        log = self.running(site).engine.model.audit_log
        with site.engine.model.lock:
            log.rows.clear()
            log._last_id += 10
        site.engine.model.log(audit_log.VM_ADDED, "something")
        until(lambda: site.service._state_file.last_event == log._last_id)
        assert voided == []

    def test_a_listing_that_is_due_and_fails_stays_due(self, site: Site) -> None:
        site.options = dataclasses.replace(
            site.options, intervals=settings.IntervalOptions(0.1, 600)
        )
        self.running(site)
        site.engine.faults.answers = [AnswerFault(faults.HTML, "GET", "api/vms")]
        vm = model.SimulatedVm(model.new_id(), "late", site.cluster)
        site.engine.model.vms[vm.id] = vm
        site.engine.model.log(audit_log.VM_ADDED, "VM late was created.", vm=vm.id)
        until(lambda: site.wall() and vm.id in site.wall().vms)  # type: ignore[union-attr]

    def test_a_host_that_came_up_while_the_broker_was_down_attests_anew(self, site: Site) -> None:
        """The events of its going may have been dropped: the engine limits them. That of its coming
        never is."""
        self.running(site)
        until(lambda: site.trusted_in_snapshot() == EVERYBODY)
        site.stop()
        site.source.levels["h1.lab"] = Level.TIMEOUT
        site.engine.model.log(
            audit_log.HOST_DETECTED, "Status of host h1 was set to Up.", host=site.host("h1").id
        )
        site.start()
        until(lambda: site.inside() == EVERYBODY - {"h1"})

    def test_one_absence_voids_once(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        voided: list[str] = []
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 500)
        monkeypatch.setattr(
            BrokerState, "void", lambda knowledge, code, reason, **_: voided.append(reason)
        )
        self.running(site)
        lists = AnswerFault(faults.HTML, "GET", "api/(hosts|clusters)", 15)
        site.engine.faults.answers = [lists]
        until(lambda: lists.times == 0)
        assert len(voided) <= 4, "half a second each, not at every look"
