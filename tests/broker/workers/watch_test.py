# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine's events do to verdicts: none is missed, and none counts twice."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.workers import contact
from ovirt_tcp_plugin.lab.engine import audit_log, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import EVERYBODY, Site, until


def started(site: Site) -> Site:
    """Return the site when the broker has all hosts inside."""
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    return site


def test_events_are_read_on_when_the_engine_comes_from_a_backup_and_counts_anew(site: Site) -> None:
    started(site)
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


def test_an_id_that_comes_again_after_a_backup_a_little_older_is_a_new_event(site: Site) -> None:
    log = started(site).engine.model.audit_log
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


def test_events_that_were_passed_over_hide_none_after_a_backup(site: Site) -> None:
    watch = started(site).service.watch
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
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences have gaps, and whoever dismisses all events leaves none to overlap with."""
    voided: list[str] = []
    monkeypatch.setattr(BrokerState, "void", lambda state, code, reason, **_: voided.append(reason))
    log = started(site).engine.model.audit_log
    with site.engine.model.lock:
        log.rows.clear()
        log._last_id += 10
    site.engine.model.log(audit_log.VM_ADDED, "something")
    until(lambda: site.service._state_file.last_event == log._last_id)
    assert voided == []


def test_a_listing_that_is_due_and_fails_stays_due(site: Site) -> None:
    site.options = dataclasses.replace(site.options, intervals=settings.IntervalOptions(0.1, 600))
    started(site)
    site.engine.faults.answers = [AnswerFault(faults.HTML, "GET", "api/vms")]
    vm = model.SimulatedVm(model.new_id(), "late", site.cluster)
    site.engine.model.vms[vm.id] = vm
    site.engine.model.log(audit_log.VM_ADDED, "VM late was created.", vm=vm.id)
    until(lambda: site.wall() and vm.id in site.wall().vms)  # type: ignore[union-attr]


def test_a_host_that_came_up_while_the_broker_was_down_attests_anew(site: Site) -> None:
    """The events of its going may have been dropped: the engine limits them. That of its coming
    never is."""
    started(site)
    until(lambda: site.trusted_in_snapshot() == EVERYBODY)
    site.stop()
    site.source.levels["h1.lab"] = Level.TIMEOUT
    site.engine.model.log(
        audit_log.HOST_DETECTED, "Status of host h1 was set to Up.", host=site.host("h1").id
    )
    site.start()
    until(lambda: site.inside() == EVERYBODY - {"h1"})


def test_an_absence_of_the_engine_voids_verdicts_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    voided: list[str] = []
    monkeypatch.setattr(contact, "MAX_ENGINE_SILENCE_MS", 500)
    monkeypatch.setattr(BrokerState, "void", lambda state, code, reason, **_: voided.append(reason))
    started(site)
    lists = AnswerFault(faults.HTML, "GET", "api/(hosts|clusters)", 15)
    site.engine.faults.answers = [lists]
    until(lambda: lists.times == 0)
    assert len(voided) <= 4, "half a second each, not at every look"
