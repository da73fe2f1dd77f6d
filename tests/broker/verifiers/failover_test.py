# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which attestation server is asked, and how seldom a dead one; and that connections are kept. Real
HTTPS servers."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.broker.settings import AttestationServers
from ovirt_tcp_plugin.broker.verifiers.failover import LONGEST_REST_MS, Servers


class MovedClock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


class Server:
    """Answers its own name with `status`; closes each connection after an answer if `closes`."""

    def __init__(self, name: str, site_pki: Path) -> None:
        self.status, self.closes, self.asked, self.connections = 200, False, 0, 0
        self.silence: threading.Event | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                if outer.silence is not None:
                    outer.silence.wait(10)
                sent = json.dumps(name).encode()
                self.send_response_only(outer.status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
                # Without a word, as a server does whose idle connections end.
                self.close_connection = self.close_connection or outer.closes

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site_pki / "server.pem", site_pki / "server.key")
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def stop(self) -> None:
        if self.silence is not None:
            self.silence.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def two(site_pki: Path) -> Iterator[tuple[Server, Server]]:
    first, second = Server("first", site_pki), Server("second", site_pki)
    yield first, second
    first.stop()
    second.stop()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def made(site_pki: Path, clock: MovedClock, *urls: str) -> Callable[[], str]:
    """Return a function that asks these servers and returns who answered."""
    options = AttestationServers(urls, site_pki / "ca.pem", connect_timeout_s=2.0)
    servers = Servers(options, {}, {200}, 5.0, clock)  # type: ignore[arg-type]
    return lambda: str(servers.ask("/", {}, clock.ms, lambda reply: json.loads(reply.body)))


class TestDead:
    def test_one_of_ten_thousand_hosts_is_asked_at_most_once_a_second(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        """Ten questions a second, as 10,000 hosts may want them, for two minutes."""
        for server in two:
            server.status = 503
        ask = made(site_pki, clock, *(server.url for server in two))
        for _ in range(1200):
            with pytest.raises(errors.Unavailable, match="status 503"):
                ask()
            clock.ms += 100
        assert [server.asked for server in two] == [7, 7]

    def test_it_is_found_again_by_one_question_while_others_are_due(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        first = two[0]
        first.status = 503
        ask = made(site_pki, clock, first.url)
        with pytest.raises(errors.Unavailable):
            ask()
        clock.ms += LONGEST_REST_MS
        first.status, first.silence = 200, threading.Event()
        trial = threading.Thread(target=ask)
        trial.start()
        while first.asked < 2:
            pass
        for _ in range(20):
            with pytest.raises(errors.Unavailable):
                ask()
        first.silence.set()
        trial.join()
        assert first.asked == 2
        assert ask() == "first"


class TestFailOver:
    def test_the_next_is_asked_and_then_stays_the_first(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        first, second = two
        ask = made(site_pki, clock, first.url, second.url)
        assert ask() == "first"
        first.status = 500
        assert [ask(), ask(), ask()] == ["second"] * 3
        assert first.asked == 2
        first.status, second.status = 200, 500
        with pytest.raises(errors.Unavailable):
            ask()
        clock.ms += LONGEST_REST_MS
        assert ask() == "first"

    def test_an_answer_that_cannot_be_read_is_none(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        options = AttestationServers(tuple(server.url for server in two), site_pki / "ca.pem", 5.0)
        servers = Servers(options, {}, {200}, 5.0, clock)  # type: ignore[arg-type]

        def read(body: bytes) -> str:
            if b"first" in body:
                raise errors.InvalidMessage("answer", "it is odd")
            return body.decode()

        assert servers.ask("/", {}, clock.ms, lambda reply: read(reply.body)) == '"second"'


class TestConnections:
    def test_one_is_kept_for_the_next_question(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        ask = made(site_pki, clock, two[0].url)
        assert [ask() for _ in range(5)] == ["first"] * 5
        assert (two[0].asked, two[0].connections) == (5, 1)

    def test_one_that_the_server_closed_meanwhile_is_no_failure(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        two[0].closes = True
        ask = made(site_pki, clock, two[0].url)
        assert [ask() for _ in range(3)] == ["first"] * 3
        assert (two[0].asked, two[0].connections) == (3, 3)

    def test_each_thread_has_its_own(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        ask = made(site_pki, clock, two[0].url)
        threads = [threading.Thread(target=lambda: [ask() for _ in range(3)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (two[0].asked, two[0].connections) == (12, 4)

    def test_none_is_kept_beyond_a_failure(
        self, site_pki: Path, clock: MovedClock, two: tuple[Server, Server]
    ) -> None:
        ask = made(site_pki, clock, two[0].url)
        ask()
        two[0].silence = threading.Event()
        short = AttestationServers((two[0].url,), site_pki / "ca.pem", 5.0)
        servers = Servers(short, {}, {200}, 0.3, clock)  # type: ignore[arg-type]
        with contextlib.suppress(errors.Unavailable):
            servers.ask("/", {}, clock.ms, lambda reply: reply.body)
        two[0].silence.set()
        assert ask() == "first"
        assert two[0].connections == 2
