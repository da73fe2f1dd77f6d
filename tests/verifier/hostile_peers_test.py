# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Peers that are known, and yet hostile: what each may cost the others is bounded."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ovirt_tcp_plugin.messages import eventlog, evidence
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.verifier.appraisal import measured
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.fair_share import Peer
from ovirt_tcp_plugin.verifier.store import schema
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.web import handler
from ovirt_tcp_plugin.verifier.web.bodies import MAX_HELD
from tests.verifier.agent import Agent
from tests.verifier.live_server import POLL, Server
from tests.verifier.vendor import Vendor


@pytest.fixture
def server(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[Server]:
    running = Server(tmp_path, database, authority, vendor)
    running.choose_good_boot()
    yield running
    running.stop()


@pytest.fixture
def agent(server: Server, vendor: Vendor) -> Agent:
    return Agent(server, vendor).enrol()


def connect(
    server: Server,
    certificate: tuple[str, str] | None = None,
    buffer: int = 0,
    address: str = "127.0.0.1",
) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))
    if certificate:
        context.load_cert_chain(*certificate)
    plain = socket.socket()
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.settimeout(10)
    plain.bind((address, 0))
    plain.connect(("127.0.0.1", server.port))
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def soon(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def burn(seconds: float) -> None:
    """Take processor time, which is what counts; a pause costs nobody anything."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def boot_again(agent: Agent) -> None:
    agent.tpm.boot_id = str(uuid.uuid4())
    agent.tpm.reset_count += 1


@pytest.mark.parametrize("malformed", [False, True])
def test_who_sends_what_is_costly_is_challenged_again_when_it_has_paid(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch, malformed: bool
) -> None:
    cost_s = 0.15
    decode = evidence.decode

    def slow(untrusted: bytes, kinds: Any) -> Any:
        burn(cost_s)
        return decode(untrusted, kinds)

    monkeypatch.setattr(evidence, "decode", slow)
    challenge = agent.challenge()
    assert challenge is not None
    began_s = time.monotonic()
    sent = {"garbage": 1} if malformed else agent.evidence(challenge)
    assert agent.send(sent).status_code == (400 if malformed else 200)
    boot_again(agent)
    assert agent.challenge() is not None
    debt_s = (cost_s - handler.HOST_AT_ONCE_S) / handler.HOST_SHARE
    assert debt_s < time.monotonic() - began_s < debt_s + 3


def test_who_owes_too_much_is_put_off_and_told_for_how_long(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "LONGEST_WAIT_S", 0.5)
    monkeypatch.setattr(handler, "HOST_AT_ONCE_S", 0.0)
    assert agent.challenge() is not None
    accounts = server._context.accounts
    (account,) = [name for name in accounts._paid_s if name.endswith(" 127.0.0.1")]
    accounts.charge(Peer(account, handler.HOST_SHARE, 0.0), 0.15)
    answer = agent.send({})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert answer.headers["Retry-After"] in ("3", "4")


def test_one_host_has_one_report_read_at_a_time(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = evidence.decode

    def count(untrusted: bytes, kinds: Any) -> Any:
        decoded.append(len(untrusted))
        burn(0.02)
        return decode(untrusted, kinds)

    monkeypatch.setattr(evidence, "decode", count)
    assert agent.challenge() is not None
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        sent = [pool.submit(agent.send, {"garbage": number}) for number in range(10)]
        statuses = sorted(answer.result().status_code for answer in sent)
    assert statuses == [400] + [403] * 9
    assert len(decoded) == 1


def test_the_longest_logs_are_judged_in_bounds(agent: Agent) -> None:
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(eventlog.MAX_EVENTS)]
    events = [Event(17, 0x501, {"sha256": digest}, b"x" * 180) for digest in digests]
    agent.tpm.boot([events[0]._replace(type=eventlog.HASH_START), *events[1:]])
    began = time.monotonic()
    answer = agent.answer(agent.challenge()).json()
    assert time.monotonic() - began < 2
    assert (answer["level"], answer["findings"][0]["code"]) == ("untrusted", "sinit_differs")


def test_one_peers_unfinished_bodies_do_not_fill_the_memory(server: Server, agent: Agent) -> None:
    assert agent.challenge() is not None
    size, held = 3 * 2**20, []
    for _ in range(8):
        held.append(connect(server, agent.certificate))
        held[-1].sendall(
            b"POST /v1/evidence HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        )
        held[-1].sendall(bytes(size - 1))
    assert server._context.bodies.in_all <= MAX_HELD
    answers = []
    for connection in held:
        connection.sendall(bytes(1))
        answers.append(connection.recv(4096))
        connection.close()
    assert any(b" 429 " in answer for answer in answers)
    assert all(answers)
    challenge = agent.challenge(0)
    while challenge is None:
        agent.tpm.boot_id = agent.tpm.boot_id.replace("1", "2")
        challenge = agent.challenge()
    assert agent.answer(challenge).status_code == 200
    assert soon(lambda: not server._context.bodies.in_all)


def test_who_does_not_take_his_answers_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "TAKEN_WITHIN_S", 0.3)
    body = json.dumps({"hosts": ["x" * 5000] * 700}).encode()
    head = (
        f"POST {POLL} HTTP/1.1\r\nHost: x\r\nX-Auth-Blob: {server.token('viewer')}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    idle = connect(server, buffer=4096)
    idle.settimeout(5)
    with pytest.raises(OSError) as caught:
        for _ in range(10):
            idle.sendall(head.encode() + body)
    assert not isinstance(caught.value, socket.timeout)
    idle.close()
    listening = server._context.server
    assert listening is not None
    assert soon(lambda: listening.counts["yes"] == 0)


@pytest.mark.parametrize("known", [True, False])
def test_who_does_not_end_his_body_is_dropped(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    listening = server._context.server
    assert listening is not None
    monkeypatch.setattr(listening, "_body_within_s", 0.5)
    path = "/v1/challenge" if known else "/v1/enrolment"
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{".encode()
    with (
        connect(server, agent.certificate if known else None) as slow,
        connect(server, agent.certificate) as patient,
    ):
        slow.sendall(head)
        poll = json.dumps({"boot_id": agent.tpm.boot_id, "wait_ms": 3000}).encode()
        agent.answer(agent.challenge())
        patient.sendall(
            b"POST /v1/challenge HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(poll)
            + poll
        )
        slow.settimeout(5)
        assert slow.recv(1000) == b""
        assert patient.recv(1000).startswith(b"HTTP/1.1 204")
    assert soon(lambda: not listening._begun)


def test_pipelined_questions_are_answered_in_turn(server: Server, agent: Agent) -> None:
    agent.answer(agent.challenge())
    message = json.dumps({"boot_id": agent.tpm.boot_id, "wait_ms": 0}).encode()
    one = (
        b"POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(message)
        + message
    )
    with connect(server, agent.certificate) as connection:
        connection.sendall(one * 20)
        told = b""
        while told.count(b"HTTP/1.1 204") < 20:
            more = connection.recv(65536)
            assert more
            told += more
    assert told.count(b"HTTP/1.1 ") == 20


class Thief(threading.Thread):
    """Somebody elsewhere with a copy of a host's certificate: polls, and never answers well."""

    def __init__(self, server: Server, agent: Agent) -> None:
        super().__init__()
        self._server = server
        self._agent = agent
        self._over = threading.Event()
        self.answers: list[bytes] = []

    def run(self) -> None:
        with connect(self._server, self._agent.certificate, address="127.0.0.9") as stolen:
            while not self._over.is_set():
                poll = {"boot_id": self._agent.tpm.boot_id, "wait_ms": 50, "offer": True}
                self._ask(stolen, "/v1/challenge", json.dumps(poll).encode())
                self._ask(stolen, "/v1/evidence", b"{}")

    def _ask(self, stolen: ssl.SSLSocket, path: str, body: bytes) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        stolen.sendall(head.encode() + body)
        self.answers.append(stolen.recv(65536))

    def end(self) -> None:
        self._over.set()
        self.join(10)


def test_a_stolen_certificate_does_not_silence_its_host(server: Server, agent: Agent) -> None:
    assert agent.report()["level"] == "trusted"
    thief = Thief(server, agent)
    thief.start()
    try:
        for _ in range(8):
            boot_again(agent)
            challenge = agent.challenge()
            time.sleep(0.3)  # the TPM signs
            assert agent.answer(challenge).json()["level"] == "trusted"
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            message = {"hosts": ["host-1"], "max_age_ms": None, "wait_ms": 5000}
            token = server.token("viewer")
            asked = pool.submit(server.call, "POST", "/v1/results", message, token=token)
            assert agent.report()["level"] == "trusted"
            assert asked.result().json()["hosts"][0]["level"] == "trusted"
    finally:
        thief.end()
    assert len(thief.answers) > 10


def test_a_second_challenge_ends_the_first(agent: Agent) -> None:
    first = agent.challenge()
    agent.tpm.boot_id, agent.tpm.reset_count = (
        agent.tpm.boot_id.replace("1", "2"),
        agent.tpm.reset_count + 1,
    )
    second = agent.challenge()
    answer = agent.answer(first)
    assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")
    assert agent.answer(second).json()["level"] == "trusted"


def test_what_a_host_said_in_an_earlier_boot_counts_for_nothing(agent: Agent) -> None:
    first = agent.challenge()
    assert first is not None
    said = agent.evidence(first)
    assert agent.send(said).json()["level"] == "trusted"
    agent.tpm.boot_id, agent.tpm.reset_count = (
        agent.tpm.boot_id.replace("1", "2"),
        agent.tpm.reset_count + 1,
    )
    for changed in ({}, {"boot_id": agent.tpm.boot_id}, {"nonce": ""}):
        second = agent.challenge()
        assert second is not None
        nonce = evidence.encode_challenge(second)["nonce"]
        answer = agent.send({**said, "nonce": nonce, **changed})
        assert answer.status_code == 403
        assert answer.json()["code"] in ("nonce_differs", "nonce_unknown")


@pytest.mark.parametrize("name", [" host-1", "host-1 ", "\0host-1", "host-1\n", "\u212aost-1"])
def test_a_name_is_taken_letter_by_letter(server: Server, vendor: Vendor, name: str) -> None:
    Agent(
        server, vendor, "kost-1" if name.endswith("ost-1") and name[0] == "\u212a" else "host-1"
    ).enrol()
    path = "/AttestationService/resources/hosts/trust"
    answer = server.call("GET", path, params={"hostName": name}, token=server.token("viewer"))
    assert answer.json()["error_code"] == "AS_HOST_NOT_FOUND"


def test_a_path_cannot_write_into_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), connect(server) as connection:
        connection.sendall(b"GET /a\x85INFO\x9b2J HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 404 " in connection.recv(4096)
    assert all(record.getMessage().isprintable() for record in caplog.records)


class Turns:
    """Counts the turns of a loop, to tell whether others had theirs."""

    def __init__(self) -> None:
        self.count, self.seen = 0, set[int]()

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def look(self, *_: Any) -> None:
        self.seen.add(self.count)


@pytest.mark.parametrize("asking", ["values", "preview"])
def test_others_have_their_turn_while_many_are_looked_up(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch, asking: str
) -> None:
    agent.answer(agent.challenge())
    names = ["host-1", *(f"copy-{number}" for number in range(1200))]
    server.database.transact(lambda c: multiply(c, names))
    turns, honest = Turns(), measured.decode

    def decode(stored: str) -> measured.Measured:
        turns.look()
        return honest(stored)

    monkeypatch.setattr(measured, "decode", decode)
    counting = asyncio.run_coroutine_threadsafe(turns.run(), server._loop)
    if asking == "values":
        message, token = (
            {"hosts": names, "timeThreshold": 60_000, "PCRmask": "FFFFFF"},
            server.token("viewer"),
        )
        told = server.call("POST", POLL, message, token=token).json()["hosts"]
        assert all(one["pcr_values"] for one in told)
    else:
        assert (
            server.call(
                "POST", "/v1/reference-preview", {}, token=server.token("policy")
            ).status_code
            == 200
        )
    counting.cancel()
    assert len(turns.seen) >= 3


def multiply(connection: Connection, names: Sequence[str]) -> None:
    """Enrol copies of the first host under the other names, with its result."""
    for table, key in (
        (schema.hosts, "name"),
        (schema.rounds, "host_name"),
        (schema.results, "host_name"),
    ):
        row = dict(
            connection.execute(sa.select(table).where(table.c[key] == names[0])).mappings().one()
        )
        own = {"ek_digest", "certificate_digest"} & set(row)
        rows = [
            {**row, key: name, **{column: f"{column} {name}" for column in own}}
            for name in names[1:]
        ]
        connection.execute(sa.insert(table), rows)


def test_megabytes_that_nobody_asked_for_are_not_kept(server: Server, agent: Agent) -> None:
    context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))
    assert agent.certificate is not None
    context.load_cert_chain(*agent.certificate)
    before_kib, size, held = _resident_kib(), 3 * 2**20, []
    for _ in range(30):
        plain = socket.create_connection(("127.0.0.1", server.port), 10)
        held.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))
        held[-1].sendall(
            b"POST /v1/evidence HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        )
        try:
            held[-1].sendall(bytes(size - 1))
        except OSError:
            continue  # the server hung up
    assert _resident_kib() - before_kib < 30 * 1024
    for one in held:
        one.close()


def _resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
