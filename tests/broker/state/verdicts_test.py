# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Chain step 5: what starts, keeps and ends a verdict, on a clock of the test's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin.broker.state import verdicts
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.verdicts import (
    FIRST_RETRY_MS,
    LONGEST_RETRY_MS,
    Lifetimes,
    Outcome,
    VerdictCache,
)
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Scope, VmTrust, decide

START = 1_000_000
LIFE = 600_000
HOST = "host-1"


def trusted(
    sent_ms: int, age_ms: int = 0, fresh: bool = True, lifetime_ms: int | None = None
) -> Answer:
    return Answer(Level.TRUSTED, sent_ms, age_ms, lifetime_ms, fresh)


def untrusted(sent_ms: int, age_ms: int = 0, fresh: bool = True) -> Answer:
    return Answer(
        Level.UNTRUSTED, sent_ms, age_ms, None, fresh, "pcr_differs", "PCR 17 is not the known one"
    )


def judged(host_id: str) -> bool:
    return host_id == HOST


def silent(sent_ms: int) -> Answer:
    return Answer(
        Level.TIMEOUT, sent_ms, code="no_answer", reason="the host's agent did not answer"
    )


@pytest.fixture
def table() -> VerdictCache:
    made = VerdictCache(Lifetimes())
    made.observe({HOST: True}, START)
    return made


def code(table: VerdictCache, now_ms: int) -> str:
    return decide(VmTrust(marked=True), Scope.ALL_VMS, table.verdict(HOST), now_ms).code


class TestTrusted:
    def test_birth_is_dated_back_by_the_age(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START + 500, 300), START + 900, 0.5)
        verdict = table.verdict(HOST)
        assert verdict is not None
        assert (verdict.born_ms, verdict.end_ms) == (START + 200, START + 200 + LIFE)

    def test_counts_until_its_end_and_not_at_it(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        assert table.holds(HOST, START + LIFE - 1)
        assert not table.holds(HOST, START + LIFE)
        assert code(table, START + LIFE) == "verdict_ended"

    def test_the_servers_shorter_life_counts(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START, lifetime_ms=1000), START, 0.5)
        assert not table.holds(HOST, START + 1000)

    def test_the_servers_longer_life_does_not(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START, lifetime_ms=10 * LIFE), START, 0.5)
        assert not table.holds(HOST, START + LIFE)

    def test_a_life_of_nothing_is_no_trust(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START, lifetime_ms=0), START, 0.5)
        assert (table.holds(HOST, START), code(table, START)) == (False, "verdict_ended")

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(Answer(Level.TRUSTED, START, None), id="missing"),
            pytest.param(Answer(Level.TRUSTED, START, -1), id="negative"),
            pytest.param(Answer(Level.TRUSTED, START + 2000, 0), id="question of the future"),
        ],
    )
    def test_without_an_age_it_is_no_trust(self, table: VerdictCache, answer: Answer) -> None:
        assert table.record(HOST, answer, START + 1000, 0.5) is Outcome.NOTHING
        assert code(table, START + 1000) == "no_age"

    def test_evidence_from_before_the_host_came_up_does_not_count(
        self, table: VerdictCache
    ) -> None:
        assert (
            table.record(HOST, trusted(START + 100, 5000, fresh=False), START + 200, 0.5)
            is Outcome.NOTHING
        )
        assert code(table, START + 200) == "before_up"

    def test_a_question_from_before_the_host_came_up_does_not_count(
        self, table: VerdictCache
    ) -> None:
        table.record(HOST, trusted(START - 1), START + 200, 0.5)
        assert not table.holds(HOST, START + 200)

    def test_fresh_evidence_counts_although_its_age_reaches_back_before_up(
        self, table: VerdictCache
    ) -> None:
        assert (
            table.record(HOST, trusted(START, 3000, fresh=True), START + 3000, 0.5)
            is Outcome.TRUSTED
        )

    def test_a_host_in_maintenance_gets_no_verdict_from_it(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        table.observe({HOST: False}, START + 10)
        assert table.record(HOST, trusted(START + 20), START + 30, 0.5) is Outcome.WELL_WHILE_AWAY
        assert not table.holds(HOST, START + 30)
        table.observe({HOST: True}, START + 40)
        assert (table.holds(HOST, START + 50), code(table, START + 50)) == (False, "not_attested")


class TestSilence:
    def test_changes_no_verdict_that_holds(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        table.record(HOST, silent(START + 1000), START + 1000, 0.5)
        table.failed(HOST, START + 2000, 0.5, "no_server", "nobody answers")
        assert table.holds(HOST, START + 2000)

    def test_leaves_its_reason_and_the_end_that_it_followed(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        table.record(HOST, silent(START + LIFE), START + LIFE, 0.5)
        assert not table.holds(HOST, START + LIFE)
        entry = table.entry(HOST)
        assert entry is not None
        assert (entry.failing_code, entry.verdict.end_ms) == ("no_answer", START + LIFE)

    def test_never_softens_untrusted(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        table.record(HOST, silent(START + 2 * LIFE), START + 2 * LIFE, 0.5)
        table.failed(HOST, START + 3 * LIFE, 0.5, "no_server", "nobody answers")
        assert code(table, START + 4 * LIFE) == "pcr_differs"

    def test_is_asked_again_ever_more_slowly(self, table: VerdictCache) -> None:
        now, delays = START, []
        for _ in range(8):
            table.record(HOST, silent(now), now, 0.5)
            entry = table.entry(HOST)
            assert entry is not None
            delays.append(entry.next_ms - now)
            now = entry.next_ms
        assert delays == [FIRST_RETRY_MS * 2**n for n in range(5)] + [LONGEST_RETRY_MS] * 3


class TestUntrusted:
    def test_ends_trust_at_once(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        assert table.record(HOST, untrusted(START + 10), START + 20, 0.5) is Outcome.UNTRUSTED
        assert (table.holds(HOST, START + 20), table.untrusted(HOST)) == (False, True)

    def test_only_younger_trusted_evidence_ends_it(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START + 1000), START + 1000, 0.5)
        table.record(HOST, trusted(START + 1500, 1000, fresh=False), START + 1500, 0.5)
        assert code(table, START + 1500) == "pcr_differs"
        table.record(HOST, trusted(START + 2000), START + 2000, 0.5)
        assert table.holds(HOST, START + 2000)

    def test_survives_leaving_up_but_needs_new_evidence_to_act_upon(
        self, table: VerdictCache
    ) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        table.observe({HOST: False}, START + 10)
        table.observe({HOST: True}, START + 20)
        assert (code(table, START + 30), table.untrusted(HOST)) == ("pcr_differs", False)
        table.record(HOST, untrusted(START + 30, 30, fresh=False), START + 40, 0.5)
        assert not table.untrusted(HOST)
        table.record(HOST, untrusted(START + 50), START + 60, 0.5)
        assert table.untrusted(HOST)

    def test_without_an_age_it_refuses_but_is_nothing_to_act_upon(
        self, table: VerdictCache
    ) -> None:
        without_age = Answer(
            Level.UNTRUSTED, START, None, code="pcr_differs", reason="PCR 17 is not the known one"
        )
        table.record(HOST, trusted(START), START, 0.5)
        table.record(HOST, without_age, START + 10, 0.5)
        assert (code(table, START + 10), table.holds(HOST, START + 10)) == ("pcr_differs", False)
        assert not table.untrusted(HOST)

    def test_an_administrator_ends_it(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        table.clear(HOST, START + 10)
        assert code(table, START + 10) == "cleared"


class TestHosts:
    def test_leaving_up_ends_trust_at_once(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        assert table.observe({HOST: False}, START + 10).left_up == (HOST,)
        assert (table.holds(HOST, START + 10), code(table, START + 10)) == (False, "not_up")

    def test_coming_up_is_asked_at_once_and_trusted_only_then(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        table.observe({HOST: False}, START + 10)
        assert table.observe({HOST: True}, START + 20).came_up == (HOST,)
        assert not table.holds(HOST, START + 20)
        assert table.due(judged, START + 20) == [HOST]

    def test_a_reboot_that_only_an_event_told_ends_trust(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        table.restarted(HOST, START + 10)
        assert (table.holds(HOST, START + 10), table.due(judged, START + 10)) == (False, [HOST])

    def test_a_removed_host_leaves(self, table: VerdictCache) -> None:
        assert table.observe({}, START + 10).removed == (HOST,)
        assert table.verdict(HOST) is None
        assert table.record(HOST, trusted(START + 20), START + 20, 0.5) is Outcome.NOTHING
        assert table.verdict(HOST) is None

    def test_an_engine_restart_voids_what_was_born_before_and_what_was_asked_before(
        self, table: VerdictCache
    ) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        table.void(START + 100, START + 100, "engine_restarted", "the engine restarted")
        assert code(table, START + 100) == "engine_restarted"
        table.record(HOST, trusted(START + 50), START + 110, 0.5)
        assert not table.holds(HOST, START + 110)
        table.record(HOST, trusted(START + 120), START + 120, 0.5)
        assert table.holds(HOST, START + 120)

    def test_an_engine_restart_changes_no_untrusted_host(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        table.void(START + 100, START + 100, "engine_restarted", "the engine restarted")
        assert (code(table, START + 100), table.untrusted(HOST)) == ("pcr_differs", False)


class TestQuestions:
    def test_a_host_is_asked_by_one_only(self, table: VerdictCache) -> None:
        assert table.begin([HOST, "nobody"]) == [HOST]
        assert (table.begin([HOST]), table.due(judged, START)) == ([], [])
        table.record(HOST, silent(START), START, 0.5)
        assert table.due(judged, START + FIRST_RETRY_MS, failing=True) == [HOST]

    @pytest.mark.parametrize(("draw", "share"), [(0.0, 0.45), (0.5, 0.5), (0.999999, 0.55)])
    def test_renewal_is_due_at_half_life_give_or_take_a_tenth(
        self, table: VerdictCache, draw: float, share: float
    ) -> None:
        table.record(HOST, trusted(START), START, draw)
        entry = table.entry(HOST)
        assert entry is not None
        assert entry.next_ms == pytest.approx(START + LIFE * share, abs=2)

    def test_nobody_outside_the_pools_is_asked(self, table: VerdictCache) -> None:
        assert table.due(lambda _: False, START) == []


class TestRestart:
    def _again(self, table: VerdictCache, same_boot: bool, now_ms: int) -> VerdictCache:
        again = VerdictCache(Lifetimes())
        again.restore(json.loads(json.dumps(verdicts.encode(table.saved()))), same_boot, now_ms)
        return again

    def test_keeps_true_ages(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        again = self._again(table, True, START + 100)
        assert again.observe({HOST: True}, START + 100).came_up == ()
        assert again.holds(HOST, START + LIFE - 1)
        assert not again.holds(HOST, START + LIFE)

    def test_a_host_that_is_not_up_any_more_loses_its_verdict(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        again = self._again(table, True, START + 100)
        again.observe({HOST: False}, START + 100)
        assert not again.holds(HOST, START + 100)

    def test_another_boot_drops_trust(self, table: VerdictCache) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        again = self._again(table, False, START + 100)
        again.observe({HOST: True}, START + 100)
        assert not again.holds(HOST, START + 100)

    def test_untrusted_stays_untrusted_in_another_boot(self, table: VerdictCache) -> None:
        table.record(HOST, untrusted(START), START, 0.5)
        again = self._again(table, False, 5)
        again.observe({HOST: True}, 5)
        assert (code(again, 5), again.untrusted(HOST)) == ("pcr_differs", False)

    def test_a_shorter_life_in_the_configuration_counts_for_old_verdicts(
        self, table: VerdictCache
    ) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        again = VerdictCache(Lifetimes(lifetime_ms=1000))
        again.restore(verdicts.encode(table.saved()), True, START + 100)
        again.observe({HOST: True}, START + 100)
        assert not again.holds(HOST, START + 1000)

    @pytest.mark.parametrize("member", ["level", "born_ms", "end_ms", "up_since_ms"])
    def test_a_broken_file_restores_nobody(self, table: VerdictCache, member: str) -> None:
        table.record(HOST, trusted(START), START, 0.5)
        encoded = verdicts.encode(table.saved())
        encoded[HOST][member] = "broken"
        again = VerdictCache(Lifetimes())
        with pytest.raises(ValueError, match="broken"):
            again.restore(encoded, True, START)
        assert again.verdict(HOST) is None


KINDS = [
    "trusted",
    "untrusted",
    "silent",
    "no_server",
    "up",
    "down",
    "reboot",
    "void",
    "same_boot",
    "other_boot",
]


class Script:
    """Plays steps on a table, and keeps the latest moment until which any evidence so far could
    carry trust."""

    def __init__(self) -> None:
        self.table = VerdictCache(Lifetimes())
        self.now = self.up_since = START
        self.up = True
        self.until_ms = 0
        self.table.observe({HOST: True}, START)

    def step(self, what: str, wait_ms: int, age_ms: int, fresh: bool, draw: float) -> None:
        """Let time pass, then let something happen."""
        sent = self.now
        self.now += wait_ms
        if what == "trusted":
            self._trusted(sent, age_ms, fresh and age_ms <= wait_ms, draw)
        elif what == "untrusted":
            self.table.record(HOST, untrusted(sent, age_ms, fresh=False), self.now, draw)
            self.until_ms = 0
        elif what == "silent":
            self.table.record(HOST, silent(sent), self.now, draw)
        elif what == "no_server":
            self.table.failed(HOST, self.now, draw, "no_server", "nobody answers")
        elif what in ("same_boot", "other_boot"):
            self._restore(what == "same_boot")
        else:
            self._host(what)

    def _trusted(self, sent: int, age_ms: int, fresh: bool, draw: float) -> None:
        self.table.record(HOST, Answer(Level.TRUSTED, sent, age_ms, LIFE, fresh), self.now, draw)
        proven = sent if fresh else sent - age_ms
        if self.up and proven >= self.up_since:
            self.until_ms = max(self.until_ms, sent - age_ms + LIFE)

    def _restore(self, same_boot: bool) -> None:
        again = VerdictCache(Lifetimes())
        again.restore(
            json.loads(json.dumps(verdicts.encode(self.table.saved()))), same_boot, self.now
        )
        again.observe({HOST: self.up}, self.now)
        self.table = again
        if not same_boot:
            self.until_ms, self.up_since = 0, self.now

    def _host(self, what: str) -> None:
        if what == "void":
            self.table.void(self.now, self.now, "engine_restarted", "the engine restarted")
        elif what == "reboot":
            self.table.restarted(HOST, self.now)
        else:
            self.table.observe({HOST: what == "up"}, self.now)
            if self.up == (what == "up"):
                return
            self.up = what == "up"
        self.up_since, self.until_ms = self.now, 0


steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 700_000),
        st.integers(0, 700_000),
        st.booleans(),
        st.floats(0, 0.999),
    ),
    max_size=30,
)


@given(steps)
def test_is_never_trusted_past_the_end_of_its_evidence(
    given_steps: list[tuple[str, int, int, bool, float]],
) -> None:
    """Whatever happens in whatever order: trust implies Up, and evidence younger than a life and
    than the last Up."""
    script = Script()
    for one in given_steps:
        script.step(*one)
        for moment in (
            script.now,
            script.now + LIFE // 2,
            script.now + LIFE,
            script.now + 2 * LIFE,
        ):
            if script.table.holds(HOST, moment):
                assert script.up
                assert moment < script.until_ms
