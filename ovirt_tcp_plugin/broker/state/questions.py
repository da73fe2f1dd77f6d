# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which hosts the attestation servers are asked about, and what their answers do. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Optional

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.state.answer import Answer
from ovirt_tcp_plugin.broker.state.quarantine_controller import QuarantineController
from ovirt_tcp_plugin.broker.state.shared import SharedState
from ovirt_tcp_plugin.broker.state.startup import Progress
from ovirt_tcp_plugin.broker.state.verdicts import LONGEST_RETRY_MS, Outcome
from ovirt_tcp_plugin.messages.result import Level
from ovirt_tcp_plugin.placement.decision import Verdict
from ovirt_tcp_plugin.placement.inventory import Notice, shortened

# Of several questions under way some may be answered and some not; that is one event, not one each
# time it turns.
SILENCE_REPORTED_EVERY_MS = 60_000


class Questions:
    """Thread-safe, under the lock of the broker's state.

    Args:
        draw: returns a random number in [0, 1), to spread questions.
        batch_size: hosts in one question.
    """

    def __init__(
        self,
        shared: SharedState,
        quarantine: QuarantineController,
        draw: Callable[[], float],
        batch_size: int,
    ) -> None:
        self._lock = shared.lock
        self._shared = shared
        self._inventory = shared.inventory
        self._verdicts = shared.verdicts
        self._startup = shared.startup
        self._quarantine = quarantine
        self._draw = draw
        self._batch_size = batch_size
        self._servers_answer = True
        self._silence_reported_ms = -SILENCE_REPORTED_EVERY_MS

    # Which hosts

    def begin_stages(self) -> int:
        """Mean to attest every Up host of every pool, stage by stage; return their number."""
        with self._lock:
            pools = dict(self._inventory.pools.by_cluster)
            hosts = [
                host
                for host in self._inventory.hosts.values()
                if host.up and self._is_asked(host.id)
            ]
        hosts.sort(key=lambda host: (pools[host.cluster_id].name, host.name))
        with self._lock:
            now_ms = self._shared.clock.now_ms()

            def is_trusted(host_id: str) -> bool:
                return self._verdicts.holds(host_id, now_ms)

            return self._startup.begin([host.id for host in hosts], is_trusted)

    def stage(self, size: int) -> list[str]:
        """Return up to `size` hosts of the next stage, to be asked now; none after the last."""
        with self._lock:
            stage = self._startup.next_stage(size, self._is_asked)
            if not stage:
                # These hosts may be due like all others from now on.
                self._verdicts.look_again()
                return []
            names = shortened(self._inventory.host_names(stage))
            number = self._startup.progress().stage
            text = f"Stage {number} of the startup attestation asks: {names}."
            self._shared.reporter.note("stage", text)
            return self._verdicts.begin(stage)

    def due(self, most: int, failing: bool = True) -> list[str]:
        """Return up to `most` hosts to ask now; they count as being asked from now on.

        Hosts that answer and hosts that did not come in different questions: a silent one delays
        its whole question.

        Args:
            failing: return those that did not answer, if no other is due.
        """
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            size = self._batch_size
            hosts = self._verdicts.due(self._is_judged, now_ms, False, most, size)
            if failing and not hosts:
                hosts = self._verdicts.due(self._is_judged, now_ms, True, most, size)
            return self._verdicts.begin(hosts)

    def ask_soon(self, host_id: str) -> None:
        """Have this host asked as soon as possible."""
        with self._lock:
            self._verdicts.ask_soon([host_id], self._shared.clock.now_ms())

    def host_id(self, host: str) -> str:
        """Return the id of a pool's host by its name or id. Raises NotFound."""
        with self._lock:
            known = self._inventory.find_host(host)
            if known is None or self._inventory.pool_of(known.id) is None:
                raise errors.NotFound("host of a trusted pool", host)
            return known.id

    def name(self, host_id: str) -> Optional[str]:
        """Return the host's name at the attestation server."""
        with self._lock:
            return self._inventory.names.get(host_id)

    def progress(self) -> Progress:
        """Return how far the startup attestation is."""
        with self._lock:
            return self._startup.progress()

    def servers_answer(self) -> bool:
        """Return whether any attestation server answered when one was last asked."""
        with self._lock:
            return self._servers_answer

    # Answers

    def record(self, answers: Mapping[str, Answer]) -> None:
        """Take answers by host id into account."""
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            if not self._servers_answer:
                self._servers_answer = True
                # Hosts that were due meanwhile wait no longer, and walls stood still.
                self._verdicts.ask_soon(self._verdicts.missed("no_server"), now_ms)
                self._shared.changes.touch()
            # Good news first: it may end the observation of a pool, by which bad news are judged.
            well: list[str] = []
            others: list[str] = []
            for host_id, answer in answers.items():
                (well if answer.level is Level.TRUSTED else others).append(host_id)
            self._end_silence(well, now_ms)
            for host_id in well:
                self._record(host_id, answers[host_id], now_ms)
            self._quarantine.observe_trust(well, now_ms)
            # The startup attestation of their pools may end with these.
            awaited = [host_id for host_id in others if self._startup.is_awaited(host_id)]
            for host_id in others:
                self._record(host_id, answers[host_id], now_ms)
            self._quarantine.observe_trust(awaited, now_ms)

    def not_asked(self, host_ids: Iterable[str]) -> None:
        """These hosts could not be asked about: they have no name any more."""
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            reason = "the host has no name to ask for"
            for host_id in host_ids:
                self._startup.answered(host_id)
                self._verdicts.failed(host_id, now_ms, self._draw(), "no_name", reason)

    def nobody_answered(self, host_ids: Collection[str], reason: str) -> None:
        """No attestation server answered for these hosts: nothing is learnt about them."""
        with self._lock:
            now_ms = self._shared.clock.now_ms()
            self._tell_silence(reason, now_ms)
            # Walls stand still from now on; and one may wait for the last of these hosts.
            walls = self._servers_answer
            self._servers_answer = False
            text = "no attestation server answers"
            for host_id in host_ids:
                if self._startup.answered(host_id):
                    walls = True
                self._verdicts.failed(host_id, now_ms, self._draw(), "no_server", text)
            pools = None if walls else self._inventory.pools_of(host_ids)
            self._shared.changes.touch(walls, pools=pools)

    def _is_asked(self, host_id: str) -> bool:
        """Return whether the attestation server is asked about a host."""
        if self._inventory.pool_of(host_id) is None or host_id in self._inventory.shared_names:
            return False
        return self._inventory.hosts[host_id].up or self._quarantine.is_quarantined(host_id)

    def _is_judged(self, host_id: str) -> bool:
        """Return whether a host is asked about outside of the stages."""
        return not self._startup.is_staged(host_id) and self._is_asked(host_id)

    def _record(self, host_id: str, answer: Answer, now_ms: int) -> None:
        before = self._verdicts.verdict(host_id)
        held = self._verdicts.holds(host_id, now_ms)
        outcome = self._verdicts.record(host_id, answer, now_ms, self._draw())
        if outcome is Outcome.TRUSTED:
            self._trusted(host_id, before, now_ms)
        elif outcome is Outcome.UNTRUSTED:
            self._untrusted(host_id, before, now_ms)
        elif outcome is Outcome.WELL_WHILE_AWAY:
            self._quarantine.well_while_away(host_id, now_ms)
        holds = self._verdicts.holds(host_id, now_ms)
        was_awaited = self._startup.answered(host_id)
        pools = self._inventory.pools_of([host_id])
        walls = was_awaited or holds is not held
        self._shared.changes.touch(walls, worse=held and not holds, pools=pools)

    def _trusted(self, host_id: str, before: Optional[Verdict], now_ms: int) -> None:
        self._quarantine.trusted(host_id, now_ms)
        if before is None or before.level is not Level.TRUSTED:
            text = f"Host {self._inventory.host_name(host_id)} is trusted."
            self._shared.reporter.note("trusted", text, host_id)

    def _untrusted(self, host_id: str, before: Optional[Verdict], now_ms: int) -> None:
        verdict = self._verdicts.verdict(host_id)
        pool = self._inventory.pool_of(host_id)
        host = self._inventory.hosts.get(host_id)
        if verdict is None or pool is None or host is None:
            return
        was_untrusted = before is not None and before.level is Level.UNTRUSTED
        if before is None or not was_untrusted or before.reason != verdict.reason:
            text = f"Host {host.name} is untrusted ({verdict.code}): {verdict.reason}."
            text = f"{text} It gets no VMs."
            key = f"untrusted {host_id} {verdict.born_ms}"
            cluster_id = pool.cluster_id
            notice = Notice(key, "error", text, host_id=host_id, cluster_id=cluster_id)
            self._shared.reporter.tell(notice)
        self._quarantine.untrusted(host, pool, verdict, now_ms)

    def _end_silence(self, host_ids: Iterable[str], now_ms: int) -> None:
        """Hosts attest well: if they are the first of their pools for long, the others are asked.

        Else each would enter an empty wall at its own time, and the engine move VMs onto the first.
        """
        for cluster_id in set(self._inventory.pools_of(host_ids)):
            silent = self._silent_hosts(cluster_id, now_ms - LONGEST_RETRY_MS)
            self._verdicts.ask_soon(silent, now_ms)

    def _silent_hosts(self, cluster_id: str, since_ms: int) -> list[str]:
        """Return the hosts of a pool that do not answer; none if any answered since."""
        silent: list[str] = []
        for host in self._inventory.hosts_of[cluster_id]:
            entry = self._verdicts.entry(host.id)
            if entry is None:
                continue
            if entry.answered_ms >= since_ms:
                return []
            if entry.failures:
                silent.append(host.id)
        return silent

    def _tell_silence(self, reason: str, now_ms: int) -> None:
        """Tell that no server answers, unless it is known or was told a moment ago."""
        if (
            not self._servers_answer
            or now_ms - self._silence_reported_ms < SILENCE_REPORTED_EVERY_MS
        ):
            return
        self._silence_reported_ms = now_ms
        text = (
            f"No attestation server answers: {reason}. "
            "Verdicts hold until their end; no host is taken out."
        )
        self._shared.reporter.tell(Notice(f"servers_silent {now_ms}", "warning", text))
