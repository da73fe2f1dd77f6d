# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""How often the engine is looked at, on a clock of the test's own. How soon the broker knows by it
is measured by `tests.bench.watching`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin.broker.engine_access import engine_access
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.store.state_file import StateFile
from ovirt_tcp_plugin.broker.workers.contact import EngineContact
from ovirt_tcp_plugin.broker.workers.filter_reports import FilterReports
from ovirt_tcp_plugin.broker.workers.watch import (
    BUSY_PAUSE_S,
    CALM_AFTER_MS,
    CALM_PAUSE_S,
    WatchReactions,
    WatchWorker,
)
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import audit_log
from tests.broker.site import Site
from tests.broker.state.world import OPTIONS
from tests.fake_clock import FakeClock


class Watch:
    """The worker, of which the test is the thread, at a simulated engine."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock = FakeClock()
        state = BrokerState(OPTIONS, self.clock, random.random)
        reactions = WatchReactions(
            run_hook=lambda event: None,
            hosts_came_up=lambda host_ids: None,
            take_vm_event=lambda event: None,
            take_message=lambda event: None,
            messages_missed=lambda: None,
            request_listing=lambda: None,
            request_vm_listing=lambda: None,
            hosts_known=lambda: False,
            all_known=lambda: False,
        )
        engine = Engine(engine_access(site.options.engine))
        self.worker = WatchWorker(
            OPTIONS,
            state,
            engine,
            StateFile(site.options.state.directory),
            reactions,
            EngineContact(engine, self.clock, 5000),
            FilterReports(state, self.clock, site.options.engine.start_file),
            self.clock,
        )

    def happens(self) -> None:
        """Have an event written that means nothing to the broker."""
        self.site.engine.model.log(audit_log.HOST_ACTIVATED, "Somebody did something.")


@pytest.fixture
def watch(tmp_path: Path, site_pki: Path) -> Iterator[Watch]:
    site = Site(tmp_path, site_pki, 1, vms=[])
    watch = Watch(site)
    watch.worker.step()
    yield watch
    site.engine.stop()


def test_an_engine_at_which_things_happen_is_looked_at_often(watch: Watch) -> None:
    watch.clock.pass_ms(CALM_AFTER_MS)
    watch.happens()
    watch.worker.step()
    assert watch.worker.pause_s() == BUSY_PAUSE_S
    watch.clock.pass_ms(CALM_AFTER_MS - 1)
    watch.worker.step()
    assert watch.worker.pause_s() == BUSY_PAUSE_S


def test_one_where_nothing_happened_for_a_minute_is_looked_at_less_often(watch: Watch) -> None:
    watch.happens()
    watch.worker.step()
    watch.clock.pass_ms(CALM_AFTER_MS)
    # Events that are read again are no news.
    watch.worker.step()
    assert watch.worker.pause_s() == CALM_PAUSE_S


def test_a_broker_that_has_just_started_looks_often(watch: Watch) -> None:
    assert watch.worker.pause_s() == BUSY_PAUSE_S


def test_hosts_are_looked_at_at_once_when_one_came_up(watch: Watch) -> None:
    calls = watch.site.engine.rest.calls
    watch.worker.step()
    polls = calls["GET hosts"]
    host = watch.site.host("h1")
    watch.site.engine.model.log(audit_log.HOST_DETECTED, "Host h1 is Up.", host=host.id)
    watch.worker.step()
    assert calls["GET hosts"] == polls + 1
    # The list may show it later than the event.
    watch.worker.step()
    assert calls["GET hosts"] == polls + 2
    watch.worker.step()
    assert calls["GET hosts"] == polls + 2
