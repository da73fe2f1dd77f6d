# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Who is asked about at the attestation servers now: startup stages and hosts that are due, over several connections."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Mapping, Sequence

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.answer import Answer, Source
from ovirt_tcp_plugin.broker.knowledge import Knowledge
from ovirt_tcp_plugin.broker.metrics import Metrics
from ovirt_tcp_plugin.broker.settings import Settings
from ovirt_tcp_plugin.clock import Clock

log = logging.getLogger("broker.asker")

# The first stage is acted on before others are asked about, unless its hosts keep the server waiting for so long.
HEAD_START_MS = 6_000

Question = concurrent.futures.Future[None]


class AttestationWorker:
    """Asks, and tells Knowledge. `step` is called again and again by one thread, at the latest when a question ends."""

    def __init__(self, options: Settings, knowledge: Knowledge, source: Source, metrics: Metrics, clock: Clock) -> None:
        self._options, self._knowledge, self._source, self._metrics = options, knowledge, source, metrics
        self._clock = clock
        self._pool = concurrent.futures.ThreadPoolExecutor(options.verifier.connections)
        self._stages_wanted, self._news = threading.Event(), threading.Event()
        # Questions under way, and whether they are about hosts that did not answer the last.
        self._asking: dict[Question, bool] = {}
        self._first_stage: list[Question] = []
        self._first_until_ms = 0
        # The first stage was answered, or its head start is over: until then nobody is known at all.
        self.begun = threading.Event()

    def attest_in_stages(self) -> None:
        """Begin the startup attestation at the next step."""
        self._stages_wanted.set()
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
        if self._stages_wanted.is_set():
            self._stages_wanted.clear()
            log.info("startup attestation hosts=%d", self._knowledge.begin_stages())
        connections, size = self._options.verifier.connections, self._options.verifier.batch_size
        self._asking = {question: failing for question, failing in self._asking.items() if not question.done()}
        while len(self._asking) < connections:
            # Silent hosts keep a question waiting, so some connections are left to the others.
            patient = sum(self._asking.values()) < max(connections // 2, 1)
            first = self._knowledge.progress.stage == 0
            hosts, failing = self._next_hosts((connections - len(self._asking)) * size, patient)
            if not hosts:
                return
            batches = [hosts[start : start + size] for start in range(0, len(hosts), size)]
            questions = [self._pool.submit(self._question, batch) for batch in batches]
            for question in questions:
                question.add_done_callback(lambda _: self._news.set())
            self._asking.update(dict.fromkeys(questions, failing))
            if first and self._knowledge.progress.stage:
                self._first_stage, self._first_until_ms = questions, self._clock.now_ms() + HEAD_START_MS

    def watch_clock(self) -> None:
        """Begin anew if this machine was paused."""
        if self._knowledge.watch_clock():
            self.attest_in_stages()

    def _next_hosts(self, most: int, patient: bool) -> tuple[list[str], bool]:
        """Return hosts to ask about now, and whether they did not answer the last question."""
        knowledge, startup = self._knowledge, self._options.startup
        if knowledge.progress.total and not knowledge.progress.stage and not knowledge.progress.done:
            return knowledge.stage(startup.first_stage_query_size) or [], False
        if not all(question.done() for question in self._first_stage) and self._clock.now_ms() < self._first_until_ms:
            return [], False
        self.begun.set()
        hosts = knowledge.due(most, failing=False)
        if not hosts and knowledge.progress.stage and not knowledge.progress.done:
            hosts = knowledge.stage(startup.second_stage_query_size) or []
        if hosts or not patient:
            return hosts, False
        return knowledge.due(self._options.verifier.batch_size), True

    def _question(self, host_ids: Sequence[str]) -> None:
        """Ask; whatever fails, these hosts are asked again: one that counts as being asked never is."""
        try:
            self._ask(host_ids)
        except Exception:
            log.exception("a question failed; no trust was extended")
            self._knowledge.nobody_answered(host_ids, "the broker failed to take the answer; its log says why")

    def _ask(self, host_ids: Sequence[str]) -> None:
        names = {host_id: name for host_id in host_ids for name in [self._knowledge.name(host_id)] if name}
        self._knowledge.not_asked(set(host_ids) - set(names))
        if not names:
            return
        try:
            told: Mapping[str, Answer] = self._source.ask(list(names.values()))
        except errors.Error as e:
            self._metrics.question(answered=False)
            self._knowledge.nobody_answered(names, str(e))
        except Exception:
            log.exception("asking about hosts failed")
            self._metrics.question(answered=False)
            self._knowledge.nobody_answered(names, "the broker failed to ask; its log says why")
        else:
            self._metrics.question(answered=True)
            # An answer that a pause of this machine was in between seems younger than it is.
            self.watch_clock()
            # What was told of a name that is another host's by now, or nobody's, is told of nobody.
            same = {host_id: name for host_id, name in names.items() if self._knowledge.name(host_id) == name}
            self._knowledge.not_asked(set(names) - set(same))
            self._knowledge.record({host_id: told[name] for host_id, name in same.items()})
