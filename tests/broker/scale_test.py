# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What must not grow with the number of hosts: counts of questions and of calls, not times."""

from __future__ import annotations

import math
import random

import pytest

from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.verdicts import Lifetimes, VerdictCache
from ovirt_tcp_plugin.engine.client import Engine
from ovirt_tcp_plugin.lab.engine import model
from ovirt_tcp_plugin.messages.result import Level
from tests.broker.site import EVERYBODY, Site, until

HOSTS, BATCH, START = 1000, 20, 1_000_000


def edits(site: Site) -> int:
    return sum(
        number for call, number in site.engine.rest.calls.items() if not call.startswith("GET")
    )


def cycle(level: Level, seed: int) -> int:
    """Return the questions in which all of 1,000 trusted hosts are renewed, when each answer has
    this level."""
    table, spread, now_ms = VerdictCache(Lifetimes()), random.Random(seed), START
    names = [f"h{n}" for n in range(HOSTS)]
    table.observe(dict.fromkeys(names, True), now_ms)
    for name in names:
        table.record(name, Answer(Level.TRUSTED, now_ms, 0, 600_000, True), now_ms, spread.random())
    questions, asked, now_ms = 0, set[str](), START + 270_000
    while len(asked) < HOSTS:
        now_ms += 100
        # Whoever asks for a host makes no question of its own.
        table.ask_soon(set(spread.choices(names, k=3)) - asked, now_ms)
        batch = table.begin(table.due(lambda name: name not in asked, now_ms, False, BATCH, BATCH))
        questions += bool(batch)
        for name in batch:
            table.record(name, Answer(level, now_ms, 0, 600_000, True), now_ms, spread.random())
        asked.update(batch)
    return questions


class TestQuestions:
    @pytest.mark.parametrize("level", [Level.TRUSTED, Level.UNTRUSTED, Level.TIMEOUT])
    def test_a_cycle_is_full_questions_only_whatever_is_answered_and_however_many_ask(
        self, level: Level
    ) -> None:
        assert cycle(level, seed=1) == math.ceil(HOSTS / BATCH)

    def test_nobody_is_taken_along_before_half_life_less_a_tenth(self) -> None:
        table = VerdictCache(Lifetimes())
        table.observe({"old": True, "young": True}, START)
        table.record("old", Answer(Level.TRUSTED, START, 0, 600_000, True), START, 0.0)
        table.record(
            "young", Answer(Level.TRUSTED, START + 60_000, 0, 600_000, True), START + 60_000, 0.0
        )
        assert table.due(lambda _: True, START + 270_000, False, BATCH, BATCH) == ["old"]
        assert table.due(lambda _: True, START + 330_000, False, BATCH, BATCH) == ["old", "young"]

    def test_silent_hosts_are_in_questions_of_their_own(self) -> None:
        table = VerdictCache(Lifetimes())
        table.observe({"well": True, "silent": True}, START)
        table.record("silent", Answer(Level.TIMEOUT, START), START, 0.5)
        assert table.due(lambda _: True, START + 10_000, False, BATCH, BATCH) == ["well"]
        assert table.due(lambda _: True, START + 10_000, True, BATCH, BATCH) == ["silent"]


class TestCalls:
    def test_a_wall_is_made_by_one_call_with_all_its_members(self, site: Site) -> None:
        site.start()
        until(lambda: site.inside() == EVERYBODY and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        # Two events tell who is in charge.
        assert edits(site) - site.engine.rest.calls["POST events"] == 1

    def test_a_wall_whose_member_is_refused_is_made_empty_and_filled(self, site: Site) -> None:
        elsewhere = model.SimulatedCluster(model.new_id(), "Elsewhere")
        site.engine.model.clusters[elsewhere.id] = elsewhere
        create, refused = Engine.create_wall, []

        def with_a_stranger(
            engine: Engine,
            cluster_id: str,
            host_ids: object = (),
            vm_ids: object = (),
            spare: bool = False,
        ) -> str:
            strange = [*vm_ids, model.new_id()] if vm_ids else vm_ids  # type: ignore[misc]
            refused.extend([1] if vm_ids else [])
            return create(engine, cluster_id, host_ids, strange, spare)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Engine, "create_wall", with_a_stranger)
            site.start()
            until(lambda: site.inside() == EVERYBODY and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        assert refused == [1]

    def test_a_change_of_a_verdict_takes_three_calls(self, site: Site) -> None:
        """Out of the wall, maintenance, an event."""
        site.start()
        until(lambda: site.inside() == EVERYBODY and len(site.wall().vms) == 2)  # type: ignore[union-attr]
        before = edits(site)
        site.source.levels["h3.lab"] = Level.UNTRUSTED
        site.service.attest_host(site.host("h3").id)
        until(lambda: site.statuses()["h3"] == "maintenance" and site.told("Host h3 is untrusted"))
        assert edits(site) - before == 3
