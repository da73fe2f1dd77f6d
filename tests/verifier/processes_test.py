# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""One server of two processes: on one port and one SQLite file, and none is left behind."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.lab.processes import Processes, listens
from ovirt_tcp_plugin.messages import evidence
from ovirt_tcp_plugin.verifier import processes as module
from ovirt_tcp_plugin.verifier.authority import Authority, write_key
from ovirt_tcp_plugin.verifier.settings import MAX_PROCESSES, ServerOptions
from ovirt_tcp_plugin.verifier.shared_metrics import MAX_TEXT, SLOT_SIZE, SharedMetrics
from ovirt_tcp_plugin.verifier.web import server
from tests.verifier import agent as live_agent
from tests.verifier.fleet import POLL, Agent, Fleet
from tests.verifier.vendor import Vendor

AGENTS = 12
WITHIN_S = 10


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path, started: Processes) -> Fleet:
    made = Fleet(tmp_path, AGENTS, processes=2)
    made.start(started)
    until(lambda: started.log_tail("verifier-0").count("INFO verifier serving") == 2)
    return made


def children(started: Processes) -> list[int]:
    parent = started.pid("verifier-0")
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def connections(pid: int) -> int:
    files = Path(f"/proc/{pid}/fd").iterdir()
    return sum(os.path.islink(file) and os.readlink(file).startswith("socket:") for file in files)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize("count", [0, -1, MAX_PROCESSES + 1])
def test_refuses_a_number_of_processes_that_is_none(count: int) -> None:
    with pytest.raises(ValueError, match="processes must be"):
        ServerOptions(processes=count)


def test_a_second_server_on_the_port_is_refused(fleet: Fleet, started: Processes) -> None:
    with pytest.raises(errors.Unavailable, match=f"port {fleet.port} of 127.0.0.1"):
        module.listen("127.0.0.1", fleet.port, 2)
    with pytest.raises(errors.Unavailable, match=f"port {fleet.port} of 127.0.0.1"):
        server.listen("127.0.0.1", fleet.port)


def test_all_listen_on_the_one_port_that_the_kernel_chose() -> None:
    listening = module.listen("127.0.0.1", 0, 3)
    assert len({one.getsockname()[1] for sockets in listening for one in sockets}) == 1
    assert all(listening)
    module._close(listening)


def test_a_question_to_either_reaches_the_agents_of_both(fleet: Fleet, started: Processes) -> None:
    async def play() -> None:
        for _ in range(5):  # the kernel divides them by chance
            await asyncio.gather(*(agent.attest() for agent in fleet.agents))
            if all(connections(pid) > 4 for pid in children(started)):
                break
            for agent in fleet.agents:
                agent.caller.close()
        assert all(connections(pid) > 4 for pid in children(started))
        listening = [asyncio.ensure_future(answer(agent)) for agent in fleet.agents]
        message = {"hosts": [agent.name for agent in fleet.agents]}
        for _ in range(3):  # each by a connection of its own
            told = await fleet.viewing().ask(POLL, message)
            assert {host["trust_lvl"] for host in told["hosts"]} == {"trusted"}
        for one in listening:
            one.cancel()

    asyncio.run(play())


async def answer(agent: Agent) -> None:
    """Report whenever somebody asks."""
    while True:
        status, content = await agent.caller.post("/v1/challenge", agent.listening())
        if status == 200:
            message = agent.report(evidence.decode_challenge(json.loads(content)))
            assert (await agent.caller.post("/v1/evidence", message))[0] == 200


def test_sighup_reads_the_certificates_again_in_each(
    fleet: Fleet, started: Processes, tmp_path: Path
) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    renewed = Authority.load(tmp_path).renewed(now)
    renewed.write(tmp_path)
    certificate, key = renewed.issue_server(["127.0.0.1"], now)
    (tmp_path / "server.pem").write_bytes(certificate)
    write_key(tmp_path / "server.key", key)

    started.send("verifier-0", signal.SIGHUP)

    until(lambda: started.log_tail("verifier-0").count("INFO verifier reloaded") == 2)
    only_new = Authority(renewed.certificate, renewed._key).pem.decode("ascii")
    for context in (fleet.tls(), ssl.create_default_context(cadata=only_new)):
        plain = socket.create_connection(("127.0.0.1", fleet.port), WITHIN_S)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            assert secured.getpeercert()
    # Agents of the former authority are known as before.
    asyncio.run(fleet.agents[0].attest())


def test_whichever_answers_tells_the_counters_of_both(fleet: Fleet) -> None:
    async def read() -> dict[str, float]:
        reader, writer = await fleet.viewing().connect()
        head = (
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
            f"{fleet.viewer}\r\n\r\n"
        )
        writer.write(head.encode())
        text = (await reader.read()).decode()
        writer.close()
        lines = [
            line.rpartition(" ") for line in text.splitlines() if line.startswith("ovirt_tcp_")
        ]
        return {name: float(value) for name, _, value in lines}

    async def play() -> list[dict[str, float]]:
        told = [await read()]
        for _ in range(6):
            await asyncio.gather(*(agent.attest() for agent in fleet.agents[:1]))
            told.append(await read())
        await asyncio.gather(*(agent.attest() for agent in fleet.agents))
        await asyncio.sleep(1.2)  # until they have told each other
        return [*told, *[await read() for _ in range(6)]]

    told = asyncio.run(play())
    counted = [
        name
        for name in told[0]
        if name.endswith(("_total", "_count", "_sum", "_bucket")) or "_bucket{" in name
    ]
    for earlier, later in zip(told, told[1:]):
        assert all(later[name] >= earlier[name] for name in counted)
    for one in told[-6:]:
        assert one['ovirt_tcp_verifier_appraised_total{level="trusted"}'] == 6 + AGENTS
        assert one["ovirt_tcp_verifier_challenges_total"] == 6 + AGENTS
        assert one['ovirt_tcp_verifier_hosts{level="trusted"}'] == AGENTS
        assert one['ovirt_tcp_verifier_connections{known="yes"}'] >= AGENTS


class TestSharedMetrics:
    def test_a_text_that_is_being_written_is_not_read(self) -> None:
        board = SharedMetrics(2)
        assert board.others(0) == [b""]
        board.write(1, b"old")
        assert board.others(0) == [b"old"]
        board._memory[SLOT_SIZE + 8 : SLOT_SIZE + 11] = b"new"  # and its checksum comes next
        assert board.others(0) == [b"old"]
        board.write(1, b"new")
        assert board.others(0) == [b"new"]

    def test_one_that_is_too_long_is_not_taken(self) -> None:
        board = SharedMetrics(2)
        board.write(0, b"short")
        board.write(0, bytes(MAX_TEXT + 1))
        assert (board.others(1), board.others(0)) == ([b"short"], [b""])


class OneConnection:
    """What an agent of `web_test` calls, on one connection, as the real one does."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._session = fleet, requests.Session()
        self._session.trust_env = False
        self._session.verify = str(fleet.directory / "ca.pem")

    def call(self, method: str, path: str, message: object, token: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._session.request(
            method,
            f"https://127.0.0.1:{self._fleet.port}{path}",
            json=message,
            headers=headers,
            timeout=5,
        )


def test_hosts_enrol_whichever_process_they_reach(
    tmp_path: Path, started: Processes, vendor: Vendor
) -> None:
    fleet = Fleet(tmp_path, 1, processes=2)
    for number, one in enumerate(vendor.authorities):
        (tmp_path / f"vendor-{number}.pem").write_bytes(
            crypto.dump_certificate(crypto.FILETYPE_PEM, one)
        )
    fleet.start(started)
    for _ in range(8):
        server = OneConnection(fleet)
        agent = live_agent.Agent(cast(Any, server), vendor, "host-x")
        made = server.call(
            "POST", "/v1/enrolment/tokens", {"host": "host-x"}, token=fleet.enroller
        ).json()
        begun = agent.begin(made["token"])
        assert begun.status_code == 200, begun.text
        assert agent.finish(begun.json()).status_code == 200


def test_evidence_that_was_taken_by_one_is_refused_by_the_other(fleet: Fleet) -> None:
    async def play() -> list[int]:
        agent = fleet.agents[0]
        status, content = await agent.caller.post("/v1/challenge", agent.listening())
        message = agent.report(evidence.decode_challenge(json.loads(content)))
        statuses = []
        for _ in range(8):
            agent.go_to(fleet.port)  # by a new connection
            statuses.append((await agent.caller.post("/v1/evidence", message))[0])
        return statuses

    assert asyncio.run(play()) == [200] + [403] * 7


@pytest.mark.parametrize("rubbish", ["'x'", "x'00ff'", "9e999"])
def test_a_spoilt_number_of_one_host_ends_no_process(
    fleet: Fleet, started: Processes, rubbish: str
) -> None:
    """What one process asks, the others look at in the store, again and again."""
    with sqlite3.connect(fleet.directory / "verifier.db") as connection:
        for column in ("asked", "issued", "answered"):
            spoil = f"UPDATE rounds SET {column} = {rubbish} WHERE host_name = 'host-0'"  # noqa: S608
            connection.execute(spoil)
    connection.close()
    ours = children(started)

    async def play() -> None:
        other = fleet.agents[1]
        await other.attest()
        listening = asyncio.ensure_future(answer(other))
        for _ in range(3):  # each by a connection of its own
            told = await fleet.viewing().ask(POLL, {"hosts": ["host-0", other.name]})
            levels = [host["trust_lvl"] for host in told["hosts"]]
            assert levels == ["timeout", "trusted"]
        listening.cancel()

    asyncio.run(play())
    assert children(started) == ours
    assert all(map(is_alive, ours))


class TestEnd:
    def test_sigterm_to_the_parent_ends_all_well(self, fleet: Fleet, started: Processes) -> None:
        ours, parent = children(started), started._running["verifier-0"]
        parent.terminate()
        assert parent.wait(WITHIN_S) == 0
        assert not any(map(is_alive, ours))
        assert started.log_tail("verifier-0").count("INFO verifier stopped") == 2

    def test_one_that_is_killed_ends_all_with_a_fault(
        self, fleet: Fleet, started: Processes
    ) -> None:
        ours, parent = children(started), started._running["verifier-0"]
        os.kill(ours[1], signal.SIGKILL)
        assert parent.wait(WITHIN_S) == 1
        assert not any(map(is_alive, ours))
        assert "its process 1 ended by itself, status -9" in started.log_tail("verifier-0")

    def test_one_that_hangs_is_killed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "STOP_WITHIN_S", 0.1)
        hanging = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        time.sleep(0.1)
        module._stop({hanging.pid: 0})
        assert not is_alive(hanging.pid)

    def test_a_killed_parent_leaves_nobody_behind(self, fleet: Fleet, started: Processes) -> None:
        ours = children(started)
        started.send("verifier-0", signal.SIGKILL)
        until(lambda: not any(map(is_alive, ours)))
        until(lambda: not listens(fleet.port))  # a thread may end later than its process seems to
        fleet.start(started)
