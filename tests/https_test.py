# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Broker, agent and command line before a hostile server: each gives up in time and says why."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import pytest

from ovirt_tcp_plugin import errors, https, remote
from ovirt_tcp_plugin.attester import verifier_client
from ovirt_tcp_plugin.attester.verifier_client import VerifierClient
from ovirt_tcp_plugin.broker.settings import AttestationServers
from ovirt_tcp_plugin.broker.verifiers.failover import Servers
from ovirt_tcp_plugin.clock import Clock
from ovirt_tcp_plugin.messages import json_fields, oat
from ovirt_tcp_plugin.remote import Remote
from ovirt_tcp_plugin.verifier.authority import SERVER_LIFETIME, Authority
from tests.attester.fake_verifier import NOW, Answer, FakeVerifier, http

# Server, authorities, seconds for the exchange.
Ask = Callable[[FakeVerifier, Path, float], object]

GOOD = {"level": "fine"}
MAX_SIZE = 100_000
# For exchanges that end by something else than time.
AMPLE_S = 10.0
SHORT_S = 0.5
BOUNDS = https.Bounds(AMPLE_S, AMPLE_S, MAX_SIZE)


def broker_asks(server: FakeVerifier, ca_file: Path, within_s: float) -> object:
    options = AttestationServers((server.url,), ca_file, connect_timeout_s=within_s)
    servers = Servers(options, {}, {200}, within_s, Clock())
    parse = json_fields.parse_members
    return servers.ask("/ask", {}, 0, lambda reply: parse(reply.body, "answer", MAX_SIZE))


def agent_asks(server: FakeVerifier, ca_file: Path, within_s: float) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier_client, "CONNECT_WITHIN_S", within_s / 2)
        patch.setattr(verifier_client, "ANSWER_WITHIN_S", within_s / 2)
        with contextlib.closing(VerifierClient([server.url], ca_file, None)) as client:
            return client.post("/ask", {})


def command_asks(server: FakeVerifier, ca_file: Path, within_s: float) -> object:
    token_file = ca_file.with_name("token")
    token_file.write_text("secret\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "ANSWER_WITHIN_S", within_s)
        return Remote("verifier", server.url, token_file, ca_file).call("POST", "/ask", {})


USERS = [
    pytest.param(broker_asks, id="broker"),
    pytest.param(agent_asks, id="agent"),
    pytest.param(command_asks, id="command line"),
]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (oat, verifier_client, remote):
        monkeypatch.setattr(module, "MAX_ANSWER_SIZE", MAX_SIZE)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., FakeVerifier]]:
    with contextlib.ExitStack() as stack:

        def make(signed_by: Authority, **how: Any) -> FakeVerifier:
            directory = tmp_path / "server"
            directory.mkdir()
            server = FakeVerifier(directory, signed_by, **how)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def server(make_server: Callable[..., FakeVerifier], authority: Authority) -> FakeVerifier:
    return make_server(authority)


def endless(start: bytes, block: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Return an answer that begins so and then repeats a block as fast as it can."""

    def send(connection: ssl.SSLSocket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(block * 100)

    return send


def refusal(ask: Ask, server: FakeVerifier, ca_file: Path, within_s: float = AMPLE_S) -> str:
    """Return why an exchange failed, and check that it did in time."""
    started_s = time.monotonic()
    with pytest.raises(errors.Error) as caught:
        ask(server, ca_file, within_s)
    assert time.monotonic() - started_s < within_s + AMPLE_S / 2
    return str(caught.value)


def then_closed(answer: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Return an answer after which the connection is closed."""
    return lambda connection: connection.sendall(answer)


STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = STATUS_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
TOO_LONG = f"longer than {MAX_SIZE} bytes"


@pytest.mark.parametrize("ask", USERS)
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"", "closed connection", id="closes without an answer"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", "not HTTP", id="another protocol"),
        pytest.param(
            then_closed(STATUS_LINE + b"Content-Length: 50\r\n\r\n{}"),
            "ends too early",
            id="a body cut short",
        ),
        pytest.param(
            endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "too long", id="interim answers only"
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\n\r\n" + http(200, GOOD), "status 103", id="early hints"
        ),
        pytest.param(endless(STATUS_LINE, b"X: y\r\n"), "100 headers", id="endless headers"),
        pytest.param(
            endless(STATUS_LINE, b"X: " + b"y" * 5000 + b"\r\n"), "too long", id="large headers"
        ),
        pytest.param(endless(STATUS_LINE + b"\r\n", b" "), TOO_LONG, id="endless body"),
        pytest.param(
            endless(CHUNKED, b"1000\r\n" + b" " * 0x1000 + b"\r\n"), TOO_LONG, id="endless chunks"
        ),
        pytest.param(
            endless(CHUNKED, b"1;" + b"y" * 999 + b"\r\n \r\n"), "too long", id="talk around chunks"
        ),
        pytest.param(
            endless(CHUNKED + b"0\r\n", b"X: " + b"y" * 99 + b"\r\n"),
            "too long",
            id="endless trailer",
        ),
        pytest.param(http(200, b" " * (MAX_SIZE + 1)), TOO_LONG, id="a long body"),
        pytest.param(
            http(302, {"code": "x", "reason": "status 302"}, "Location: /elsewhere\r\n"),
            "302",
            id="a redirect",
        ),
    ],
)
def test_what_is_no_whole_answer_is_refused_and_named(
    ask: Ask, server: FakeVerifier, answer: Answer, reason: str
) -> None:
    server.answers = [answer, http(200, GOOD)]
    text = refusal(ask, server, server.ca_file)
    assert reason in text
    assert len(server.requests) == 1


@pytest.mark.parametrize("ask", USERS)
@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="before the answer"),
        pytest.param(b"HTTP/1.1 100 Continue\r\nX: ", id="in an interim answer"),
        pytest.param(STATUS_LINE + b"X: ", id="in a header"),
        pytest.param(STATUS_LINE + b"Content-Length: 90000\r\n\r\n", id="in the body"),
        pytest.param(CHUNKED + b"1;", id="in a chunk's head"),
    ],
)
def test_a_byte_at_a_time_does_not_keep_us(ask: Ask, server: FakeVerifier, start: bytes) -> None:
    server.answers = [server.drip(start)]
    assert "no whole answer within" in refusal(ask, server, server.ca_file, SHORT_S)


@pytest.mark.parametrize("ask", USERS)
def test_silence_does_not_keep_us(ask: Ask, server: FakeVerifier) -> None:
    server.answers = [server.hold]
    text = refusal(ask, server, server.ca_file, SHORT_S)
    assert f"no whole answer within {SHORT_S:g} s" in text


@pytest.mark.parametrize("ask", USERS)
def test_a_port_that_never_speaks_tls_does_not_keep_us(ask: Ask, server: FakeVerifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        server.url = f"https://127.0.0.1:{mute.getsockname()[1]}"
        assert "within" in refusal(ask, server, server.ca_file, SHORT_S)


@pytest.mark.parametrize("ask", USERS)
def test_not_only_the_main_thread_gives_up(ask: Ask, server: FakeVerifier) -> None:
    server.answers = [server.drip(STATUS_LINE + b"X: ")]
    with ThreadPoolExecutor(1) as thread:
        text = thread.submit(refusal, ask, server, server.ca_file, SHORT_S).result()
    assert "no whole answer within" in text


class TestCertificates:
    @pytest.mark.parametrize("ask", USERS)
    def test_one_of_another_authority_is_refused(
        self, ask: Ask, server: FakeVerifier, tmp_path: Path
    ) -> None:
        Authority.create(tmp_path, NOW)
        text = refusal(ask, server, tmp_path / "ca.pem")
        assert "its certificate is not good" in text
        assert server.requests == []

    @pytest.mark.parametrize("ask", USERS)
    def test_an_expired_one_is_refused(
        self, ask: Ask, make_server: Callable[..., FakeVerifier], authority: Authority
    ) -> None:
        issued = NOW - SERVER_LIFETIME - datetime.timedelta(days=1)
        server = make_server(authority, issued=issued)
        text = refusal(ask, server, server.ca_file)
        assert "its certificate is not good: certificate has expired" in text
        assert server.requests == []

    @pytest.mark.parametrize("ask", USERS)
    def test_one_of_another_name_is_refused(
        self, ask: Ask, make_server: Callable[..., FakeVerifier], authority: Authority
    ) -> None:
        server = make_server(authority, name="127.0.0.2")
        assert "not valid for '127.0.0.1'" in refusal(ask, server, server.ca_file)
        assert server.requests == []

    @pytest.mark.parametrize("ask", USERS)
    @pytest.mark.parametrize("content", [None, b"", b"no certificate"])
    def test_an_authority_that_cannot_be_read_is_named(
        self, ask: Ask, server: FakeVerifier, tmp_path: Path, content: Optional[bytes]
    ) -> None:
        ca_file = tmp_path / "absent.pem"
        if content is not None:
            ca_file.write_bytes(content)
        assert "absent.pem cannot be read" in refusal(ask, server, ca_file)

    @pytest.mark.parametrize("what", ["the certificate", "the authority", "our own certificate"])
    def test_a_fault_of_one_has_a_class_of_its_own(
        self, server: FakeVerifier, tmp_path: Path, what: str
    ) -> None:
        Authority.create(tmp_path, NOW)
        ca_file = server.ca_file
        client_file = None
        if what == "the certificate":
            ca_file = tmp_path / "ca.pem"
        elif what == "the authority":
            ca_file = tmp_path / "absent.pem"
        else:
            client_file = tmp_path / "absent.key"
        request = https.json_request("it", "GET", server.url, None, {}, ca_file)
        session = https.Session(client_file)
        with pytest.raises(errors.CertificateFault):
            session.exchange(request, BOUNDS)


@pytest.mark.parametrize("ask", USERS)
def test_the_environment_steers_nothing(
    ask: Ask, server: FakeVerifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password stolen\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    server.answers = [http(200, GOOD)]
    assert ask(server, server.ca_file, AMPLE_S) == GOOD
    expected = "Bearer secret" if ask is command_asks else None
    assert server.headers[0].get("authorization") == expected


class TestKeptConnections:
    def ask(self, session: https.Session, server: FakeVerifier, **changes: bool) -> int:
        headers: dict[str, str] = {}
        repeatable = changes.get("repeatable", False)
        request = https.Request(
            "it", "POST", server.url, server.ca_file, headers, b"{}", repeatable
        )
        return session.exchange(request, BOUNDS).status

    def test_what_came_unasked_is_not_taken_for_the_next_answer(self, server: FakeVerifier) -> None:
        server.answers = [http(200) + http(201), http(202)]
        with contextlib.closing(https.Session()) as session:
            assert self.ask(session, server) == 200
            assert self.ask(session, server) == 202

    def test_one_that_was_closed_while_idle_is_not_used(self, server: FakeVerifier) -> None:
        server.answers = [then_closed(http(200)), http(202)]
        with contextlib.closing(https.Session()) as session:
            assert self.ask(session, server) == 200
            time.sleep(0.2)
            assert self.ask(session, server) == 202

    def test_a_request_that_counts_once_is_sent_once(self, server: FakeVerifier) -> None:
        server.answers = [http(200), b"", http(202)]
        with contextlib.closing(https.Session()) as session:
            assert self.ask(session, server) == 200
            with pytest.raises(errors.Unavailable):
                self.ask(session, server)
        assert len(server.requests) == 2

    def test_a_question_is_asked_again_when_the_connection_breaks(
        self, server: FakeVerifier
    ) -> None:
        server.answers = [http(200), b"", http(202)]
        with contextlib.closing(https.Session()) as session:
            assert self.ask(session, server) == 200
            assert self.ask(session, server, repeatable=True) == 202

    def test_another_authority_counts_when_its_age_ends(
        self, server: FakeVerifier, tmp_path: Path
    ) -> None:
        server.answers = [http(200), http(200)]
        with contextlib.closing(https.Session(max_age_s=0.0)) as session:
            assert self.ask(session, server) == 200
            Authority.create(tmp_path, NOW)
            server.ca_file.write_bytes((tmp_path / "ca.pem").read_bytes())
            with pytest.raises(errors.CertificateFault):
                self.ask(session, server)

    def test_a_header_that_cannot_be_sent_is_not_shown(self, server: FakeVerifier) -> None:
        headers = {"Authorization": "Bearer secret\nX: y"}
        request = https.json_request("it", "GET", server.url, None, headers, server.ca_file)
        with pytest.raises(errors.Unavailable, match="the header Authorization") as caught:
            https.exchange(request, BOUNDS)
        assert "secret" not in str(caught.value)
