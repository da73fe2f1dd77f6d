# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The attestation servers of a configuration: which is asked next, and which rests after a failure.

The server that answered last is asked first. One that failed is left alone for a while, which
doubles as long as it fails; then one question, not as many as there are connections, shows whether
it is back. So a dead server is not stormed, however many hosts are due, and a slow death of one
does not hold up every question.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from ovirt_tcp_plugin import backoff, errors, https
from ovirt_tcp_plugin.broker.settings import AttestationServers
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import oat

OK = frozenset({200})

FIRST_REST_MS = 2_000
LONGEST_REST_MS = 30_000
# A server that is asked about no host has nothing to wait for.
PROBE_WITHIN_S = 10.0
MAX_PROBE_ANSWER_SIZE = 4 * 1024 * 1024

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Probe:
    """How a server answered a question about no host.

    Attributes:
        status: of HTTP.
        good: a server of its kind that takes our token answers so.
        date: its header `Date`, empty if absent.
        body: of the answer, as untrusted as the peer.
        unreadable_rows: rows of its database that it could not read when it last looked; 0 for a
            server of another kind.
    """

    status: int
    good: bool
    date: str
    body: bytes
    unreadable_rows: int = 0


def probe(
    options: AttestationServers,
    url: str,
    path: str,
    message: Mapping[str, Any],
    headers: Mapping[str, str],
    good: Collection[int],
) -> Probe:
    """Return how one server answers a question about no host. Raises Unavailable."""
    bounds = https.Bounds(options.connect_timeout_s, PROBE_WITHIN_S, MAX_PROBE_ANSWER_SIZE)
    address = url.rstrip("/") + path
    reply = https.post("it", address, message, headers, options.ca_file, bounds)
    return Probe(reply.status, reply.status in good, reply.date, reply.body)


@dataclasses.dataclass
class _Server:
    """One server.

    Attributes:
        failures: since its last answer; 0 for one that was never asked.
        fault: why it failed last.
        rests_until_ms: CLOCK_BOOTTIME before which it is not asked.
        on_trial: a question is under way that shows whether it is back.
    """

    url: str
    failures: int = 0
    fault: str = ""
    rests_until_ms: int = 0
    on_trial: bool = False


class Servers:
    """POSTs JSON to the first server that answers. Thread-safe.

    Args:
        good: the statuses that are answers.
        deadline_s: longest time for a whole question to one server.
    """

    def __init__(
        self,
        options: AttestationServers,
        headers: Mapping[str, str],
        good: Collection[int],
        deadline_s: float,
        clock: Clock,
    ) -> None:
        self._ca_file = options.ca_file
        self._headers = dict(headers)
        self._good = good
        self._clock = clock
        self._bounds = https.Bounds(options.connect_timeout_s, deadline_s, oat.MAX_ANSWER_SIZE)
        self._servers = [_Server(url.rstrip("/")) for url in options.urls]
        # Position of the server that answered last.
        self._first = 0
        self._lock = threading.Lock()

    def ask(
        self, path: str, message: Mapping[str, Any], now_ms: int, read: Callable[[https.Reply], T]
    ) -> T:
        """Return what `read` makes of the first reply with a good status.

        Args:
            read: may raise InvalidMessage.

        Raises:
            Unavailable: no server gave such a reply, or all rest; with the fault of each.
        """
        for position in self._in_turn():
            server = self._servers[position]
            if not self._begin(server, now_ms):
                continue
            try:
                content = read(self._post(server, path, message))
            except errors.InvalidMessage as e:
                self._rest(server, f"{server.url}: its answer cannot be parsed: {e}")
            except errors.Unavailable as e:
                self._rest(server, f"{e.peer}: {e.reason}")
            except BaseException:
                self._rest(server, f"{server.url}: its answer could not be read")
                raise
            else:
                self._answered(position)
                return content
        faults = [server.fault for server in self._servers if server.fault]
        raise errors.Unavailable("the attestation server", "; ".join(faults))

    def failed(self, fault: str) -> None:
        """The server that answered last is of no use after all."""
        server = self._servers[self._first]
        self._rest(server, f"{server.url}: {fault}")

    def _in_turn(self) -> list[int]:
        """Return the positions of all servers, the one that answered last first."""
        count = len(self._servers)
        return [(self._first + offset) % count for offset in range(count)]

    def _begin(self, server: _Server, now_ms: int) -> bool:
        """Return whether to ask a server now."""
        with self._lock:
            if server.on_trial:
                return False
            if server.failures and now_ms < server.rests_until_ms:
                return False
            server.on_trial = server.failures > 0
            return True

    def _post(self, server: _Server, path: str, message: Mapping[str, Any]) -> https.Reply:
        address = server.url + path
        reply = https.post(server.url, address, message, self._headers, self._ca_file, self._bounds)
        if reply.status not in self._good:
            raise errors.Unavailable(server.url, f"it answers with status {reply.status}")
        return reply

    def _answered(self, position: int) -> None:
        with self._lock:
            self._first = position
            server = self._servers[position]
            server.failures = 0
            server.fault = ""
            server.on_trial = False

    def _rest(self, server: _Server, fault: str) -> None:
        """Leave a server alone. Several questions that fail together are one failure."""
        with self._lock:
            now_ms = self._clock.now_ms()
            if server.on_trial or now_ms >= server.rests_until_ms:
                server.failures += 1
                repetitions = server.failures - 1
                pause_ms = backoff.pause_ms(FIRST_REST_MS, LONGEST_REST_MS, repetitions)
                server.rests_until_ms = now_ms + pause_ms
            server.fault = fault
            server.on_trial = False
