# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Asks the attestation servers about hosts, over several connections.

First come the stages of the startup attestation, then the hosts that are due.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.broker.state.answer import Answer, Source
from ovirt_tcp_plugin.broker.state.broker_state import BrokerState
from ovirt_tcp_plugin.clock import Clock

log = logging.getLogger("broker.asker")

# The first stage is acted on before other hosts are asked about, unless its hosts keep the server
# waiting for so long.
HEAD_START_MS = 6_000

Question = concurrent.futures.Future[None]


@dataclasses.dataclass(frozen=True)
class _Due:
    """Hosts to ask about now; none if it is nobody's turn.

    Attributes:
        failing: they did not answer the last question.
        first_stage: they are the first stage of the startup attestation.
    """

    host_ids: Sequence[str]
    failing: bool = False
    first_stage: bool = False


class AttestationWorker:
    """Asks, and hands the answers to BrokerState.

    One thread calls `step` again and again, at the latest when a question ends.

    Attributes:
        begun: the first stage was answered, or its head start is over; until then nothing is known
            of any host.
    """

    def __init__(
        self,
        options: Settings,
        state: BrokerState,
        source: Source,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._verifier = options.verifier
        self._startup = options.startup
        self._state = state
        self._questions = state.questions
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._pool = concurrent.futures.ThreadPoolExecutor(options.verifier.connections)
        self._stages_requested = threading.Event()
        self._news = threading.Event()
        # Questions under way, and whether they are about hosts that did not answer the last.
        self._asking: dict[Question, bool] = {}
        self._first_stage: list[Question] = []
        self._first_until_ms = 0
        self.begun = threading.Event()

    def attest_in_stages(self) -> None:
        """Begin the startup attestation at the next step."""
        self._stages_requested.set()
        self._news.set()

    def stop(self) -> None:
        """Wait for the questions under way."""
        self._pool.shutdown()

    def wait(self, seconds: float) -> None:
        """Wait for an answer, or so long."""
        self._news.wait(seconds)
        self._news.clear()

    def step(self) -> None:
        """Ask as many questions as there are connections for."""
        self.watch_clock()
        if self._stages_requested.is_set():
            self._stages_requested.clear()
            log.info("startup attestation hosts=%d", self._questions.begin_stages())
        self._forget_ended()
        while len(self._asking) < self._verifier.connections:
            due = self._next_hosts()
            if not due.host_ids:
                return
            questions = self._ask_about(due.host_ids)
            self._asking.update(dict.fromkeys(questions, due.failing))
            if due.first_stage:
                self._first_stage = questions
                self._first_until_ms = self._clock.now_ms() + HEAD_START_MS

    def watch_clock(self) -> None:
        """Start the attestation again if this machine was paused."""
        if self._state.watch_clock():
            self.attest_in_stages()

    # Which hosts

    def _forget_ended(self) -> None:
        for question in list(self._asking):
            if question.done():
                del self._asking[question]

    def _next_hosts(self) -> _Due:
        questions = self._questions
        progress = questions.progress()
        if progress.total and not progress.stage and not progress.done:
            stage = questions.stage(self._startup.first_stage_query_size)
            return _Due(stage, first_stage=True)
        if self._first_stage_has_head_start():
            return _Due(())
        self.begun.set()
        host_ids = questions.due(self._room(), failing=False)
        if not host_ids and progress.stage and not progress.done:
            host_ids = questions.stage(self._startup.second_stage_query_size)
        if host_ids or not self._may_wait_for_silent_hosts():
            return _Due(host_ids)
        return _Due(questions.due(self._verifier.batch_size), failing=True)

    def _first_stage_has_head_start(self) -> bool:
        if self._clock.now_ms() >= self._first_until_ms:
            return False
        return not all(question.done() for question in self._first_stage)

    def _room(self) -> int:
        """Return for how many hosts there are connections."""
        free = self._verifier.connections - len(self._asking)
        return free * self._verifier.batch_size

    def _may_wait_for_silent_hosts(self) -> bool:
        """Return whether to ask about hosts that did not answer.

        They keep a question waiting, so half of the connections are left to the others.
        """
        waiting = sum(self._asking.values())
        return waiting < max(self._verifier.connections // 2, 1)

    # Questions, each in a thread of its own

    def _ask_about(self, host_ids: Sequence[str]) -> list[Question]:
        size = self._verifier.batch_size
        questions: list[Question] = []
        for start in range(0, len(host_ids), size):
            question = self._pool.submit(self._question, host_ids[start : start + size])
            question.add_done_callback(lambda _: self._news.set())
            questions.append(question)
        return questions

    def _question(self, host_ids: Sequence[str]) -> None:
        """Ask; whatever fails, these hosts are asked again.

        A host that went on counting as being asked would never be asked again.
        """
        try:
            self._ask(host_ids)
        except Exception:
            log.exception("a question failed; no trust was extended")
            reason = "the broker failed to take the answer; its log says why"
            self._questions.nobody_answered(host_ids, reason)

    def _ask(self, host_ids: Sequence[str]) -> None:
        names = self._names(host_ids)
        self._questions.not_asked(set(host_ids) - set(names))
        if not names:
            return
        try:
            answers = self._source.ask(list(names.values()))
        except errors.Error as e:
            self._fail(names, str(e))
        except Exception:
            log.exception("asking about hosts failed")
            self._fail(names, "the broker failed to ask; its log says why")
        else:
            self._metrics.question(answered=True)
            self._record(names, answers)

    def _names(self, host_ids: Iterable[str]) -> dict[str, str]:
        """Return the names at the attestation server of those hosts that have one."""
        names: dict[str, str] = {}
        for host_id in host_ids:
            name = self._questions.name(host_id)
            if name:
                names[host_id] = name
        return names

    def _fail(self, host_ids: Collection[str], reason: str) -> None:
        self._metrics.question(answered=False)
        self._questions.nobody_answered(host_ids, reason)

    def _record(self, names: Mapping[str, str], answers: Mapping[str, Answer]) -> None:
        # An answer during which this machine was paused seems younger than it is.
        self.watch_clock()
        # An answer about a name that is another host's by now, or no host's, counts for no host.
        names_now = self._names(names)
        same = [host_id for host_id, name in names.items() if names_now.get(host_id) == name]
        self._questions.not_asked(set(names) - set(same))
        self._questions.record({host_id: answers[names[host_id]] for host_id in same})
