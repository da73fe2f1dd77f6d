# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Random sequences of events on a clock of the test's own, beside a plain model of the rule.

A sequence is a fresh table of two hosts, or a fresh BrokerState of four, and some random events:
questions, answers of each level, age and freshness, silence, hosts that leave and come, voids,
restarts of the broker in the same and in another boot. The model knows nothing of how the code does
it; the two are compared after every event.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from typing import Optional

import pytest

from ovirt_tcp_plugin.broker.state import verdicts
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.broker.state.verdicts import STANDING_MS, Lifetimes, VerdictCache
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.pause_watch import MAX_PAUSE_MS
from ovirt_tcp_plugin.placement.decision import Scope, VmTrust, decide
from ovirt_tcp_plugin.placement.inventory import REASON_PREFIX
from tests import soak
from tests.broker.state.world import World

SEQUENCES = soak.part(1_000_000)
EVENTS = 10
WHOLE_SEQUENCES = soak.part(20_000)
WHOLE_EVENTS = 24
LIFE = 600_000
HOSTS = ("a", "b")
NEVER = -(2**60)
NEEDS_TRUST = VmTrust(marked=True)
PASSING_MS = (0, 1, 500, 3_000, 40_000, LIFE // 2, LIFE - 1, LIFE)
AGES_MS = (0, 0, 0, 700, 5_000, LIFE - 1, LIFE, None, -1)
LIVES_MS = (None, LIFE, 2 * LIFE, 90_000)
LEVELS = (
    Level.TRUSTED,
    Level.TRUSTED,
    Level.TRUSTED,
    Level.UNTRUSTED,
    Level.UNKNOWN,
    Level.TIMEOUT,
)


@dataclasses.dataclass
class Truth:
    """What is true of one host, in the words of the rule.

    Attributes:
        up, since_ms: as the last look showed, and since when evidence counts.
        level: of the last answer that counted, empty for none; proven_ms, born_ms, end_ms: of that.
        last_end_ms: the latest end of any trusted answer ever: past it nothing may be trusted,
            whatever else happened.
        asked: a question is under way.
        stands_until_ms: until when the wall keeps it without a verdict.
    """

    up: bool = False
    since_ms: int = 0
    level: str = ""
    proven_ms: int = 0
    born_ms: int = 0
    end_ms: int = 0
    last_end_ms: int = NEVER
    asked: bool = False
    stands_until_ms: int = NEVER

    def trusted(self, now_ms: int) -> bool:
        return (
            self.up
            and self.level == "trusted"
            and self.born_ms <= now_ms < min(self.end_ms, self.last_end_ms)
        )

    def tampered(self) -> bool:
        """Return whether there is evidence against it since it last came Up."""
        return self.level == "untrusted" and self.proven_ms >= self.since_ms

    def look(self, up: bool, now_ms: int) -> None:
        if up and not self.up:
            self.void(now_ms)
        if not up:
            self.level = "untrusted" if self.level == "untrusted" else ""
            self.stands_until_ms = NEVER
        self.up = up

    def restart_engine(self, now_ms: int) -> None:
        stands_until_ms = self.stands_until_ms
        if self.level == "trusted":
            stands_until_ms = now_ms + STANDING_MS
        self.void(now_ms if self.up else self.since_ms)
        if self.level != "untrusted":
            self.stands_until_ms = stands_until_ms

    def restart(self, same_boot: bool, now_ms: int) -> None:
        """Only verdicts and standing walls are saved, and moments of another boot say nothing. Who
        is not known to be Up is not Up."""
        self.asked = False
        stood = self.stands_until_ms != NEVER
        if stood and same_boot:
            return
        if stood or (self.level == "trusted" and not same_boot):
            self.void(now_ms)
            self.up, self.level, self.proven_ms, self.last_end_ms = True, "", NEVER, NEVER
            self.stands_until_ms = now_ms + STANDING_MS
            return
        if not same_boot:
            self.proven_ms = self.last_end_ms = NEVER
        if not same_boot or self.level != "untrusted":
            self.since_ms = self.since_ms if same_boot and self.level == "trusted" else 0
        self.up = same_boot and self.level == "trusted"
        self.level = self.level if self.up or self.level == "untrusted" else ""

    def void(self, now_ms: int) -> None:
        self.since_ms = now_ms
        self.level = "untrusted" if self.level == "untrusted" else ""
        self.stands_until_ms = NEVER

    def hear(self, answer: Answer, now_ms: int) -> None:
        self.asked = False
        age_ms, born_ms = answer.age_ms, answer.sent_ms - (answer.age_ms or 0)
        proven_ms = answer.sent_ms if answer.fresh else NEVER if age_ms is None else born_ms
        end_ms = born_ms + min(LIFE, LIFE if answer.lifetime_ms is None else answer.lifetime_ms)
        if answer.level is Level.UNTRUSTED:
            self.proven_ms = (
                max(proven_ms, self.proven_ms) if self.level == "untrusted" else proven_ms
            )
            self.level = "untrusted"
            self.stands_until_ms = NEVER
        if answer.level is not Level.TRUSTED or age_ms is None or age_ms < 0 or end_ms <= now_ms:
            return
        stale = proven_ms < self.since_ms if self.up else False
        if stale or (self.level == "untrusted" and proven_ms < self.proven_ms):
            return
        self.level, self.proven_ms, self.born_ms, self.end_ms = (
            "trusted" if self.up else "",
            proven_ms,
            born_ms,
            end_ms,
        )
        self.last_end_ms = max(self.last_end_ms, end_ms)
        self.stands_until_ms = NEVER


def an_answer(dice: random.Random, sent_ms: int) -> Answer:
    pick = dice.choice
    return Answer(
        pick(LEVELS), sent_ms, pick(AGES_MS), pick(LIVES_MS), dice.random() < 0.5, "code", "reason"
    )


class TableSequence:
    """A table of two hosts, and the truth about them."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.now_ms = dice, 10_000_000
        self.lifetimes = Lifetimes(LIFE)
        self.table = VerdictCache(self.lifetimes)
        self.truth: dict[str, Truth] = {}
        self.questions: list[tuple[str, int, Optional[Truth]]] = []
        self.trace: list[str] = []
        self.look()

    def play(self) -> None:
        for _ in range(EVENTS):
            event = self.dice.choice(EVENTS_OF_TABLE)
            self.trace.append(event.__name__)
            event(self)
            self.check()

    def check(self) -> None:
        table, now_ms = self.table, self.now_ms
        for host_id in HOSTS:
            truth = self.truth.get(host_id)
            allowed = decide(NEEDS_TRUST, Scope.ALL_VMS, table.verdict(host_id), now_ms).allowed
            assert allowed is (truth is not None and truth.trusted(now_ms)), self.trace
            assert allowed is table.holds(host_id, now_ms), self.trace
            assert table.untrusted(host_id) is (truth is not None and truth.tampered()), self.trace

    def pass_time(self) -> None:
        self.now_ms += self.dice.choice(PASSING_MS)

    def look(self) -> None:
        """Hosts are Up, or not, or gone from the engine."""
        seen = {host_id: self.dice.random() < 0.8 for host_id in HOSTS if self.dice.random() < 0.95}
        self.table.observe(seen, self.now_ms)
        self.truth = {host_id: self.truth.get(host_id) or Truth() for host_id in seen}
        for host_id, up in seen.items():
            self.truth[host_id].look(up, self.now_ms)

    def ask(self) -> None:
        due = [
            one
            for failing in (False, True)
            for one in self.table.due(HOSTS.__contains__, self.now_ms, failing)
        ]
        begun = self.table.begin(due)
        for host_id in begun:
            truth = self.truth[host_id]
            assert not truth.asked, self.trace
            truth.asked = True
            self.questions.append((host_id, self.now_ms, truth))

    def hear(self) -> None:
        """An answer comes, some time after it was asked for."""
        if not self.questions:
            self.ask()
        if self.questions:
            host_id, sent_ms, _ = self.questions.pop(self.dice.randrange(len(self.questions)))
            answer = an_answer(self.dice, sent_ms)
            self.now_ms += self.dice.choice((0, 30, 900))
            self.table.record(host_id, answer, self.now_ms, self.dice.random())
            if host_id in self.truth:
                self.truth[host_id].hear(answer, self.now_ms)

    def hear_nothing(self) -> None:
        if self.questions:
            host_id, _, _ = self.questions.pop()
            before = self.table.verdict(host_id), self.table.untrusted(host_id)
            self.table.failed(host_id, self.now_ms, self.dice.random(), "no_server", "silence")
            if host_id in self.truth:
                self.truth[host_id].asked = False
            held = before[0] is not None and before[0].level in (Level.TRUSTED, Level.UNTRUSTED)
            assert not held or before == (
                self.table.verdict(host_id),
                self.table.untrusted(host_id),
            ), self.trace

    def reboot(self) -> None:
        """Only an event tells."""
        host_id = self.dice.choice(HOSTS)
        self.table.restarted(host_id, self.now_ms)
        if host_id in self.truth and self.truth[host_id].up:
            self.truth[host_id].void(self.now_ms)

    def void(self) -> None:
        """The engine restarted, or the clock jumped."""
        self.table.void(self.now_ms, self.now_ms, "engine_restarted", "the engine restarted")
        for truth in self.truth.values():
            truth.void(self.now_ms if truth.up else truth.since_ms)

    def clear(self) -> None:
        """An administrator ends a verdict."""
        host_id = self.dice.choice(HOSTS)
        self.table.clear(host_id, self.now_ms)
        if host_id in self.truth:
            self.truth[host_id].level = ""
            self.truth[host_id].stands_until_ms = NEVER

    def restart_broker(self) -> None:
        same_boot = self.dice.random() < 0.7
        saved = json.loads(json.dumps(verdicts.encode(self.table.saved())))
        self.now_ms = self.now_ms + 2_000 if same_boot else self.dice.randrange(1, 100_000_000)
        self.table = VerdictCache(self.lifetimes)
        self.table.restore(saved, same_boot, self.now_ms)
        self.questions.clear()
        for truth in self.truth.values():
            truth.restart(same_boot, self.now_ms)
        self.look()


EVENTS_OF_TABLE: tuple[Callable[[TableSequence], None], ...] = (
    *[TableSequence.hear] * 6,
    *[TableSequence.pass_time] * 4,
    *[TableSequence.ask, TableSequence.look] * 2,
    TableSequence.hear_nothing,
    TableSequence.reboot,
    TableSequence.void,
    TableSequence.clear,
    TableSequence.restart_broker,
)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_verdicts_and_decision_follow_the_rule() -> None:
    dice, trusted = soak.randomness("verdicts"), 0
    for _ in range(SEQUENCES):
        sequence = TableSequence(dice)
        sequence.play()
        trusted += any(truth.trusted(sequence.now_ms) for truth in sequence.truth.values())
    assert trusted > SEQUENCES // 20, "sequences in which nobody is ever trusted show nothing"
    print(f"\n{SEQUENCES} sequences of {EVENTS} events each; {trusted} end with a trusted host")


class StateSequence:
    """A pool of four hosts with all that the broker does about it, and the truth about them."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.world = dice, World(hosts=4, vms=1)
        self.trace: list[str] = []
        self.truth = {host_id: Truth() for host_id in self.world.ids()}
        self._look()
        self.world.state.watch_clock()

    def play(self) -> None:
        for _ in range(WHOLE_EVENTS):
            event = self.dice.choice(EVENTS_OF_STATE)
            self.trace.append(event.__name__)
            event(self)
            self.check()

    def trusted(self) -> set[str]:
        now_ms = self.world.clock.ms
        return {host_id for host_id, truth in self.truth.items() if truth.trusted(now_ms)}

    def check(self) -> None:
        world, now_ms, trusted = self.world, self.world.clock.ms, self.trusted()
        (snapshot,) = world.state.snapshots()
        shown = {
            h
            for h, one in snapshot.hosts.items()
            if decide(NEEDS_TRUST, Scope.ALL_VMS, one, now_ms).allowed
        }
        assert shown == trusted, self.trace
        assert world.leaving() <= {h for h, truth in self.truth.items() if truth.tampered()}, (
            self.trace
        )
        before = world.wall.host_ids if world.wall else frozenset()
        inside = world.inside()
        assert inside - before <= trusted, self.trace
        # Who is inside without trust was let in with it, and nothing but silence, or a start of the
        # engine, came after.
        past_end = {h for h in inside - trusted if self.truth[h].level == "trusted"}
        stood = {h for h, truth in self.truth.items() if truth.stands_until_ms != NEVER}
        standing = {h for h in stood if now_ms < self.truth[h].stands_until_ms}
        assert inside - trusted <= past_end | stood, self.trace
        assert inside >= trusted | (standing & before), self.trace
        assert not inside or trusted | standing, self.trace

    def pass_time(self) -> None:
        self.world.clock.pass_ms(self.dice.choice(PASSING_MS))

    def answers(self) -> None:
        """Ask whoever is due, and hear something of each."""
        world = self.world
        asked, sent_ms = world.state.questions.due(self.dice.choice((1, 4))), world.clock.ms
        world.clock.pass_ms(self.dice.choice((0, 30, 900)))
        if self.dice.random() < 0.2:
            before = world.leaving()
            world.state.questions.nobody_answered(asked, "refused")
            assert world.leaving() <= before, self.trace
            return
        answers = {host_id: an_answer(self.dice, sent_ms) for host_id in asked}
        world.state.questions.record(answers)
        for host_id, answer in answers.items():
            self.truth[host_id].hear(answer, world.clock.ms)

    def good_answers(self) -> None:
        self.world.attest(good=[host.id for host in self.world.hosts if host.up])
        for host in self.world.hosts:
            if host.up:
                self.truth[host.id].hear(
                    Answer(Level.TRUSTED, self.world.clock.ms, 0, LIFE, True), self.world.clock.ms
                )

    def change_status(self) -> None:
        """By an administrator, or a failure."""
        host_id = self.dice.choice(self.world.ids())
        status = self.dice.choice(("up", "up", "maintenance", "non_responsive", "reboot"))
        self.world.status(host_id, status, "new memory modules" if status == "maintenance" else "")
        self._look()

    def move(self) -> None:
        """The host gets another address."""
        number = self.dice.randrange(len(self.world.hosts))
        host = self.world.hosts[number]
        self.world.hosts[number] = dataclasses.replace(
            host, address=f"{host.id}-{self.dice.random()}.lab"
        )
        self.world.look()
        if host.up:
            self.truth[host.id].void(self.world.clock.ms)

    def enforce(self) -> None:
        """Hosts leave service, and return, as the broker asks; some are refused that, and some get
        stuck on their way."""
        world = self.world
        for host_id, reason in world.state.quarantine.to_deactivate():
            status = self.dice.choice(
                ("maintenance", "maintenance", "preparing_for_maintenance", "")
            )
            world.state.quarantine.deactivated(host_id, "" if status else "pinned VMs")
            if status:
                world.status(host_id, status, reason)
        for host_id in world.state.quarantine.to_activate():
            assert self.truth[host_id].level != "untrusted", self.trace
            # An administrator's own maintenance is never ended.
            assert next(one for one in world.hosts if one.id == host_id).status_detail.startswith(
                REASON_PREFIX
            ), self.trace
            world.state.quarantine.activated(host_id)
            world.status(host_id, "up")
        self._look()

    def reboot(self) -> None:
        host = self.dice.choice(self.world.hosts)
        self.world.state.host_restarted(host.id)
        if host.up:
            self.truth[host.id].void(self.world.clock.ms)

    def restart_engine(self) -> None:
        self.world.state.void("engine_restarted", "the engine restarted", walls_stand=True)
        for truth in self.truth.values():
            truth.restart_engine(self.world.clock.ms)

    def step_clock(self) -> None:
        """No step extends trust or takes a host out; one ahead may be a pause, and has all attest
        once more."""
        world, leaving = self.world, self.world.leaving()
        step_ms = self.dice.choice((-86_400_000, -61_000, -1, 59_000, 61_000, 86_400_000))
        trusted, world.clock.utc_ms = self.trusted(), world.clock.utc_ms + step_ms
        assert world.state.watch_clock() is (step_ms > MAX_PAUSE_MS), self.trace
        if step_ms > MAX_PAUSE_MS:
            self._void()
        assert self.trusted() <= trusted, self.trace
        assert world.leaving() <= leaving, self.trace
        assert not world.state.watch_clock(), self.trace

    def restart_broker(self) -> None:
        world, same_boot = self.world, self.dice.random() < 0.7
        saved = json.loads(json.dumps(world.state.encode()))
        world.clock.pass_ms(2_000)
        if not same_boot:
            world.clock.boot_id, world.clock.ms = (
                f"{self.dice.random()}",
                self.dice.randrange(1, 100_000_000),
            )
        for truth in self.truth.values():
            truth.restart(same_boot, world.clock.ms)
        world.state = BrokerState(world.options, world.clock, random.random)
        world.state.restore(saved)
        world.look()
        self._look()
        world.state.watch_clock()

    def decide_on_guard(self) -> None:
        self.world.state.quarantine.decide(release=self.dice.random() < 0.5)

    def _look(self) -> None:
        for host in self.world.hosts:
            self.truth[host.id].look(host.up, self.world.clock.ms)

    def _void(self) -> None:
        for truth in self.truth.values():
            truth.void(self.world.clock.ms if truth.up else truth.since_ms)


EVENTS_OF_STATE: tuple[Callable[[StateSequence], None], ...] = (
    *[StateSequence.answers] * 6,
    *[StateSequence.pass_time, StateSequence.enforce] * 3,
    *[StateSequence.good_answers] * 2,
    StateSequence.change_status,
    StateSequence.move,
    StateSequence.reboot,
    StateSequence.restart_engine,
    StateSequence.step_clock,
    StateSequence.restart_broker,
    StateSequence.decide_on_guard,
)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_wall_snapshot_and_quarantine_follow_the_rule() -> None:
    dice = soak.randomness("state")
    for _ in range(WHOLE_SEQUENCES):
        StateSequence(dice).play()
    print(f"\n{WHOLE_SEQUENCES} sequences of {WHOLE_EVENTS} events each")
