# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attestation servers of a configuration: which is asked next, and which rests after a failure.

Whoever answered last is asked first. One that failed is left alone for a while, which doubles as long as it fails; then
one question, not as many as there are connections, finds out whether it is back. So a dead server is not stormed,
however many hosts are due, and a slow death of one does not hold up every question.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker import https
from ovirt_tcp_plugin.broker.settings import Verifier
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import oat

FIRST_REST_MS = 2_000
LONGEST_REST_MS = 30_000

T = TypeVar("T")


@dataclasses.dataclass
class _Server:
    """One server.

    Attributes:
        failures: since its last answer; 0 for one that was never asked.
        fault: why it failed last.
        rests_until_ms: CLOCK_BOOTTIME before which nobody asks it.
        on_trial: a question is under way that finds out whether it is back.
    """

    url: str
    failures: int = 0
    fault: str = ""
    rests_until_ms: int = 0
    on_trial: bool = False


class Servers:
    """POSTs JSON to the first server that answers. Thread-safe."""

    def __init__(
        self, options: Verifier, headers: Mapping[str, str], good: Collection[int], deadline_s: float, clock: Clock
    ) -> None:
        self._ca_file, self._headers, self._good, self._clock = options.ca_file, dict(headers), good, clock
        self._bounds = https.Bounds(options.connect_timeout_s, deadline_s, oat.MAX_ANSWER_SIZE)
        self._servers = [_Server(url.rstrip("/")) for url in options.urls]
        self._first = 0
        self._lock = threading.Lock()

    def ask(self, path: str, message: Mapping[str, Any], now_ms: int, read: Callable[[https.Reply], T]) -> T:
        """Return what `read` makes of the first reply with a good status; `read` may raise InvalidMessage.

        Raises:
            Unavailable: no server gave such a reply, or all rest; with the fault of each.
        """
        for position, server in self._in_turn():
            if not self._begin(server, now_ms):
                continue
            try:
                told = read(self._post(server, path, message))
            except errors.InvalidMessage as e:
                self._rest(server, f"{server.url}: its answer makes no sense: {e}")
            except errors.Unavailable as e:
                self._rest(server, f"{e.peer}: {e.reason}")
            except BaseException:
                self._rest(server, f"{server.url}: its answer could not be read")
                raise
            else:
                self._answered(position)
                return told
        raise errors.Unavailable("the attestation server", "; ".join(one.fault for one in self._servers if one.fault))

    def failed(self, fault: str) -> None:
        """The server that answered last is of no use after all."""
        server = self._servers[self._first]
        self._rest(server, f"{server.url}: {fault}")

    def _in_turn(self) -> list[tuple[int, _Server]]:
        positions = [(self._first + attempt) % len(self._servers) for attempt in range(len(self._servers))]
        return [(position, self._servers[position]) for position in positions]

    def _begin(self, server: _Server, now_ms: int) -> bool:
        """Return whether to ask a server now."""
        with self._lock:
            if server.on_trial or (server.failures and now_ms < server.rests_until_ms):
                return False
            server.on_trial = bool(server.failures)
            return True

    def _post(self, server: _Server, path: str, message: Mapping[str, Any]) -> https.Reply:
        reply = https.post(server.url, server.url + path, message, self._headers, self._ca_file, self._bounds)
        if reply.status not in self._good:
            raise errors.Unavailable(server.url, f"it answers with status {reply.status}")
        return reply

    def _answered(self, position: int) -> None:
        with self._lock:
            self._first, server = position, self._servers[position]
            server.failures, server.fault, server.on_trial = 0, "", False

    def _rest(self, server: _Server, fault: str) -> None:
        """Leave a server alone. Several questions that fail together are one failure."""
        with self._lock:
            now_ms = self._clock.now_ms()
            if server.on_trial or now_ms >= server.rests_until_ms:
                server.failures += 1
                pause_ms = min(FIRST_REST_MS * 2 ** min(server.failures - 1, 10), LONGEST_REST_MS)
                server.rests_until_ms = now_ms + pause_ms
            server.fault, server.on_trial = fault, False
