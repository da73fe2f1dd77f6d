# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What somebody else does to a wall is noticed by its event, long before the next full listing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirt_tcp_plugin.broker import settings
from ovirt_tcp_plugin.broker.workers.group_edits import (
    FIRST_PAUSE_MS,
    LONGEST_PAUSE_MS,
    GroupEdits,
)
from ovirt_tcp_plugin.engine.events import EngineEvent
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.inventory import Event
from tests.broker.site import ADMINISTRATOR, EVERYBODY, Site, until
from tests.fake_clock import FakeClock
from tests.site_pki import PASSWORD

OUT_WITHIN_S = 5


@pytest.fixture
def running(site: Site) -> Site:
    """Looks at its engine as often as one that was installed does."""
    site.start()
    until(lambda: site.inside() == EVERYBODY)
    site.stop()
    site.options = dataclasses.replace(site.options, intervals=settings.IntervalOptions())
    site.start()
    until(
        lambda: (
            site.service.observation.all_known.is_set() and site.trusted_in_snapshot() == EVERYBODY
        ),
        20,
    )
    return site


@pytest.fixture
def administrator(running: Site) -> Iterator[Any]:
    """The engine as somebody else sees it."""
    connection = ovirtsdk4.Connection(
        running.engine.url, ADMINISTRATOR, PASSWORD, ca_file=str(running.pki / "ca.pem")
    )
    yield connection.system_service()
    connection.close(logout=False)


def wall_service(site: Site, system: Any) -> Any:
    groups = system.clusters_service().cluster_service(site.cluster).affinity_groups_service()
    wall = site.wall()
    assert wall is not None
    return groups.group_service(wall.id)


def listings(site: Site) -> int:
    return site.engine.rest.calls["GET vms"]


def seconds_until(holds: Any) -> float:
    began = time.monotonic()
    until(holds, OUT_WITHIN_S)
    return time.monotonic() - began


class TestWall:
    def test_a_label_is_out_within_five_seconds_of_its_being_put_there(
        self, running: Site, administrator: Any
    ) -> None:
        label = model.AffinityLabel(model.new_id(), "fast", hosts=[running.host("h1").id])
        running.engine.model.labels[label.id] = label
        labels = wall_service(running, administrator).host_labels_service()
        seen = listings(running)
        labels.add(types.AffinityLabel(id=label.id))
        wall = running.wall()
        assert wall is not None
        assert seconds_until(lambda: not wall.host_labels) < OUT_WITHIN_S
        assert listings(running) - seen <= 2

    def test_an_untrusted_host_let_in_by_hand_is_out_again(
        self, running: Site, administrator: Any
    ) -> None:
        running.engine.faults.refused_maintenance = {"h1": "[Cannot switch Host to Maintenance.]"}
        running.source.levels["h1.lab"] = Level.UNTRUSTED
        running.service.attest_host(running.host("h1").id)
        until(lambda: running.inside() == EVERYBODY - {"h1"})
        hosts = wall_service(running, administrator).hosts_service()
        hosts.add(types.Host(id=running.host("h1").id))
        seconds_until(lambda: running.inside() == EVERYBODY - {"h1"})

    def test_a_removed_one_is_there_again(self, running: Site, administrator: Any) -> None:
        wall_service(running, administrator).remove()
        seconds_until(lambda: running.inside() == EVERYBODY)


class OwnUser:
    """The engine of a user whose id may change."""

    def __init__(self) -> None:
        self.id = "ours"
        self.asked = 0

    def user_id(self) -> str:
        self.asked += 1
        return self.id


class TestGroupEdits:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def user(self) -> OwnUser:
        return OwnUser()

    @pytest.fixture
    def edits(self, user: OwnUser, clock: FakeClock) -> GroupEdits:
        return GroupEdits(user, clock)  # type: ignore[arg-type]

    def edit(self, edits: GroupEdits, user_id: str) -> None:
        code = EngineEvent.USER_UPDATED_AFFINITY_GROUP
        edits.take_event(Event(1, int(code), user_id=user_id))

    def test_ours_ask_for_nothing_and_our_user_is_asked_for_once(
        self, edits: GroupEdits, user: OwnUser
    ) -> None:
        for _ in range(3):
            self.edit(edits, "ours")
            assert not edits.is_listing_due()
        assert user.asked == 1

    def test_that_of_somebody_else_asks_for_one_listing_at_once(self, edits: GroupEdits) -> None:
        self.edit(edits, "ours")
        assert not edits.is_listing_due()
        self.edit(edits, "theirs")
        assert edits.is_listing_due()
        assert not edits.is_listing_due()

    def test_a_few_in_a_row_are_each_listed_soon(self, edits: GroupEdits, clock: FakeClock) -> None:
        for _ in range(3):
            self.edit(edits, "theirs")
            assert edits.is_listing_due()
            clock.pass_ms(5_000)

    def test_many_ask_for_ever_fewer_listings_and_the_last_is_not_forgotten(
        self, edits: GroupEdits, clock: FakeClock
    ) -> None:
        due = 0
        for _ in range(600):
            self.edit(edits, "theirs")
            due += edits.is_listing_due()
            clock.pass_ms(1_000)
        assert due == 5 + 600 // 32 - 1
        clock.pass_ms(LONGEST_PAUSE_MS)
        assert edits.is_listing_due()

    def test_after_a_calm_while_they_are_listed_at_once_again(
        self, edits: GroupEdits, clock: FakeClock
    ) -> None:
        for _ in range(100):
            self.edit(edits, "theirs")
            edits.is_listing_due()
            clock.pass_ms(1_000)
        clock.pass_ms(2 * LONGEST_PAUSE_MS)
        for _ in range(2):
            self.edit(edits, "theirs")
            assert edits.is_listing_due()
            clock.pass_ms(FIRST_PAUSE_MS)

    def test_our_user_added_anew_is_ours_again(self, edits: GroupEdits, user: OwnUser) -> None:
        self.edit(edits, "ours")
        assert not edits.is_listing_due()
        user.id = "ours anew"
        self.edit(edits, "ours anew")
        assert not edits.is_listing_due()

    def test_one_that_names_nobody_is_not_ours(self, edits: GroupEdits) -> None:
        self.edit(edits, "")
        assert edits.is_listing_due()

    def test_other_events_are_none(self, edits: GroupEdits) -> None:
        edits.take_event(Event(1, int(EngineEvent.USER_UPDATE_VM), user_id="theirs"))
        assert not edits.is_listing_due()
