# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A start of the engine voids all verdicts once, by whichever sign, in a real broker."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.hooks import HookApi, HookEvent
from ovirt_tcp_plugin.broker.workers import contact
from ovirt_tcp_plugin.engine import events
from ovirt_tcp_plugin.lab.engine import audit_log
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Event
from tests.broker.site import EVERYBODY, Site, until

UP_MARK = "engine.up"


@pytest.fixture
def running(site: Site, tmp_path: Path) -> Site:
    options = dataclasses.replace(site.options.engine, start_file=tmp_path / UP_MARK)
    site.options = dataclasses.replace(site.options, engine=options)
    start(site)
    return site


def start(site: Site) -> None:
    site.start()
    until(lambda: site.inside() == EVERYBODY and site.trusted_in_snapshot() == EVERYBODY)


def starts(site: Site) -> int:
    """Return how many starts the broker knows of, once it has looked at the engine again."""
    calls = site.engine.rest.calls
    lists = calls["GET hosts"] + 6
    until(lambda: calls["GET hosts"] >= lists)
    until(lambda: site.trusted_in_snapshot() == EVERYBODY)
    return sum(entry["code"] == "voided" for entry in site.history.find())


def restart(site: Site, seconds: float = 0.3) -> None:
    """Restart the engine, and wait until it answers."""
    site.engine.restart(seconds)
    until(lambda: not site.engine.away_until)


def lose_the_event(site: Site) -> None:
    """The affinity enforcer is switched off, so its start is no event."""
    site.engine.faults.lost_events = {audit_log.ENFORCEMENT_STARTED}


def write_up_mark(site: Site, ns: int) -> None:
    file = site.options.engine.start_file
    file.write_text("1\n", encoding="ascii")
    os.utime(file, ns=(ns, ns))


def edits(site: Site) -> int:
    """Return how often an affinity group was edited."""
    return sum(
        number
        for call, number in site.engine.rest.calls.items()
        if "affinitygroups" in call and not call.startswith("GET")
    )


class TestWall:
    def test_stands_while_all_hosts_attest_well_again(self, running: Site) -> None:
        before = edits(running)
        restart(running)
        assert starts(running) == 1
        assert edits(running) == before
        assert running.inside() == EVERYBODY

    def test_loses_a_host_that_attests_badly_at_once(self, running: Site) -> None:
        running.source.levels = {"h1.lab": Level.UNTRUSTED}
        restart(running)
        until(lambda: running.inside() == EVERYBODY - {"h1"})
        until(lambda: running.statuses()["h1"] == "maintenance")


class TestStart:
    def test_that_leaves_no_sign_is_not_noticed_but_what_hosts_did_is(self, running: Site) -> None:
        lose_the_event(running)
        running.engine.restart(0.3)
        # A host that is Up again before the next list, and one that is not.
        running.engine.hosts.power(running.host("h4"), False)
        running.source.levels = {"h1.lab": Level.TIMEOUT, "h4.lab": Level.TIMEOUT}
        host = running.host("h1").id
        running.engine.model.log(audit_log.HOST_TO_MAINTENANCE, "and Up again", host=host)
        until(lambda: not running.engine.away_until)
        until(lambda: running.inside() == EVERYBODY - {"h1", "h4"})
        assert [entry for entry in running.history.find() if entry["code"] == "voided"] == []

    @pytest.mark.parametrize("seconds", [0.1, 3.0])
    def test_shorter_than_any_silence_is_noticed(self, running: Site, seconds: float) -> None:
        restart(running, seconds)
        assert starts(running) == 1

    def test_twice_within_seconds_voids_twice(self, running: Site) -> None:
        restart(running)
        until(lambda: starts(running) == 1)
        restart(running)
        assert starts(running) == 2

    def test_after_a_silence_voids_once(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 500)
        restart(running, 1.5)
        assert starts(running) == 1

    def test_after_a_silence_whose_event_shows_late_voids_once(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 500)
        running.engine.faults.late_events = {audit_log.ENFORCEMENT_STARTED: 1.0}
        restart(running, 1.5)
        assert starts(running) == 1

    def test_whose_event_is_never_written_shows_by_silence(
        self, running: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 500)
        lose_the_event(running)
        restart(running, 1.5)
        assert starts(running) == 1

    def test_whose_event_is_never_written_shows_by_the_services_file(self, running: Site) -> None:
        write_up_mark(running, 1_000_000_000_000)
        assert starts(running) == 0
        lose_the_event(running)
        restart(running)
        write_up_mark(running, 2_000_000_000_000)
        assert starts(running) == 1

    def test_by_event_and_file_voids_once(self, running: Site) -> None:
        write_up_mark(running, 1_000_000_000_000)
        assert starts(running) == 0
        running.engine.restart(0.5)
        write_up_mark(running, 2_000_000_000_000)
        assert starts(running) == 1

    def test_whose_hook_fails_voids_once(self, running: Site) -> None:
        def fail(event: HookEvent, api: HookApi) -> None:
            raise ValueError("a hook that somebody wrote")

        running.service._handles = {**running.service._handles, "backend_initialize": fail}
        restart(running)
        assert starts(running) == 1

    def test_while_the_broker_was_down_voids_once(self, running: Site) -> None:
        running.stop()
        restart(running)
        start(running)
        assert starts(running) == 1


class TestNotifier:
    def write(self, site: Site) -> None:
        site.engine.model.log(audit_log.ENGINE_STOP, "away")
        site.engine.model.log(audit_log.ENGINE_START, "back")

    def test_its_events_void_nothing_a_second_time(self, running: Site) -> None:
        restart(running)
        assert starts(running) == 1
        self.write(running)
        assert starts(running) == 1

    def test_its_events_void_nothing_after_a_restart_of_the_broker(self, running: Site) -> None:
        restart(running)
        assert starts(running) == 1
        running.stop()
        self.write(running)
        start(running)
        assert starts(running) == 1

    def test_of_a_start_that_nothing_else_shows_they_void_once(self, running: Site) -> None:
        lose_the_event(running)
        restart(running)
        self.write(running)
        self.write(running)
        assert starts(running) == 1


class TestEvents:
    """Of a service whose threads have ended, so that nothing else happens."""

    @pytest.fixture
    def ended(self, running: Site) -> Site:
        running.service.stop()
        return running

    def take(self, site: Site, code: int) -> None:
        host = site.host("h1").id
        site.service.watch.take_event(Event(1_000_000, code, host, "vm", site.cluster, "any text"))

    def test_each_way_out_of_up_ends_the_verdict(self, ended: Site) -> None:
        host = ended.host("h1").id
        for code in events.HOST_LEFT_UP:
            answers = ended.source.ask(["h1.lab"])
            ended.state.questions.record({host: answers["h1.lab"]})
            assert ended.state.holds(host), code
            self.take(ended, code)
            assert not ended.state.holds(host), code

    def test_a_host_that_was_detected_is_no_news_and_no_proof_once_hosts_are_listed(
        self, ended: Site
    ) -> None:
        """Its text may name any state: after an engine's start it is of hosts that are not Up."""
        for code in events.HOST_CAME_UP:
            self.take(ended, code)
        assert ended.state.holds(ended.host("h1").id)

    def test_each_change_asks_for_a_listing(self, ended: Site) -> None:
        for code in events.LISTING_DUE:
            ended.service.observation.listing_due.clear()
            self.take(ended, code)
            assert ended.service.observation.listing_due.is_set(), code

    def test_each_change_of_a_vm_has_that_vm_read_and_asks_for_a_listing_after_a_rest(
        self, ended: Site
    ) -> None:
        observation = ended.service.observation
        for code in events.VM_CHANGED:
            observation.vm_listing_due.clear()
            observation.listing_due.clear()
            request = ended.state.vm_reads.begin()
            if request is not None:
                ended.state.vm_reads.gone(request)
            self.take(ended, code)
            assert ended.state.vm_reads.waiting() == {"vm"}, code
            assert observation.vm_listing_due.is_set(), code
            assert not observation.listing_due.is_set(), code

    @pytest.mark.parametrize("code", [2, 40, 835, *events.VM_ARRIVED])
    def test_what_changes_nothing_asks_for_none(self, ended: Site, code: int) -> None:
        ended.service.observation.listing_due.clear()
        ended.service.observation.vm_listing_due.clear()
        self.take(ended, code)
        assert not ended.service.observation.listing_due.is_set()
        assert not ended.service.observation.vm_listing_due.is_set()
