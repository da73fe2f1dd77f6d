# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One peer that asks too much, or holds connections open, hurts nobody else.

Networks are what they say.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier.authority import Authority
from ovirt_tcp_plugin.verifier.settings import ServerOptions
from ovirt_tcp_plugin.verifier.store.database import Database
from ovirt_tcp_plugin.verifier.web import handler
from ovirt_tcp_plugin.verifier.web.access import Networks, account_of
from ovirt_tcp_plugin.verifier.web.limits import BURST_S, MAX_PEERS, PAUSE, Rates, Shared
from tests.verifier.agent import Agent
from tests.verifier.live_server import POLL, Server
from tests.verifier.vendor import Vendor


class TestRates:
    def test_a_peer_may_ask_so_much_and_then_waits(self) -> None:
        rates = Rates(10)
        assert [rates.wait_s("peer", 0) for _ in range(10 * BURST_S)] == [None] * 10 * BURST_S
        assert rates.wait_s("peer", 0) == 1
        assert rates.wait_s("other", 0) is None
        assert rates.wait_s("peer", 100) is None

    def test_the_table_of_peers_is_bounded(self) -> None:
        rates = Rates(10)
        for number in range(MAX_PEERS + 100):
            rates.wait_s(str(number), 0)
        assert len(rates._buckets) == MAX_PEERS

    @given(st.lists(st.integers(0, 500), min_size=1, max_size=200))
    def test_no_peer_gets_more_than_its_rate(self, pauses: list[int]) -> None:
        rates, now_ms, admitted = Rates(10), 0, 0
        for pause in pauses:
            now_ms += pause
            admitted += rates.wait_s("peer", now_ms) is None
        assert admitted <= 10 * BURST_S + now_ms / 100


class TestAccounts:
    @pytest.mark.parametrize(
        ("address", "account"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("nonsense:", "nonsense:"),
        ],
    )
    def test_a_network_of_ipv6_counts_as_one_peer(self, address: str, account: str) -> None:
        assert account_of(address) == account


class TestNetworks:
    @pytest.mark.parametrize(
        ("network", "peer", "inside"),
        [
            ("192.0.2.0/24", "192.0.2.7", True),
            ("192.0.2.0/24", "192.0.3.7", False),
            ("192.0.2.0/24", "::ffff:192.0.2.7", True),
            ("2001:db8::/32", "2001:db8::1", True),
            ("2001:db8::/32", "192.0.2.7", False),
            ("0.0.0.0/0", "nonsense", False),
        ],
    )
    def test_a_network_holds_its_own(self, network: str, peer: str, inside: bool) -> None:
        assert Networks([network]).hold(peer) is inside

    @pytest.mark.parametrize("network", ["everybody", "192.0.2.1/24", "192.0.2.0/33"])
    def test_refuses_what_is_no_network(self, network: str) -> None:
        with pytest.raises(ValueError, match="is not like"):
            ServerOptions(oat_networks=(network,))


@pytest.fixture
def make_server(
    tmp_path: Path, database: Database, authority: Authority, vendor: Vendor
) -> Iterator[object]:
    running = []

    def make(**options: object) -> Server:
        running.append(Server(tmp_path, database, authority, vendor, **options))
        return running[-1]

    yield make
    for server in running:
        server.stop()


def soon(holds: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 5
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.01)
    return holds()


def test_oat_is_answered_without_a_token_only_where_it_is_configured(make_server: object) -> None:
    assert make_server().call("POST", POLL, {"hosts": ["x"]}).status_code == 401  # type: ignore[operator]
    server = make_server(oat_networks=("127.0.0.0/8",))  # type: ignore[operator]
    assert server.call("POST", POLL, {"hosts": ["x"]}).status_code == 200
    assert server.call("POST", "/v1/results", {"hosts": ["x"], "wait_ms": 0}).status_code == 401
    assert server.call("GET", "/metrics").status_code == 401


def test_who_asks_too_much_is_told_when_to_come_again(make_server: object) -> None:
    server = make_server(requests_per_second=1.0)  # type: ignore[operator]
    answers = [server.call("GET", "/v1/health") for _ in range(8)]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["Retry-After"] == "1"
    assert answers[-1].json()["code"] == "too_many_requests"


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        (POLL, 50_000, 401),
        ("/v1/results/void", 100_000, 401),
        ("/v1/enrolment", 100_000, 413),
        ("/v1/nothing", 50_000, 404),
        ("/AttestationService/nothing", 50_000, 404),
    ],
)
def test_who_is_refused_while_it_still_sends_hears_why(
    make_server: object, path: str, size: int, status: int
) -> None:
    server = make_server()  # type: ignore[operator]
    assert b"HTTP/1.1 %d" % status in sent_slowly(server, path, size)
    assert server._context.bodies.in_all == 0


def test_who_asks_too_much_while_it_still_sends_hears_why(make_server: object) -> None:
    server = make_server(requests_per_second=1.0)  # type: ignore[operator]
    while server.call("GET", "/v1/health").status_code != 429:
        pass
    assert b"Retry-After: 1" in sent_slowly(server, "/v1/enrolment", 50_000)


def sent_slowly(server: Server, path: str, size: int) -> bytes:
    """Return the head of the answer to a body whose second half comes after the refusal."""
    context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    half = b" " * (size // 2)
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(head.encode() + half)
        time.sleep(0.2)
        connection.sendall(half)
        return connection.recv(4096)


@pytest.mark.parametrize("path", ["/nothing", "/AttestationService/nothing"])
def test_who_asks_for_what_there_is_not_is_counted_too(make_server: object, path: str) -> None:
    server = make_server(requests_per_second=1.0)  # type: ignore[operator]
    assert [server.call("POST", path, {}).status_code for _ in range(6)] == [
        404,
        404,
        404,
        404,
        429,
        429,
    ]


def test_an_agent_is_counted_by_its_certificate_not_by_its_address(
    make_server: object, vendor: Vendor
) -> None:
    server = make_server(requests_per_second=2.0)  # type: ignore[operator]
    agent = Agent(server, vendor).enrol()
    while server.call("GET", "/v1/health").status_code != 429:
        pass
    assert agent.challenge(0) is not None


def test_idle_connections_do_not_keep_others_out(make_server: object, vendor: Vendor) -> None:
    server = make_server(unknown_connections=20, connections_per_second=100.0)  # type: ignore[operator]
    agent = Agent(server, vendor).enrol()
    context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))
    idle = []
    for _ in range(60):
        plain = socket.create_connection(("127.0.0.1", server.port), 5)
        idle.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))
    began = time.monotonic()
    assert agent.challenge(0) is not None
    assert time.monotonic() - began < 5
    assert server._context.server.counts["no"] <= 20
    for one in idle:
        one.close()


def test_an_address_that_opens_connections_too_fast_is_refused_before_the_handshake(
    make_server: object,
) -> None:
    server = make_server(connections_per_second=5.0)  # type: ignore[operator]
    context = ssl.create_default_context(cafile=str(server.directory / "ca.pem"))

    def open_one(address: str) -> bool:
        with socket.create_connection(
            ("127.0.0.1", server.port), 5, source_address=(address, 0)
        ) as plain:
            try:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
            except OSError:
                return False
            return True

    opened = [open_one("127.0.0.2") for _ in range(5 * BURST_S + 10)]
    assert opened[: 5 * BURST_S] == [True] * 5 * BURST_S
    assert not opened[-1]
    assert open_one("127.0.0.3")


def test_one_peers_connections_are_bounded_and_the_oldest_goes(make_server: object) -> None:
    server = make_server(peer_connections=3)  # type: ignore[operator]
    url, certificate = f"https://127.0.0.1:{server.port}/v1/hosts", str(server.directory / "ca.pem")
    headers = {"Authorization": f"Bearer {server.token('viewer')}"}
    sessions = [requests.Session() for _ in range(6)]
    for session in sessions:
        for _ in range(2):
            assert (
                session.get(url, headers=headers, verify=certificate, timeout=5).status_code == 200
            )
    assert server._context.server.counts["yes"] == 3
    for session in sessions:
        session.close()


def test_one_peers_waiting_questions_are_bounded(make_server: object, vendor: Vendor) -> None:
    server = make_server(peer_questions=2, poll_deadline=3.0)  # type: ignore[operator]
    Agent(server, vendor).enrol()
    message, token = {"hosts": ["host-1"]}, server.token("viewer")
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(server.call, "POST", POLL, message, token=token) for _ in range(5)]
        answers = [one.result() for one in asked]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    put_off = next(answer for answer in answers if answer.status_code == 429)
    assert (put_off.headers["Retry-After"], put_off.json()["error_code"]) == ("1", 429)
    assert server.call("POST", POLL, {"hosts": ["nobody"]}, token=token).status_code == 200
    assert soon(lambda: not server._context.questions._waiting)


def test_metrics_have_a_bounded_number_of_series(make_server: object, vendor: Vendor) -> None:
    server = make_server(metrics_networks=("127.0.0.1/32",))  # type: ignore[operator]
    agent = Agent(server, vendor).enrol()
    agent.answer(agent.challenge())
    text = server.call("GET", "/metrics").text
    assert 'ovirt_tcp_verifier_appraised_total{level="unknown"} 1.0' in text
    assert 'ovirt_tcp_verifier_hosts{level="unknown"} 1.0' in text
    assert "ovirt_tcp_verifier_challenges_total 1.0" in text
    assert 'ovirt_tcp_verifier_store_seconds_count{work="write"}' in text
    for number in range(30):
        server.call("GET", f"/v1/garbage-{number}")
        server.call("POST", POLL, {"hosts": [f"garbage-{number}"]}, token=f"garbage-{number}")
        agent.send({"garbage": number})
    again = server.call("GET", "/metrics").text
    assert "garbage" not in again
    assert len(again.splitlines()) < len(text.splitlines()) + 20


def test_a_server_that_has_no_port_says_so(make_server: object, tmp_path: Path) -> None:
    server = make_server()  # type: ignore[operator]
    with pytest.raises(errors.Unavailable, match=f"port {server.port}"):
        from ovirt_tcp_plugin.verifier.web import server as web

        server._context.options = ServerOptions(address="127.0.0.1", port=server.port)
        web.serve(server._context, server._tls)


def test_callers_share_costly_work_that_is_under_way() -> None:
    begun = []

    async def work() -> bytes:
        begun.append(1)
        await asyncio.sleep(0.01)
        return b"done"

    async def ask() -> list[bytes]:
        shared = Shared()
        return await asyncio.gather(*(shared.get(work) for _ in range(20)))

    assert asyncio.run(ask()) == [b"done"] * 20
    assert len(begun) == 1


def test_costly_work_is_not_begun_again_at_once() -> None:
    took_s = 0.02

    async def work() -> bytes:
        time.sleep(took_s)  # what it costs everybody else
        return b""

    async def ask() -> float:
        shared, loop = Shared(), asyncio.get_running_loop()
        await shared.get(work)
        began_s = loop.time()
        await shared.get(work)
        return loop.time() - began_s

    assert asyncio.run(ask()) >= PAUSE * took_s


def test_a_fault_of_costly_work_is_told_to_all_who_share_it() -> None:
    async def fail() -> bytes:
        raise errors.Unavailable("the store", "it is away")

    async def work() -> bytes:
        return b"done"

    async def ask() -> tuple[list[Any], bytes]:
        shared = Shared()
        faults = await asyncio.gather(*(shared.get(fail) for _ in range(3)), return_exceptions=True)
        return list(faults), await shared.get(work)

    faults, after = asyncio.run(ask())
    assert {type(one) for one in faults} == {errors.Unavailable}
    assert after == b"done"


def test_a_large_question_is_answered_after_the_peers_last_one(
    make_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()  # type: ignore[operator]
    results = server.attestation.results
    at_once: list[int] = []
    running: list[int] = []

    async def count(*question: Any) -> Any:
        running.append(1)
        at_once.append(len(running))
        answers = await results(*question)
        running.pop()
        return answers

    monkeypatch.setattr(server.attestation, "results", count)
    message = {"hosts": [f"nobody-{number}" for number in range(2000)]}
    tokens = [server.token("viewer"), server.token("viewer")]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(server.call, "POST", POLL, message, token=token) for token in tokens * 4
        ]
        answers = [answer.result() for answer in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert {len(answer.json()["hosts"]) for answer in answers} == {2000}
    assert max(at_once) <= 2


def test_others_have_their_turn_while_unknown_names_are_answered(make_server: object) -> None:
    server = make_server()  # type: ignore[operator]
    message = {"hosts": [f"nobody-{number}" for number in range(10_000)]}
    passes: list[float] = []

    async def look() -> None:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            passes.append(now_s - last_s)
            last_s = now_s

    looking = asyncio.run_coroutine_threadsafe(look(), server._loop)
    answer = server.call("POST", POLL, message, token=server.token("viewer"))
    looking.cancel()
    assert len(answer.json()["hosts"]) == 10_000
    # A tenth of the hosts at a time, looked up or written, would take longer; one or two passes
    # may hold the search for garbage.
    assert sorted(passes)[-3] < 0.03


def test_who_asks_much_pays_for_it(make_server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "LONGEST_WAIT_S", 0.5)
    server = make_server()  # type: ignore[operator]
    token = server.token("viewer")
    message = {"hosts": [f"nobody-{number}" for number in range(2000)]}
    first = server.call("POST", POLL, message, token=token)
    assert first.status_code == 200, first.text
    paid_s = server.accounts._paid_s
    (debtor,) = (name for name in paid_s if name.startswith("token "))
    assert paid_s[debtor] > time.monotonic(), "its question was charged"
    paid_s[debtor] += 60  # as after some hundred of them
    refused = server.call("POST", POLL, message, token=token)
    assert (refused.status_code, refused.json()["error_code"]) == (429, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.call("POST", POLL, message, token=server.token("viewer")).status_code == 200
