# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Attackers who keep to every limit of number, and ask for what is costly.

In a process of their own; it prints what they did as JSON.

python -m tests.verifier.costly_attackers PORT DIRECTORY SECONDS ATTACK...

DIRECTORY has ca.pem, agent.key, the client certificates of hosts that turned bad, and
`costly.json`: a viewer's token, the names of the bad hosts, and those of hosts that do not end
their bodies.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import json
import logging
import ssl
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ovirt_tcp_plugin.messages import eventlog, evidence
from ovirt_tcp_plugin.messages.eventlog import Event
from ovirt_tcp_plugin.verifier.appraisal.authenticity import IssuedNonce
from tests.verifier.fleet import POLL, Caller
from tests.verifier.software_tpm import SoftwareTpm

VIEWER, NETWORK, LONG_POLLS, METHODS = (f"127.0.1.{number}" for number in range(1, 5))
CONNECTIONS = 20
UNKNOWN = {"hosts": [f"h{number}" for number in range(10_000)], "timeThreshold": 600_000}
# What it took the finder: members that nobody knows, up to the longest message.
MEMBERS = b'{"version":1,' + b",".join(b'"%07d":11' % n for n in range(230_000)) + b"}"
# The longest text of one name, each character of which is escaped.
ESCAPES = b'{"hosts":["' + b"\\n" * (2 * 1024 * 1024 - 100) + b'"]}'
UNFINISHED = 3 * 1024 * 1024


class CostlyAttackers:
    """The attacks, and what came of them."""

    def __init__(self, port: int, directory: Path, seconds: float) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._port = port
        self._directory = directory
        self._end_s = time.monotonic() + seconds
        self._known: Mapping[str, Any] = json.loads((directory / "costly.json").read_text())

    async def attack(self, names: list[str]) -> None:
        """Do those of that name, all at once."""
        attacks: Mapping[str, Callable[[], Awaitable[object]]] = {
            "unknown_names_token": self._unknown_names_by_token,
            "unknown_names_network": self._unknown_names_by_network,
            "long_polls": self._long_polls,
            "bad_evidence": self._bad_evidence,
            "unfinished_bodies": self._unfinished_bodies,
            "unknown_methods": self._unknown_methods,
        }
        running = [asyncio.ensure_future(attacks[name]()) for name in names]
        # Whoever owes may wait for its answer for longer than the attack lasts.
        await asyncio.wait(running, timeout=max(self._end_s - time.monotonic(), 0) + 1)
        for task in running:
            task.cancel()
        for fault in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(fault, Exception):
                raise fault

    async def _unknown_names_by_token(self) -> None:
        body = json.dumps(UNKNOWN).encode()
        await self._from(VIEWER, CONNECTIONS, "unknown by token", POLL, [body], self._token)

    async def _unknown_names_by_network(self) -> None:
        body = json.dumps(UNKNOWN).encode()
        await self._from(NETWORK, CONNECTIONS, "unknown by network", POLL, [body], "")

    async def _long_polls(self) -> None:
        members = MEMBERS + b" " * 1024 * 1024
        await self._from(LONG_POLLS, 5, "long polls", POLL, [ESCAPES, members], self._token)

    async def _unknown_methods(self) -> None:
        lines = [f"FOO /{'A' * 15_000}", f"GET /v1/hosts/%ff%ff{'A' * 15_000}"]
        await asyncio.gather(*(self._keep_on(self._say(line)) for line in lines * 5))

    async def _bad_evidence(self) -> None:
        hosts = [BadHost(self, name) for name in self._known["bad"]]
        await asyncio.gather(*(self._keep_on(host.report) for host in hosts))

    async def _unfinished_bodies(self) -> None:
        names = self._known["unfinished"]
        await asyncio.gather(*(self._keep_on(self._half(name)) for name in names * 2))

    @property
    def _token(self) -> str:
        return f"Authorization: Bearer {self._known['viewer']}\r\n"

    async def _from(
        self, address: str, count: int, what: str, path: str, bodies: list[bytes], headers: str
    ) -> None:
        """Ask the same again and again on some connections."""

        async def ask(number: int) -> None:
            caller = Caller(self._port, self.tls(), headers, address)
            body = bodies[number % len(bodies)]

            async def once() -> None:
                try:
                    status, _ = await caller.post(path, body)
                    self.done[f"{what}: {status}"] += 1
                    if status != 200:
                        raise ConnectionResetError
                except (OSError, EOFError, asyncio.TimeoutError):
                    caller.close()
                    raise

            await self._keep_on(once)
            caller.close()

        await asyncio.gather(*(ask(number) for number in range(count)))

    async def _keep_on(self, once: Callable[[], Awaitable[object]]) -> None:
        while time.monotonic() < self._end_s:
            try:
                await once()
            except (OSError, EOFError, asyncio.TimeoutError):
                self.done["broken off"] += 1
                await asyncio.sleep(0.2)

    def _say(self, line: str) -> Callable[[], Awaitable[object]]:
        async def once() -> None:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self.tls(), local_addr=(METHODS, 0)
            )
            try:
                writer.write(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                answer = await reader.readuntil(b"\r\n")
                self.done[f"methods: {int(answer[9:12])}"] += 1
            finally:
                writer.close()
            await asyncio.sleep(0.1)

        return once

    def _half(self, name: str) -> Callable[[], Awaitable[object]]:
        """A report that is announced as 3 MiB, and lacks its last byte."""

        async def once() -> None:
            caller = self.of_host(name)
            try:
                await caller.post("/v1/challenge", listening())
                _, writer = await caller.connect()
                writer.write(b"POST /v1/evidence HTTP/1.1\r\nHost: x\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % UNFINISHED)
                writer.write(bytes(UNFINISHED - 1))
                await writer.drain()
                self.done["unfinished"] += 1
                await asyncio.sleep(max(self._end_s - time.monotonic(), 0))
            finally:
                caller.close()

        return once

    def of_host(self, name: str) -> Caller:
        """Return a connection of a host; each is a machine of its own."""
        certificate = self._directory / f"{name}.pem"
        number = int(name.rpartition("-")[2])
        address = f"127.2.{number // 250}.{number % 250 + 1}"
        return Caller(self._port, self.tls(certificate), address=address)

    def tls(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return a client's context."""
        context = ssl.create_default_context(cafile=str(self._directory / "ca.pem"))
        if certificate is not None:
            context.load_cert_chain(certificate, self._directory / "agent.key")
        return context


class BadHost:
    """A host that sends the longest reports there may be, good and malformed ones in turn."""

    def __init__(self, attackers: CostlyAttackers, name: str) -> None:
        self._attackers = attackers
        self._name = name
        self._caller = attackers.of_host(name)
        self._tpm = SoftwareTpm()
        self._reports = 0

    async def report(self) -> None:
        """Have it challenged, and answer."""
        try:
            status, content = await self._caller.post("/v1/challenge", listening())
            if status != 200:
                self._attackers.done[f"bad host waits: {status}"] += 1
                if status != 204:
                    raise ConnectionResetError
                return
            challenge = evidence.decode_challenge(json.loads(content))
            self._reports += 1
            body = MEMBERS if self._reports % 2 else self._longest(challenge)
            status, _ = await self._caller.post("/v1/evidence", body)
            self._attackers.done[f"bad evidence: {status}"] += 1
            if status == 429:
                raise ConnectionResetError
        except (OSError, EOFError, asyncio.TimeoutError):
            self._caller.close()
            raise

    def _longest(self, challenge: evidence.Challenge) -> bytes:
        """Return signed evidence with as many events as a log may have, padded to 2 MiB."""
        issued = IssuedNonce(challenge, self._name, 0, 0)
        members = evidence.encode(self._tpm.report(issued, logs={}))
        return json.dumps(
            {**members, "logs": {"txt": LONGEST_LOG, "firmware": LONGEST_LOG}}
        ).encode()


def listening() -> bytes:
    """Return the message of a host that wants to report."""
    return json.dumps({"boot_id": str(uuid.uuid4()), "wait_ms": 5000, "offer": True}).encode()


def _longest_log() -> str:
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(eventlog.MAX_EVENTS)]
    events = [Event(17, 0x501, {"sha256": digest}, b"x" * 180) for digest in digests]
    log = eventlog.encode(events, ["sha256"])
    return base64.b64encode(log.ljust(evidence.MAX_LOG_SIZE // 2, b"\0")).decode()


LONGEST_LOG = _longest_log()


async def _main(port: str, directory: str, seconds: str, *names: str) -> None:
    attackers = CostlyAttackers(int(port), Path(directory), float(seconds))
    await attackers.attack(list(names))
    print(json.dumps(attackers.done, sort_keys=True))


if __name__ == "__main__":
    # That the server hung up is no news to them.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(_main(*sys.argv[1:]))
